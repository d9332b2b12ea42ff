// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc

/// The store's own bytes, past the daemon.
extension DaemonHarness {
    /// What is in front of the extents: superblocks and checkpoint roots.
    func storeHead() throws -> [UInt8] {
        let file = open(store, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { throw TestFailure("cannot open \(store)") }
        defer { close(file) }
        var bytes = [UInt8](repeating: 0, count: 1 << 20)
        guard pread(file, &bytes, bytes.count, 0) == bytes.count else {
            throw TestFailure("cannot read \(store)")
        }
        return bytes
    }

    func patchStore(at offset: Int, _ patch: [UInt8]) throws {
        let file = open(store, O_WRONLY | O_CLOEXEC)
        guard file >= 0 else { throw TestFailure("cannot open \(store)") }
        defer { close(file) }
        guard pwrite(file, patch, patch.count, off_t(offset)) == patch.count else {
            throw TestFailure("cannot write \(store)")
        }
    }
}
