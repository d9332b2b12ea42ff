// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// One request of a guest while the engine has it; there is one for each head of a queue.
struct RequestTask: BitwiseCopyable {
    var isInFlight = false
    /// The worst answer so far; a request with several ranges has one answer for each.
    var status = VirtioBlockStatus.ok
    /// Index in `DataSegmentLists`, or -1.
    var pooledList: Int16 = -1
    /// The head that was answered before this one; meaningful until both are shown.
    var answeredBefore: UInt16 = 0
    /// Answers that are still to come.
    var remaining: UInt16 = 0
    /// virtio: used.len, when it succeeds.
    var usedByteCount: UInt32 = 0
    /// Where the status byte goes, in guest memory.
    var statusByte: UnsafeMutableRawPointer?
}

/// Lists of data segments for requests that have more than a task holds by itself.
///
/// SAFETY: owns its storage; list N is `dataSegmentsMax` entries from N * `dataSegmentsMax`.
struct DataSegmentLists: ~Copyable {
    private let storage: UnsafeMutablePointer<DataSegment>
    private var free = SlotStack(capacity: VhostLimits.pooledListCount)

    init() {
        storage = .allocate(
            capacity: VhostLimits.pooledListCount * VhostLimits.dataSegmentsMax)
    }

    deinit { storage.deallocate() }

    var freeCount: Int { free.count }

    mutating func take() -> Int16? { free.pop().map { Int16($0) } }

    mutating func giveBack(_ list: Int16) { free.push(Int32(list)) }

    subscript(list: Int16) -> UnsafeMutablePointer<DataSegment> {
        storage + Int(list) * VhostLimits.dataSegmentsMax
    }
}
