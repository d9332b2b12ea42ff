// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux
internal import Glibc

/// The socket to a vhost-user back end, and the framing on it. Raw enough for hostile tests:
/// `sendRaw` sends any bytes with any file descriptors.
///
/// Owned by one thread. Every receive ends at `timeoutMilliseconds`: a device that does not answer
/// is an error here, never a hang.
package struct VhostUserConnection: ~Copyable {
    /// Replies longer than this are a violation (the longest that we ask for is a config of 256).
    static let payloadBytesMax = 4096

    package let fileDescriptor: Int32
    package let path: String
    package let timeoutMilliseconds: Int
    /// Set after REPLY_ACK is negotiated: `command` then asks for, and checks, an answer.
    package var wantsAcknowledgements = false

    package init(path: String, timeoutMilliseconds: Int = 10_000) throws(GuestError) {
        let fd = parallax_unix_connect(path, 0)
        guard fd >= 0 else {
            throw GuestError(.connect, "cannot connect to \(path): \(errorText(fd))")
        }
        self.init(
            adopting: fd, path: path, timeoutMilliseconds: timeoutMilliseconds)
    }

    /// Takes over a connected stream socket (of a socket pair, say).
    package init(
        adopting fileDescriptor: Int32, path: String = "(socket)",
        timeoutMilliseconds: Int = 10_000
    ) {
        self.fileDescriptor = fileDescriptor
        self.path = path
        self.timeoutMilliseconds = timeoutMilliseconds
        var limit = timeval(
            tv_sec: timeoutMilliseconds / 1000,
            tv_usec: suseconds_t(timeoutMilliseconds % 1000) * 1000)
        for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
            setsockopt(
                fileDescriptor, SOL_SOCKET, option, &limit,
                socklen_t(MemoryLayout<timeval>.size))
        }
    }

    /// Shut down before it is closed: a process that is just being started has the descriptor as
    /// well until it begins, and the device would not notice before.
    deinit {
        shutdown(fileDescriptor, Int32(SHUT_RDWR))
        close(fileDescriptor)
    }

    /// The process at the other end (SO_PEERCRED), or nil when the kernel cannot say.
    package var peerProcess: Int32? {
        var pid: Int32 = 0
        var user: UInt32 = 0
        var group: UInt32 = 0
        let result = parallax_peer_credentials(fileDescriptor, &pid, &user, &group)
        return result == 0 && pid > 0 ? pid : nil
    }

    // MARK: Raw

    /// Sends exactly these bytes; the file descriptors go with the first one.
    package func sendRaw(
        _ bytes: [UInt8], fileDescriptors: [Int32] = []
    ) throws(GuestError) {
        var sent = 0
        while sent < bytes.count {
            let isFirst = sent == 0
            let result = bytes.withUnsafeBytes { buffer in
                parallax_send_with_fds(
                    fileDescriptor, buffer.baseAddress.map { $0 + sent }, buffer.count - sent,
                    fileDescriptors, isFirst ? fileDescriptors.count : 0)
            }
            if result == -Int(EINTR) { continue }
            guard result > 0 else { throw failure(Int32(result), "send to") }
            sent += result
        }
    }

    /// Waits for the device to close the connection, discarding what it still sends. Returns
    /// false when it has not within the time limit.
    package func waitForClose() -> Bool {
        var bytes = [UInt8](repeating: 0, count: 256)
        while true {
            let result = parallax_receive(fileDescriptor, &bytes, bytes.count)
            if result == -Int(EINTR) { continue }
            if result == -Int(EAGAIN) { return false }
            if result <= 0 { return true }
        }
    }

    /// One whole message from the device, whatever it is.
    package func receive() throws(GuestError) -> VhostUserReply {
        var fds: [Int32] = []
        do throws(GuestError) {
            let bytes = try receiveExactly(VhostUserHeader.byteCount, fileDescriptors: &fds)
            let header = VhostUserHeader(decoding: bytes)
            guard header.payloadByteCount <= Self.payloadBytesMax else {
                throw GuestError(
                    .violation,
                    "the device at \(path) sent a message of \(header.payloadByteCount) bytes")
            }
            let payload = try receiveExactly(
                Int(header.payloadByteCount), fileDescriptors: &fds)
            return VhostUserReply(header: header, payload: payload, fileDescriptors: fds)
        } catch {
            for fd in fds { close(fd) }
            throw error
        }
    }

    private func receiveExactly(
        _ count: Int, fileDescriptors: inout [Int32]
    ) throws(GuestError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        var received = 0
        while received < count {
            var fds = [Int32](repeating: -1, count: Int(PARALLAX_FDS_PER_MESSAGE))
            var fdCount = 0
            var isTruncated: Int32 = 0
            let result = bytes.withUnsafeMutableBytes { buffer in
                parallax_receive_with_fds(
                    fileDescriptor, buffer.baseAddress.map { $0 + received }, count - received,
                    &fds, fds.count, &fdCount, &isTruncated)
            }
            fileDescriptors += fds.prefix(fdCount)
            if result == -Int(EINTR) { continue }
            guard result > 0 else { throw failure(Int32(result), "receive from") }
            received += result
        }
        return bytes
    }

    private func failure(_ result: Int32, _ verb: String) -> GuestError {
        switch -result {
        case 0, EPIPE, ECONNRESET:
            GuestError(.deviceGone, "the device at \(path) closed the connection")
        case EAGAIN:
            GuestError(
                .timeout,
                "the device at \(path) did not answer within \(timeoutMilliseconds) ms")
        default:
            GuestError(.system, "cannot \(verb) the device at \(path): \(errorText(result))")
        }
    }
}
