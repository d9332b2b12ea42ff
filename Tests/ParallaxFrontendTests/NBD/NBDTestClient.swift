// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Glibc
import ParallaxNBD

/// The peer's end of a connection, byte by byte. Its socket is nonblocking; before it reads, the
/// server gets its turns.
final class NBDTestClient {
    let socketFD: Int32
    var usesStructuredReplies = true
    weak var server: NBDTestServer?
    /// When the server takes nothing, throw away what it says: a peer that only ever sends is
    /// rightly stopped.
    var readsWhileSending = false
    private var isOpen = true

    init(socketFD: Int32) { self.socketFD = socketFD }

    deinit { hangUp() }

    static func pair() throws -> (Int32, NBDTestClient) {
        var descriptors: [Int32] = [-1, -1]
        guard parallax_socket_pair(&descriptors, 1) == 0 else { throw POSIXFailure(code: errno) }
        return (descriptors[0], NBDTestClient(socketFD: descriptors[1]))
    }

    static func connect(_ path: String, server: NBDTestServer) throws -> NBDTestClient {
        let descriptor = parallax_unix_connect(path, 1)
        guard descriptor >= 0 else { throw POSIXFailure(code: -descriptor) }
        let client = NBDTestClient(socketFD: descriptor)
        client.server = server
        return client
    }

    /// Shut down before it is closed: a process that another test is just starting has the
    /// descriptor as well until it begins, and the server would not notice before.
    func hangUp() {
        if isOpen {
            shutdown(socketFD, Int32(SHUT_RDWR))
            close(socketFD)
        }
        isOpen = false
    }

    /// Sends everything; the server gets turns while its socket is full. False: it hung up.
    @discardableResult
    func send(_ bytes: [UInt8]) -> Bool {
        var sent = 0
        var stalls = 0
        while sent < bytes.count {
            let count = bytes.withUnsafeBytes { buffer in
                parallax_send(socketFD, buffer.baseAddress.map { $0 + sent }, buffer.count - sent)
            }
            if count == -Int(EAGAIN) {
                stalls += 1
                precondition(stalls < 100_000, "the server takes nothing any more")
                server?.turn()
                if readsWhileSending { _ = receive(10_000) }
                continue
            }
            guard count > 0 else { return false }
            stalls = 0
            sent += count
        }
        return true
    }

    /// `count` bytes, or as many as there were when the server hung up or had nothing to do.
    func receive(_ count: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        var received = 0
        var idle = 0
        while received < count, idle < 3 {
            let got = bytes.withUnsafeMutableBytes { buffer in
                parallax_receive(
                    socketFD, buffer.baseAddress.map { $0 + received }, count - received)
            }
            if got == -Int(EAGAIN) {
                idle = server?.turn() == true ? 0 : idle + 1
                continue
            }
            guard got > 0 else { break }
            received += got
        }
        bytes.removeLast(count - received)
        return bytes
    }

    /// The server has closed its end and nothing is left to read.
    var isHungUpOn: Bool {
        server?.settle()
        var byte: UInt8 = 0
        let count = parallax_receive(socketFD, &byte, 1)
        return count == 0 || count == -Int(ECONNRESET)
    }

    // MARK: Transmission

    static func encode(_ request: NBDRequest, magic: UInt32 = NBDMagic.request) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.appendBigEndian(magic)
        bytes.appendBigEndian(request.flags.rawValue)
        bytes.appendBigEndian(request.type)
        bytes.appendBigEndian(request.cookie)
        bytes.appendBigEndian(request.offset)
        bytes.appendBigEndian(request.length)
        return bytes
    }

    @discardableResult
    func ask(
        _ command: NBDCommand, flags: NBDCommandFlags = [], cookie: UInt64 = 1,
        offset: UInt64 = 0, length: UInt32 = 0, data: [UInt8] = []
    ) -> Bool {
        let request = NBDRequest(
            type: command.rawValue, flags: flags, cookie: cookie, offset: offset, length: length)
        return send(Self.encode(request) + data)
    }

    /// One whole reply: all its chunks. `dataBytes`: what a simple reply without error carries.
    func reply(dataBytes: Int = 0, from start: UInt64 = 0) -> NBDTestReply? {
        var result = NBDTestReply(data: [UInt8](repeating: 0xee, count: dataBytes))
        while true {
            var header = ByteReader(receive(16))
            guard let magic = header.integer(UInt32.self) else { return nil }
            if magic == NBDMagic.simpleReply {
                result.error = header.integer(UInt32.self) ?? 0
                result.cookie = header.integer(UInt64.self) ?? 0
                result.isSimple = true
                guard result.error == 0 else { return result }
                result.data = receive(dataBytes)
                return result.data.count == dataBytes ? result : nil
            }
            guard magic == NBDMagic.structuredReply, let flags = header.integer(UInt16.self),
                let type = header.integer(UInt16.self)
            else { return nil }
            result.cookie = header.integer(UInt64.self) ?? 0
            var length = ByteReader(receive(4))
            let payload = receive(Int(length.integer(UInt32.self) ?? 0))
            guard result.take(type, payload, start: start) else { return nil }
            if flags & 1 != 0 { return result }
        }
    }
}

struct POSIXFailure: Error { let code: Int32 }

/// A reply as the client sees it.
struct NBDTestReply: Equatable {
    var error: UInt32 = 0
    var cookie: UInt64 = 0
    var data: [UInt8] = []
    var isSimple = false
    var chunkCount = 0
    var dataChunkCount = 0
    var message = ""
    /// Length and flags of each descriptor.
    var descriptors: [[UInt32]] = []

    fileprivate mutating func take(_ type: UInt16, _ payload: [UInt8], start: UInt64) -> Bool {
        var reader = ByteReader(payload)
        chunkCount += 1
        switch NBDChunk(rawValue: type) {
        case .none?: return payload.isEmpty
        case .offsetData:
            guard let offset = reader.integer(UInt64.self), offset >= start else { return false }
            let first = Int(offset - start)
            let last = first + payload.count - 8
            guard last <= data.count, last > first else { return false }
            payload.withUnsafeBytes { source in
                data.withUnsafeMutableBytes { target in
                    UnsafeMutableRawBufferPointer(rebasing: target[first..<last])
                        .copyMemory(from: UnsafeRawBufferPointer(rebasing: source[8...]))
                }
            }
            dataChunkCount += 1
            return true
        case .error:
            error = reader.integer(UInt32.self) ?? 0
            guard let count = reader.integer(UInt16.self), payload.count == 6 + Int(count) else {
                return false
            }
            message = String(decoding: payload[6...], as: UTF8.self)
            return true
        case .blockStatus:
            guard reader.integer(UInt32.self) == NBDNegotiation.allocationContextID else {
                return false
            }
            while let length = reader.integer(UInt32.self), let flags = reader.integer(UInt32.self)
            {
                descriptors.append([length, flags])
            }
            return !descriptors.isEmpty && reader.isAtEnd
        case nil: return false
        }
    }
}
