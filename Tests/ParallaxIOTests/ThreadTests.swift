// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Glibc
import ParallaxCore
import ParallaxIO
import Synchronization
import Testing

@Suite("Threads and mailboxes")
struct ThreadTests {
    private enum Message: Sendable {
        case number(Int)
        case end
    }

    @Test(
        "every message from many threads arrives once, in the order of its sender",
        arguments: engines)
    func mailbox(engine: IOEngineKind) throws {
        struct Body: ReactorTest {
            let mailbox: Mailbox<(sender: Int, number: Int)>
            let expected: Int
            func run<R: Reactor & ~Copyable>(_ reactor: inout R) throws {
                let token = EventToken(session: 0, source: 0)
                reactor.watch(
                    fileDescriptor: mailbox.fileDescriptor, token: token, interest: .readable)
                var batch: [(sender: Int, number: Int)] = []
                var next: [Int: Int] = [:]
                var count = 0
                while count < expected {
                    for event in try reactor.collect(1) {
                        guard case .readiness(token, _) = event else { continue }
                        mailbox.drain(into: &batch)
                        for message in batch {
                            #expect(next[message.sender, default: 0] == message.number)
                            next[message.sender] = message.number + 1
                        }
                        count += batch.count
                    }
                }
                #expect(reactor.readyNow().isEmpty, "readable though empty")
            }
        }
        let mailbox = try Mailbox<(sender: Int, number: Int)>()
        let senders = try (0..<4).map { sender in
            try ShardThread(name: "sender") {
                for number in 0..<5000 where !mailbox.send((sender, number)) {
                    Issue.record("the mailbox is full")
                }
            }
        }
        try Body(mailbox: mailbox, expected: 20000).run(on: engine, fileDescriptor: 0)
        for sender in senders { sender.join() }
    }

    @Test("a full mailbox says so and takes messages again after a drain")
    func fullMailbox() throws {
        let mailbox = try Mailbox<Int>(capacity: 2)
        #expect(mailbox.send(1))
        #expect(mailbox.send(2))
        #expect(!mailbox.send(3))
        var batch = [99]
        mailbox.drain(into: &batch)
        #expect(batch == [1, 2])
        #expect(mailbox.send(4))
        mailbox.drain(into: &batch)
        #expect(batch == [4])
        mailbox.drain(into: &batch)
        #expect(batch.isEmpty)
    }

    @Test("a shard thread has its name, its CPU and no signals, and is joined")
    func thread() throws {
        let seen = Mutex<(name: String, isBlocked: Bool, cpus: Int32)>(("", false, 0))
        let wasBlocked = isTerminationBlocked()
        let thread = try ShardThread(name: "parallax-shard-12345", cpu: 0) {
            let (name, isBlocked) = (threadName(), isTerminationBlocked())
            seen.withLock { $0 = (name, isBlocked, parallax_cpu_count()) }
        }
        thread.join()
        thread.join()
        seen.withLock { seen in
            #expect(seen.name == "parallax-shard-")
            #expect(seen.isBlocked)
            #expect(seen.cpus == 1)
        }
        #expect(isTerminationBlocked() == wasBlocked, "the starter's own mask changed")
    }
}

private func isTerminationBlocked() -> Bool {
    var mask = sigset_t()
    pthread_sigmask(SIG_BLOCK, nil, &mask)
    #expect(sigismember(&mask, SIGSEGV) == 0, "a fault would go unreported")
    return sigismember(&mask, SIGTERM) == 1
}

/// As /proc shows it to the administrator.
private func threadName() -> String {
    var bytes = [UInt8](repeating: 0, count: 32)
    let file = open("/proc/thread-self/comm", O_RDONLY)
    defer { close(file) }
    let count = read(file, &bytes, bytes.count)
    return String(decoding: bytes[..<max(0, count - 1)], as: UTF8.self)
}

@Suite("Choice of the I/O engine")
struct EngineChoiceTests {
    @Test("the preferred engine is taken when it works", arguments: IOEngineKind.allCases)
    func preferred(kind: IOEngineKind) throws {
        let choice = try IOEngineChoice.make(preferred: kind) { _ in nil }
        #expect(choice == IOEngineChoice(kind: kind, notice: nil))
    }

    @Test(
        "where io_uring is forbidden, libaio goes on, and one sentence says why",
        arguments: [ENOSYS, EPERM, EOPNOTSUPP, ENOMEM])
    func forbidden(code: Int32) throws {
        let choice = try IOEngineChoice.make(preferred: .ioUring) { kind in
            kind == .ioUring ? ReactorError(engine: kind, errno: code) : nil
        }
        #expect(choice.kind == .libaio)
        let notice = try #require(choice.notice)
        #expect(notice.hasPrefix("cannot start the I/O engine io_uring: "))
        #expect(notice.hasSuffix("; going on with libaio"))
    }

    @Test("where nothing works, the preferred engine's reason is the error")
    func nothing() {
        #expect(throws: ReactorError(engine: .libaio, errno: EAGAIN)) {
            try IOEngineChoice.make(preferred: .libaio) { kind in
                ReactorError(engine: kind, errno: EAGAIN)
            }
        }
    }

    @Test("an engine that cannot be made throws instead of trapping")
    func tooMany() {
        #expect(throws: ReactorError.self) {
            _ = try AioReactor(fileDescriptor: 0, commandCapacity: 10_000_000)
        }
    }
}
