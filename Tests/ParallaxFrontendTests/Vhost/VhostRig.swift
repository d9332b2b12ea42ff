// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxCore
import ParallaxVhost

/// A shard of the smallest kind: one device, a disk in memory, and a loop that the test turns by
/// hand, so that everything happens in one thread and in a known order.
final class VhostRig {
    let device: UnsafeMutablePointer<VhostDevice>
    var registrar = EpollRegistrar()
    var requests: RequestQueue
    let disk: UnsafeMutableRawBufferPointer

    /// Requests are kept here instead of being served, until `release`.
    var isHolding = false
    var held: [BlockRequest] = []
    /// What the engine answers instead of serving.
    var failure: BlockStatus?
    /// Serves instead of `disk`.
    var backend: ((BlockRequest) -> BlockStatus)?
    /// What was answered, oldest first.
    var statuses: [BlockStatus] = []
    /// All requests that the engine has seen.
    var seen: [BlockRequest] = []
    var notices: [VhostNotice] = []
    /// Off for long runs, which would only collect memory.
    var isRecording = true

    static let identity = VhostDiskIdentity(store: StoreUUID(high: 1, low: 2), version: 3)

    init(
        path: String, sectors: UInt64 = 2048, name: String = "disk", readOnly: Bool = false,
        queueCapacity: Int = 256, identity: VhostDiskIdentity = VhostRig.identity
    ) throws {
        let export = VhostExport(
            name: name, sectors: sectors, readOnly: readOnly, socketPath: path,
            identity: identity)
        device = .allocate(capacity: 1)
        do throws(VhostError) {
            device.initialize(to: try VhostDevice(session: 7, vdi: 3, export: export))
        } catch {
            device.deallocate()
            throw error
        }
        requests = RequestQueue(minimumCapacity: queueCapacity)
        disk = UnsafeMutableRawBufferPointer(
            start: calloc(Int(sectors), sectorBytes), count: Int(sectors) * sectorBytes)
        device.pointee.start(registrar: &registrar)
    }

    deinit {
        isHolding = false
        release()
        device.pointee.stop(registrar: &registrar)
        precondition(device.pointee.isDrained, "the device did not end")
        device.deinitialize(count: 1)
        device.deallocate()
        free(disk.baseAddress)
    }

    // #expect cannot look into a value that cannot be copied.
    var inFlight: Int { device.pointee.inFlight }
    var counters: VhostCounters { device.pointee.counters }
    var isConnected: Bool { device.pointee.isConnected }
    var isDrained: Bool { device.pointee.isDrained }

    /// One turn of the loop; false when nothing was ready.
    @discardableResult
    func turn(timeoutMilliseconds: Int64 = 0) -> Bool {
        let ready = registrar.wait(timeoutMilliseconds: timeoutMilliseconds)
        for token in ready where registrar.watched[token] != nil {
            device.pointee.handleEvent(
                source: token.source, interest: .readable, registrar: &registrar,
                requests: &requests)
        }
        serve()
        device.pointee.finishBatch(registrar: &registrar, requests: &requests)
        collectNotices()
        return !ready.isEmpty || !requests.isEmpty
    }

    /// Turns until nothing is ready; traps when that does not come, as a device that keeps
    /// waking itself would burn a core.
    func settle(limit: Int = 10_000) {
        var turns = 0
        while turn() {
            turns += 1
            precondition(turns < limit, "the device does not come to rest")
        }
    }

    /// Answers what was held, newest first, to show that order does not matter.
    func release() {
        let waiting = held
        held = []
        for request in waiting.reversed() { answer(request) }
        device.pointee.finishBatch(registrar: &registrar, requests: &requests)
        serve()
        collectNotices()
    }

    /// Answers one request out of turn, and shows the answer.
    func answerNow(_ request: BlockRequest) {
        answer(request)
        device.pointee.finishBatch(registrar: &registrar, requests: &requests)
    }

    func collectNotices() {
        while let notice = device.pointee.takeNotice() {
            if isRecording { notices.append(notice) }
        }
    }

    private func serve() {
        while let request = requests.popFirst() {
            if isRecording { seen.append(request) }
            if isHolding { held.append(request) } else { answer(request) }
        }
    }

    private func answer(_ request: BlockRequest) {
        let status = failure ?? backend?(request) ?? disk.perform(request)
        if isRecording { statuses.append(status) }
        device.pointee.complete(tag: request.tag, status: status)
    }
}
