// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxControl

/// A system call that failed, for the sentence around it.
package struct SystemError: Error, Equatable, CustomStringConvertible, Sendable {
    package var number: Int32

    package init(_ number: Int32) { self.number = number }

    package var description: String { errnoText(number) }
}

/// A file that was not replaced, or not for certain.
package struct ReplaceError: Error, Equatable, CustomStringConvertible, Sendable {
    package var reason: SystemError
    /// The new bytes are in the file all the same, and only a power cut may still undo that.
    package var isReplaced: Bool

    package init(reason: SystemError, isReplaced: Bool = false) {
        self.reason = reason
        self.isReplaced = isReplaced
    }

    package var description: String {
        isReplaced
            ? "\(reason); the file has the change all the same, and a power cut may undo it"
            : "\(reason); nothing was changed"
    }
}

/// Files that are read and written whole.
package enum SmallFile {
    package static func read(
        _ path: String, limitBytes: Int
    ) throws(SystemError) -> [UInt8] {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw SystemError(errno) }
        defer { _ = close(descriptor) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 16 << 10)
        while true {
            let count = Glibc.read(descriptor, &chunk, chunk.count)
            if count < 0 && errno == EINTR { continue }
            guard count >= 0 else { throw SystemError(errno) }
            guard count > 0 else { return bytes }
            bytes += chunk[..<count]
            guard bytes.count <= limitBytes else { throw SystemError(EFBIG) }
        }
    }

    /// Replaces `path`, whose directory is made if need be, so that after any crash it holds all of
    /// the old or all of the new bytes, and the new ones once this has returned. If it fails the old
    /// ones are there, or the error says that they are not.
    ///
    /// `sync` makes the directory durable; tests let it fail.
    package static func replace(
        _ path: String, with bytes: [UInt8], sync: (Int32) -> Int32 = { fsync($0) }
    ) throws(ReplaceError) {
        let old: [UInt8]?
        let parent: Int32
        do throws(SystemError) {
            try makeDirectories(directory(of: path))
            old = try contents(of: path)
            // Opened first: after the rename only the sync can fail.
            parent = open(directory(of: path), O_RDONLY | O_DIRECTORY | O_CLOEXEC)
            guard parent >= 0 else { throw SystemError(errno) }
        } catch {
            throw ReplaceError(reason: error)
        }
        defer { _ = close(parent) }
        do throws(SystemError) {
            try exchange(path, for: bytes)
        } catch {
            throw ReplaceError(reason: error)
        }
        guard sync(parent) != 0 else { return }
        let reason = SystemError(errno)
        throw ReplaceError(reason: reason, isReplaced: !putBack(old, at: path))
    }

    /// Larger than any that is replaced.
    private static let limitBytes = 64 << 20

    private static func contents(of path: String) throws(SystemError) -> [UInt8]? {
        do throws(SystemError) {
            return try read(path, limitBytes: limitBytes)
        } catch {
            guard error.number == ENOENT else { throw error }
            return nil
        }
    }

    private static func exchange(_ path: String, for bytes: [UInt8]) throws(SystemError) {
        let temporary = path + ".new"
        do throws(SystemError) {
            try write(bytes, to: temporary)
            guard rename(temporary, path) == 0 else { throw SystemError(errno) }
        } catch {
            _ = unlink(temporary)
            throw error
        }
    }

    /// False: it could not be done. nil: there was no file.
    private static func putBack(_ old: [UInt8]?, at path: String) -> Bool {
        guard let old else { return unlink(path) == 0 }
        do throws(SystemError) {
            try exchange(path, for: old)
            return true
        } catch {
            return false
        }
    }

    private static func write(_ bytes: [UInt8], to path: String) throws(SystemError) {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw SystemError(errno) }
        defer { _ = close(descriptor) }
        var written = 0
        while written < bytes.count {
            let count = bytes.withUnsafeBytes { bytes in
                let rest = UnsafeRawBufferPointer(rebasing: bytes[written...])
                return Glibc.write(descriptor, rest.baseAddress, rest.count)
            }
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { throw SystemError(count < 0 ? errno : EIO) }
            written += count
        }
        guard fsync(descriptor) == 0 else { throw SystemError(errno) }
    }

    /// The directory that holds `path`: `/a/b` is in `/a`, `b` is in `.`.
    package static func directory(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    /// Makes `path` and what leads to it, mode 0700 for what is new.
    package static func makeDirectories(_ path: String) throws(SystemError) {
        guard mkdir(path, 0o700) != 0, errno != EEXIST else { return }
        let parent = directory(of: path)
        guard errno == ENOENT, parent != path else { throw SystemError(errno) }
        try makeDirectories(parent)
        guard mkdir(path, 0o700) == 0 || errno == EEXIST else { throw SystemError(errno) }
    }
}
