// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxGuest
internal import ParallaxSimulation

/// What happens to a device as a whole. Each leaves a device that is connected.
extension BlkifMachine {
    /// A tool stack makes the device, a daemon starts to serve it, a guest finds it.
    func begin(_ random: inout SeededRandom) throws(SimulationFailure) {
        front.makeNodes()
        try startDaemon()
        try connect(&random)
    }

    private func options(_ random: inout SeededRandom) -> BlkfrontOptions {
        BlkfrontOptions(
            queueCount: random.integer(in: 1...4), ringPages: 1 << random.index(below: 3),
            isPersistent: random.oneIn(2), layout: random.oneIn(2) ? .x86For32 : .x86For64)
    }

    private func expectBackEnd(_ state: String, _ when: String) throws(SimulationFailure) {
        let actual = front.backendState
        guard actual == state else {
            throw SimulationFailure(
                "\(when): the back end is in state \(actual ?? "none"), not \(state)"
                    + (front.property("error").map { " (\($0))" } ?? ""))
        }
    }

    /// From Initialising to Connected, with rings of the seed's choice.
    private func connect(_ random: inout SeededRandom) throws(SimulationFailure) {
        try settle(&random)
        try expectBackEnd("2", "a front end begins")
        front.freePages()
        let own = [Self.frontend + "/state", Self.frontend + "/backend"]
        for path in xen.store.nodes(below: Self.frontend).keys.sorted() where !own.contains(path) {
            xen.store[path] = nil
        }
        let options = options(&random)
        front.writeKeys(options)
        guest.fillPool(count: world.pageCount - options.queueCount * options.ringPages)
        front.state = random.oneIn(4) ? "4" : "3"
        try settle(&random)
        try expectBackEnd("4", "a front end is ready")
        front.state = "4"
        guest.sectors = front.property("sectors").flatMap { Int($0) } ?? 0
        guard guest.sectors == engine.sectors else {
            throw SimulationFailure("the guest is told of \(guest.sectors) sectors")
        }
        try settle(&random)
    }

    /// All that the back end let go of has been answered before; the guest asks again for the rest.
    private func takeRings() throws(SimulationFailure) {
        try expectReleased()
        for queue in front.queues.indices { try guest.takeAnswers(queue) }
        guest.keepForLater()
    }

    /// The driver is loaded anew: it closes, and begins again.
    func reload(_ random: inout SeededRandom) throws(SimulationFailure) {
        front.state = "5"
        for _ in 0..<random.integer(in: 0...5) { try turn(&random) }
        front.state = "6"
        try settle(&random)
        try expectBackEnd("6", "the front end has closed")
        try takeRings()
        front.state = "1"
        try connect(&random)
    }

    /// Another kernel takes the guest over, without a word.
    func kexec(_ random: inout SeededRandom) throws(SimulationFailure) {
        front.state = "1"
        try settle(&random)
        try expectReleased()
        guest.forgetAll()
        try connect(&random)
    }

    func killDaemon(_ random: inout SeededRandom) throws(SimulationFailure) {
        try kill(atCall: random.integer(in: 0...12), &random)
        if random.oneIn(2) { guest.burst(random.integer(in: 1...8), &random, mayFail: isFailing) }
        try startDaemon()
    }

    func restartDaemon(_ random: inout SeededRandom) throws(SimulationFailure) {
        stopDaemon(keepingGuest: true)
        // LIMIT: each turn ends some requests.
        for _ in 0..<5_000 where isServing { try turn(&random) }
        guard !isServing else { throw SimulationFailure("the daemon does not stop") }
        try expectBackEnd("4", "the daemon has stopped")
        guest.burst(random.integer(in: 0...8), &random, mayFail: isFailing)
        try startDaemon()
    }

    /// The VDI is detached, with or without the guest's consent, and attached again.
    func detach(_ random: inout SeededRandom) throws(SimulationFailure) {
        stopDaemon(keepingGuest: false)
        for _ in 0..<random.integer(in: 0...5) { try turn(&random) }
        if random.oneIn(2) {
            front.state = "5"
            for _ in 0..<random.integer(in: 0...5) { try turn(&random) }
            front.state = "6"
        } else {
            fireTimer()
        }
        try settle(&random)
        guard !isServing else { throw SimulationFailure("a detached device is still there") }
        try expectBackEnd("6", "the VDI is detached")
        try takeRings()
        front.state = "1"
        try startDaemon()
        try connect(&random)
    }

    /// The domain is destroyed in the middle of it all; another one gets the disk.
    func destroyDomain(_ random: inout SeededRandom) throws(SimulationFailure) {
        let byToolStack = random.oneIn(2)
        if byToolStack { xen.store[Self.backend + "/online"] = "0" }
        xen.store.remove("/local/domain/3")
        if random.oneIn(3) { xen.store.remove(Self.backend) }
        try settle(&random)
        guard !isServing else { throw SimulationFailure("the device of a dead domain is served") }
        guest.forgetAll()
        xen.store.remove(Self.backend)
        try begin(&random)
    }

    /// The size changes while nothing is under way.
    func resizeDisk(_ random: inout SeededRandom) throws(SimulationFailure) {
        try settle(&random)
        let sectors = random.integer(in: 256...world.capacity)
        guest.resize(sectors)
        resize(sectors)
        guard front.property("sectors") == "\(sectors)" else {
            throw SimulationFailure("the new size is not in xenstore")
        }
        try settle(&random)
    }

    /// The guest breaks a rule, is told so, and begins anew.
    func offend(_ random: inout SeededRandom) throws(SimulationFailure) {
        try settle(&random)
        if random.oneIn(2) {
            let queue = front.queues[random.index(below: front.queues.count)]
            queue.requestProducer =
                queue.produced &+ queue.size &+ UInt32(random.integer(in: 1...99))
            xen.sendEvent(queue.port)
        } else {
            xen.store[Self.frontend + "/protocol"] = "another"
        }
        try settle(&random, pushes: false)
        try expectBackEnd("6", "the guest has broken a rule")
        guard front.property("error")?.hasSuffix(".") == true else {
            throw SimulationFailure("a guest that was turned away is not told why")
        }
        try takeRings()
        front.state = "6"
        try settle(&random)
        front.state = "1"
        try connect(&random)
    }

    /// Everything is answered, and the disk holds what the guest knows.
    func verify(_ random: inout SeededRandom) throws(SimulationFailure) {
        isFailing = false
        // LIMIT: each round puts some of what is left.
        for _ in 0..<2_000 {
            try settle(&random)
            guard !guest.isIdle else { break }
            guest.burstAgain(&random)
        }
        guard guest.isIdle else { throw SimulationFailure("requests are left at the end") }
        for sector in 0..<engine.sectors {
            guard let bytes = engine.bytes(sector).baseAddress,
                guest.model.check(bytes, sector: sector)
            else { throw SimulationFailure("the disk is wrong in \(guest.model.describe(sector))") }
        }
    }
}
