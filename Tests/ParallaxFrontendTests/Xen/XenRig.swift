// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxCore
import ParallaxGuest
import ParallaxXen

/// A shard of the smallest kind with one Xen disk, a disk in memory, and a loop that the test
/// turns by hand.
final class XenRig {
    static let backend = "/local/domain/0/backend/vbd/3/51712"
    static let frontend = "/local/domain/3/device/vbd/51712"

    let xen: PretendedXen
    let library: XenLibrary
    let front: BlkfrontDriver
    var device: UnsafeMutablePointer<XenDevice>?
    var registrar = EpollRegistrar()
    var requests: RequestQueue
    let disk: UnsafeMutableRawBufferPointer
    let sectors: UInt64
    let readOnly: Bool
    /// Of the disk that the daemon serves.
    var identity = XenDiskIdentity(store: "a-store", version: 5)

    /// Requests are kept here instead of being served, until `release`.
    var isHolding = false
    var held: [BlockRequest] = []
    /// What the engine answers instead of serving.
    var failure: BlockStatus?
    /// All requests that the engine has seen.
    var seen: [BlockRequest] = []
    var isRecording = true
    /// As it was connected.
    private(set) var options = BlkfrontOptions()
    var notices: [XenNotice] = []

    convenience init(
        sectors: UInt64 = 4096, readOnly: Bool = false, queueCapacity: Int = 256,
        pageCount: Int = 4096
    ) {
        let xen = PretendedXen(pageCount: pageCount)
        self.init(
            xen, BlkfrontDriver(xen: xen, backend: Self.backend, frontend: Self.frontend),
            sectors: sectors, readOnly: readOnly, queueCapacity: queueCapacity)
    }

    init(
        _ xen: PretendedXen, _ front: BlkfrontDriver, sectors: UInt64, readOnly: Bool,
        queueCapacity: Int
    ) {
        self.xen = xen
        self.front = front
        library = XenLibrary(functions: xen.functions)
        requests = RequestQueue(minimumCapacity: queueCapacity)
        disk = UnsafeMutableRawBufferPointer(
            start: calloc(Int(sectors), sectorBytes), count: Int(sectors) * sectorBytes)
        self.sectors = sectors
        self.readOnly = readOnly
    }

    deinit {
        isHolding = false
        release()
        if device != nil { stop(keepingGuest: true) }
        precondition(xen.mappedPages == 0, "a page was left mapped")
        precondition(xen.boundPorts == 0, "an event channel was left bound")
        free(disk.baseAddress)
    }

    /// A daemon starts to serve the device.
    func start(_ place: XenPlace = .node(XenRig.backend), isRestored: Bool = false) throws {
        let export = XenExport(
            name: "disk", sectors: sectors, readOnly: readOnly, place: place, identity: identity,
            isRestored: isRestored)
        let device = UnsafeMutablePointer<XenDevice>.allocate(capacity: 1)
        do throws(XenError) {
            device.initialize(
                to: try XenDevice.open(session: 7, vdi: 3, export: export, library: library))
        } catch {
            device.deallocate()
            throw error
        }
        self.device = device
        device.pointee.start(registrar: &registrar, requests: &requests)
        settle()
    }

    /// Nodes, daemon, front end: both ends Connected.
    func connect(_ options: BlkfrontOptions = BlkfrontOptions()) throws {
        self.options = options
        front.makeNodes()
        try start()
        front.writeKeys(options)
        front.state = "3"
        settle()
        precondition(front.backendState == "4", "the back end did not connect")
        front.state = "4"
        settle()
    }

    func stop(keepingGuest: Bool) {
        device?.pointee.stop(
            keepingGuest: keepingGuest, registrar: &registrar, requests: &requests)
        settle()
        if device?.pointee.isDrained ?? false { destroy() }
    }

    func destroy() {
        device?.deinitialize(count: 1)
        device?.deallocate()
        device = nil
    }

    /// The machine as it would be after a sudden end of the daemon: the guest, xenstore and the
    /// disk are as they are at this moment, and nobody serves.
    func afterSuddenEnd() -> XenRig {
        let copy = xen.copy()
        let rig = XenRig(
            copy, front.moved(to: copy), sectors: sectors, readOnly: readOnly, queueCapacity: 256)
        rig.disk.copyMemory(from: UnsafeRawBufferPointer(disk))
        return rig
    }

    var inFlight: Int { device?.pointee.inFlight ?? 0 }
    var counters: XenCounters { device?.pointee.counters ?? XenCounters() }
    var isDrained: Bool { device?.pointee.isDrained ?? true }
    var isConnected: Bool { device?.pointee.isConnected ?? false }

    /// One turn of the loop; false when nothing was ready.
    @discardableResult
    func turn(timeoutMilliseconds: Int64 = 0) -> Bool {
        let ready = registrar.wait(timeoutMilliseconds: timeoutMilliseconds)
        guard let device else { return false }
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

    /// Turns until nothing is ready; traps when that does not come.
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
        device?.pointee.finishBatch(registrar: &registrar, requests: &requests)
        serve()
        collectNotices()
    }

    /// Answers one of those that are held.
    func release(at index: Int) {
        answer(held.remove(at: index))
        device?.pointee.finishBatch(registrar: &registrar, requests: &requests)
        serve()
    }

    private func collectNotices() {
        while let notice = device?.pointee.takeNotice() {
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
        let status = failure ?? disk.perform(request)
        device?.pointee.complete(tag: request.tag, status: status)
    }
}
