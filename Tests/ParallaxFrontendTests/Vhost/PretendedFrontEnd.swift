// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Glibc
import ParallaxVhost

/// A front end under the test's full control: it sends what bytes and descriptors it likes.
///
/// Its memory is one memfd, of which a region may be any part at any guest address:
///
/// ```
///   0           64 KiB x 16          2 MiB                        8 MiB
///   | queue 0 | ... | queue 15 |     | headers and data, bump-allocated |
/// ```
final class PretendedFrontEnd {
    /// The guest address of the memory's first byte, unless a test maps it otherwise.
    static let guestBase: UInt64 = 1 << 30
    /// Made up: the device only subtracts it.
    static let userBase: UInt64 = 0x7000_0000_0000
    static let memoryBytes = 8 << 20
    static let queueBytes = 64 << 10

    private(set) var rig: VhostRig
    private(set) var socket: Int32
    let memory: UnsafeMutableRawPointer
    let memoryFile: Int32
    /// A Unix socket that leads nowhere: neither an eventfd nor memory.
    let deadSocket: Int32
    private var allocated = 2 << 20

    init(_ rig: VhostRig, path: String) {
        self.rig = rig
        socket = Self.connect(path)
        memoryFile = parallax_memfd_create("parallax-vhost-test", Int64(Self.memoryBytes))
        let mapped = mmap(
            nil, Self.memoryBytes, PROT_READ | PROT_WRITE, MAP_SHARED, memoryFile, 0)
        guard let mapped, mapped != MAP_FAILED else { preconditionFailure("no memory") }
        memory = mapped
        var pair: [Int32] = [-1, -1]
        _ = parallax_socket_pair(&pair, 1)
        close(pair[1])
        deadSocket = pair[0]
        rig.settle()
    }

    deinit {
        hangUp()
        munmap(memory, Self.memoryBytes)
        close(memoryFile)
        close(deadSocket)
        rig.release()
        rig.settle()
    }

    static func connect(_ path: String) -> Int32 { parallax_unix_connect(path, 1) }

    /// Shut down before it is closed: a process that another test is just starting has the
    /// descriptor as well until it begins, and the device would not notice before.
    func hangUp() {
        guard socket >= 0 else { return }
        shutdown(socket, Int32(SHUT_RDWR))
        close(socket)
        socket = -1
    }

    /// Goes on with another device, as after a restart of the daemon; the memory stays.
    func reconnect(to next: VhostRig, path: String) {
        hangUp()
        rig.settle()
        rig = next
        socket = Self.connect(path)
        rig.settle()
    }

    // MARK: Messages

    struct Answer: Equatable {
        var request: UInt32
        var flags: UInt32
        var payload: [UInt8]

        var number: UInt64 { payload.load(at: 0) }
    }

    func sendBytes(_ bytes: [UInt8], files: [Int32] = []) {
        _ = parallax_send_with_fds(socket, bytes, bytes.count, files, files.count)
        rig.settle()
    }

    func send(
        _ request: FrontendRequest, _ payload: [UInt8] = [], files: [Int32] = [],
        needsReply: Bool = false
    ) {
        let flags: UInt32 = needsReply ? 9 : 1
        sendBytes(
            request.rawValue.bytes + flags.bytes + UInt32(payload.count).bytes + payload,
            files: files)
    }

    func receive() -> Answer? {
        var bytes = [UInt8](repeating: 0, count: 12)
        guard parallax_receive(socket, &bytes, 12) == 12 else { return nil }
        var payload = [UInt8](repeating: 0, count: Int(bytes.load(at: 8, as: UInt32.self)))
        if !payload.isEmpty {
            guard parallax_receive(socket, &payload, payload.count) == payload.count else {
                return nil
            }
        }
        return Answer(request: bytes.load(at: 0), flags: bytes.load(at: 4), payload: payload)
    }

    func ask(
        _ request: FrontendRequest, _ payload: [UInt8] = [], files: [Int32] = []
    ) -> Answer? {
        send(request, payload, files: files)
        return receive()
    }

    /// A reply with the file descriptor that came with it, which is the caller's.
    func receiveWithFile() -> (payload: [UInt8], file: Int32)? {
        var bytes = [UInt8](repeating: 0, count: 300)
        var files = [Int32](repeating: -1, count: 2)
        var fileCount = 0
        var isTruncated: Int32 = 0
        let count = parallax_receive_with_fds(
            socket, &bytes, bytes.count, &files, files.count, &fileCount, &isTruncated)
        guard count >= 12, fileCount == 1 else { return nil }
        return (Array(bytes[12..<count]), files[0])
    }

    /// The acknowledgement of a message with need_reply; nil when none came.
    func acknowledge(
        _ request: FrontendRequest, _ payload: [UInt8] = [], files: [Int32] = []
    ) -> UInt64? {
        send(request, payload, files: files, needsReply: true)
        return receive()?.number
    }

    /// The device has closed the connection.
    var isDisconnected: Bool {
        var byte: UInt8 = 0
        let count = parallax_receive(socket, &byte, 1)
        return count == 0 || count == -Int(ECONNRESET)
    }

    /// Whether the device has hung up, which may show a moment later: a process that another test
    /// is just starting has the device's end as well until it begins.
    var becomesDisconnected: Bool {
        var descriptor = pollfd(fd: socket, events: Int16(POLLIN), revents: 0)
        poll(&descriptor, 1, 60_000)
        return isDisconnected
    }

    // MARK: Memory

    func region(
        at offset: Int = 0, byteCount: Int = memoryBytes, guest: UInt64? = nil
    ) -> MemoryRegion {
        MemoryRegion(
            guestAddress: guest ?? Self.guestBase + UInt64(offset), byteCount: UInt64(byteCount),
            userAddress: Self.userBase + UInt64(offset), fileOffset: UInt64(offset))
    }

    /// Zeroed guest memory; returns its guest address.
    func allocate(_ byteCount: Int, alignment: Int = 16) -> UInt64 {
        allocated = (allocated + alignment - 1) / alignment * alignment
        defer { allocated += byteCount }
        precondition(allocated + byteCount <= Self.memoryBytes, "out of guest memory")
        memset(memory + allocated, 0, byteCount)
        return Self.guestBase + UInt64(allocated)
    }

    func freeAll() { allocated = 2 << 20 }

    /// Time for `freeAll`.
    var isCrowded: Bool { allocated > Self.memoryBytes - (1 << 20) }

    func pointer(_ guestAddress: UInt64) -> UnsafeMutableRawPointer {
        memory + Int(guestAddress - Self.guestBase)
    }

    func bytes(at guestAddress: UInt64, count: Int) -> [UInt8] {
        [UInt8](UnsafeRawBufferPointer(start: pointer(guestAddress), count: count))
    }

    func store(_ bytes: [UInt8], at guestAddress: UInt64) {
        pointer(guestAddress).copyMemory(from: bytes, byteCount: bytes.count)
    }

    // MARK: Set-up

    static let usualFeatures: VirtioFeatures = [
        .version1, .flush, .indirectDescriptors, .eventIndex, .protocolFeatures, .configWriteback,
        .discard, .writeZeroes, .multiQueue,
    ]

    /// Everything up to the queues, in the order of QEMU.
    func negotiate(
        features: VirtioFeatures = usualFeatures,
        regions: [MemoryRegion]? = nil, readsConfig: Bool = true
    ) {
        let offered = VirtioFeatures(rawValue: ask(.getFeatures)?.number ?? 0)
        _ = ask(.getProtocolFeatures)
        send(.setProtocolFeatures, ProtocolFeatures.offered.rawValue.bytes)
        _ = ask(.getQueueCount)
        _ = ask(.getMemorySlots)
        send(.setOwner)
        if readsConfig { readConfig() }
        send(.setFeatures, features.intersection(offered).rawValue.bytes)
        for region in regions ?? [region()] { _ = add(region) }
    }

    private func readConfig() {
        _ = ask(.getConfig, UInt32(0).bytes + UInt32(60).bytes + UInt32(0).bytes)
    }

    func add(_ region: MemoryRegion) -> UInt64? {
        acknowledge(.addMemoryRegion, UInt64(0).bytes + region.bytes, files: [memoryFile])
    }

    func remove(_ region: MemoryRegion) -> UInt64? {
        acknowledge(.removeMemoryRegion, UInt64(0).bytes + region.bytes)
    }

    func queueNumber(_ queue: Int, _ number: Int) -> [UInt8] {
        UInt32(queue).bytes + UInt32(number).bytes
    }
}

extension FixedWidthInteger {
    var bytes: [UInt8] { withUnsafeBytes(of: littleEndian) { [UInt8]($0) } }
}

extension [UInt8] {
    func load<Value: FixedWidthInteger>(at offset: Int, as type: Value.Type = Value.self) -> Value {
        guard count >= offset + MemoryLayout<Value>.size else { return 0 }
        return withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: type) }
    }
}

extension MemoryRegion {
    var bytes: [UInt8] {
        guestAddress.bytes + byteCount.bytes + userAddress.bytes + fileOffset.bytes
    }
}
