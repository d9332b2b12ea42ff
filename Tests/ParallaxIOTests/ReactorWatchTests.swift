// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import CLinux
import Glibc
import ParallaxCore
import ParallaxIO
import Testing

private let a = EventToken(session: 1, source: 2)
private let b = EventToken(session: 1, source: 3)

/// Both ends of a pipe, or a socket pair, closed at the end unless closed before.
private final class Ends {
    var left: Int32
    var right: Int32

    init(pipe: Bool) throws {
        var fds: [Int32] = [-1, -1]
        try #require((pipe ? parallax_pipe(&fds, 1) : parallax_socket_pair(&fds, 1)) == 0)
        (left, right) = (fds[0], fds[1])
    }

    func closeLeft() {
        close(left)
        left = -1
    }

    func closeRight() {
        close(right)
        right = -1
    }

    deinit {
        if left >= 0 { close(left) }
        if right >= 0 { close(right) }
    }
}

@Suite("Reactor: watching file descriptors")
struct ReactorWatchTests {
    @Test("a descriptor is reported in every turn while it is ready, not after", arguments: engines)
    func levelTriggered(engine: IOEngineKind) throws {
        struct Body: ReactorTest {
            func run<R: Reactor & ~Copyable>(_ reactor: inout R) throws {
                let fd = parallax_eventfd_create(0, 1)
                defer { close(fd) }
                reactor.watch(fileDescriptor: fd, token: a, interest: .readable)
                #expect(reactor.readyNow().isEmpty)
                for _ in 0..<3 {
                    #expect(parallax_eventfd_write(fd, 1) == 0)
                    for _ in 0..<5 { #expect(reactor.readyNow() == [a: .readable]) }
                    var value: UInt64 = 0
                    #expect(parallax_eventfd_read(fd, &value) == 0)
                    for _ in 0..<3 { #expect(reactor.readyNow().isEmpty) }
                }
            }
        }
        try Body().run(on: engine, fileDescriptor: 0)
    }

    @Test("after unwatch nothing is reported, not even what was already due", arguments: engines)
    func unwatchDropsDueEvents(engine: IOEngineKind) throws {
        struct Body: ReactorTest {
            func run<R: Reactor & ~Copyable>(_ reactor: inout R) throws {
                let fds = (0..<8).map { _ in parallax_eventfd_create(1, 1) }
                for (index, fd) in fds.enumerated() {
                    reactor.watch(
                        fileDescriptor: fd, token: EventToken(session: 0, source: UInt32(index)),
                        interest: .readable)
                }
                _ = reactor.readyNow()
                reactor.wait(timeoutNanoseconds: 0)
                guard case .readiness(let first, _)? = reactor.nextEvent() else {
                    Issue.record("no event")
                    return
                }
                for (index, fd) in fds.enumerated() {
                    reactor.unwatch(token: EventToken(session: 0, source: UInt32(index)))
                    close(fd)
                }
                #expect(first.session == 0)
                #expect(reactor.nextEvent() == nil)
                #expect(reactor.readyNow().isEmpty)
            }
        }
        try Body().run(on: engine, fileDescriptor: 0)
    }

    @Test("a new watch does not inherit the old one's events", arguments: engines)
    func reusedTokenAndDescriptor(engine: IOEngineKind) throws {
        struct Body: ReactorTest {
            func run<R: Reactor & ~Copyable>(_ reactor: inout R) throws {
                for _ in 0..<100 {
                    let old = parallax_eventfd_create(1, 1)
                    let noise = parallax_eventfd_create(1, 1)
                    reactor.watch(fileDescriptor: old, token: a, interest: .readable)
                    reactor.watch(fileDescriptor: noise, token: b, interest: .readable)
                    reactor.wait(timeoutNanoseconds: 0)
                    _ = reactor.nextEvent()
                    reactor.unwatch(token: a)
                    close(old)
                    // Most often the same number; tests beside this one open files as well.
                    let new = parallax_eventfd_create(0, 1)
                    reactor.watch(fileDescriptor: new, token: a, interest: .readable)
                    while let event = reactor.nextEvent() {
                        if case .readiness(let token, _) = event { #expect(token == b) }
                    }
                    #expect(reactor.readyNow() == [b: .readable])
                    #expect(parallax_eventfd_write(new, 1) == 0)
                    #expect(reactor.readyNow() == [a: .readable, b: .readable])
                    reactor.unwatch(token: b)
                    reactor.unwatch(token: a)
                    close(noise)
                    close(new)
                }
            }
        }
        try Body().run(on: engine, fileDescriptor: 0)
    }

    @Test("an armed watch lets go of the file at once: the peer sees the end", arguments: engines)
    func unwatchReleasesFile(engine: IOEngineKind) throws {
        struct Body: ReactorTest {
            func run<R: Reactor & ~Copyable>(_ reactor: inout R) throws {
                let ends = try Ends(pipe: false)
                reactor.watch(fileDescriptor: ends.left, token: a, interest: .readable)
                #expect(reactor.readyNow().isEmpty)
                reactor.unwatch(token: a)
                ends.closeLeft()
                var byte: UInt8 = 0
                #expect(read(ends.right, &byte, 1) == 0, "no end of file: the socket lives on")
            }
        }
        try Body().run(on: engine, fileDescriptor: 0)
    }

    @Test("watching again changes the interest; only what is asked for comes", arguments: engines)
    func changedInterest(engine: IOEngineKind) throws {
        struct Body: ReactorTest {
            func run<R: Reactor & ~Copyable>(_ reactor: inout R) throws {
                let ends = try Ends(pipe: false)
                let fd = ends.left
                reactor.watch(fileDescriptor: fd, token: a, interest: .readable)
                #expect(reactor.readyNow().isEmpty)
                reactor.watch(fileDescriptor: fd, token: a, interest: [.readable, .writable])
                #expect(reactor.readyNow() == [a: .writable])
                #expect(parallax_send(ends.right, "x", 1) == 1)
                #expect(reactor.readyNow() == [a: [.readable, .writable]])
                reactor.watch(fileDescriptor: fd, token: a, interest: [])
                for _ in 0..<2 { #expect(reactor.readyNow().isEmpty) }
                reactor.watch(fileDescriptor: fd, token: a, interest: .readable)
                #expect(reactor.readyNow() == [a: .readable])
            }
        }
        try Body().run(on: engine, fileDescriptor: 0)
    }

    @Test("a hang-up is reported as readable and writable, whatever was asked", arguments: engines)
    func hangUp(engine: IOEngineKind) throws {
        struct Body: ReactorTest {
            func run<R: Reactor & ~Copyable>(_ reactor: inout R) throws {
                for interest: EventInterest in [.readable, .writable, []] {
                    let ends = try Ends(pipe: false)
                    reactor.watch(fileDescriptor: ends.left, token: a, interest: interest)
                    _ = reactor.readyNow()
                    ends.closeRight()
                    for _ in 0..<2 {
                        #expect(reactor.readyNow() == [a: [.readable, .writable]])
                    }
                    reactor.unwatch(token: a)
                }
            }
        }
        try Body().run(on: engine, fileDescriptor: 0)
    }

    @Test("more watches than the table was made for, and every one is heard", arguments: engines)
    func manyWatches(engine: IOEngineKind) throws {
        struct Body: ReactorTest {
            func run<R: Reactor & ~Copyable>(_ reactor: inout R) throws {
                let fds = (0..<300).map { _ in parallax_eventfd_create(0, 1) }
                defer { for fd in fds { close(fd) } }
                for (index, fd) in fds.enumerated() {
                    let token = EventToken(session: UInt32(index), source: 7)
                    reactor.watch(fileDescriptor: fd, token: token, interest: .readable)
                }
                #expect(reactor.readyNow().isEmpty)
                for fd in fds { #expect(parallax_eventfd_write(fd, 1) == 0) }
                var heard: Set<EventToken> = []
                for _ in 0..<20 where heard.count < 300 { heard.formUnion(reactor.readyNow().keys) }
                #expect(heard.count == 300)
                for index in stride(from: 0, to: 300, by: 2) {
                    reactor.unwatch(token: EventToken(session: UInt32(index), source: 7))
                }
                heard = []
                for _ in 0..<20 { heard.formUnion(reactor.readyNow().keys) }
                #expect(heard.count == 150)
                for token in heard { #expect(token.session % 2 == 1) }
            }
        }
        try Body().run(on: engine, fileDescriptor: 0)
    }

    @Test("a regular file is always ready, as poll says", arguments: engines)
    func regularFile(engine: IOEngineKind) throws {
        struct Body: ReactorTest {
            let file: ScratchFile
            func run<R: Reactor & ~Copyable>(_ reactor: inout R) throws {
                let fd = file.fileDescriptor
                reactor.watch(fileDescriptor: fd, token: a, interest: .readable)
                for _ in 0..<3 { #expect(reactor.readyNow() == [a: .readable]) }
                reactor.unwatch(token: a)
                #expect(reactor.readyNow().isEmpty)
            }
        }
        try Body(file: ScratchFile(byteCount: 4096)).run(on: engine, fileDescriptor: 0)
    }

    @Test("wait ends at its time without an event, and at once with one", arguments: engines)
    func timeouts(engine: IOEngineKind) throws {
        struct Body: ReactorTest {
            func run<R: Reactor & ~Copyable>(_ reactor: inout R) throws {
                let fd = parallax_eventfd_create(0, 1)
                defer { close(fd) }
                reactor.watch(fileDescriptor: fd, token: a, interest: .readable)
                // It may be interrupted, but it neither spins nor sleeps for ever.
                let start = parallax_monotonic_nanoseconds()
                var turns = 0
                while parallax_monotonic_nanoseconds() - start < 20_000_000 {
                    reactor.wait(timeoutNanoseconds: 20_000_000)
                    #expect(reactor.nextEvent() == nil)
                    turns += 1
                }
                #expect(turns < 20)
                #expect(parallax_eventfd_write(fd, 1) == 0)
                reactor.wait(timeoutNanoseconds: -1)
                #expect(reactor.nextEvent() != nil)
            }
        }
        try Body().run(on: engine, fileDescriptor: 0)
    }

    @Test("store completions and readiness come out of the same wait", arguments: engines)
    func mixed(engine: IOEngineKind) throws {
        struct Body: ReactorTest {
            func run<R: Reactor & ~Copyable>(_ reactor: inout R) throws {
                let ends = try Ends(pipe: true)
                #expect(write(ends.right, "x", 1) == 1)
                reactor.watch(fileDescriptor: ends.left, token: a, interest: .readable)
                reactor.enqueue(StoreCommand(operation: .sync, tag: 9))
                var results: [UInt64] = []
                var readyTurns = 0
                while results.isEmpty || readyTurns < 2 {
                    for event in try reactor.collect(1) {
                        switch event {
                        case .completion(let completion): results.append(completion.tag)
                        case .readiness(let token, _): readyTurns += token == a ? 1 : 0
                        }
                    }
                }
                #expect(results == [9])
            }
        }
        let file = try ScratchFile(byteCount: 4096)
        try Body().run(on: engine, fileDescriptor: file.fileDescriptor)
    }
}
