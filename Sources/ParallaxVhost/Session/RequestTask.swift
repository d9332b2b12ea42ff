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
    private let free: UnsafeMutablePointer<Int16>
    private(set) var freeCount: Int

    init() {
        let count = VhostLimits.pooledListCount
        storage = .allocate(capacity: count * VhostLimits.dataSegmentsMax)
        free = .allocate(capacity: count)
        for index in 0..<count { free[index] = Int16(count - 1 - index) }
        freeCount = count
    }

    deinit {
        storage.deallocate()
        free.deallocate()
    }

    /// The list given back last comes first, as its memory is in the processor's cache.
    mutating func take() -> Int16? {
        guard freeCount > 0 else { return nil }
        freeCount -= 1
        return free[freeCount]
    }

    mutating func giveBack(_ list: Int16) {
        precondition(freeCount < VhostLimits.pooledListCount, "a list was given back twice")
        free[freeCount] = list
        freeCount += 1
    }

    subscript(list: Int16) -> UnsafeMutablePointer<DataSegment> {
        storage + Int(list) * VhostLimits.dataSegmentsMax
    }
}
