// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CXen
internal import Glibc

/// xenstore does not answer any more, so nobody knows what is there.
struct StoreLost: Error, BitwiseCopyable {}

/// A connection to xenstore, with watches of its own. Calls wait for xenstored's answer; a device
/// makes them when its state changes and never for a request.
struct StoreConnection: ~Copyable {
    /// Names the transaction that an access belongs to; 0 is none.
    typealias Transaction = UInt32

    private let functions: UnsafePointer<parallax_xen_functions>
    private var connection: UnsafeMutableRawPointer?

    /// Not connected yet.
    init(_ library: XenLibrary) { functions = library.functions }

    deinit { if let connection { parallax_store_close(functions, connection) } }

    mutating func open() throws(XenError) {
        precondition(connection == nil, "StoreConnection: opened twice")
        connection = parallax_store_open(functions)
        guard connection != nil else { throw .noStore }
    }

    private var handle: UnsafeMutableRawPointer {
        guard let connection else { preconditionFailure("StoreConnection: used before it is open") }
        return connection
    }

    var fileDescriptor: Int32 { parallax_store_fd(functions, handle) }

    /// As `value`, where it does not matter why there is none.
    func read(_ path: String, in transaction: Transaction = 0) -> String? {
        (try? value(path, in: transaction)) ?? nil
    }

    /// nil: there is no such node, or it is longer or stranger than any value that we expect.
    func value(_ path: String, in transaction: Transaction = 0) throws(StoreLost) -> String? {
        var found: String?
        let count = withUnsafeTemporaryAllocation(
            of: CChar.self, capacity: XenLimits.valueBytesMax
        ) { bytes -> Int32 in
            guard let base = bytes.baseAddress else { return -EIO }
            let count = parallax_store_read(
                functions, handle, transaction, path, base, bytes.count)
            if count >= 0, count <= bytes.count {
                let value = UnsafeRawBufferPointer(start: base, count: Int(count))
                found = String(validating: value, as: UTF8.self)
            }
            return count
        }
        _ = try Self.isThere(count)
        return found
    }

    func exists(_ path: String) throws(StoreLost) -> Bool {
        var byte: CChar = 0
        return try Self.isThere(parallax_store_read(functions, handle, 0, path, &byte, 1))
    }

    /// Where we are not privileged, what has gone with its parents is forbidden.
    private static func isThere(_ result: Int32) throws(StoreLost) -> Bool {
        if result >= 0 { return true }
        guard result == -ENOENT || result == -EACCES else { throw StoreLost() }
        return false
    }

    func write(
        _ path: String, _ value: String, in transaction: Transaction = 0
    ) throws(XenError) {
        let result = parallax_store_write(functions, handle, transaction, path, value)
        guard result >= 0 else { throw .cannotWrite(path, errno: -result) }
    }

    func remove(_ path: String, in transaction: Transaction = 0) {
        _ = parallax_store_remove(functions, handle, transaction, path)
    }

    func permit(
        _ path: String, owner: UInt32, reader: UInt32, in transaction: Transaction
    ) throws(XenError) {
        let result = parallax_store_permit(functions, handle, transaction, path, owner, reader)
        guard result >= 0 else { throw .cannotWrite(path, errno: -result) }
    }

    /// The names below the node; none where it is not there.
    func list(_ path: String) throws(StoreLost) -> [String] {
        var count: UInt32 = 0
        guard let names = parallax_store_list(functions, handle, path, &count) else {
            if errno != 0 { _ = try Self.isThere(-errno) }
            return []
        }
        defer { free(names) }
        return (0..<Int(count)).compactMap { index in names[index].map { String(cString: $0) } }
    }

    func watch(_ path: String) throws(XenError) {
        let result = parallax_store_watch(functions, handle, path, path)
        guard result >= 0 else { throw .cannotWrite(path, errno: -result) }
    }

    /// Takes the watch events that are there, at most one turn's worth, and says what has changed:
    /// a node, or the watched one itself when more than a node has. False: the connection is lost.
    func takeWatchEvents(_ body: (String) -> Void = { _ in }) -> Bool {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: XenLimits.pathBytesMax) { bytes in
            guard let path = bytes.baseAddress else { return false }
            for _ in 0..<XenLimits.watchesPerTurnMax {
                let result = parallax_store_next_watch(functions, handle, path, bytes.count)
                if result <= 0 { return result == 0 }
                body(String(cString: path))
            }
            return true
        }
    }

    /// Waits for a watch event, which is left to `takeWatchEvents`, and no longer than that. False: the
    /// connection is lost, which the descriptor need not tell.
    func waitForWatchEvent(milliseconds: Int32) -> Bool {
        var wait = pollfd(fd: fileDescriptor, events: Int16(POLLIN), revents: 0)
        return poll(&wait, 1, milliseconds) > 0 || (try? exists("domid")) != nil
    }

    /// Says on a back-end directory that it is closed, and why, if there is a why; nothing where the
    /// directory has gone meanwhile.
    func close(_ backend: String, because sentence: String?) throws(XenError) {
        try transaction(backend) { store, transaction throws(XenError) in
            guard store.read(backend + "/frontend-id", in: transaction) != nil else { return }
            var keys = [("state", "\(XenbusState.closed.rawValue)")]
            if let sentence { keys += [("error", sentence), ("hotplug-error", sentence)] }
            for (key, value) in keys {
                try store.write("\(backend)/\(key)", value, in: transaction)
            }
        }
    }

    /// Runs `body` until nobody else was in between.
    func transaction(
        _ path: String, _ body: (borrowing StoreConnection, Transaction) throws(XenError) -> Void
    ) throws(XenError) {
        for _ in 0..<XenLimits.transactionAttemptsMax {
            let transaction = parallax_store_begin(functions, handle)
            guard transaction != 0 else { throw .cannotWrite(path, errno: EIO) }
            do throws(XenError) {
                try body(self, transaction)
            } catch {
                _ = parallax_store_end(functions, handle, transaction, true)
                throw error
            }
            let result = parallax_store_end(functions, handle, transaction, false)
            if result >= 0 { return }
            guard result == -EAGAIN else { throw .cannotWrite(path, errno: -result) }
        }
        throw .cannotWrite(path, errno: EAGAIN)
    }
}
