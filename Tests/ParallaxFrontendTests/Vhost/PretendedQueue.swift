// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Glibc
import ParallaxVhost

/// The driver's side of one queue, with every field of the ring within reach.
///
/// ```
///   +0       descriptor table, up to 1024 entries
///   +16384   available ring
///   +20480   used ring
/// ```
final class PretendedQueue {
    static let availableOffset = 16384
    static let usedOffset = 20480

    /// A buffer of the guest.
    struct Buffer {
        var address: UInt64
        var byteCount: Int
        var isWritable: Bool
    }

    /// A request that was put into the ring.
    struct Request {
        var head: UInt16
        var data: UInt64
        var dataBytes: Int
        var status: UInt64
    }

    let frontEnd: PretendedFrontEnd
    let index: Int
    let size: Int
    let kick = parallax_eventfd_create(0, 1)
    let call = parallax_eventfd_create(0, 1)
    let error = parallax_eventfd_create(0, 1)
    private let base: UnsafeMutableRawPointer

    var nextDescriptor = 0
    var nextAvailable: UInt16 = 0
    private var shownAvailable: UInt16 = 0
    var nextUsed: UInt16 = 0
    var kickCount = 0

    init(_ frontEnd: PretendedFrontEnd, _ index: Int = 0, size: Int = 128) {
        self.frontEnd = frontEnd
        self.index = index
        self.size = size
        base = frontEnd.memory + index * PretendedFrontEnd.queueBytes
    }

    deinit {
        for number in [kick, call, error] { close(number) }
    }

    // MARK: Set-up

    var addresses: [UInt8] {
        let user = PretendedFrontEnd.userBase + UInt64(index * PretendedFrontEnd.queueBytes)
        return UInt32(index).bytes + UInt32(0).bytes + user.bytes
            + (user + UInt64(Self.usedOffset)).bytes
            + (user + UInt64(Self.availableOffset)).bytes + UInt64(0).bytes
    }

    /// The queue runs afterwards, from `firstIndex` on.
    func start(at firstIndex: UInt16 = 0, enable: Bool = true) {
        nextAvailable = firstIndex
        shownAvailable = firstIndex
        nextUsed = firstIndex
        parallax_store_relaxed_u16(base + Self.availableOffset + 2, firstIndex)
        parallax_store_relaxed_u16(base + Self.usedOffset + 2, firstIndex)
        announce(firstIndex, enable: enable)
    }

    /// Goes on where the ring is, as a front end does that has lost its device: all that it knows
    /// is the used index.
    func resume() { announce(usedIndex, enable: true) }

    private func announce(_ firstIndex: UInt16, enable: Bool) {
        frontEnd.send(.setQueueCall, UInt64(index).bytes, files: [call])
        frontEnd.send(.setQueueError, UInt64(index).bytes, files: [error])
        frontEnd.send(.setQueueSize, frontEnd.queueNumber(index, size))
        frontEnd.send(.setQueueBase, frontEnd.queueNumber(index, Int(firstIndex)))
        frontEnd.send(.setQueueAddresses, addresses)
        frontEnd.send(.setQueueKick, UInt64(index).bytes, files: [kick])
        if enable { frontEnd.send(.setQueueEnable, frontEnd.queueNumber(index, 1)) }
    }

    /// The reply to GET_VRING_BASE, or nil while it has not come.
    func stop() -> UInt32? {
        frontEnd.send(.getQueueBase, frontEnd.queueNumber(index, 0))
        return frontEnd.receive()?.payload.load(at: 4)
    }

    // MARK: Ring fields

    func setDescriptor(_ position: Int, _ descriptor: Descriptor) {
        (base + 16 * position).copyMemory(from: descriptor.bytes, byteCount: 16)
    }

    func setAvailableEntry(_ head: UInt16) {
        let slot = Int(nextAvailable) % size
        parallax_store_relaxed_u16(base + Self.availableOffset + 4 + 2 * slot, head)
        nextAvailable &+= 1
    }

    func setAvailableIndex(_ value: UInt16) {
        parallax_store_release_u16(base + Self.availableOffset + 2, value)
    }

    /// Without EVENT_IDX: 1 asks for no calls.
    func setAvailableFlags(_ value: UInt16) {
        parallax_store_relaxed_u16(base + Self.availableOffset, value)
    }

    /// With EVENT_IDX: wants a call when the used index passes this.
    func setUsedEvent(_ value: UInt16) {
        parallax_store_relaxed_u16(base + Self.availableOffset + 4 + 2 * size, value)
    }

    var usedIndex: UInt16 { parallax_load_acquire_u16(base + Self.usedOffset + 2) }

    /// The device's wish for a kick.
    var availableEvent: UInt16 {
        parallax_load_relaxed_u16(base + Self.usedOffset + 4 + 8 * size)
    }

    /// The next used element, or nil.
    func reap() -> (head: UInt32, byteCount: UInt32)? {
        guard usedIndex != nextUsed else { return nil }
        let entry = base + Self.usedOffset + 4 + 8 * (Int(nextUsed) % size)
        nextUsed &+= 1
        return (parallax_load_relaxed_u32(entry), parallax_load_relaxed_u32(entry + 4))
    }

    /// How often the device has called since the last time.
    func takeCalls() -> UInt64 { Self.take(call) }

    func takeErrors() -> UInt64 { Self.take(error) }

    private static func take(_ event: Int32) -> UInt64 {
        var count: UInt64 = 0
        return parallax_eventfd_read(event, &count) < 0 ? 0 : count
    }

    // MARK: Requests

    /// Puts a chain into the descriptor table, or into an indirect one; returns its head.
    @discardableResult
    func chain(_ buffers: [Buffer], isIndirect: Bool = false) -> UInt16 {
        let head = UInt16(nextDescriptor % size)
        guard !isIndirect else {
            let table = frontEnd.allocate(16 * buffers.count)
            frontEnd.store(Self.descriptors(buffers, from: 0).flatMap(\.bytes), at: table)
            setDescriptor(
                Int(head),
                Descriptor(
                    address: table, byteCount: UInt32(16 * buffers.count),
                    flags: Descriptor.indirectFlag))
            nextDescriptor += 1
            return head
        }
        precondition(Int(head) + buffers.count <= size, "the table is full")
        for (offset, descriptor) in Self.descriptors(buffers, from: Int(head)).enumerated() {
            setDescriptor(Int(head) + offset, descriptor)
        }
        nextDescriptor = (Int(head) + buffers.count) % size
        return head
    }

    static func descriptors(_ buffers: [Buffer], from first: Int) -> [Descriptor] {
        buffers.enumerated().map { offset, buffer in
            let isLast = offset == buffers.count - 1
            return Descriptor(
                address: buffer.address, byteCount: UInt32(buffer.byteCount),
                flags: (buffer.isWritable ? Descriptor.writableFlag : 0)
                    | (isLast ? 0 : Descriptor.nextFlag),
                next: isLast ? 0 : UInt16(first + offset + 1))
        }
    }

    /// A legal request whose bytes are cut into descriptors of `cut` bytes; not shown yet.
    func add(
        _ kind: UInt32, sector: UInt64 = 0, write: [UInt8] = [], read readBytes: Int = 0,
        cut: Int = .max, isIndirect: Bool = false
    ) -> Request {
        let readable = frontEnd.allocate(16 + write.count, alignment: 1)
        frontEnd.store(kind.bytes + UInt32(0).bytes + sector.bytes + write, at: readable)
        let writable = frontEnd.allocate(readBytes + 1, alignment: 1)
        frontEnd.store([0xff], at: writable + UInt64(readBytes))
        let buffers =
            Self.cut(readable, 16 + write.count, cut, isWritable: false)
            + Self.cut(writable, readBytes + 1, cut, isWritable: true)
        let head = chain(buffers, isIndirect: isIndirect)
        setAvailableEntry(head)
        return Request(
            head: head, data: writable, dataBytes: readBytes,
            status: writable + UInt64(readBytes))
    }

    static func cut(
        _ address: UInt64, _ byteCount: Int, _ piece: Int, isWritable: Bool
    ) -> [Buffer] {
        stride(from: 0, to: byteCount, by: min(piece, byteCount)).map { offset in
            Buffer(
                address: address + UInt64(offset), byteCount: min(piece, byteCount - offset),
                isWritable: isWritable)
        }
    }

    /// Shows what was added and kicks, as a driver with EVENT_IDX does: only when asked to.
    func show() {
        let old = shownAvailable
        setAvailableIndex(nextAvailable)
        shownAvailable = nextAvailable
        parallax_fence_seq_cst()
        guard nextAvailable &- availableEvent &- 1 < nextAvailable &- old else { return }
        kickAlways()
    }

    func kickAlways() {
        kickCount += 1
        _ = parallax_eventfd_write(kick, 1)
    }

    /// Shows what was added, kicks, and lets the device work.
    func run() {
        setAvailableIndex(nextAvailable)
        shownAvailable = nextAvailable
        kickAlways()
        frontEnd.rig.settle()
    }

    func status(_ request: Request) -> UInt8 { frontEnd.bytes(at: request.status, count: 1)[0] }

    func data(_ request: Request) -> [UInt8] {
        frontEnd.bytes(at: request.data, count: request.dataBytes)
    }
}

extension Descriptor {
    var bytes: [UInt8] { address.bytes + byteCount.bytes + flags.bytes + next.bytes }
}
