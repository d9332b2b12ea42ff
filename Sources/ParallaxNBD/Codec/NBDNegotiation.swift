// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// What client and server agreed on when the transmission phase begins.
package struct NBDAgreement: Sendable, Equatable {
    package var exportName: String
    /// `NBDExport.identity`.
    package var exportIdentity: UInt64
    package var usesStructuredReplies: Bool
    /// The client selected `base:allocation` for this export.
    package var reportsAllocation: Bool

    package init(
        exportName: String, exportIdentity: UInt64 = 0, usesStructuredReplies: Bool,
        reportsAllocation: Bool
    ) {
        self.exportName = exportName
        self.exportIdentity = exportIdentity
        self.usesStructuredReplies = usesStructuredReplies
        self.reportsAllocation = reportsAllocation
    }
}

/// The fixed newstyle handshake of one connection, without its socket: the peer's bytes go in
/// through `receive`, ours come out through `output`, and `outcome` says when it is over.
///
/// ```
///          greeting            flags                  option ... option
///  accept ----------> clientFlags --> optionHeader <----------> payload, skipped
///                                          |  ^
///                                          |  +---- listing (LIST, a piece at a time)
///                                          v
///                                      finished (outcome)
/// ```
///
/// I1 Never more than `bytesWanted` bytes are taken, and none beyond the last option: what the
///    client sends after it belongs to the transmission phase and stays in the socket.
/// I2 While there is output, nothing is taken. So a client that does not read its replies cannot
///    make us keep more than one option and one reply.
/// I3 After the outcome nothing is taken. The outcome counts once `output` is empty.
package struct NBDNegotiation: Sendable {
    package enum Outcome: Sendable, Equatable {
        case transmission(NBDAgreement)
        /// Nothing to talk about any more; close the connection.
        case closed
    }

    enum Phase: Equatable {
        case clientFlags
        case optionHeader
        case payload(option: UInt32, count: Int)
        /// Data of an option that is too long to be looked at.
        case skipped(option: UInt32, remaining: Int)
        /// LIST: everything up to this name has been said.
        case listing(after: String?)
        case finished
    }

    package private(set) var outcome: Outcome?
    package internal(set) var output: [UInt8] = []

    var phase = Phase.clientFlags
    var clientFlags: NBDClientFlags = []
    var usesStructuredReplies = false
    /// The export for which the client selected `base:allocation`, if it did.
    var allocationExport: String?
    private var input: [UInt8] = []
    private var optionCount = 0

    package init() {
        output.appendBigEndian(NBDMagic.newstyle)
        output.appendBigEndian(NBDMagic.option)
        let flags: NBDHandshakeFlags = [.fixedNewstyle, .noZeroes]
        output.appendBigEndian(flags.rawValue)
    }

    /// How many bytes of the peer can be taken now; 0 while there is output, and at the end.
    package var bytesWanted: Int {
        guard output.isEmpty else { return 0 }
        switch phase {
        case .clientFlags: return 4 - input.count
        case .optionHeader: return 16 - input.count
        case .payload(_, let count): return count - input.count
        case .skipped(_, let remaining): return min(remaining, NBDLimits.optionBytesKept)
        case .listing, .finished: return 0
        }
    }

    /// The first `count` bytes of `output` have left.
    package mutating func sent(_ count: Int, exports: NBDExportTable) {
        output.removeFirst(count)
        if output.isEmpty, case .listing(let name) = phase {
            list(after: name, exports: exports)
        }
    }

    /// At most `bytesWanted` bytes, in the order in which they came.
    package mutating func receive(_ bytes: UnsafeRawBufferPointer, exports: NBDExportTable) {
        precondition(bytes.count <= bytesWanted, "NBDNegotiation I1: more than was asked for")
        if case .skipped(let option, let remaining) = phase {
            phase = .skipped(option: option, remaining: remaining - bytes.count)
            if remaining == bytes.count {
                refuseSkipped(option)
            }
            return
        }
        input.append(contentsOf: bytes)
        guard bytesWanted == 0 else { return }
        let message = input
        input.removeAll(keepingCapacity: true)
        switch phase {
        case .clientFlags: takeClientFlags(message)
        case .optionHeader: takeOptionHeader(message, exports: exports)
        case .payload(let option, _): perform(option, payload: message, exports: exports)
        case .skipped, .listing, .finished: break
        }
    }

    private mutating func takeClientFlags(_ message: [UInt8]) {
        var reader = ByteReader(message)
        clientFlags = NBDClientFlags(rawValue: reader.integer(UInt32.self) ?? 0)
        // Flags that we do not know may change the meaning of what follows.
        guard NBDClientFlags.known.isSuperset(of: clientFlags) else { return finish(.closed) }
        phase = .optionHeader
    }

    private mutating func takeOptionHeader(_ message: [UInt8], exports: NBDExportTable) {
        var reader = ByteReader(message)
        let magic = reader.integer(UInt64.self)
        optionCount += 1
        guard let option = reader.integer(UInt32.self), let length = reader.integer(UInt32.self),
            magic == NBDMagic.option, length <= NBDLimits.optionBytesMax,
            optionCount <= NBDLimits.optionsPerClient
        else { return finish(.closed) }
        let count = Int(length)
        if count == 0 {
            perform(option, payload: [], exports: exports)
        } else if count <= NBDLimits.optionBytesKept {
            phase = .payload(option: option, count: count)
        } else {
            phase = .skipped(option: option, remaining: count)
        }
    }

    private mutating func refuseSkipped(_ option: UInt32) {
        phase = .optionHeader
        switch NBDOption(rawValue: option) {
        case .exportName: finish(.closed)
        case .abort: abort()
        case .setMetaContext:
            allocationExport = nil
            fallthrough
        case .list, .info, .go, .structuredReply, .listMetaContext:
            reply(to: option, .tooBig, "the option's data is too long")
        case .peekExport, .startTLS, .extendedHeaders, nil: refuseUnknown(option)
        }
    }

    mutating func finish(_ outcome: Outcome) {
        phase = .finished
        self.outcome = outcome
    }
}
