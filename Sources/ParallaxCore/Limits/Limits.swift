// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Every bound that the format or the engine relies on, with the arithmetic between them.
package enum Limits {
    /// Smallest and largest VDI, in bytes.
    package static let vdiBytes: ClosedRange<UInt64> = 1 << 20...64 << 40

    /// UTF-8 bytes in a VDI's name.
    package static let vdiNameBytes = 1...100

    /// Levels of a radix tree: 256^5 blocks of 4 KiB are 4 PiB, more than the largest VDI.
    package static let radixLevels = 5

    package static let extentBytes: ClosedRange<UInt64> = 1 << 20...1 << 30

    /// Blocks of the largest extent.
    package static let extentBlocks = Int(extentBytes.upperBound) / blockBytes

    /// Blocks that one count of a record can stand for: 4 PiB. More than that is no record.
    package static let accountBlocks: UInt64 = 1 << 40

    /// LSNs are below this: a thousand million repairs, each of which skips 2^32, do not reach it.
    package static let logSequenceNumbers: UInt64 = 1 << 62

    /// Generations of a store, and checkpoints of a stream: what counts further is damaged.
    package static let generations: UInt64 = 1 << 62

    /// Blocks of payload in one chunk; the header is one block more.
    package static let chunkPayloadBlocks = 256

    /// Log streams, and so shards, of a store.
    package static let streams = 1...32

    /// Extents that a store has at least for each stream: the open one, two ahead of it for what a
    /// deletion entails, the cleaner's, and two that the last checkpoint still needs. With fewer,
    /// one stream's reserves would keep another from its own.
    package static let extentsPerStream = 6

    /// VDIs on one stream; what `vdi create` refuses beyond.
    package static let vdisPerStream = 1 << 20

    /// Snapshots on one stream, hidden ones included; what `snapshot` refuses beyond.
    package static let snapshotsPerStream = 1 << 22

    /// UTF-8 bytes of a snapshot's comment, of each part of a label, of the reason of a hold; and
    /// how many there may be of them.
    package static let snapshotCommentBytes = 512
    package static let snapshotLabelBytes = 100
    package static let snapshotHoldBytes = 200
    package static let snapshotLabels = 16
    package static let snapshotHolds = 16

    /// Encoded bytes of all that is said about a snapshot.
    package static let snapshotDetailsBytes = 2048

    /// UTF-8 bytes of a VDI's retention policy.
    package static let policyBytes = 1024

    /// Requests that one engine works on at a time; front ends wait with the rest.
    package static let requestsInFlight = 1024

    /// Parts (at most one radix leaf each) of those requests in flight at a time.
    package static let partsInFlight = 2048

    /// Largest piece of a request that is carried out as one part: one radix leaf.
    package static let partBlocks = radixFanout

    /// Data segments of a request that is read straight into the guest's memory; with more of
    /// them it goes through a bounce buffer.
    package static let directSegments = 256
}
