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

    /// Replaces `path` so that after any crash it holds all of the old or all of the new bytes,
    /// and the new ones once this has returned.
    package static func replace(_ path: String, with bytes: [UInt8]) throws(SystemError) {
        let temporary = path + ".new"
        do throws(SystemError) {
            try write(bytes, to: temporary)
            guard rename(temporary, path) == 0 else { throw SystemError(errno) }
        } catch {
            _ = unlink(temporary)
            throw error
        }
        try syncDirectory(of: path)
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

    private static func syncDirectory(of path: String) throws(SystemError) {
        let descriptor = open(directory(of: path), O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw SystemError(errno) }
        defer { _ = close(descriptor) }
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
