// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxControl
import ParallaxCore
import ParallaxIO
import Synchronization

/// Makes the store larger under its running shards, in the order that `Store.grow` asks for.
///
/// Used by one task at a time, which the control plane sees to.
final class StoreGrower: Sendable {
    private let file: StoreFile
    private let pool: ExtentPreparer
    private let watch: OwnershipWatch
    private let shards: [ShardHandle]
    /// What both copies on the medium say.
    private let superblock: Mutex<Superblock>

    init(
        file: StoreFile, superblock: Superblock, pool: ExtentPreparer, watch: OwnershipWatch,
        shards: [ShardHandle]
    ) {
        self.file = file
        self.pool = pool
        self.watch = watch
        self.shards = shards
        self.superblock = Mutex(superblock)
    }

    var identity: StoreIdentity {
        let superblock = superblock.withLock { $0 }
        return StoreIdentity(
            path: file.path, uuid: superblock.uuid.description, sizeBytes: superblock.storeBytes,
            extentBytes: superblock.extentBytes, extentCount: UInt64(superblock.slotCount))
    }

    /// What the store's file takes of its file system; nil for a block device.
    var hostSpace: HostSpace? {
        guard let allocatedBytes = file.allocatedBytes else { return nil }
        let status = pool.status
        let problem = status.failure.map { failure in
            let advice =
                [ENOSPC, EDQUOT].contains(failure.errno)
                ? "free some space in its file system" : "check its device and the kernel log"
            return "an extent could not be allocated in \(file.path) (errno \(failure.errno)); "
                + advice
        }
        return HostSpace(
            allocatedBytes: allocatedBytes, punchedBytes: status.punchedBytes, problem: problem)
    }

    func grow(to sizeBytes: UInt64?) async throws -> StoreIdentity {
        let larger = try await onBlockingThread { [self] () throws(ControlError) in
            try makeLarger(sizeBytes)
        }
        // Each engine must know of the slots before one of them can come to it.
        for shard in shards { try await shard.grow(to: larger) }
        pool.grow(slotCount: Int(larger.slotCount))
        for shard in shards { shard.noteFreeSpace() }
        return identity
    }

    /// Returns when every shard has begun.
    func clean(untilFreePercent percent: UInt64?) async throws {
        let count = UInt64(superblock.withLock { $0.slotCount })
        let goal = percent.map { Int((count * $0 + 99) / 100) } ?? .max
        for shard in shards { try await shard.clean(untilFreeSlots: goal) }
    }

    /// Returns when every shard has begun, or stopped.
    func scrub(_ order: ScrubOrder) async throws {
        for shard in shards {
            switch order {
            case .stop: try await shard.scrub(nil)
            case .start(let rate, let earlier):
                let part = earlier.map { $0[shard.index] }
                if part?.finished == true { continue }
                try await shard.scrub(
                    ShardScrub(
                        bytesPerSecond: max(1, rate / UInt64(shards.count)),
                        from: part.flatMap(ScrubStatus.init)))
            }
        }
    }

    private func makeLarger(_ sizeBytes: UInt64?) throws(ControlError) -> Superblock {
        let old = superblock.withLock { $0 }
        guard sizeBytes != nil || file.isBlockDevice else {
            throw ControlError(
                .invalid, "the store \(file.path) is a file; give the size that it is to have")
        }
        do {
            // A size that the superblock cannot have must not change the file.
            if let sizeBytes { _ = try Store.layout(of: old, grownTo: sizeBytes) }
            // Else the superblock of who has the store now would be written over.
            try watch.verify()
            let size = try file.grow(to: sizeBytes)
            let larger = try Store.grow(old, to: sizeBytes ?? size, medium: file)
            superblock.withLock { $0 = larger }
            return larger
        } catch let error as StoreError {
            throw ControlError(
                error.kind == .device ? .ioError : .invalid,
                "the store \(file.path) was not grown: \(error.message)")
        } catch let loss as StoreLoss {
            throw ControlError(.ioError, "the store was not grown: \(loss)")
        } catch let error as StoreFileError {
            throw ControlError(error.isUsage ? .invalid : .ioError, error.description)
        } catch {
            throw ControlError(.internalError, "the store was not grown: \(error)")
        }
    }
}

/// Runs what blocks where nobody's work waits for it.
private func onBlockingThread<Value: Sendable>(
    _ body: @escaping @Sendable () throws(ControlError) -> Value
) async throws -> Value {
    try await withCheckedThrowingContinuation { (reply: CheckedContinuation<Value, any Error>) in
        let isStarted = startDetachedThread {
            do throws(ControlError) {
                reply.resume(returning: try body())
            } catch {
                reply.resume(throwing: error)
            }
        }
        guard !isStarted else { return }
        reply.resume(
            throwing: ControlError(.internalError, "the system has no thread to give; try again"))
    }
}

extension StoreFileError {
    /// Whether another size would have been accepted.
    fileprivate var isUsage: Bool {
        switch reason {
        case .badSize, .tooLarge, .deviceTooSmall: true
        default: false
        }
    }
}
