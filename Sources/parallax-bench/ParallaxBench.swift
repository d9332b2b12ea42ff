// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ArgumentParser
internal import ParallaxGuest

/// The program: options, checks against the device, run, report.
@main
struct ParallaxBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "parallax-bench",
        abstract: "Load, latency and correctness of any vhost-user-blk device.",
        discussion: """
            Plays the guest: connects to the device's socket, shares memory with it, and drives \
            its rings from one thread. Sizes take K, M, G and T (binary). Fill a disk before you \
            read from it: --workload write --block-size 1M --total 100%.
            With --verify each written sector says what it is, reads are checked against the last \
            write of this run, and a final pass reads everything back; the range is taken to be \
            nobody else's. A read or randread run with --verify expects a range that an earlier \
            run with --verify and the same --seed has written all over.
            """)

    @Option(help: "The device's vhost-user socket.")
    var socket: String?

    @Flag(help: "Instead of a device, measure vhost-user and blkif side by side in this process.")
    var frontEnds = false

    @Option(help: "randread, randwrite, read, write or mixed.")
    var workload: Workload = .randread

    @Option(help: "The share of reads in a mixed workload.")
    var readPercent: UInt64 = 70

    @Option(help: "Choose random blocks by a Zipf distribution with this exponent, such as 0.99.")
    var zipf: Double?

    @Option(help: "Bytes in each request.")
    var blockSize = ByteSize(bytes: 4096)

    @Option(help: "Requests in flight in each queue.")
    var depth = 32

    @Option(help: "Queues to use.")
    var queues = 1

    @Option(help: "Seconds to measure (10 unless --total is given).")
    var runtime: Double?

    @Option(help: "Stop after this much data: a size, or a percentage of the range.")
    var total: DataAmount?

    @Option(help: "Seconds to run before measuring (with --runtime).")
    var warmup: Double = 0

    @Option(
        help: """
            Each lane (one of depth x queues) flushes after this many of its writes; 1 measures \
            write + flush pairs.
            """)
    var flushEvery: UInt64 = 0

    @Option(help: "Use only this much of the device, from its start.")
    var range: ByteSize?

    @Flag(help: "Write patterns, and check what is read.")
    var verify = false

    @Option(help: "Seed of the random requests and of the patterns.")
    var seed: UInt64 = 1

    @Option(help: "The server's process, for its CPU time (default: the socket's owner).")
    var serverPid: Int32?

    @Flag(help: "Spin on the used rings instead of sleeping; takes a whole CPU.")
    var poll = false

    @Option(help: "Descriptors in each ring.")
    var queueSize = 128

    @Option(help: "Cut the data of a request into descriptors of at most this size.")
    var segmentSize: ByteSize?

    @Flag(help: "Do not use indirect descriptors.")
    var noIndirect = false

    @Flag(help: "Do not use EVENT_IDX.")
    var noEventIndex = false

    @Flag(help: "Print one JSON object.")
    var json = false

    func validate() throws {
        guard frontEnds != (socket != nil) else {
            throw ValidationError("Give the device's --socket, or --front-ends.")
        }
        guard blockSize.bytes > 0, blockSize.bytes % 512 == 0, blockSize.bytes <= 64 << 20 else {
            throw ValidationError("--block-size must be a multiple of 512, up to 64M.")
        }
        guard depth >= 1, depth <= 1024, queues >= 1, queues <= 256 else {
            throw ValidationError("--depth must be 1 to 1024, --queues 1 to 256.")
        }
        guard readPercent <= 100 else { throw ValidationError("--read-percent is 0 to 100.") }
        guard zipf == nil || workload.isRandom else {
            throw ValidationError("--zipf needs a workload of random blocks.")
        }
        guard zipf.map({ $0 > 0 && $0 < 1 }) ?? true else {
            throw ValidationError("--zipf is more than 0 and less than 1.")
        }
        guard runtime == nil || total == nil else {
            throw ValidationError("--runtime and --total exclude each other.")
        }
        let seconds = runtime ?? 10
        guard seconds > 0, seconds <= 1e6, warmup >= 0, warmup <= 1e6 else {
            throw ValidationError("--runtime must be positive, --warmup not negative.")
        }
        guard warmup == 0 || total == nil else {
            throw ValidationError("--warmup goes with --runtime, not with --total.")
        }
        guard flushEvery == 0 || !workload.isReadOnly else {
            throw ValidationError("--flush-every needs a workload that writes.")
        }
    }

    func run() throws {
        guard let socket else {
            let results = try FrontEndComparison(seconds: runtime ?? 10, depth: depth).run()
            for result in results { print(result.text) }
            return
        }
        let driver = try BlockDriver(connectingTo: socket, options: driverOptions)
        let plan = try makePlan(socket, driver.config, driver.features)
        let pid = serverPid ?? driver.connection.peerProcess
        let (capacityBytes, features) = (driver.capacityBytes, driver.features)
        var runner = try LoadRunner(plan, driver: driver, serverPID: pid)
        try runner.run()
        if plan.verifies { try runner.sweep() }
        let report = Report(
            plan: plan, measurement: runner.measurement, serverPID: pid,
            verifiedBlockCount: runner.sweptBlockCount, capacityBytes: capacityBytes,
            features: features)
        print(json ? report.json : report.text)
    }

    private var driverOptions: BlockDriverOptions {
        var options = BlockDriverOptions()
        options.queueCount = queues
        options.queueSize = queueSize
        options.requestsPerQueue = depth
        options.bufferBytes = Int(blockSize.bytes)
        options.dataSegmentBytes = Int(clamping: segmentSize?.bytes ?? UInt64.max)
        if noIndirect { options.features.remove(.indirectDescriptors) }
        if noEventIndex { options.features.remove(.eventIndex) }
        return options
    }

    private func makePlan(
        _ socket: String, _ config: BlockDeviceConfig, _ features: VirtioFeatures
    ) throws -> Plan {
        if !workload.isReadOnly, features.contains(.readOnly) {
            throw BenchFailure("\(socket) is read-only; choose read or randread")
        }
        if flushEvery > 0, !features.contains(.flush) {
            throw BenchFailure("\(socket) offers no flush; leave out --flush-every")
        }
        if let range, range.bytes > config.capacityBytes {
            throw BenchFailure(
                "--range \(range.text) is more than \(socket) has (\(config.capacityBytes) bytes)")
        }
        let rangeBytes = range?.bytes ?? config.capacityBytes
        let blockCount = rangeBytes / blockSize.bytes
        guard blockCount > UInt64(depth * queues) else {
            throw BenchFailure(
                "\(rangeBytes) bytes hold only \(blockCount) blocks of \(blockSize.text): "
                    + "more are needed than requests in flight (\(depth * queues))")
        }
        return Plan(
            workload: workload, readPercent: readPercent, blockBytes: Int(blockSize.bytes),
            depth: depth, queueCount: queues, limit: try limit(blockCount: blockCount),
            warmupNanoseconds: UInt64(warmup * 1e9), blockCount: blockCount,
            flushEvery: flushEvery, verifies: verify, polls: poll, zipf: zipf, seed: seed)
    }

    private func limit(blockCount: UInt64) throws -> Limit {
        guard let total else { return .nanoseconds(UInt64((runtime ?? 10) * 1e9)) }
        let bytes = total.bytes(ofRange: blockCount * blockSize.bytes)
        let requests = (bytes + blockSize.bytes - 1) / blockSize.bytes
        guard requests > 0 else { throw BenchFailure("--total is less than one request") }
        return .requests(requests)
    }
}
