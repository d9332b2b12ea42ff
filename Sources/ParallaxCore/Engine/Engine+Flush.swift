// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

extension Engine {
    /// The newest chunk of which anything may have been answered. A chunk is answered piece by
    /// piece while it is applied, so it counts before `appliedLSN` has reached it.
    var answeredLSN: LogSequenceNumber {
        guard !log.inFlight.isEmpty else { return appliedLSN }
        let oldest = log.chunks[Int(log.inFlight[0])]
        return oldest.state == .complete ? oldest.lsn : appliedLSN
    }

    /// The request is answered when the log is durable up to its `flushLSN` (E2).
    mutating func enqueueFlush(_ index: Int) {
        if failure != nil {
            requests[index].status = .ioError
            reply(index)
        } else if durableLSN >= requests[index].flushLSN {
            reply(index)
        } else {
            flushing.append(UInt32(index))
        }
    }

    /// Answers the flushes that are satisfied, and starts one sync for all that are not.
    mutating func advanceFlushes() {
        guard failure == nil else { return }
        while !flushing.isEmpty, requests[Int(flushing[0])].flushLSN <= durableLSN {
            guard let index = flushing.popFirst() else { return }
            reply(Int(index))
        }
        guard syncingLSN == nil,
            !flushing.isEmpty || catalogWantsSync || checkpointWantsSync || moveLogWantsSync
        else { return }
        syncingLSN = appliedLSN
        syncsStarted += 1
        counters.syncs += 1
        commands.append(StoreCommand(operation: .sync, tag: CommandTag(.sync, 0).rawValue))
    }

    private var catalogWantsSync: Bool {
        guard let lsn = catalog.syncing.first?.lsn else { return false }
        return lsn > durableLSN && lsn <= appliedLSN
    }

    /// The one that it waited for may have ended a moment ago.
    private var checkpointWantsSync: Bool {
        switch checkpoint.phase {
        case .durable: durableLSN < checkpoint.lastLSN
        case .rootDurable: syncsCompleted < checkpoint.rootSync
        default: false
        }
    }

    mutating func completeSync(result: Int) {
        guard failure == nil, let lsn = syncingLSN else { return }
        syncingLSN = nil
        guard result >= 0 else {
            // What the device had not written may be lost for good, and a second sync would
            // not say so.
            fail(
                StoreError(
                    .device,
                    "Flushing the store failed with errno \(-result); the disks of this shard are "
                        + "read-only until the cause is mended and the daemon restarted."))
            return
        }
        durableLSN = max(durableLSN, lsn)
        syncsCompleted = syncsStarted
        advanceFlushes()
    }
}
