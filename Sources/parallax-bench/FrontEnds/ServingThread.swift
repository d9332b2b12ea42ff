// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux
internal import Glibc
internal import ParallaxCore
internal import ParallaxVhost
internal import ParallaxXen
internal import Synchronization

/// A front end of the daemon, as a shard calls it.
protocol ServedDevice: ~Copyable, SendableMetatype {
    mutating func handleEvent<R: EventRegistrar & ~Copyable>(
        source: UInt32, interest: EventInterest, registrar: inout R, requests: inout RequestQueue)
    mutating func complete(tag: UInt32, status: BlockStatus)
    mutating func finishBatch<R: EventRegistrar & ~Copyable>(
        registrar: inout R, requests: inout RequestQueue)
    mutating func begin<R: EventRegistrar & ~Copyable>(
        registrar: inout R, requests: inout RequestQueue)
    mutating func end<R: EventRegistrar & ~Copyable>(
        registrar: inout R, requests: inout RequestQueue)
}

extension VhostDevice: ServedDevice {
    mutating func begin<R: EventRegistrar & ~Copyable>(
        registrar: inout R, requests: inout RequestQueue
    ) { start(registrar: &registrar) }

    mutating func end<R: EventRegistrar & ~Copyable>(
        registrar: inout R, requests: inout RequestQueue
    ) { stop(registrar: &registrar) }
}

extension XenDevice: ServedDevice {
    mutating func begin<R: EventRegistrar & ~Copyable>(
        registrar: inout R, requests: inout RequestQueue
    ) { start(registrar: &registrar, requests: &requests) }

    mutating func end<R: EventRegistrar & ~Copyable>(
        registrar: inout R, requests: inout RequestQueue
    ) { stop(keepingGuest: true, registrar: &registrar, requests: &requests) }
}

/// A shard with an engine that answers at once, so that only the front end is measured.
final class ServingThread: Sendable {
    private let isStopped = Atomic(false)
    private let cpuNanosecondsSoFar = Atomic<UInt64>(0)
    private let requestsSoFar = Atomic<UInt64>(0)
    private let thread = Mutex<pthread_t?>(nil)

    /// CPU time of the thread, as of its last turn.
    var cpuNanoseconds: UInt64 { cpuNanosecondsSoFar.load(ordering: .relaxed) }

    private final class Body: Sendable {
        let run: @Sendable () -> Void
        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }

    /// `make` runs on the new thread, as the device belongs to it.
    func start<Device: ServedDevice & ~Copyable>(
        _ make: @escaping @Sendable () throws -> Device
    ) throws {
        let body = Body { [self] in
            do {
                var device = try make()
                serve(&device)
            } catch {
                isStopped.store(true, ordering: .relaxed)
            }
        }
        var thread = pthread_t()
        let result = pthread_create(
            &thread, nil,
            { argument in
                guard let argument else { return nil }
                Unmanaged<Body>.fromOpaque(argument).takeRetainedValue().run()
                return nil
            }, Unmanaged.passRetained(body).toOpaque())
        guard result == 0 else { throw BenchFailure("cannot start a thread") }
        self.thread.withLock { $0 = thread }
    }

    private func serve<Device: ServedDevice & ~Copyable>(_ device: inout Device) {
        var registrar = EpollRegistrar()
        var requests = RequestQueue(minimumCapacity: 1024)
        device.begin(registrar: &registrar, requests: &requests)
        turn(&device, &registrar, &requests)
        while !isStopped.load(ordering: .relaxed) {
            // The limit only bounds how long the end of a run takes.
            for token in registrar.wait(timeoutMilliseconds: 100) {
                device.handleEvent(
                    source: token.source, interest: .readable, registrar: &registrar,
                    requests: &requests)
            }
            turn(&device, &registrar, &requests)
        }
        device.end(registrar: &registrar, requests: &requests)
        turn(&device, &registrar, &requests)
    }

    private func turn<Device: ServedDevice & ~Copyable>(
        _ device: inout Device, _ registrar: inout EpollRegistrar, _ requests: inout RequestQueue
    ) {
        repeat {
            while let request = requests.popFirst() {
                device.complete(tag: request.tag, status: .ok)
            }
            device.finishBatch(registrar: &registrar, requests: &requests)
        } while !requests.isEmpty
        cpuNanosecondsSoFar.store(parallax_thread_cpu_nanoseconds(), ordering: .relaxed)
    }

    func stop() {
        isStopped.store(true, ordering: .relaxed)
        let thread = thread.withLock { thread in
            defer { thread = nil }
            return thread
        }
        if let thread { pthread_join(thread, nil) }
    }
}

/// What a front end wants to hear from, by epoll.
struct EpollRegistrar: EventRegistrar, ~Copyable {
    private let epoll = parallax_epoll_create()
    private var watched: [EventToken: Int32] = [:]
    private let events: UnsafeMutablePointer<parallax_epoll_event> = .allocate(capacity: 64)

    deinit {
        close(epoll)
        events.deallocate()
    }

    mutating func watch(fileDescriptor: Int32, token: EventToken, interest: EventInterest) {
        unwatch(token: token)
        let data = UInt64(token.session) << 32 | UInt64(token.source)
        _ = parallax_epoll_add(epoll, fileDescriptor, PARALLAX_EPOLLIN, data)
        watched[token] = fileDescriptor
    }

    mutating func unwatch(token: EventToken) {
        guard let number = watched.removeValue(forKey: token) else { return }
        _ = parallax_epoll_remove(epoll, number)
    }

    func wait(timeoutMilliseconds: Int64) -> [EventToken] {
        let count = parallax_epoll_wait(epoll, events, 64, timeoutMilliseconds * 1_000_000)
        return (0..<max(0, Int(count))).map { index in
            let data = events[index].data
            return EventToken(
                session: UInt32(truncatingIfNeeded: data >> 32),
                source: UInt32(truncatingIfNeeded: data))
        }.filter { watched[$0] != nil }
    }
}
