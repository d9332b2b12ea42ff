// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxControl
import Testing

@testable import ParallaxBlockd

/// Requests, and whether somebody waits for them.
@Suite struct AnswerSlotTests {
    private let unawaited = UnawaitedRequests()
    private let answer = HTTPMessage(startLine: .response(status: 200))

    /// A request, and its client's end of the socket that `body` may close.
    private func withRequest(_ body: (AnswerSlot, _ client: Int32) -> Void) throws {
        var ends: [Int32] = [-1, -1]
        try #require(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
        defer { close(ends[0]) }
        body(AnswerSlot(socket: ends[0], unawaited: unawaited), ends[1])
    }

    @Test("a change may begin while the client is there, also one that sends no more")
    func present() throws {
        try withRequest { slot, client in
            shutdown(client, Int32(SHUT_WR))
            #expect(slot.mayChange())
            close(client)
        }
    }

    @Test("a client that hung up is noticed at the moment in which the change would begin")
    func gone() throws {
        try withRequest { slot, client in
            close(client)
            #expect(!slot.mayChange())
        }
    }

    @Test("the later steps of a change are taken without its client")
    func begun() throws {
        try withRequest { slot, client in
            #expect(slot.mayChange())
            close(client)
            #expect(slot.mayChange())
            slot.abandon()
            #expect(slot.mayChange())
        }
    }

    @Test("nothing is begun after an answer, when the socket may be another's")
    func answered() throws {
        try withRequest { slot, client in
            slot.fill(answer)
            #expect(!slot.mayChange())
            close(client)
        }
    }

    @Test("a request counts from when it is abandoned to its end, whichever comes first")
    func count() throws {
        try withRequest { slot, client in
            slot.abandon()
            #expect(unawaited.count == 1)
            #expect(!slot.mayChange())
            slot.end(with: answer)
            #expect(unawaited.count == 0)
            close(client)
        }
        try withRequest { slot, client in
            slot.end(with: answer)
            slot.abandon()
            #expect(unawaited.count == 0)
            close(client)
        }
    }
}
