// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxCore
import ParallaxVhost
import Testing

@Suite("vhost-user codec")
struct VhostCodecTests {
    private func decode(
        _ request: UInt32, _ payload: [UInt8], files: Int = 0
    ) throws(MessageFault) -> FrontendMessage {
        let header = MessageHeader(
            request: request, flags: 1, payloadByteCount: UInt32(payload.count))
        return try FrontendMessage(
            decoding: header, payload: payload.span.bytes, fileDescriptorCount: files)
    }

    private func fault(_ request: FrontendRequest, _ payload: [UInt8], files: Int = 0)
        -> MessageFault?
    {
        do throws(MessageFault) {
            _ = try decode(request.rawValue, payload, files: files)
            return nil
        } catch { return error }
    }

    @Test("a header has its fields at 0, 4 and 8")
    func headerLayout() throws {
        let bytes = UInt32(12).bytes + UInt32(9).bytes + UInt32(8).bytes
        let header = try MessageHeader(decoding: bytes.span.bytes)
        #expect(header == MessageHeader(request: 12, flags: 9, payloadByteCount: 8))
        #expect(header.needsReply)
        #expect(MessageHeader.byteCount == 12)
    }

    @Test(
        "a header of another version, of a reply or with a huge payload is refused",
        arguments: [
            (0, 8, MessageFault.wrongVersion), (2, 8, .wrongVersion), (3, 8, .wrongVersion),
            (5, 8, .unexpectedReply), (1, 4097, .payloadTooLong), (1, UInt32.max, .payloadTooLong),
        ] as [(UInt32, UInt32, MessageFault)])
    func headerFaults(flags: UInt32, size: UInt32, expected: MessageFault) {
        let bytes = UInt32(1).bytes + flags.bytes + size.bytes
        #expect(throws: expected) { try MessageHeader(decoding: bytes.span.bytes) }
    }

    /// The right payload and number of file descriptors of each request.
    static let legal: [(FrontendRequest, Int, Int)] = [
        (.getFeatures, 0, 0), (.setFeatures, 8, 0), (.setOwner, 0, 0), (.resetOwner, 0, 0),
        (.setQueueSize, 8, 0), (.setQueueAddresses, 40, 0), (.setQueueBase, 8, 0),
        (.getQueueBase, 8, 0), (.setQueueKick, 8, 1), (.setQueueCall, 8, 1),
        (.setQueueError, 8, 1), (.getProtocolFeatures, 0, 0), (.setProtocolFeatures, 8, 0),
        (.getQueueCount, 0, 0), (.setQueueEnable, 8, 0), (.setBackendRequestSocket, 0, 1),
        (.getMemorySlots, 0, 0), (.addMemoryRegion, 40, 1), (.removeMemoryRegion, 40, 0),
    ]

    @Test("each request takes exactly its size and its file descriptors", arguments: legal)
    func sizes(request: FrontendRequest, size: Int, files: Int) {
        let payload = [UInt8](repeating: 0, count: size)
        #expect(fault(request, payload, files: files) == nil)
        #expect(fault(request, payload + [0], files: files) == .wrongPayloadSize)
        if size > 0 {
            #expect(fault(request, Array(payload.dropLast()), files: files) == .wrongPayloadSize)
            #expect(fault(request, [], files: files) == .wrongPayloadSize)
        }
        #expect(fault(request, payload, files: files + 2) == .wrongFileDescriptorCount)
        if files == 1 {
            #expect(fault(request, payload, files: 0) == .wrongFileDescriptorCount)
        }
    }

    @Test(
        "a queue that does not exist is refused in every request that names one",
        arguments: legal.filter { $0.0.namesQueue })
    func queueOutOfRange(request: FrontendRequest, size: Int, files: Int) {
        let payload = UInt32(16).bytes + [UInt8](repeating: 0, count: size - 4)
        #expect(fault(request, payload, files: files) == .queueOutOfRange)
    }

    @Test("the flag for no file descriptor and one together are refused")
    func noFileFlag() {
        #expect(fault(.setQueueCall, UInt64(0x100).bytes) == nil)
        #expect(fault(.setQueueCall, UInt64(0x100).bytes, files: 1) == .wrongFileDescriptorCount)
    }

    @Test("a memory table has as many file descriptors as regions, at most 8")
    func memoryTable() throws {
        let region = MemoryRegion(
            guestAddress: 1, byteCount: 2, userAddress: 3, fileOffset: 4)
        let payload = UInt32(2).bytes + UInt32(0).bytes + region.bytes + region.bytes
        guard case .setMemoryTable(let table) = try decode(5, payload, files: 2) else {
            Issue.record("not a memory table")
            return
        }
        #expect(table.count == 2)
        #expect(table[1] == region)
        #expect(fault(.setMemoryTable, payload, files: 1) == .wrongFileDescriptorCount)
        #expect(fault(.setMemoryTable, Array(payload.dropLast())) == .wrongPayloadSize)
        #expect(fault(.setMemoryTable, UInt32(9).bytes + UInt32(0).bytes) == .memoryRejected)
        #expect(fault(.setMemoryTable, UInt32.max.bytes + UInt32(0).bytes) == .memoryRejected)
        #expect(fault(.setMemoryTable, []) == .wrongPayloadSize)
        // Eight slots, whatever the count.
        let padded = UInt32(0).bytes + [UInt8](repeating: 0, count: 4 + 8 * 32)
        #expect(fault(.setMemoryTable, padded) == nil)
        #expect(fault(.setMemoryTable, padded + [0]) == .wrongPayloadSize)
    }

    @Test("configuration accesses are bounded, and a write brings its bytes")
    func config() {
        let ask = UInt32(0).bytes + UInt32(4).bytes + UInt32(0).bytes
        #expect(fault(.getConfig, ask) == nil)
        #expect(fault(.getConfig, ask + [1, 2, 3, 4]) == nil)
        #expect(fault(.getConfig, ask + [1, 2, 3]) == .wrongPayloadSize)
        #expect(fault(.setConfig, ask) == .wrongPayloadSize)
        #expect(fault(.setConfig, ask + [1, 2, 3, 4]) == nil)
        for size in [0, 257, UInt32.max] {
            let bad = UInt32(0).bytes + size.bytes + UInt32(0).bytes
            #expect(fault(.getConfig, bad) == .configAccess)
        }
        #expect(fault(.getConfig, [0, 0, 0, 0]) == .wrongPayloadSize)
    }

    @Test("what we do not know is a message of its own, with any size and descriptors")
    func unsupported() throws {
        for request: UInt32 in [0, 6, 19, 20, 22, 23, 26, 27, 28, 33, 34, 35, 39, 40, 99] {
            guard case .unsupported(request) = try decode(request, [1, 2, 3], files: 5) else {
                Issue.record("request \(request) is not unsupported")
                continue
            }
        }
    }

    @Test("a reply is the request's number, version 1 with the reply bit, and its payload")
    func replies() {
        let reply = Reply(to: 17, number: 16)
        #expect(
            reply.bytes == UInt32(17).bytes + UInt32(5).bytes + UInt32(8).bytes + UInt64(16).bytes)
        let base = Reply(to: 11, queue: 3, number: 77)
        #expect(base.bytes.suffix(12) == UInt32(8).bytes + UInt32(3).bytes + UInt32(77).bytes)
        #expect(Reply(failing: 24).bytes == UInt32(24).bytes + UInt32(5).bytes + UInt32(0).bytes)
        #expect(Reply.configChanged.bytes == UInt32(2).bytes + UInt32(1).bytes + UInt32(0).bytes)
    }

    @Test("every engine status has its virtio status")
    func statuses() {
        let expected: [(BlockStatus, VirtioBlockStatus)] = [
            (.ok, .ok), (.ioError, .ioError), (.corrupt, .ioError), (.noSpace, .ioError),
            (.outOfRange, .ioError), (.readOnly, .ioError), (.invalid, .ioError),
            (.shuttingDown, .ioError),
        ]
        for (status, result) in expected { #expect(VirtioBlockStatus(status) == result) }
        #expect(VirtioBlockStatus.ok.rawValue == 0)
        #expect(VirtioBlockStatus.ioError.rawValue == 1)
        #expect(VirtioBlockStatus.unsupported.rawValue == 2)
        // A new status must be added above.
        #expect(BlockStatus(rawValue: UInt8(expected.count)) == nil)
    }
}

extension FrontendRequest {
    var namesQueue: Bool {
        switch self {
        case .setQueueSize, .setQueueAddresses, .setQueueBase, .getQueueBase, .setQueueKick,
            .setQueueCall, .setQueueError, .setQueueEnable:
            true
        default: false
        }
    }
}

extension Reply {
    var bytes: [UInt8] { withBytes { span in span.withUnsafeBytes { [UInt8]($0) } } }
}
