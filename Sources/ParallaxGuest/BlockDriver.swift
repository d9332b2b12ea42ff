// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux
internal import Glibc

/// The driver of one vhost-user-blk device, as a guest kernel has it: connects, negotiates, shares
/// memory, and then submits requests and reaps completions through the rings.
///
///     let disk = try BlockDriver(connectingTo: path, options: options)
///     if let slot = disk.reserve(queue: 0) {                    // a place and its buffer
///         disk.submit(queue: 0, slot: slot, .read, firstSector: 0, byteCount: 4096, tag: 7)
///         disk.publish(queue: 0)                                // kicks when needed
///     }
///     while try disk.wait(timeoutMilliseconds: 1000) {          // sleeps on the call eventfds
///         while let done = try disk.reap(queue: 0) { ... }      // done.tag == 7
///     }
///
/// Owned by one thread. After `init` the calls above allocate nothing. The device's death is an
/// error of `wait`, after everything that it finished before was reaped.
package struct BlockDriver: ~Copyable {
    /// Closing it (with the driver) is what a guest's disappearance looks like to the device.
    package let connection: VhostUserConnection
    package let memory: GuestMemory
    package let options: BlockDriverOptions
    /// What was negotiated.
    package let features: VirtioFeatures
    package let protocolFeatures: VhostUserProtocolFeatures
    /// The configuration space as it was at the start.
    package let config: BlockDeviceConfig
    /// How many queues the device can have (not how many are used: `options.queueCount`).
    package let queueCountMax: Int

    let queues: QueueTable
    private let epollFD: Int32
    private let events: UnsafeMutablePointer<parallax_epoll_event>
    private static var eventCapacity: Int { 16 }
    private static var socketToken: UInt64 { .max }

    package init(
        connectingTo path: String, options: BlockDriverOptions = BlockDriverOptions()
    ) throws(GuestError) {
        let connection = try VhostUserConnection(
            path: path, timeoutMilliseconds: options.timeoutMilliseconds)
        try self.init(over: connection, options: options)
    }

    /// Negotiates over a connection that is already there.
    package init(
        over connection: consuming VhostUserConnection, options: BlockDriverOptions
    ) throws(GuestError) {
        let agreed = try Negotiation.run(&connection, options)
        let layout = try agreed.queueLayout(options)
        let memory = try GuestMemory(regions: [
            (0, layout.structureBytes * options.queueCount),
            (1 << 32, layout.dataBytes * options.queueCount),
        ])
        var structures = GuestArena(memory.regions[0])
        var data = GuestArena(memory.regions[1])
        var queues = QueueTable(capacity: options.queueCount)
        for index in 0..<options.queueCount {
            let queueMemory = try QueueMemory(layout, structures: &structures, data: &data)
            queues.append(
                DriverQueue(
                    index: index, memory: queueMemory,
                    usesEventIndex: agreed.features.contains(.eventIndex),
                    eventDescriptors: try DriverQueue.makeEventDescriptors()))
        }
        try Negotiation.start(connection, agreed, memory, queues)
        epollFD = try Self.makeEpoll(socket: connection.fileDescriptor, queues)
        events = .allocate(capacity: Self.eventCapacity)
        self.connection = connection
        self.memory = memory
        self.options = options
        features = agreed.features
        protocolFeatures = agreed.protocolFeatures
        config = agreed.config
        queueCountMax = agreed.queueCountMax
        self.queues = queues
    }

    deinit {
        close(epollFD)
        events.deallocate()
    }

    private static func makeEpoll(
        socket: Int32, _ queues: borrowing QueueTable
    ) throws(GuestError) -> Int32 {
        let epollFD = parallax_epoll_create()
        guard epollFD >= 0 else {
            throw GuestError(.system, "cannot make an epoll set: \(errorText(epollFD))")
        }
        // Edge-triggered, so that nobody has to read the eventfd: a system call less per wake-up.
        let edge = UInt32(1) << 31
        var result = parallax_epoll_add(
            epollFD, socket, PARALLAX_EPOLLIN | PARALLAX_EPOLLRDHUP, socketToken)
        for index in 0..<queues.count where result >= 0 {
            result = parallax_epoll_add(
                epollFD, queues.pointer(index).pointee.callFD, PARALLAX_EPOLLIN | edge,
                UInt64(index))
        }
        guard result >= 0 else {
            close(epollFD)
            throw GuestError(.system, "cannot watch an eventfd: \(errorText(result))")
        }
        return epollFD
    }

    package var capacityBytes: UInt64 { config.capacityBytes }
    package var queueCount: Int { queues.count }
    package var layout: QueueLayout { queues.pointer(0).pointee.layout }

    package var inFlightCount: Int {
        var count = 0
        for index in 0..<queues.count { count += queues.pointer(index).pointee.inFlightCount }
        return count
    }

    // MARK: Requests

    /// Takes a free slot of the queue, or nil when all are in flight.
    package mutating func reserve(queue: Int) -> Int? { queues.pointer(queue).pointee.reserve() }

    package mutating func cancel(queue: Int, slot: Int) {
        queues.pointer(queue).pointee.cancel(slot: slot)
    }

    /// The slot's data; see `DriverQueue.buffer`.
    package func buffer(queue: Int, slot: Int) -> UnsafeMutableRawBufferPointer {
        queues.pointer(queue).pointee.buffer(ofSlot: slot)
    }

    /// Puts a request into the ring without showing it yet.
    package mutating func submit(
        queue: Int, slot: Int, _ operation: BlockOperation, firstSector: UInt64, byteCount: Int,
        tag: UInt64
    ) {
        queues.pointer(queue).pointee.submit(
            slot: slot, operation, firstSector: firstSector, byteCount: byteCount, tag: tag)
    }

    /// Puts a discard or write-zeroes request into the ring.
    package mutating func submit(
        queue: Int, slot: Int, _ operation: BlockOperation, range: BlockRange, tag: UInt64
    ) {
        buffer(queue: queue, slot: slot).storeBytes(of: range, as: BlockRange.self)
        submit(
            queue: queue, slot: slot, operation, firstSector: 0,
            byteCount: MemoryLayout<BlockRange>.size, tag: tag)
    }

    /// Shows the device what was submitted, with a kick if it wants one.
    @discardableResult
    package mutating func publish(queue: Int) -> Bool { queues.pointer(queue).pointee.publish() }

    /// The next finished request of the queue, or nil.
    package mutating func reap(queue: Int) throws(GuestError) -> DriverQueue.Completion? {
        try queues.pointer(queue).pointee.reap()
    }

    /// One queue with everything that hostile tests need (`DriverQueue+Raw`).
    package mutating func withQueue<Result>(
        _ index: Int, _ body: (inout DriverQueue) throws(GuestError) -> Result
    ) throws(GuestError) -> Result {
        try body(&queues.pointer(index).pointee)
    }

    // MARK: Waiting

    package var hasCompletion: Bool {
        for index in 0..<queues.count where queues.pointer(index).pointee.hasCompletion {
            return true
        }
        return false
    }

    /// Sleeps until a queue has a completion; returns at once if one has. False at the timeout
    /// (-1: none), and now and then for a call that turns out to be stale: loop.
    package mutating func wait(timeoutMilliseconds: Int) throws(GuestError) -> Bool {
        var mustWait = true
        for index in 0..<queues.count where !queues.pointer(index).pointee.requestCall() {
            mustWait = false
        }
        defer {
            for index in 0..<queues.count { queues.pointer(index).pointee.suppressCalls() }
        }
        guard mustWait else { return true }
        let timeout = timeoutMilliseconds < 0 ? -1 : Int64(timeoutMilliseconds) * 1_000_000
        let count = parallax_epoll_wait(epollFD, events, Int32(Self.eventCapacity), timeout)
        guard count >= 0 || count == -EINTR else {
            throw GuestError(.system, "cannot wait for the device: \(errorText(count))")
        }
        if hasCompletion { return true }
        for index in 0..<max(0, Int(count)) where events[index].data == Self.socketToken {
            throw socketFailure(events[index].events)
        }
        return false
    }

    private func socketFailure(_ bits: UInt32) -> GuestError {
        let closed = PARALLAX_EPOLLHUP | PARALLAX_EPOLLRDHUP | PARALLAX_EPOLLERR
        if bits & closed != 0 {
            return GuestError(
                .deviceGone, "the device at \(connection.path) closed the connection")
        }
        return GuestError(
            .violation, "the device at \(connection.path) sent a message that nobody asked for")
    }

    /// For polling clients: throws when the device has gone, without sleeping.
    package mutating func checkConnection() throws(GuestError) {
        let count = parallax_epoll_wait(epollFD, events, Int32(Self.eventCapacity), 0)
        for index in 0..<max(0, Int(count)) where events[index].data == Self.socketToken {
            throw socketFailure(events[index].events)
        }
    }
}
