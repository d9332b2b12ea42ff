// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux
internal import CXen
internal import Glibc
internal import Synchronization

/// Xen without Xen: one guest domain whose pages are in a memory file, event channels that are
/// eventfds, and a xenstore in memory, behind the functions of the real libraries.
///
/// Back end and front end may be in different threads. It is as strict as Xen: what is unmapped
/// twice, or left mapped, shows in the counts; a grant for reading cannot be mapped for writing.
package final class PretendedXen: Sendable {
    /// What a grant reference gives away.
    struct Grant {
        var page: Int
        var isReadOnly: Bool
    }

    /// An event channel of the guest.
    struct Port {
        var toFrontEnd: Int32
        /// While a back end is bound.
        var toBackEnd: Int32?
    }

    struct State {
        var grants: [UInt32: Grant] = [:]
        var ports: [UInt32: Port] = [:]
        var mappedPages = 0
        var boundPorts = 0
        var mapCalls = 0
        /// The next calls of map fail.
        var mapFailures = 0
    }

    package let domain: UInt32
    package let pageCount: Int
    package let store = PretendedStore()
    let state = Mutex(State())
    private let file: Int32
    // SAFETY: set, read and called in the back end's thread only.
    /// Called before each call of the back end maps, unmaps or sends an event: a place where a
    /// test changes the guest's memory, or looks at it as a sudden end would leave it.
    nonisolated(unsafe) package var beforeCall: (() -> Void)?
    // SAFETY: the guest's memory, mapped once for the front end; pages are shared on purpose.
    nonisolated(unsafe) package let memory: UnsafeMutableRawPointer
    // SAFETY: filled in init, never changed, freed in deinit when no back end is left.
    nonisolated(unsafe) private let table: UnsafeMutablePointer<parallax_xen_functions>

    package static let pageBytes = 4096

    package init(domain: UInt32 = 3, pageCount: Int = 4096) {
        self.domain = domain
        self.pageCount = pageCount
        file = parallax_memfd_create("pretended-guest", Int64(pageCount * Self.pageBytes))
        precondition(file >= 0, "no memory file")
        guard
            let memory = mmap(
                nil, pageCount * Self.pageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0),
            memory != MAP_FAILED
        else { preconditionFailure("no memory") }
        self.memory = memory
        table = .allocate(capacity: 1)
        table.initialize(to: parallax_xen_functions())
        fill(&table.pointee)
    }

    deinit {
        state.withLock { state in for port in state.ports.values { close(port.toFrontEnd) } }
        munmap(memory, pageCount * Self.pageBytes)
        close(file)
        table.deallocate()
    }

    /// For `XenLibrary(functions:)`.
    package var functions: UnsafeRawPointer { UnsafeRawPointer(table) }

    private func fill(_ functions: inout parallax_xen_functions) {
        let own = Unmanaged.passUnretained(self).toOpaque()
        functions.logger = own
        functions.store_flags = UInt(bitPattern: Unmanaged.passUnretained(store).toOpaque())
        PretendedGrants.fill(&functions)
        PretendedEvents.fill(&functions)
        PretendedStore.fill(&functions)
    }

    /// Another machine in the same state, with no back end in it.
    package func copy() -> PretendedXen {
        let other = PretendedXen(domain: domain, pageCount: pageCount)
        memcpy(other.memory, memory, pageCount * Self.pageBytes)
        let (grants, ports) = state.withLock { ($0.grants, $0.ports.keys.sorted()) }
        other.state.withLock { $0.grants = grants }
        for port in ports { _ = other.openPort(port) }
        other.store.adopt(from: store)
        return other
    }

    package func page(_ number: Int) -> UnsafeMutableRawPointer {
        memory + number * Self.pageBytes
    }

    /// The guest lets others map a page, under a number of its choice.
    package func grant(_ reference: UInt32, page: Int, isReadOnly: Bool = false) {
        state.withLock { $0.grants[reference] = Grant(page: page, isReadOnly: isReadOnly) }
    }

    package func revoke(_ reference: UInt32) {
        state.withLock { _ = $0.grants.removeValue(forKey: reference) }
    }

    /// A new event channel; the result becomes readable when the back end sends an event.
    package func openPort(_ number: UInt32) -> Int32 {
        let event = parallax_eventfd_create(0, 1)
        state.withLock { state in
            if let old = state.ports[number] { close(old.toFrontEnd) }
            state.ports[number] = Port(toFrontEnd: event, toBackEnd: nil)
        }
        return event
    }

    func event(of port: UInt32) -> Int32 { state.withLock { $0.ports[port]?.toFrontEnd ?? -1 } }

    /// The guest sends an event. Lost when nobody is bound, as in Xen.
    package func sendEvent(_ port: UInt32) {
        if let event = state.withLock({ $0.ports[port]?.toBackEnd }) {
            _ = parallax_eventfd_write(event, 1)
        }
    }

    /// Pages that a back end has mapped now.
    package var mappedPages: Int { state.withLock { $0.mappedPages } }
    /// Ports that a back end is bound to now.
    package var boundPorts: Int { state.withLock { $0.boundPorts } }
    package var mapCalls: Int { state.withLock { $0.mapCalls } }

    package func failMaps(_ count: Int) { state.withLock { $0.mapFailures = count } }

    /// Maps granted pages one after the other, or none.
    func map(_ references: UnsafeBufferPointer<UInt32>, isWritable: Bool)
        -> UnsafeMutableRawPointer?
    {
        let pages: [Int]? = state.withLock { state in
            state.mapCalls += 1
            if state.mapFailures > 0 {
                state.mapFailures -= 1
                return nil
            }
            let grants = references.map { state.grants[$0] }
            let isAllowed = grants.allSatisfy { $0.map { !($0.isReadOnly && isWritable) } ?? false }
            guard isAllowed else { return nil }
            state.mappedPages += references.count
            return grants.compactMap { $0?.page }
        }
        guard let pages else { return nil }
        let length = pages.count * Self.pageBytes
        guard
            let start = mmap(nil, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
            start != MAP_FAILED
        else { return nil }
        let protection = isWritable ? PROT_READ | PROT_WRITE : PROT_READ
        for (index, page) in pages.enumerated() {
            let result = mmap(
                start + index * Self.pageBytes, Self.pageBytes, protection, MAP_SHARED | MAP_FIXED,
                file, off_t(page * Self.pageBytes))
            precondition(result != MAP_FAILED, "cannot map a page of the guest")
        }
        return start
    }

    func unmap(_ start: UnsafeMutableRawPointer, count: Int) {
        munmap(start, count * Self.pageBytes)
        state.withLock { $0.mappedPages -= count }
    }
}

/// The functions of libxengnttab.
enum PretendedGrants {
    /// What a handle counts: closing it unmaps all.
    private final class Handle {
        let xen: PretendedXen
        var ranges: [UnsafeMutableRawPointer: Int] = [:]
        init(_ xen: PretendedXen) { self.xen = xen }
    }

    static func fill(_ functions: inout parallax_xen_functions) {
        functions.grants_open = { logger, _ in
            guard let logger else { return nil }
            let xen = Unmanaged<PretendedXen>.fromOpaque(logger).takeUnretainedValue()
            return Unmanaged.passRetained(Handle(xen)).toOpaque()
        }
        functions.grants_close = { handle in
            guard let handle else { return -1 }
            let grants = Unmanaged<Handle>.fromOpaque(handle).takeRetainedValue()
            for (start, count) in grants.ranges { grants.xen.unmap(start, count: count) }
            return 0
        }
        functions.grants_map = { handle, count, domain, references, protection in
            guard let handle, let references else { return nil }
            let grants = Unmanaged<Handle>.fromOpaque(handle).takeUnretainedValue()
            grants.xen.beforeCall?()
            guard domain == grants.xen.domain else { return nil }
            let list = UnsafeBufferPointer(start: references, count: Int(count))
            let start = grants.xen.map(list, isWritable: protection & PROT_WRITE != 0)
            if let start { grants.ranges[start] = Int(count) }
            return start
        }
        functions.grants_unmap = { handle, start, count in
            guard let handle, let start else { return -1 }
            let grants = Unmanaged<Handle>.fromOpaque(handle).takeUnretainedValue()
            grants.xen.beforeCall?()
            precondition(
                grants.ranges.removeValue(forKey: start) == Int(count),
                "unmapped what was not mapped so")
            grants.xen.unmap(start, count: Int(count))
            return 0
        }
    }
}

/// The functions of libxenevtchn.
enum PretendedEvents {
    private final class Handle {
        let xen: PretendedXen
        let event: Int32
        /// Of the guest; ours has the same number.
        var port: UInt32?
        init(_ xen: PretendedXen) {
            self.xen = xen
            event = parallax_eventfd_create(0, 1)
        }
    }

    private static func handle(_ pointer: UnsafeMutableRawPointer?) -> Handle? {
        pointer.map { Unmanaged<Handle>.fromOpaque($0).takeUnretainedValue() }
    }

    static func fill(_ functions: inout parallax_xen_functions) {
        functions.events_open = { logger, _ in
            guard let logger else { return nil }
            let xen = Unmanaged<PretendedXen>.fromOpaque(logger).takeUnretainedValue()
            return Unmanaged.passRetained(Handle(xen)).toOpaque()
        }
        functions.events_close = { pointer in
            guard let pointer else { return -1 }
            let handle = Unmanaged<Handle>.fromOpaque(pointer).takeRetainedValue()
            handle.xen.state.withLock { state in
                guard let port = handle.port else { return }
                state.boundPorts -= 1
                state.ports[port]?.toBackEnd = nil
            }
            close(handle.event)
            return 0
        }
        functions.events_fd = { PretendedEvents.handle($0)?.event ?? -1 }
        functions.events_bind = { pointer, domain, remote in
            guard let handle = PretendedEvents.handle(pointer), domain == handle.xen.domain else {
                return -1
            }
            let isBound = handle.xen.state.withLock { state in
                guard state.ports[remote] != nil, state.ports[remote]?.toBackEnd == nil else {
                    return false
                }
                state.ports[remote]?.toBackEnd = handle.event
                state.boundPorts += 1
                return true
            }
            guard isBound else { return -1 }
            handle.port = remote
            // Events may have been lost before; Xen sends one for them.
            _ = parallax_eventfd_write(handle.event, 1)
            return Int32(remote)
        }
        functions.events_notify = { pointer, port in
            guard let handle = PretendedEvents.handle(pointer), handle.port == port else {
                return -1
            }
            handle.xen.beforeCall?()
            let event = handle.xen.state.withLock { $0.ports[port]?.toFrontEnd }
            return event.map { parallax_eventfd_write($0, 1) } ?? -1
        }
        functions.events_pending = { pointer in
            guard let handle = PretendedEvents.handle(pointer), let port = handle.port else {
                return -1
            }
            var count: UInt64 = 0
            return parallax_eventfd_read(handle.event, &count) >= 0 ? Int32(port) : -1
        }
        functions.events_unmask = { pointer, port in
            PretendedEvents.handle(pointer)?.port == port ? 0 : -1
        }
    }
}
