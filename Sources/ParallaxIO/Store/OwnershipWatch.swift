// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux
internal import Glibc
package import ParallaxCore
internal import Synchronization

/// Looks every second whether the store is still this process's own.
///
/// The locks of a `StoreFile` are known to one kernel only, and to one name of the file: a daemon on
/// another host that has the same device, or one that has the file through a loop device, gets them as
/// well, and then both write into the same extents. But whoever opens a store for writing raises the
/// generation in its superblock, and whoever makes it anew gives it another UUID. A growth changes
/// neither. So what this process wrote there when it opened the store is there for as long as nobody
/// else has written to it.
///
/// It ends the damage after a second, and prevents none: what both have acknowledged until then may be
/// lost. Only a fence in front of the device (a reservation, a switch, the power) prevents it.
///
/// May be used from any thread. Invariants: W1 `onLoss` is called once at most. W2 `stop` returns while
/// the device does not answer: the thread is then left behind in its read, with the store.
package final class OwnershipWatch: Sendable {
    private struct State {
        var loss: StoreLoss?
        var isStopping = false
    }

    private let path: String
    private let medium: any StoreMedium & Sendable
    private let uuid: StoreUUID
    private let generation: UInt64
    private let periodMilliseconds: Int32
    private let onLoss: @Sendable (StoreLoss) -> Void
    private let state = Mutex(State())
    private let wakeUp: Int32
    /// Readable, and left so, when the thread is at its end.
    private let ended: Int32
    private let thread = Mutex<ShardThread?>(nil)

    /// LIMIT: how long `stop` waits for a read that is under way.
    private static let stopMilliseconds: Int32 = 200

    /// `superblock`: as this process has written it. `onLoss` is called on the watch's own thread, or
    /// by `verify`.
    package init(
        path: String, medium: any StoreMedium & Sendable, superblock: Superblock,
        periodMilliseconds: Int32 = 1000, onLoss: @escaping @Sendable (StoreLoss) -> Void
    ) {
        self.path = path
        self.medium = medium
        uuid = superblock.uuid
        generation = superblock.generation
        self.periodMilliseconds = periodMilliseconds
        self.onLoss = onLoss
        wakeUp = parallax_eventfd_create(0, 0)
        ended = parallax_eventfd_create(0, 0)
    }

    deinit {
        for descriptor in [wakeUp, ended] where descriptor >= 0 { close(descriptor) }
    }

    package func start() throws(ShardThreadError) {
        let name = "parallax-owner"
        guard min(wakeUp, ended) >= 0 else {
            throw ShardThreadError(name: name, errno: -min(wakeUp, ended))
        }
        let started = try ShardThread(name: name) {
            self.run()
            _ = parallax_eventfd_write(self.ended, 1)
        }
        thread.withLock { $0 = started }
    }

    /// Ends the thread (W2). Nothing is reported afterwards.
    package func stop() {
        state.withLock { $0.isStopping = true }
        let running = thread.withLock { thread in
            defer { thread = nil }
            return thread
        }
        guard let running else { return }
        _ = parallax_eventfd_write(wakeUp, 1)
        var event = pollfd(fd: ended, events: Int16(POLLIN), revents: 0)
        if poll(&event, 1, Self.stopMilliseconds) > 0 { running.join() }
    }

    /// Looks now, and throws when the store is another's. Waits for the device.
    package func verify() throws(StoreLoss) {
        if let known = state.withLock({ $0.loss }) { throw known }
        guard let loss = look() else { return }
        let isNews = state.withLock { state in
            defer { state.loss = state.loss ?? loss }
            return state.loss == nil && !state.isStopping
        }
        if isNews { onLoss(loss) }
        throw loss
    }

    private func run() {
        repeat {
            do { try verify() } catch { return }
        } while sleep()
    }

    /// False: it is to end.
    private func sleep() -> Bool {
        var event = pollfd(fd: wakeUp, events: Int16(POLLIN), revents: 0)
        _ = poll(&event, 1, periodMilliseconds)
        return state.withLock { !$0.isStopping }
    }

    /// Nil as well when it cannot be told just now: no copy can be read, or is whole. One that is being
    /// written need not be, and damage is no owner.
    private func look() -> StoreLoss? {
        guard let block = try? AlignedMemory(byteCount: blockBytes),
            let base = block.bytes.baseAddress
        else { return nil }
        for offset in Superblock.copyOffsets {
            do throws(MediumError) {
                try medium.read(at: offset, into: block.bytes)
            } catch { continue }
            do throws(Superblock.Fault) {
                return loss(try Superblock.decode(from: base))
            } catch {
                switch error {
                case .notAStore, .badChecksum, .inconsistent: continue
                case .otherVersion(let version):
                    return StoreLoss(path: path, evidence: "format version \(version)")
                case .unknownFeatures:
                    return StoreLoss(path: path, evidence: "features of a newer program")
                }
            }
        }
        return nil
    }

    private func loss(_ found: Superblock) -> StoreLoss? {
        if found.uuid != uuid {
            return StoreLoss(path: path, evidence: "UUID \(found.uuid), not \(uuid)")
        }
        // A lower one too: a daemon that was overtaken has grown the store, or the device went back.
        guard found.generation != generation else { return nil }
        return StoreLoss(
            path: path, evidence: "generation \(found.generation), not \(generation)")
    }
}

/// Another program has written to a store that this process has open. `description` is one sentence for
/// the user.
package struct StoreLoss: Error, Equatable, CustomStringConvertible {
    package var path: String
    /// What its superblock has.
    package var evidence: String

    package var description: String {
        "another program has written to the store \(path), on another host or by another path (its "
            + "superblock has \(evidence)), and its disks are read-only now; stop every daemon that "
            + "has it, run `parallax-ctl store check`, and start one"
    }
}
