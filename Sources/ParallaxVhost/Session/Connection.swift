// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux
internal import Glibc

/// One front end's socket, and the message that is being received from it.
///
/// A message may arrive in any number of pieces. Its file descriptors come with its bytes; what
/// the message's handling does not take is closed with the next message, or at the end.
///
/// SAFETY: `buffer` holds a header and the longest payload; `receivedBytes` never exceeds that.
struct Connection: ~Copyable {
    /// Why no message can be had any more.
    enum End: Error, BitwiseCopyable, Equatable {
        case closedByPeer(duringMessage: Bool)
        case fault(MessageFault)
        /// So many of the files that came are of a kind that nobody can use without waiting.
        case strangeFiles(Int)
    }

    let socket: OwnedFileDescriptor
    var protocolFeatures: ProtocolFeatures = []
    /// Where we send requests of our own.
    var backendRequests: OwnedFileDescriptor?
    /// The guest's configuration was read before a queue started, as a new front end does. One
    /// that connects again does not.
    var hasReadConfig = false
    /// Goes with the next reply.
    private var replyFile: OwnedFileDescriptor?

    /// The number of the request whose header came last, for the log.
    private(set) var request: UInt32 = 0

    private let buffer: UnsafeMutableRawPointer
    private var receivedBytes = 0
    private var files: InlineArray<8, Int32> = InlineArray(repeating: -1)
    private var fileCount = 0

    init(adopting number: Int32) {
        socket = OwnedFileDescriptor(adopting: number)
        buffer = .allocate(
            byteCount: MessageHeader.byteCount + VhostLimits.payloadBytesMax, alignment: 8)
    }

    deinit {
        for index in 0..<fileCount { _ = close(files[index]) }
        buffer.deallocate()
    }

    /// Whether the other end has hung up; what it had sent before that may still be there.
    var hasPeerGone: Bool {
        var descriptor = pollfd(fd: socket.number, events: 0, revents: 0)
        return poll(&descriptor, 1, 0) > 0
    }

    /// Nothing is received any more. The number of strange files in what had not been received.
    func hangUp() -> Int { Int(parallax_socket_empty(socket.number, Int32(SHUT_RDWR))) }

    /// The next complete message; nil: nothing more has arrived yet.
    mutating func receive() throws(End) -> (header: MessageHeader, message: FrontendMessage)? {
        guard try fill(to: MessageHeader.byteCount) else { return nil }
        request = bytes(0, MessageHeader.byteCount).bytes.load(at: 0)
        let header: MessageHeader
        do throws(MessageFault) {
            header = try MessageHeader(decoding: bytes(0, MessageHeader.byteCount).bytes)
        } catch { throw .fault(error) }
        let payloadCount = Int(header.payloadByteCount)
        guard try fill(to: MessageHeader.byteCount + payloadCount) else { return nil }
        receivedBytes = 0
        do throws(MessageFault) {
            let message = try FrontendMessage(
                decoding: header, payload: bytes(MessageHeader.byteCount, payloadCount).bytes,
                fileDescriptorCount: fileCount)
            return (header, message)
        } catch { throw .fault(error) }
    }

    private func bytes(_ offset: Int, _ count: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: buffer + offset, count: count)
    }

    /// Reads up to `total` bytes of the message and never further, so that file descriptors stay
    /// with the message that they came with. False: the rest has not arrived.
    private mutating func fill(to total: Int) throws(End) -> Bool {
        while receivedBytes < total {
            var arrived: InlineArray<8, Int32> = InlineArray(repeating: -1)
            var arrivedCount = 0
            var isTruncated: Int32 = 0
            let room = total - receivedBytes
            let target = buffer + receivedBytes
            var span = arrived.mutableSpan
            let count = span.withUnsafeMutableBufferPointer { fds in
                parallax_receive_with_fds(
                    socket.number, target, room, fds.baseAddress, fds.count, &arrivedCount,
                    &isTruncated)
            }
            try keep(arrived, arrivedCount)
            guard isTruncated == 0 else { throw .fault(.tooManyFileDescriptors) }
            if count == -Int(EAGAIN) { return false }
            guard count > 0 else { throw .closedByPeer(duringMessage: receivedBytes > 0) }
            receivedBytes += count
        }
        return true
    }

    /// Keeps the files that came, or closes those that nobody can use or that are too many.
    private mutating func keep(_ arrived: InlineArray<8, Int32>, _ count: Int) throws(End) {
        var strangeCount = 0
        var isTooMany = false
        for index in 0..<count {
            let kind = parallax_peer_file_kind(arrived[index])
            let isStrange = kind == PARALLAX_PEER_FILE_STRANGE
            if isStrange { strangeCount += 1 }
            // What is queued there would be closed with it, whatever it is.
            if kind == PARALLAX_PEER_FILE_SOCKET {
                strangeCount += Int(parallax_socket_empty(arrived[index], Int32(SHUT_RD)))
            }
            guard !isStrange, fileCount < files.count else {
                isTooMany = isTooMany || !isStrange
                _ = parallax_peer_file_close(arrived[index])
                continue
            }
            files[fileCount] = arrived[index]
            fileCount += 1
        }
        guard strangeCount == 0 else { throw .strangeFiles(strangeCount) }
        guard !isTooMany else { throw .fault(.tooManyFileDescriptors) }
    }

    /// The message's first file descriptor; the caller owns it.
    mutating func takeFile() -> OwnedFileDescriptor? {
        guard fileCount > 0 else { return nil }
        let first = files[0]
        for index in 1..<fileCount { files[index - 1] = files[index] }
        fileCount -= 1
        return OwnedFileDescriptor(adopting: first)
    }

    /// The message is done with: closes what nobody took.
    mutating func closeFiles() {
        for index in 0..<fileCount { _ = close(files[index]) }
        fileCount = 0
    }

    mutating func attach(_ file: consuming OwnedFileDescriptor) { replyFile = consume file }

    /// False: the front end does not read its replies, or has gone.
    mutating func send(_ reply: Reply) -> Bool {
        let isSent = Self.send(reply, on: socket.number, with: replyFile?.number)
        replyFile = nil
        return isSent
    }

    /// Asks the front end to read the configuration again. Lost when its socket is full, which
    /// means that earlier requests to do the same are still waiting there.
    mutating func sendConfigChanged() {
        guard let number = backendRequests?.number else { return }
        _ = Self.send(.configChanged, on: number)
    }

    private static func send(_ reply: Reply, on number: Int32, with file: Int32? = nil) -> Bool {
        let flags = Int32(MSG_DONTWAIT | MSG_NOSIGNAL)
        return reply.withBytes { span in
            span.withUnsafeBytes { bytes in
                guard var file else {
                    return Glibc.send(number, bytes.baseAddress, bytes.count, flags) == bytes.count
                }
                return parallax_send_with_fds(number, bytes.baseAddress, bytes.count, &file, 1)
                    == bytes.count
            }
        }
    }
}
