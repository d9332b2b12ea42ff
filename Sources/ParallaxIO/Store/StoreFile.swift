// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux
internal import Glibc
package import ParallaxCore
internal import Synchronization

/// The store's file or block device, opened for direct I/O and locked against other processes.
///
/// May be used from any thread. The lock lasts as long as the object. It is two locks, because
/// neither is enough alone:
///
/// ```
///  flock           belongs to this open file: keeps every other opener out, in this process too
///  fcntl F_SETLK   names our pid to whoever is refused; dropped by the kernel as soon as this
///                  process closes *any* descriptor of the same file
///  O_EXCL          block devices: also keeps mounts and other exclusive openers out
/// ```
///
/// So: while a `StoreFile` lives, nothing else in the process opens its path (a second
/// `StoreFile` that is refused costs the first one its pid for later refusals, never its lock).
///
/// A process that was killed keeps the flock, but no longer the fcntl lock, until its last write
/// in flight has reached the device. That must be waited for: such a write would land on top of
/// what the next daemon has recovered.
package final class StoreFile: Sendable {
    package enum Access: Sendable {
        case readWrite
        /// For looking into a store offline; refused while a writer has it open.
        case readOnly
        /// For looking into a store that a daemon may be writing: takes no lock and respects none.
        case readOnlyUnlocked
    }

    package let path: String
    package let access: Access
    package let fileDescriptor: Int32
    package let isBlockDevice: Bool
    /// What the syncs of this file have come to, whoever asked for them.
    package let syncs = SyncRecord()
    /// Size when it was opened, or last grown.
    package var byteCount: UInt64 { size.load(ordering: .relaxed) }
    private let size: Atomic<UInt64>

    private init(
        path: String, access: Access, fileDescriptor: Int32, isBlockDevice: Bool,
        byteCount: UInt64
    ) {
        self.path = path
        self.access = access
        self.fileDescriptor = fileDescriptor
        self.isBlockDevice = isBlockDevice
        size = Atomic(byteCount)
    }

    deinit { close(fileDescriptor) }

    /// Opens an existing store. `patienceMilliseconds`: how long to wait for a lock whose holder
    /// has no name, which is most likely the last write of a process that was killed.
    package static func open(
        path: String, access: Access = .readWrite, patienceMilliseconds: Int = 5000
    ) throws(StoreFileError) -> StoreFile {
        guard let kind = try kind(of: path, for: .open) else {
            throw StoreFileError(.open, path, .notFound)
        }
        let patience = Patience(milliseconds: patienceMilliseconds)
        let fileDescriptor = try openExisting(path, kind, access, for: .open, patience)
        return try lock(fileDescriptor, path, kind, access, for: .open, patience)
    }

    /// Makes a sparse file of `byteCount` bytes, or opens a block device that has at least as
    /// many (nil: whatever it has). An existing file is refused unless `replacesExisting`; then
    /// it loses its contents, but not while another process uses it.
    package static func create(
        path: String, byteCount: UInt64?, replacesExisting: Bool = false,
        patienceMilliseconds: Int = 5000
    ) throws(StoreFileError) -> StoreFile {
        if let byteCount, byteCount == 0 || byteCount % UInt64(blockBytes) != 0 {
            throw StoreFileError(.create, path, .badSize(byteCount))
        }
        let patience = Patience(milliseconds: patienceMilliseconds)
        switch try kind(of: path, for: .create) {
        case .blockDevice:
            let fileDescriptor = try openExisting(
                path, .blockDevice, .readWrite, for: .create, patience)
            let store = try lock(
                fileDescriptor, path, .blockDevice, .readWrite, for: .create, patience)
            guard store.byteCount >= byteCount ?? UInt64(blockBytes) else {
                throw StoreFileError(.create, path, .deviceTooSmall(store.byteCount))
            }
            return store
        case .file:
            guard replacesExisting else { throw StoreFileError(.create, path, .alreadyExists) }
            let fileDescriptor = try openExisting(path, .file, .readWrite, for: .create, patience)
            return try lock(
                fileDescriptor, path, .file, .readWrite, for: .create, patience,
                resizingTo: byteCount)
        case nil:
            guard let byteCount else { throw StoreFileError(.create, path, .badSize(0)) }
            return try createFile(path, byteCount)
        }
    }
}

// MARK: Opening

extension StoreFile {
    private enum Kind {
        case file
        case blockDevice
    }

    /// Nil: there is nothing at that path.
    private static func kind(
        of path: String, for action: StoreFileError.Action
    ) throws(StoreFileError) -> Kind? {
        var status = stat()
        guard stat(path, &status) == 0 else {
            if errno == ENOENT { return nil }
            throw StoreFileError(action, path, StoreFileError.reason(of: errno, action: action))
        }
        switch status.st_mode & S_IFMT {
        case S_IFREG: return .file
        case S_IFBLK: return .blockDevice
        default: throw StoreFileError(action, path, .notAStore)
        }
    }

    /// Until when to try again.
    private struct Patience {
        private let deadline: UInt64

        init(milliseconds: Int) {
            deadline = parallax_monotonic_nanoseconds() + UInt64(max(0, milliseconds)) * 1_000_000
        }

        /// Sleeps a little, unless the time is up.
        func isLeft() -> Bool {
            guard parallax_monotonic_nanoseconds() < deadline else { return false }
            usleep(10_000)
            return true
        }
    }

    private static func openExisting(
        _ path: String, _ kind: Kind, _ access: Access, for action: StoreFileError.Action,
        _ patience: Patience
    ) throws(StoreFileError) -> Int32 {
        var flags = access == .readWrite ? O_RDWR : O_RDONLY
        flags |= PARALLAX_O_CLOEXEC | PARALLAX_O_DIRECT
        if kind == .blockDevice && access == .readWrite { flags |= O_EXCL }
        while true {
            let fileDescriptor = Glibc.open(path, flags)
            if fileDescriptor >= 0 { return fileDescriptor }
            let code = errno
            guard code == EBUSY else {
                throw StoreFileError(action, path, StoreFileError.reason(of: code, action: .open))
            }
            let holder = exclusiveUser(of: path)
            if holder > 0 || !patience.isLeft() {
                throw StoreFileError(action, path, .inUse(processID: holder))
            }
        }
    }

    /// Who holds the lock of a block device that we may not even open.
    private static func exclusiveUser(of path: String) -> Int32 {
        let fileDescriptor = Glibc.open(path, O_RDONLY | PARALLAX_O_CLOEXEC)
        guard fileDescriptor >= 0 else { return 0 }
        defer { close(fileDescriptor) }
        return parallax_lock_holder(fileDescriptor)
    }

    /// Takes the locks, then gives a file its size. Owns the descriptor: closed on failure.
    private static func lock(
        _ fileDescriptor: Int32, _ path: String, _ kind: Kind, _ access: Access,
        for action: StoreFileError.Action, _ patience: Patience,
        resizingTo newByteCount: UInt64? = nil
    ) throws(StoreFileError) -> StoreFile {
        do throws(StoreFileError) {
            if let reason = lockObstacle(fileDescriptor, access, patience) {
                throw StoreFileError(action, path, reason)
            }
            if let newByteCount { try resize(fileDescriptor, path, to: newByteCount) }
            let byteCount = try size(of: fileDescriptor, path, kind, for: action)
            return StoreFile(
                path: path, access: access, fileDescriptor: fileDescriptor,
                isBlockDevice: kind == .blockDevice, byteCount: byteCount)
        } catch {
            close(fileDescriptor)
            throw error
        }
    }

    /// Takes the locks; nil on success.
    private static func lockObstacle(
        _ fileDescriptor: Int32, _ access: Access, _ patience: Patience
    ) -> StoreFileError.Reason? {
        if access == .readOnlyUnlocked { return nil }
        while true {
            var holder: Int32 = 0
            let result = parallax_lock(fileDescriptor, access == .readWrite ? 1 : 0, &holder)
            if result == 0 { return nil }
            if result != -EAGAIN { return .system(-result) }
            if holder > 0 || !patience.isLeft() { return .inUse(processID: holder) }
        }
    }

    private static func size(
        of fileDescriptor: Int32, _ path: String, _ kind: Kind, for action: StoreFileError.Action
    ) throws(StoreFileError) -> UInt64 {
        if kind == .blockDevice {
            var byteCount: UInt64 = 0
            let result = parallax_block_device_size(fileDescriptor, &byteCount)
            if result == 0 { return byteCount }
            throw StoreFileError(action, path, .system(-result))
        }
        var status = stat()
        guard fstat(fileDescriptor, &status) == 0 else {
            throw StoreFileError(action, path, .system(errno))
        }
        return UInt64(status.st_size)
    }
}

// MARK: Creating

extension StoreFile {
    private static func createFile(
        _ path: String, _ byteCount: UInt64
    ) throws(StoreFileError) -> StoreFile {
        let flags = O_RDWR | O_CREAT | O_EXCL | PARALLAX_O_CLOEXEC | PARALLAX_O_DIRECT
        let fileDescriptor = Glibc.open(path, flags, 0o600)
        guard fileDescriptor >= 0 else {
            let code = errno
            // The kernel makes the file before it finds out that there is no direct I/O.
            if code == EINVAL { unlink(path) }
            throw StoreFileError(.create, path, StoreFileError.reason(of: code, action: .create))
        }
        do throws(StoreFileError) {
            let store = try lock(
                fileDescriptor, path, .file, .readWrite, for: .create, Patience(milliseconds: 0),
                resizingTo: byteCount)
            try syncDirectory(of: path, store)
            return store
        } catch {
            // Who has locked it meanwhile has replaced it: it is not ours any more.
            if case .inUse = error.reason {} else { unlink(path) }
            throw error
        }
    }

    /// Emptied first, so that nothing of old contents can be taken for new.
    private static func resize(
        _ fileDescriptor: Int32, _ path: String, to byteCount: UInt64
    ) throws(StoreFileError) {
        guard let size = Int(exactly: byteCount) else {
            throw StoreFileError(.create, path, .tooLarge(byteCount))
        }
        if ftruncate(fileDescriptor, 0) == 0 && ftruncate(fileDescriptor, size) == 0 { return }
        let code = errno
        throw StoreFileError(
            .create, path,
            code == EFBIG
                ? .tooLarge(byteCount) : StoreFileError.reason(of: code, action: .create))
    }

    /// Without this a power loss could take the new file's name.
    private static func syncDirectory(
        of path: String, _ store: StoreFile
    ) throws(StoreFileError) {
        let parent = path.lastIndex(of: "/").map { String(path[...$0]) } ?? "."
        let directory = Glibc.open(parent, O_RDONLY | O_DIRECTORY | PARALLAX_O_CLOEXEC)
        defer { if directory >= 0 { close(directory) } }
        // Where we may not read the directory, or it cannot be synced: all of its file system.
        if directory >= 0, fsync(directory) == 0 { return }
        var result = directory < 0 || errno == EINVAL ? 0 : -errno
        if result == 0 { result = parallax_syncfs(store.fileDescriptor) }
        if result < 0 { throw StoreFileError(.create, path, .system(-result)) }
    }
}

// MARK: Direct I/O

extension StoreFile {
    /// Bytes of which memory and length of each transfer have to be multiples, a power of two; where
    /// nobody says it, a page: that much always does.
    package var transferAlignment: Int {
        var byteCount: UInt32 = 0
        let result = parallax_direct_io_alignment(fileDescriptor, isBlockDevice ? 1 : 0, &byteCount)
        guard result == 0, byteCount.nonzeroBitCount == 1 else { return blockBytes }
        return max(sectorBytes, Int(byteCount))
    }
}

// MARK: Growing

extension StoreFile {
    /// Bytes for which the file system has blocks; nil for a block device.
    package var allocatedBytes: UInt64? {
        var status = stat()
        guard !isBlockDevice, fstat(fileDescriptor, &status) == 0 else { return nil }
        return UInt64(status.st_blocks) * 512
    }

    /// Makes a file at least `newByteCount` bytes long, durably; nothing in it changes, and it may be
    /// used meanwhile. Of a block device the size is read again: whoever owns it makes it larger. The
    /// size that it has now; throws `.deviceTooSmall` when that is less than was asked for. nil:
    /// whatever it has.
    package func grow(to newByteCount: UInt64?) throws(StoreFileError) -> UInt64 {
        if let newByteCount, newByteCount % UInt64(blockBytes) != 0 {
            throw StoreFileError(.grow, path, .badSize(newByteCount))
        }
        let kind: Kind = isBlockDevice ? .blockDevice : .file
        size.store(
            try Self.size(of: fileDescriptor, path, kind, for: .grow), ordering: .relaxed)
        if let newByteCount, !isBlockDevice { try extendFile(to: newByteCount) }
        if let newByteCount, newByteCount > byteCount {
            throw StoreFileError(.grow, path, .deviceTooSmall(byteCount))
        }
        return byteCount
    }

    private func extendFile(to newByteCount: UInt64) throws(StoreFileError) {
        guard let newSize = Int(exactly: newByteCount) else {
            throw StoreFileError(.grow, path, .tooLarge(newByteCount))
        }
        if newByteCount > byteCount {
            guard ftruncate(fileDescriptor, newSize) == 0 else {
                let code = errno
                throw StoreFileError(
                    .grow, path,
                    code == EFBIG
                        ? .tooLarge(newByteCount) : StoreFileError.reason(of: code, action: .grow))
            }
        }
        // Else a power loss could take back a size that the superblock already names. Also when an
        // attempt that failed has left the size; and what fails here the kernel tells nobody else.
        let result = syncs.judge(fsync(fileDescriptor) == 0 ? 0 : -Int(errno))
        guard result == 0 else {
            throw StoreFileError(
                .grow, path, StoreFileError.reason(of: Int32(-result), action: .grow))
        }
        size.store(max(newByteCount, byteCount), ordering: .relaxed)
    }
}
