// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The payload of GET_INFLIGHT_FD and SET_INFLIGHT_FD: what the area is, and where in its file.
///
/// ```
///   0            8        16            18           20        24
///   | byte count | offset | queue count | queue size | padding |
/// ```
/// The specification's structure ends at 20; QEMU sends, and expects, its own with the padding.
package struct InflightDescription: BitwiseCopyable, Equatable, Sendable {
    static let byteCountMin = 20
    static let byteCountMax = 24

    /// Bytes of the area; the front end maps and keeps as many.
    package var byteCount: UInt64
    package var offset: UInt64
    package var queueCount: UInt16
    /// Entries of each queue.
    package var queueSize: UInt16
    /// Of the message that it came in.
    package var payloadByteCount: Int

    package init(byteCount: UInt64, offset: UInt64, queueCount: UInt16, queueSize: UInt16) {
        self.byteCount = byteCount
        self.offset = offset
        self.queueCount = queueCount
        self.queueSize = queueSize
        payloadByteCount = Self.byteCountMax
    }

    init(decoding bytes: RawSpan) throws(MessageFault) {
        guard (Self.byteCountMin...Self.byteCountMax).contains(bytes.byteCount) else {
            throw .wrongPayloadSize
        }
        byteCount = bytes.load(at: 0)
        offset = bytes.load(at: 8)
        queueCount = bytes.load(at: 16)
        queueSize = bytes.load(at: 18)
        payloadByteCount = bytes.byteCount
    }
}

/// Where things are in an in-flight area for split rings (vhost-user, "Inflight I/O tracking").
///
/// ```
///   | queue 0 | queue 1 | ... | settings |     each begins at a multiple of 64
///        |
///        v
///   0          8         10           12                16         20...
///   | features | version | entries    | last batch head | used idx | entry 0 | entry 1 | ...
///      u64        u16      u16          u16               u16
///
///   entry:   0          1         6      8
///            | inflight | padding | next | counter u64 |      16 bytes
///
///   settings, ours: see `settingsOffset`
///   0       8           9         16      24      40        48      64
///   | magic | writeback | padding | magic | store | version | zeroes |
///     u64     u8                    u64     UUID    u64: `VhostDiskIdentity`
/// ```
package struct InflightLayout: BitwiseCopyable, Equatable, Sendable {
    package static let headerByteCount = 16
    package static let entryByteCount = 16
    package static let version: UInt16 = 1
    private static let alignment = 64

    package static let versionOffset = 8
    package static let entryCountOffset = 10
    package static let lastBatchHeadOffset = 12
    package static let usedIndexOffset = 14
    /// Of an entry.
    package static let nextOffset = 6
    package static let counterOffset = 8

    /// "PLXWCE", and the layout's number.
    package static let writebackMagic: UInt64 = 0x0001_4543_5758_4c50
    package static let writebackOffset = 8
    /// "PLXDSK", and the layout's number. The disk has a magic of its own, so that a daemon that
    /// does not know it goes on with the rest, and its areas are known by its absence.
    package static let diskMagic: UInt64 = 0x0001_4b53_4458_4c50
    package static let diskMagicOffset = 16
    package static let storeOffset = 24
    package static let diskVersionOffset = 40
    package static let settingsByteCount = 64

    package let queueCount: Int
    package let queueSize: Int

    /// nil: not what a device of ours can have.
    package init?(queueCount: UInt16, queueSize: UInt16) {
        guard (1...VhostLimits.queueCountMax).contains(Int(queueCount)),
            (1...VhostLimits.queueSizeMax).contains(Int(queueSize)),
            queueSize.nonzeroBitCount == 1
        else { return nil }
        self.queueCount = Int(queueCount)
        self.queueSize = Int(queueSize)
    }

    private var queueByteCount: Int {
        let count = Self.headerByteCount + Self.entryByteCount * queueSize
        return (count + Self.alignment - 1) / Self.alignment * Self.alignment
    }

    package func offset(ofQueue queue: Int) -> Int { queue * queueByteCount }

    /// The part that the specification describes.
    package var queuesByteCount: Int { queueCount * queueByteCount }

    /// The back end decides how long the area is, so what it must not forget goes behind the
    /// queues: a front end that connects again does not repeat the guest's choice of writeback, nor
    /// say which disk the guest had.
    package var settingsOffset: Int { queuesByteCount }

    package var byteCount: Int { queuesByteCount + Self.settingsByteCount }
}
