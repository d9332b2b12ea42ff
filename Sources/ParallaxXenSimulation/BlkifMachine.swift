// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import Glibc
internal import ParallaxCore
internal import ParallaxGuest
internal import ParallaxSimulation
internal import ParallaxXen

/// A host with one blkif device in one thread: the shipping back end on a pretended Xen, a guest
/// with a model of its disk, and an engine that ends requests in any order.
///
///     guest --ring, events--> XenDevice --requests--> engine
///       ^                        |   ^                  |
///       +--- answers, events ----+   +---- replies -----+
///
/// SAFETY: `device` leads to an initialised device or is nil; `retire` and `startDaemon` see to it.
final class BlkifMachine {
    static let backend = "/local/domain/0/backend/vbd/3/51712"
    static let frontend = "/local/domain/3/device/vbd/51712"
    /// Numbers of a device's descriptors: its timer is of real time, so the seed decides instead.
    private static let timerSource: UInt32 = 1
    private static let firstQueueSource: UInt32 = 16

    struct World {
        var pageCount = 1024
        var capacity = 2048
        var requestRoom = 64
        var isReadOnly = false
        var canary: BlkifCanary?
    }

    let world: World
    private(set) var xen: PretendedXen
    var library: XenLibrary
    let guest: BlkifGuest
    private(set) var engine: ModelEngine
    private(set) var device: UnsafeMutablePointer<XenDevice>?
    private var registrar = SimulatedRegistrar()
    private var requests: RequestQueue
    /// The engine ends all requests with an error.
    var isFailing = false
    var takeovers = 0
    var turns = 0

    init(_ world: World, tell: ((String) -> Void)?) {
        self.world = world
        let xen = PretendedXen(pageCount: world.pageCount)
        self.xen = xen
        library = XenLibrary(functions: xen.functions)
        engine = ModelEngine(
            capacity: world.capacity, sectors: world.capacity / 2, canary: world.canary)
        requests = RequestQueue(minimumCapacity: world.requestRoom)
        guest = BlkifGuest(
            front: BlkfrontDriver(xen: xen, backend: Self.backend, frontend: Self.frontend),
            capacity: world.capacity, isReadOnly: world.isReadOnly, canary: engine,
            trace: Trace(tell: tell))
    }

    deinit { retire() }

    var front: BlkfrontDriver { guest.front }
    var isServing: Bool { device != nil }
    var isConnected: Bool { device?.pointee.isConnected ?? false }

    // MARK: The daemon

    func startDaemon() throws(SimulationFailure) {
        precondition(device == nil, "a second daemon for one device")
        let export = XenExport(
            name: "disk", sectors: UInt64(engine.sectors), readOnly: world.isReadOnly,
            place: .node(Self.backend))
        let device = UnsafeMutablePointer<XenDevice>.allocate(capacity: 1)
        do throws(XenError) {
            device.initialize(
                to: try XenDevice.open(session: 7, vdi: 3, export: export, library: library))
        } catch {
            device.deallocate()
            throw SimulationFailure("the device cannot be opened: \(error)")
        }
        self.device = device
        device.pointee.start(registrar: &registrar, requests: &requests)
        finishBatch()
    }

    /// The shard drops a device that has ended.
    private func dropIfDrained() throws(SimulationFailure) {
        guard let device, device.pointee.isDrained else { return }
        device.deinitialize(count: 1)
        device.deallocate()
        self.device = nil
        try expectReleased()
    }

    func expectReleased() throws(SimulationFailure) {
        guard xen.mappedPages == 0, xen.boundPorts == 0 else {
            throw SimulationFailure(
                "\(xen.mappedPages) pages are mapped and \(xen.boundPorts) channels bound after "
                    + "the end")
        }
    }

    /// Ends a daemon whose machine nobody looks at any more.
    private func retire() {
        guard let device else { return }
        while !requests.isEmpty || !engine.pending.isEmpty {
            while let request = requests.popFirst() { engine.pending.append(request) }
            while let request = engine.pending.popLast() {
                device.pointee.complete(tag: request.tag, status: .shuttingDown)
            }
            device.pointee.finishBatch(registrar: &registrar, requests: &requests)
        }
        device.pointee.stop(keepingGuest: true, registrar: &registrar, requests: &requests)
        device.deinitialize(count: 1)
        device.deallocate()
        self.device = nil
    }

    func stopDaemon(keepingGuest: Bool) {
        device?.pointee.stop(
            keepingGuest: keepingGuest, registrar: &registrar, requests: &requests)
        finishBatch()
    }

    /// The time that a guest has to let go of a detached disk is over.
    func fireTimer() {
        device?.pointee.handleEvent(
            source: Self.timerSource, interest: .readable, registrar: &registrar,
            requests: &requests)
        finishBatch()
    }

    func resize(_ sectors: Int) {
        engine.resize(sectors)
        device?.pointee.resize(sectors: UInt64(sectors))
        finishBatch()
    }
}

// MARK: - Turns

extension BlkifMachine {
    private func finishBatch() {
        collect()
        device?.pointee.finishBatch(registrar: &registrar, requests: &requests)
        collect()
        while device?.pointee.takeNotice() != nil {}
    }

    private func collect() {
        while let request = requests.popFirst() { engine.pending.append(request) }
    }

    /// One turn of the shard's loop: some of what is ready, and some replies, in any order.
    func turn(_ random: inout SeededRandom) throws(SimulationFailure) {
        try turn(&random, eventPercent: 70, replies: random.integer(in: 0...6))
    }

    private func turn(
        _ random: inout SeededRandom, eventPercent: Int, replies: Int
    ) throws(SimulationFailure) {
        guard let device else { return }
        turns += 1
        var ready = registrar.ready(ignoring: [Self.timerSource])
        while !ready.isEmpty {
            let token = ready.remove(at: random.index(below: ready.count))
            guard random.chance(percent: eventPercent), registrar.isWatched(token) else { continue }
            if token.source >= Self.firstQueueSource, engine.isCaught(by: .lostEvent) {
                registrar.swallow(token)
                continue
            }
            device.pointee.handleEvent(
                source: token.source, interest: .readable, registrar: &registrar,
                requests: &requests)
        }
        collect()
        for _ in 0..<min(replies, engine.pending.count) { reply(&random) }
        finishBatch()
        try dropIfDrained()
    }

    private func reply(_ random: inout SeededRandom) {
        let request = engine.pending.remove(at: random.index(below: engine.pending.count))
        let status = isFailing ? .ioError : engine.perform(request)
        guest.trace.note(
            .completion, UInt64(request.tag), request.firstSector, UInt64(status.rawValue),
            "  engine: \(request.operation) of \(request.sectorCount) sectors, tag \(request.tag): "
                + "\(status)")
        device?.pointee.complete(tag: request.tag, status: status)
    }

    /// Turns until nobody has anything left to do. Then a guest that is connected has its answers;
    /// before, it shows all its requests.
    func settle(
        _ random: inout SeededRandom, pushes: Bool = true
    ) throws(SimulationFailure) {
        if pushes, front.state == "4" { guest.pushAll() }
        // LIMIT: far more than any state leads to.
        for _ in 0..<20_000 {
            let isQuiet =
                engine.pending.isEmpty && registrar.ready(ignoring: [Self.timerSource]).isEmpty
            try turn(&random, eventPercent: 100, replies: engine.pending.count)
            let hasHeard = try guest.hearEvents()
            guard isQuiet, !hasHeard, engine.pending.isEmpty else { continue }
            guard isConnected, front.state == "4", guest.unanswered > 0 else { return }
            throw SimulationFailure("\(guest.unanswered) requests wait, and nobody does anything")
        }
        throw SimulationFailure("the device does not come to rest")
    }

    /// The daemon ends at once, in the middle of a turn if `call` says so: the guest, xenstore and
    /// the disk stay as they were then. `call` counts the back end's calls of Xen's libraries.
    func kill(atCall call: Int, _ random: inout SeededRandom) throws(SimulationFailure) {
        var copy: (xen: PretendedXen, engine: ModelEngine)?
        if call > 0 {
            var left = call
            xen.beforeCall = { [self] in
                left -= 1
                if left == 0 { copy = (xen.copy(), engine.copy()) }
            }
            for _ in 0..<4 where copy == nil { try turn(&random) }
            xen.beforeCall = nil
        }
        let (machine, disk) = copy ?? (xen.copy(), engine.copy())
        retire()
        xen = machine
        engine = disk
        library = XenLibrary(functions: machine.functions)
        registrar = SimulatedRegistrar()
        requests = RequestQueue(minimumCapacity: world.requestRoom)
        guest.front = guest.front.moved(to: machine)
        takeovers += 1
    }
}
