// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux
internal import Glibc
internal import ParallaxCore

extension XenDevice {
    /// Takes what xenstore has to say. Keys other than the states matter only while connected, and
    /// each is read once in a turn, however often it was written.
    mutating func hearStore<R: EventRegistrar & ~Copyable>(
        _ registrar: inout R, _ requests: inout RequestQueue
    ) {
        var hasNewState = false
        var keys: [String] = []
        let folder = node.frontend + "/"
        let isThere = store.takeWatchEvents { path in
            guard path.hasPrefix(folder), path != folder + "state" else {
                hasNewState = true
                return
            }
            let key = String(path.dropFirst(folder.count))
            if !keys.contains(key) { keys.append(key) }
        }
        guard isThere else { return loseStore(&registrar) }
        if hasNewState { look(&registrar, &requests) }
        for key in keys { checkUnchanged(key, &registrar) }
    }

    /// A front end that is connected has chosen: other rings than those that we serve would never
    /// be looked at, so it is told.
    private mutating func checkUnchanged<R: EventRegistrar & ~Copyable>(
        _ key: String, _ registrar: inout R
    ) {
        guard ours == .connected, pending == .nothing, let old = connectedKeys[key] else { return }
        do throws(StoreLost) {
            let new = try store.value("\(node.frontend)/\(key)")
            // All keys go when the domain does, which is no change; `look` sees to that.
            guard new != old, try frontEndState() != .unknown else { return }
        } catch { return loseStore(&registrar) }
        fail(.keyChanged(key), &registrar)
    }

    /// Reads where the other side is, and does what follows, step by step.
    mutating func look<R: EventRegistrar & ~Copyable>(
        _ registrar: inout R, _ requests: inout RequestQueue
    ) {
        guard !isEnded, pending == .nothing else { return }
        let theirs: XenbusState
        let isOnline: Bool
        do throws(StoreLost) {
            theirs = try frontEndState()
            isOnline = try store.value(node.backend + "/online") == "1"
        } catch { return loseStore(&registrar) }
        if theirs == .initialising || theirs == .closed { hasFailed = false }
        // LIMIT: no path through the machine is longer.
        for _ in 0..<8 {
            guard !isEnded, pending == .nothing else { return }
            let view = XenbusMachine.View(
                ours: ours, theirs: theirs, isOnline: isOnline, isWanted: isWanted,
                hasFailed: hasFailed)
            switch XenbusMachine.next(view) {
            case .nothing: return
            case .offer: offer()
            case .connect: connect(&registrar, &requests)
            case .beginClosing: beginClosing(&registrar)
            case .finishClosing: endConnection(.close, &registrar)
            case .leave:
                if theirs == .unknown { give(.domainGone) }
                endConnection(.leave, &registrar)
            case .refuse: fail(.impossibleState(theirs.rawValue), &registrar)
            }
        }
    }

    /// Unknown also when either directory is gone, as it is when the tool stack removes the device
    /// or destroys the domain.
    private func frontEndState() throws(StoreLost) -> XenbusState {
        guard try store.exists(node.backend + "/frontend") else { return .unknown }
        return XenbusState(text: try store.value(node.frontend + "/state"))
    }

    private mutating func write(
        _ keys: [(String, String)], then next: XenbusState
    ) -> Bool {
        do throws(XenError) {
            try store.transaction(node.backend) { store, transaction throws(XenError) in
                for (key, value) in keys {
                    try store.write("\(node.backend)/\(key)", value, in: transaction)
                }
                try store.write("\(node.backend)/state", "\(next.rawValue)", in: transaction)
            }
        } catch {
            give(.cannotWrite(error))
            return false
        }
        return true
    }

    /// Whose ring the front end will have made.
    private var owner: (String, String) { (XenDiskIdentity.key, "\(export.identity)") }

    /// What a front end may choose from.
    private mutating func offer() {
        let keys = [
            owner,
            ("feature-max-indirect-segments", "\(XenLimits.indirectSegmentsMax)"),
            ("multi-queue-max-queues", "\(XenLimits.queueCountMax)"),
            ("max-ring-page-order", "\(XenLimits.ringPageOrderMax)"),
            ("max-ring-pages", "\(XenLimits.ringPagesMax)"),
        ]
        store.remove(node.backend + "/error")
        _ = write(keys, then: .initWait)
        ours = .initWait
    }

    /// The disk as it is. A discard of any sectors is carried out; blocks of 4 KiB give space back.
    private var properties: [(String, String)] {
        var info = BlkifDiskInfo()
        if export.readOnly { info.insert(.readOnly) }
        let isDiscardWanted = store.read(node.backend + "/discard-enable") != "0"
        let canDiscard = isDiscardWanted && !export.readOnly
        return [
            owner,
            ("feature-flush-cache", "1"), ("feature-barrier", "1"), ("feature-persistent", "1"),
            ("feature-discard", canDiscard ? "1" : "0"),
            ("discard-granularity", "\(blockBytes)"), ("discard-alignment", "0"),
            ("discard-secure", "0"), ("sectors", "\(state.sectors)"),
            ("info", "\(info.rawValue)"), ("sector-size", "\(sectorBytes)"),
            ("physical-sector-size", "\(blockBytes)"),
        ]
    }

    private mutating func connect<R: EventRegistrar & ~Copyable>(
        _ registrar: inout R, _ requests: inout RequestQueue
    ) {
        do throws(XenFault) {
            var keys: [String: String?] = [:]
            let plan = try ConnectionPlan { key in
                let value = store.read("\(node.frontend)/\(key)")
                keys.updateValue(value, forKey: key)
                return value
            }
            connectedKeys = keys
            try mapRings(plan, &registrar)
            // I3; and a front end that asks for the size finds it.
            guard write(properties, then: .connected) else { throw .storeLost }
            ours = .connected
            state.count.connections += 1
            give(
                .connected(
                    queues: queueCount, ringPages: plan.queues[0].references.count,
                    isPersistent: plan.isPersistent, isTakenOver: isTakingOver))
        } catch {
            fail(error, &registrar)
            return
        }
        for queue in 0..<queueCount {
            // A ring that is taken over may hold answers whose event was lost.
            if isTakingOver { queues[queue].event?.notify() }
            takeRequests(queue, &registrar, &requests)
        }
        isTakingOver = false
    }

    /// The VDI has a new size; a front end that is connected reads it when our state is written
    /// again.
    package mutating func resize(sectors: UInt64) {
        state.sectors = sectors
        if ours == .connected { _ = write([("sectors", "\(sectors)")], then: .connected) }
    }

    /// The guest has the ring of another disk, whose requests are not ours to see (I8). It may
    /// close, and begin anew with ours.
    mutating func turnAway<R: EventRegistrar & ~Copyable>(_ registrar: inout R) {
        give(.otherDisk)
        beginClosing(&registrar)
    }

    private mutating func beginClosing<R: EventRegistrar & ~Copyable>(_ registrar: inout R) {
        quieten(&registrar)
        let keys = node.isOurs && !isWanted ? [("online", "0")] : []
        _ = write(keys, then: .closing)
        ours = .closing
    }

    /// This front end is not served any further: a sentence for whoever looks, and Closed.
    mutating func fail<R: EventRegistrar & ~Copyable>(
        _ fault: XenFault, _ registrar: inout R
    ) {
        hasFailed = true
        isTakingOver = false
        give(.refused(fault))
        do throws(XenError) {
            try store.write(node.backend + "/error", fault.text)
        } catch {
            give(.cannotWrite(error))
        }
        endConnection(.close, &registrar)
    }

    mutating func loseStore<R: EventRegistrar & ~Copyable>(_ registrar: inout R) {
        if !hasLostStore {
            hasLostStore = true
            registrar.unwatch(token: token(Source.store))
            give(.storeLost)
        }
        // What the guest has goes on; but nobody would tell us of its end.
        if !isWanted { endConnection(.leave, &registrar) }
    }
}

extension XenDevice {
    /// Takes no more requests, and hears no more events.
    mutating func quieten<R: EventRegistrar & ~Copyable>(_ registrar: inout R) {
        for queue in 0..<queueCount where !queues[queue].isDeaf {
            registrar.unwatch(token: token(Source.firstQueue + UInt32(queue)))
            queues[queue].quieten()
        }
        stalledQueues = 0
    }

    /// Ends the connection now, or with the last reply.
    mutating func endConnection<R: EventRegistrar & ~Copyable>(
        _ what: Pending, _ registrar: inout R
    ) {
        quieten(&registrar)
        pending = what
        if state.inFlight == 0 { finishPending(&registrar) }
    }

    mutating func finishPending<R: EventRegistrar & ~Copyable>(_ registrar: inout R) {
        let what = pending
        pending = .nothing
        releaseRings()
        switch what {
        case .nothing: break
        case .close:
            _ = write([], then: .closed)
            ours = .closed
        case .leave:
            leaveNode()
            end(&registrar)
        case .abandon: end(&registrar)
        }
    }

    /// Ours goes. A tool stack that removes its own waits for Closed; one that has lost the domain
    /// and not the node is told.
    private mutating func leaveNode() {
        guard !node.isOurs else {
            if ours != .closed, !hasLostStore { _ = write([], then: .closed) }
            return node.remove(store)
        }
        let isOnline = store.read(node.backend + "/online") == "1"
        let isGone = isOnline && (try? frontEndState()) == .unknown
        do throws(XenError) {
            try store.close(node.backend, because: isGone ? XenFault.domainGone.text : nil)
            // Not before: a ring that looks alive must not look like anybody's.
            store.remove("\(node.backend)/\(XenDiskIdentity.key)")
        } catch {
            give(.cannotWrite(error))
        }
    }

    private mutating func end<R: EventRegistrar & ~Copyable>(_ registrar: inout R) {
        if !hasLostStore { registrar.unwatch(token: token(Source.store)) }
        registrar.unwatch(token: token(Source.wake))
        if timer >= 0 { registrar.unwatch(token: token(Source.timer)) }
        claim = nil
        isEnded = true
    }

    mutating func startTimer<R: EventRegistrar & ~Copyable>(_ registrar: inout R) {
        guard timer < 0 else { return }
        timer = parallax_timer_create(XenLimits.closingNanoseconds)
        // Nothing would ever end the wait for the guest.
        guard timer >= 0 else { return closeByForce(&registrar) }
        registrar.watch(fileDescriptor: timer, token: token(Source.timer), interest: .readable)
    }

    /// The guest has had its time: the disk is taken away from it. Closed is written when nothing
    /// is in flight any more, as ever (I3).
    mutating func closeByForce<R: EventRegistrar & ~Copyable>(_ registrar: inout R) {
        if timer >= 0 { registrar.unwatch(token: token(Source.timer)) }
        guard pending != .leave, pending != .abandon else { return }
        give(.closedByForce)
        endConnection(.leave, &registrar)
    }
}
