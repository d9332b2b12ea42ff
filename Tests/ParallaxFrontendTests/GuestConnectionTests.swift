// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Glibc
import ParallaxGuest
import Testing

@Suite struct GuestConnectionTests {
    /// A connection whose other end the test holds.
    private struct Pair: ~Copyable {
        var connection: VhostUserConnection
        let device: Int32

        init(timeoutMilliseconds: Int = 2000) throws {
            var fds: [Int32] = [-1, -1]
            let result = parallax_socket_pair(&fds, 0)
            try #require(result == 0)
            connection = VhostUserConnection(
                adopting: fds[0], timeoutMilliseconds: timeoutMilliseconds)
            device = fds[1]
        }

        deinit { close(device) }
    }

    private func send(_ bytes: [UInt8], to device: Int32) {
        #expect(parallax_send(device, bytes, bytes.count) == bytes.count)
    }

    private func reply(_ request: UInt32, _ payload: [UInt8], flags: UInt32 = 5) -> [UInt8] {
        VhostUserHeader(
            request: VhostUserRequest(rawValue: request), flags: flags,
            payloadByteCount: UInt32(payload.count)
        ).encoded + payload
    }

    private func failure(_ answer: [UInt8], closing: Bool = false) throws -> GuestError.Kind? {
        let pair = try Pair(timeoutMilliseconds: 50)
        send(answer, to: pair.device)
        if closing { shutdown(pair.device, Int32(SHUT_WR)) }
        do throws(GuestError) {
            _ = try pair.connection.askNumber(.getFeatures)
            return nil
        } catch {
            return error.kind
        }
    }

    @Test("a well-formed answer is taken")
    func answer() throws {
        #expect(try failure(reply(1, [1, 2, 3, 4, 5, 6, 7, 8])) == nil)
    }

    @Test("an answer to another question, no reply, or another version is a violation")
    func wrongAnswers() throws {
        let number: [UInt8] = [0, 0, 0, 0, 0, 0, 0, 0]
        #expect(try failure(reply(2, number)) == .violation)
        #expect(try failure(reply(1, number, flags: 1)) == .violation)
        #expect(try failure(reply(1, number, flags: 6)) == .violation)
        #expect(try failure(reply(1, [0, 0, 0, 0])) == .violation)
        let huge = VhostUserHeader(
            request: .getFeatures, flags: 5, payloadByteCount: .max)
        #expect(try failure(huge.encoded) == .violation)
    }

    @Test("silence is a timeout, also in the middle of a message")
    func silence() throws {
        #expect(try failure([]) == .timeout)
        #expect(try failure(Array(reply(1, [1, 2, 3, 4, 5, 6, 7, 8]).dropLast())) == .timeout)
    }

    @Test("a closed connection is told from silence")
    func closed() throws {
        #expect(try failure([], closing: true) == .deviceGone)
        #expect(try failure([1, 0, 0], closing: true) == .deviceGone)
    }

    @Test("a refused message is an error once acknowledgements are on")
    func refusal() throws {
        var pair = try Pair()
        let device = pair.device
        pair.connection.wantsAcknowledgements = true
        send(reply(3, [1, 0, 0, 0, 0, 0, 0, 0]), to: device)
        do throws(GuestError) {
            try pair.connection.command(.setOwner)
            Issue.record("the refusal went unnoticed")
        } catch {
            #expect(error.kind == .refused)
        }
        var sent = [UInt8](repeating: 0, count: 12)
        #expect(parallax_receive(device, &sent, 12) == 12)
        #expect(VhostUserHeader(decoding: sent).flags == VhostUserHeader.needReplyFlag | 1)
    }

    @Test("raw bytes go out as they are, with their file descriptors")
    func raw() throws {
        let pair = try Pair()
        let device = pair.device
        try pair.connection.sendRaw([1, 2, 3], fileDescriptors: [device, device])
        var bytes = [UInt8](repeating: 0, count: 8)
        var fds = [Int32](repeating: -1, count: 4)
        var fdCount = 0
        var isTruncated: Int32 = 0
        let count = parallax_receive_with_fds(
            device, &bytes, 8, &fds, 4, &fdCount, &isTruncated)
        #expect(count == 3)
        #expect(fdCount == 2)
        for fd in fds.prefix(fdCount) { close(fd) }
    }

    @Test("no socket, a dead socket and an endless path are errors of one sentence")
    func unreachable() throws {
        func message(_ path: String) -> String? {
            do throws(GuestError) {
                _ = try BlockDriver(connectingTo: path)
                return nil
            } catch {
                return error.kind == .connect ? error.message : nil
            }
        }
        #expect(message("/nonexistent/socket")?.contains("/nonexistent/socket") == true)
        #expect(message("/dev/null") != nil)
        #expect(message("/" + String(repeating: "x", count: 200)) != nil)
    }
}
