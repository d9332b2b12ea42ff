// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// Every bound of the NBD front end, with the arithmetic between them.
package enum NBDLimits {
    // MARK: Negotiation

    /// The protocol's own limit for a name, a description or a query.
    package static let stringBytesMax = 4096
    /// An option's data that we look at; longer data is read, thrown away and refused.
    package static let optionBytesKept = 64 * 1024
    /// An option with more data than this is no mistake of a client: the connection ends.
    package static let optionBytesMax = 32 * 1024 * 1024
    /// Options one client may send. `nbdinfo --list` needs a handful.
    package static let optionsPerClient = 4096
    /// A listing goes out in pieces of about this size, each when the one before has left.
    package static let listingBytes = 16 * 1024
    /// Connections in negotiation; the oldest gives way to a newcomer.
    package static let negotiatingClients = 64
    package static let acceptsPerTurn = 16
    /// Receives and sends for one client in one turn, so that an option flood is no monopoly.
    package static let negotiationStepsPerTurn = 32

    // MARK: Transmission

    package static let blockBytesMin = sectorBytes
    package static let blockBytesPreferred = blockBytes
    /// The longest read or write, as advertised.
    package static let payloadBytesMax = 32 * 1024 * 1024
    /// A longer write is not read to its end: the peer has lost its place in the stream.
    package static let payloadBytesConsumed = 2 * payloadBytesMax

    /// 128 x 16 KiB = 2 MiB.
    package static let smallPieceBytes = 16 * 1024
    package static let smallPieces = 128
    /// 24 x 256 KiB = 6 MiB; with the small ones 8 MiB a connection, touched only when used.
    package static let largePieceBytes = 256 * 1024
    package static let largePieces = 24
    /// Large pieces that reads leave alone, so that a peer that is slow to take its replies can
    /// still get its writes in.
    package static let largePiecesForWrites = 2

    /// Requests of the peer that have no complete reply yet.
    package static let commandsInFlight = 256
    /// Requests to the engine that have no reply yet; also the range of tags.
    package static let operationsInFlight = 256
    /// Replies and chunks that wait for the socket. Room for what everything in flight can still
    /// cause is kept free: one entry per operation, one per command, and some to go on with.
    package static let repliesQueued = 1024

    /// Pieces of a simple (unstructured) read that are gathered before its header is sent:
    /// 4 MiB. An error in them is reported; an error after them ends the connection.
    package static let simpleReadPieces = 16
    /// Operations in flight for one write-zeroes that must not make a hole.
    package static let zeroPieces = 16

    /// Clients of one export. Most have one connection; nbdcopy and fio open up to 16.
    package static let connectionsPerExport = 64
    /// How long a detach waits for a peer to read its last replies.
    package static let goodbyeNanoseconds: UInt64 = 1_000_000_000

    package static let stagingBytes = 32 * 1024
    package static let receiveBytesPerTurn = 2 * 1024 * 1024
    package static let sendBytesPerTurn = 4 * 1024 * 1024
    package static let buffersPerSend = 128
}
