// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// One engine of a `CanaryStore`: passes everything through, except where its fault is.
final class CanaryEngine: EngineUnderTest {
    let engine: any EngineUnderTest
    let fault: CanaryStore.Fault
    var versions = VersionFaults()
    private var count = 0
    private var ownReplies: [BlockReply] = []
    private var reads: [UInt32: BlockRequest] = [:]
    /// Writes that the engine has been told are done.
    private var anticipated: Set<UInt64> = []
    private var skippedSyncs: [UInt64] = []

    init(_ engine: any EngineUnderTest, fault: CanaryStore.Fault) {
        self.engine = engine
        self.fault = fault
    }

    func isTime(everyNth: Int) -> Bool {
        count += 1
        return count % everyNth == 0
    }

    func submit(_ request: BlockRequest) {
        var request = request
        precondition(fault != .traps || request.operation != .discard, "the canary's trap")
        let isForgotten =
            switch (fault, request.operation) {
            case (.forgetsDiscards, .discard), (.forgetsDiscards, .writeZeroes): isTime(everyNth: 3)
            case (.forgetsWrites, .write): isTime(everyNth: 20)
            default: false
            }
        if isForgotten {
            ownReplies.append(
                BlockReply(session: request.session, tag: request.tag, status: .ok))
            return
        }
        if fault == .confusesBranches { confuse(&request) }
        if fault == .freesShared { noteWrite(request) }
        if fault == .ignoresForceUnitAccess { request.forceUnitAccess = false }
        if request.operation == .read { reads[request.tag] = request }
        engine.submit(request)
    }

    func nextReply() -> BlockReply? {
        if !ownReplies.isEmpty { return ownReplies.removeFirst() }
        guard let reply = engine.nextReply() else { return nil }
        if reply.session == VersionFaults.session { return nextReply() }
        if fault == .loses, isTime(everyNth: 50) { return nextReply() }
        if let request = reads.removeValue(forKey: reply.tag), reply.status == .ok {
            spoil(request)
        }
        return reply
    }

    private func spoil(_ request: BlockRequest) {
        guard let segment = request.segments?.pointee, segment.count > 0 else { return }
        switch fault {
        case .misreads where isTime(everyNth: 20):
            let byte = segment.base.load(as: UInt8.self)
            segment.base.storeBytes(of: byte ^ 4, as: UInt8.self)
        case .overruns where isTime(everyNth: 20):
            segment.base.storeBytes(of: 0, toByteOffset: segment.count, as: UInt8.self)
        default: break
        }
    }

    func nextCommand() -> StoreCommand? {
        guard let command = engine.nextCommand() else { return nil }
        if fault == .skipsSyncs, command.operation == .sync {
            skippedSyncs.append(command.tag)
            return nextCommand()
        }
        if fault == .acknowledgesEarly, command.operation == .write {
            anticipated.insert(command.tag)
            engine.complete(StoreCompletion(tag: command.tag, result: command.byteCount))
        }
        return command
    }

    func complete(_ completion: StoreCompletion) {
        if anticipated.remove(completion.tag) == nil { engine.complete(completion) }
    }

    var freeRequestSlots: Int { engine.freeRequestSlots }
    func turn(nowNanoseconds: UInt64) {
        let skipped = skippedSyncs
        skippedSyncs = []
        for tag in skipped { engine.complete(StoreCompletion(tag: tag, result: 0)) }
        engine.turn(nowNanoseconds: nowNanoseconds)
    }
    var wantedExtents: Int { engine.wantedExtents }
    var lacksSpare: Bool { engine.lacksSpare }
    func noteExtentRequested() { engine.noteExtentRequested() }
    func supplyExtent(slot: UInt32?, peersAreGaining: Bool) {
        engine.supplyExtent(slot: slot, peersAreGaining: peersAreGaining)
    }
    var isGainingSpace: Bool { engine.isGainingSpace }
    func takeReleasedSlot() -> UInt32? { engine.takeReleasedSlot() }
    func giveBackSpace() { engine.giveBackSpace() }
    func noteFreeSlots(_ count: Int) { engine.noteFreeSlots(count) }
    func requestCleaning(untilFreeSlots goal: Int) {
        engine.requestCleaning(untilFreeSlots: goal)
    }

    func startScrub(bytesPerSecond: UInt64) {
        engine.startScrub(bytesPerSecond: bytesPerSecond)
    }
    func stopScrub() { engine.stopScrub() }
    func nextScrubFinding() -> String? { engine.nextScrubFinding() }

    var movedBlocks: UInt64 { engine.movedBlocks }
    func ownedSlots() -> [UInt32] { engine.ownedSlots() }
    func snapshots(from cursor: Int, limit: Int) -> SnapshotPage {
        engine.snapshots(from: cursor, limit: limit)
    }
    func summary(of snapshot: UInt64) -> SnapshotSummary? { engine.summary(of: snapshot) }
    func submit(diff: DiffQuery, ticket: UInt64) { engine.submit(diff: diff, ticket: ticket) }
    func nextDiffReply() -> DiffReply? { engine.nextDiffReply() }
    func releaseGroup(_ group: UInt64) { engine.releaseGroup(group) }
    func handle(of identifier: UInt64) -> UInt32? { engine.handle(of: identifier) }
    func disks() -> [VDISummary] { engine.disks() }
    func requestCheckpoint() { engine.requestCheckpoint() }
    var isIdle: Bool { engine.isIdle }
    var failureMessage: String? { engine.failureMessage }
    var prospectRefused: Int { engine.prospectRefused }
    var logEnd: (applied: UInt64, durable: UInt64) { engine.logEnd }
    var diagnosis: String { engine.diagnosis }
}
