// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// The commands in flight, in slots of a table that never grows.
///
/// Owned by the reactor's thread. Invariant: I1 a slot is either in the free list or in flight.
///
/// SAFETY: owns both arrays; `free` has room for every slot, and indices are checked.
struct TransferTable: ~Copyable {
    private let transfers: UnsafeMutablePointer<StoreTransfer>
    private let free: UnsafeMutablePointer<UInt32>
    let capacity: Int
    private(set) var freeCount: Int
    private let syncs: SyncRecord

    init(capacity: Int, syncs: SyncRecord) {
        precondition(capacity > 0, "TransferTable: no capacity")
        self.capacity = capacity
        self.syncs = syncs
        freeCount = capacity
        transfers = UnsafeMutablePointer<StoreTransfer>.allocate(capacity: capacity)
        free = UnsafeMutablePointer<UInt32>.allocate(capacity: capacity)
        for index in 0..<capacity { free[index] = UInt32(capacity - 1 - index) }
    }

    deinit {
        transfers.deallocate()
        free.deallocate()
    }

    var inFlightCount: Int { capacity - freeCount }

    mutating func acquire(_ command: StoreCommand) -> UInt32 {
        precondition(freeCount > 0, "TransferTable: enqueue without a free slot")
        freeCount -= 1
        let slot = free[freeCount]
        transfers[Int(slot)] = StoreTransfer(command)
        return slot
    }

    /// Takes the kernel's answer. Nil: the transfer goes on; else its slot is free.
    mutating func settle(_ slot: UInt32, result: Int) -> StoreCompletion? {
        guard var completion = self[slot].settle(result: result) else { return nil }
        if self[slot].command.operation == .sync {
            completion.result = syncs.judge(completion.result)
        }
        release(slot)
        return completion
    }

    private mutating func release(_ slot: UInt32) {
        precondition(freeCount < capacity, "TransferTable I1: a slot was released twice")
        free[freeCount] = slot
        freeCount += 1
    }

    subscript(slot: UInt32) -> StoreTransfer {
        get {
            precondition(slot < capacity, "TransferTable: slot out of range")
            return transfers[Int(slot)]
        }
        _modify {
            precondition(slot < capacity, "TransferTable: slot out of range")
            yield &transfers[Int(slot)]
        }
    }
}
