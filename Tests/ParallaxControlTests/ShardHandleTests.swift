// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxControl
import ParallaxIO
import Synchronization
import Testing

@testable import ParallaxBlockd

/// What is asked of a shard whose thread hangs, so that nobody drains its mailbox.
@Suite struct ShardHandleTests {
    private final class Counter: Sendable {
        private let number = Mutex(0)

        var value: Int { number.withLock { $0 } }

        func increase() { number.withLock { $0 += 1 } }
    }

    /// Asks `times` times, more than the mailbox holds. Once one was refused `body` is called, and
    /// then the shard wakes up and answers all.
    private func ask(
        _ shard: ShardHandle, times: Int, whenRefused body: () -> Void = {}
    ) async throws {
        let ended = Counter()
        try await withThrowingTaskGroup(of: ControlError?.self) { group in
            for _ in 0..<times {
                group.addTask {
                    let error = await failure { _ = try await shard.status() }
                    ended.increase()
                    return error
                }
            }
            // The others get no answer yet.
            let first = try await group.next()
            let refusal = try #require(first ?? nil)
            #expect(refusal.kind == .notReady)
            #expect(refusal.message.hasPrefix("shard 3 does not answer"), "\(refusal.message)")
            body()
            while ended.value < times {
                for reply in replies(waitingFor: shard) {
                    reply.resume(returning: ShardStatus(index: 3))
                }
                try await Task.sleep(for: .milliseconds(1))
            }
        }
    }

    private func replies(waitingFor shard: ShardHandle) -> [ShardReply<ShardStatus>] {
        var messages: [ShardMessage] = []
        shard.mailbox.drain(into: &messages)
        return messages.compactMap { message in
            if case .status(let reply) = message { reply } else { nil }
        }
    }

    @Test("a question that finds the mailbox full is answered with an error")
    func full() async throws {
        let shard = ShardHandle(index: 3, mailbox: try ShardMailbox(capacity: 4))
        try await ask(shard, times: 5)
        // It is asked again once it has taken its messages.
        try await ask(shard, times: 5)
    }

    @Test("questions leave room for what shards have to tell each other")
    func room() async throws {
        let capacity = ShardHandle.questionLimit + 1
        let shard = ShardHandle(index: 3, mailbox: try ShardMailbox(capacity: capacity))
        try await ask(shard, times: capacity + 1) {
            #expect(shard.mailbox.send(.freeSpace))
        }
    }
}
