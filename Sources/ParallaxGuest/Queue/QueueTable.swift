// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The queues of one device, in place: they cannot live in an array because they cannot be copied.
///
/// SAFETY: owns `capacity` places of which the first `count` are initialised.
struct QueueTable: ~Copyable {
    let storage: UnsafeMutablePointer<DriverQueue>
    let capacity: Int
    private(set) var count = 0

    init(capacity: Int) {
        storage = .allocate(capacity: capacity)
        self.capacity = capacity
    }

    deinit {
        storage.deinitialize(count: count)
        storage.deallocate()
    }

    mutating func append(_ queue: consuming DriverQueue) {
        precondition(count < capacity, "QueueTable: full")
        (storage + count).initialize(to: queue)
        count += 1
    }

    /// The place of one queue. The index is checked here, once for all callers.
    func pointer(_ index: Int) -> UnsafeMutablePointer<DriverQueue> {
        precondition(index >= 0 && index < count, "QueueTable: no such queue")
        return storage + index
    }
}
