// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import Glibc

/// Why a store could not be opened or made. `description` is one sentence for the user.
package struct StoreFileError: Error, Equatable, Sendable, CustomStringConvertible {
    package enum Reason: Equatable, Sendable {
        case notFound
        case directoryNotFound
        case notAStore
        case permissionDenied
        case readOnlyFileSystem
        case noDirectIO
        /// Another process has it open; 0: unknown which.
        case inUse(processID: Int32)
        case alreadyExists
        case badSize(UInt64)
        case tooLarge(UInt64)
        case deviceTooSmall(UInt64)
        case noSpace
        case system(Int32)
    }

    package enum Action: String, Sendable {
        case open
        case create
        case grow
    }

    package var action: Action
    package var path: String
    package var reason: Reason

    package init(_ action: Action, _ path: String, _ reason: Reason) {
        self.action = action
        self.path = path
        self.reason = reason
    }

    package var description: String {
        "cannot \(action.rawValue) store \(path): \(explanation)"
    }

    private var explanation: String {
        switch reason {
        case .notFound:
            "it does not exist (parallax-ctl store init makes one)"
        case .directoryNotFound:
            "its directory does not exist; make the directory first"
        case .notAStore:
            "it is neither a file nor a block device; give the path of the store itself"
        case .permissionDenied:
            "permission denied; run as a user who may read and write it"
        case .readOnlyFileSystem:
            "it is on a read-only file system or device; put the store where it can be written"
        case .noDirectIO:
            "its file system has no direct I/O; put it on ext4, XFS, Btrfs or a block device"
        case .inUse(let processID) where processID > 0:
            "process \(processID)\(Self.name(of: processID)) is using it; "
                + "stop that process or choose another store"
        case .inUse:
            "it is in use (mounted, or opened by another process); "
                + "stop its user or choose another store"
        case .alreadyExists:
            "it exists already; choose another path, or remove it if its contents may go"
        case .badSize(let size):
            "\(size) bytes are no size for it; give a multiple of 4096 that is not 0"
        case .tooLarge(let size):
            "its file system cannot hold a file of \(size) bytes; choose a smaller size"
        case .deviceTooSmall(let size):
            "the device has only \(size) bytes; choose a smaller size or leave the size out"
        case .noSpace:
            "its file system is full; free some space first"
        case .system(let code):
            "\(String(cString: strerror(code))) (errno \(code))"
        }
    }

    /// " (name)", or nothing when the process cannot be looked up.
    private static func name(of processID: Int32) -> String {
        let file = open("/proc/\(processID)/comm", O_RDONLY)
        guard file >= 0 else { return "" }
        defer { close(file) }
        var bytes = [UInt8](repeating: 0, count: 64)
        let count = read(file, &bytes, bytes.count)
        guard count > 1 else { return "" }
        return " (\(String(decoding: bytes[..<(count - 1)], as: UTF8.self)))"
    }

    /// The reason that an errno of `open` or `ftruncate` stands for.
    static func reason(of code: Int32, action: Action) -> Reason {
        switch code {
        case ENOENT: action == .create ? .directoryNotFound : .notFound
        case ENOTDIR: .directoryNotFound
        case EISDIR, ENXIO, ENODEV: .notAStore
        case EACCES, EPERM: .permissionDenied
        case EROFS: .readOnlyFileSystem
        case EEXIST: .alreadyExists
        case EINVAL: .noDirectIO
        case EBUSY, ETXTBSY: .inUse(processID: 0)
        case ENOSPC, EDQUOT: .noSpace
        default: .system(code)
        }
    }
}
