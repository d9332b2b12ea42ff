// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux
internal import CXen
internal import Glibc
internal import Synchronization

/// A xenstore in memory, with watches and transactions.
package final class PretendedStore: Sendable {
    /// A connection of a back end.
    private final class Connection {
        let store: PretendedStore
        let event: Int32
        init(_ store: PretendedStore) {
            self.store = store
            event = parallax_eventfd_create(0, 1)
        }
    }

    private struct Watch {
        var path: String
        var event: Int32
    }

    private struct State {
        var nodes: [String: String] = [:]
        var watches: [Watch] = []
        /// The paths of watch events that have not been taken, by the connection's eventfd.
        var fired: [Int32: [String]] = [:]
        var transactions: [UInt32: [String: String]] = [:]
        var nextTransaction: UInt32 = 1
        /// The next ends of transactions are told to begin again.
        var conflicts = 0
        var isLost = false
        var isFailing = false
    }

    private let state = Mutex(State())

    package init() {}

    // --- for tests, and for the front end and the tool stack that they play ---------------------

    package subscript(path: String) -> String? {
        get { state.withLock { $0.nodes[path] } }
        set { state.withLock { Self.set(&$0, path, newValue) } }
    }

    /// The node and all below it. Watches fire in the order of the paths, here and in `adopt`: not in
    /// that of a hash table, which is another in each process.
    package func remove(_ path: String) {
        state.withLock { state in
            for node in state.nodes.keys.sorted() where node == path || node.hasPrefix(path + "/") {
                Self.set(&state, node, nil)
            }
        }
    }

    package func nodes(below path: String) -> [String: String] {
        state.withLock { $0.nodes.filter { $0.key.hasPrefix(path + "/") } }
    }

    package func disturbTransactions(_ count: Int) { state.withLock { $0.conflicts = count } }

    /// From now on every connection is broken.
    package func lose() {
        state.withLock { state in
            state.isLost = true
            for watch in state.watches { _ = parallax_eventfd_write(watch.event, 1) }
        }
    }

    /// Reads fail, and nobody is told, as when the store is just going down.
    package func failReads() { state.withLock { $0.isFailing = true } }

    func adopt(from other: PretendedStore) {
        let nodes = other.state.withLock { $0.nodes }
        state.withLock { $0.nodes = nodes }
    }

    package var watchCount: Int { state.withLock { $0.watches.count } }
    package var openTransactions: Int { state.withLock { $0.transactions.count } }

    private static func set(_ state: inout State, _ path: String, _ value: String?) {
        state.nodes[path] = value
        for watch in state.watches
        where path == watch.path || path.hasPrefix(watch.path + "/") {
            fire(&state, watch.event, path)
        }
    }

    private static func fire(_ state: inout State, _ event: Int32, _ path: String) {
        state.fired[event, default: []].append(path)
        _ = parallax_eventfd_write(event, 1)
    }

    // --- the functions of libxenstore -----------------------------------------------------------

    private static func connection(_ pointer: UnsafeMutableRawPointer?) -> Connection? {
        pointer.map { Unmanaged<Connection>.fromOpaque($0).takeUnretainedValue() }
    }

    private static func text(_ pointer: UnsafePointer<CChar>?) -> String {
        pointer.map { String(cString: $0) } ?? ""
    }

    static func fill(_ functions: inout parallax_xen_functions) {
        functions.store_open = { flags in
            guard let own = UnsafeMutableRawPointer(bitPattern: UInt(flags)) else { return nil }
            let store = Unmanaged<PretendedStore>.fromOpaque(own).takeUnretainedValue()
            guard !store.state.withLock({ $0.isLost }) else { return nil }
            return Unmanaged.passRetained(Connection(store)).toOpaque()
        }
        functions.store_close = { pointer in
            guard let pointer else { return }
            let connection = Unmanaged<Connection>.fromOpaque(pointer).takeRetainedValue()
            connection.store.state.withLock { state in
                state.watches.removeAll { $0.event == connection.event }
                state.fired[connection.event] = nil
            }
            close(connection.event)
        }
        fillAccess(&functions)
        fillWatches(&functions)
        fillTransactions(&functions)
    }

    private static func fillAccess(_ functions: inout parallax_xen_functions) {
        functions.store_read = { pointer, transaction, path, count in
            guard let store = PretendedStore.connection(pointer)?.store else { return nil }
            let value = store.state.withLock { state in
                state.isLost || state.isFailing
                    ? nil
                    : (state.transactions[transaction] ?? state.nodes)[PretendedStore.text(path)]
            }
            guard let value else {
                errno = store.state.withLock { $0.isLost || $0.isFailing } ? EIO : ENOENT
                return nil
            }
            count?.pointee = UInt32(value.utf8.count)
            return UnsafeMutableRawPointer(strdup(value))
        }
        functions.store_write = { pointer, transaction, path, bytes, count in
            guard let store = PretendedStore.connection(pointer)?.store else { return false }
            let value = String(
                decoding: UnsafeRawBufferPointer(start: bytes, count: Int(count)), as: UTF8.self)
            return store.change(transaction) { $0[PretendedStore.text(path)] = value }
        }
        functions.store_remove = { pointer, transaction, path in
            guard let store = PretendedStore.connection(pointer)?.store else { return false }
            let path = PretendedStore.text(path)
            return store.change(transaction) { nodes in
                for node in nodes.keys where node == path || node.hasPrefix(path + "/") {
                    nodes[node] = nil
                }
            }
        }
        functions.store_list = { pointer, _, path, count in
            guard let store = PretendedStore.connection(pointer)?.store else { return nil }
            let prefix = PretendedStore.text(path) + "/"
            let names = Set(
                store.state.withLock { state in
                    state.nodes.keys.filter { $0.hasPrefix(prefix) }.map {
                        String($0.dropFirst(prefix.count).prefix { $0 != "/" })
                    }
                })
            count?.pointee = UInt32(names.count)
            let isFailing = store.state.withLock { $0.isLost || $0.isFailing }
            errno = isFailing ? EIO : ENOENT
            return isFailing || names.isEmpty ? nil : PretendedStore.pack(names.sorted())
        }
        functions.store_permit = { _, _, _, _, _ in true }
    }

    /// Strings as the library gives them: one allocation, pointers first.
    private static func pack(
        _ strings: [String]
    ) -> UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>? {
        let pointerBytes = strings.count * MemoryLayout<UnsafeMutablePointer<CChar>?>.stride
        let textBytes = strings.reduce(0) { $0 + $1.utf8.count + 1 }
        guard let block = malloc(pointerBytes + textBytes) else { return nil }
        let result = block.assumingMemoryBound(to: UnsafeMutablePointer<CChar>?.self)
        var next = (block + pointerBytes).assumingMemoryBound(to: CChar.self)
        for (index, string) in strings.enumerated() {
            strcpy(next, string)
            result[index] = next
            next += string.utf8.count + 1
        }
        return result
    }

    private func change(_ transaction: UInt32, _ body: (inout [String: String]) -> Void) -> Bool {
        state.withLock { state in
            guard !state.isLost else {
                errno = EIO
                return false
            }
            if state.transactions[transaction] != nil {
                body(&state.transactions[transaction, default: [:]])
            } else {
                var next = state.nodes
                body(&next)
                PretendedStore.adopt(&state, next)
            }
            return true
        }
    }

    /// Makes the store what a transaction has made of it.
    private static func adopt(_ state: inout State, _ next: [String: String]) {
        let old = state.nodes
        for path in old.keys.sorted() where next[path] == nil { set(&state, path, nil) }
        for path in next.keys.sorted() where old[path] != next[path] {
            set(&state, path, next[path])
        }
    }

    private static func fillWatches(_ functions: inout parallax_xen_functions) {
        functions.store_watch = { pointer, path, _ in
            guard let connection = PretendedStore.connection(pointer) else { return false }
            connection.store.state.withLock { state in
                let path = PretendedStore.text(path)
                state.watches.append(Watch(path: path, event: connection.event))
                PretendedStore.fire(&state, connection.event, path)
            }
            return true
        }
        functions.store_fd = { PretendedStore.connection($0)?.event ?? -1 }
        functions.store_check_watch = { pointer in
            guard let connection = PretendedStore.connection(pointer) else { return nil }
            let path = connection.store.state.withLock { state -> String? in
                guard !state.isLost else {
                    errno = EIO
                    return nil
                }
                guard let paths = state.fired[connection.event], let first = paths.first else {
                    var ignored: UInt64 = 0
                    _ = parallax_eventfd_read(connection.event, &ignored)
                    errno = EAGAIN
                    return nil
                }
                state.fired[connection.event]?.removeFirst()
                return first
            }
            return path.flatMap { PretendedStore.pack([$0, "a token"]) }
        }
    }

    private static func fillTransactions(_ functions: inout parallax_xen_functions) {
        functions.store_begin = { pointer in
            guard let store = PretendedStore.connection(pointer)?.store else { return 0 }
            return store.state.withLock { state in
                guard !state.isLost else { return 0 }
                let number = state.nextTransaction
                state.nextTransaction += 1
                state.transactions[number] = state.nodes
                return number
            }
        }
        functions.store_end = { pointer, transaction, isAborted in
            guard let store = PretendedStore.connection(pointer)?.store else { return false }
            return store.state.withLock { state in
                guard let nodes = state.transactions.removeValue(forKey: transaction) else {
                    errno = ENOENT
                    return false
                }
                if isAborted { return true }
                if state.conflicts > 0 {
                    state.conflicts -= 1
                    errno = EAGAIN
                    return false
                }
                PretendedStore.adopt(&state, nodes)
                return true
            }
        }
    }
}
