// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// One request of a guest, from its taking to its answer; there are as many as ring entries.
struct BlkifTask: BitwiseCopyable {
    var id: UInt64 = 0
    /// The operation that the response repeats.
    var operation: UInt8 = 0
    var status = BlkifStatus.okay
    /// The ring entry that holds the request.
    var slot: UInt16 = 0
    /// The engine has it.
    var isInFlight = false
    /// Nothing of the queue starts before this has been answered.
    var isBarrier = false
    /// Index in `SegmentLists`, or -1.
    var pooledList: Int16 = -1
    /// Entries of the grant cache that are pinned for it.
    var pinCount: UInt16 = 0
    /// Pages that are mapped for it alone.
    var mappedCount: UInt16 = 0
    var mapped: UnsafeMutableRawPointer?
}

/// Where a task keeps its data segments and its pins.
///
/// SAFETY: each leads to room for as many entries as the request has segments, until the answer.
struct SegmentStorage: BitwiseCopyable {
    var segments: UnsafeMutablePointer<DataSegment>
    var pins: UnsafeMutablePointer<Int32>
}

/// Storage for indirect requests, which have more segments than a task holds by itself.
///
/// SAFETY: owns its storage; list N is `indirectSegmentsMax` entries from N * `indirectSegmentsMax`.
struct SegmentLists: ~Copyable {
    private let segments: UnsafeMutablePointer<DataSegment>
    private let pins: UnsafeMutablePointer<Int32>
    private var free = SlotStack(capacity: XenLimits.pooledListCount)

    init() {
        let count = XenLimits.pooledListCount * XenLimits.indirectSegmentsMax
        segments = .allocate(capacity: count)
        pins = .allocate(capacity: count)
    }

    deinit {
        segments.deallocate()
        pins.deallocate()
    }

    var freeCount: Int { free.count }

    mutating func take() -> Int16? { free.pop().map { Int16($0) } }

    mutating func giveBack(_ list: Int16) { free.push(Int32(list)) }

    subscript(list: Int16) -> SegmentStorage {
        let start = Int(list) * XenLimits.indirectSegmentsMax
        return SegmentStorage(segments: segments + start, pins: pins + start)
    }
}
