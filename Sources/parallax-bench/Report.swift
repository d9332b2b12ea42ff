// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxGuest

/// The results as text: one line for people, or one JSON object.
struct Report {
    var plan: Plan
    var measurement: Measurement
    var serverPID: Int32?
    /// Blocks that the final pass read back and found right.
    var verifiedBlockCount: UInt64
    var capacityBytes: UInt64
    var features: VirtioFeatures

    private var iops: Double { rate(Double(measurement.operations)) }
    private var megabytesPerSecond: Double { iops * Double(plan.blockBytes) / 1e6 }
    private var clientCPUMicroseconds: Double { perOperation(measurement.clientCPUNanoseconds) }
    private var serverCPUMicroseconds: Double? {
        measurement.serverCPUNanoseconds.map(perOperation)
    }

    private func rate(_ count: Double) -> Double {
        measurement.seconds > 0 ? count / measurement.seconds : 0
    }

    private func perOperation(_ nanoseconds: UInt64) -> Double {
        let operations = max(1, measurement.operations)
        return Double(nanoseconds) / 1000 / Double(operations)
    }

    private func percent(_ nanoseconds: UInt64) -> Double { rate(Double(nanoseconds) / 1e7) }

    // MARK: For people

    var text: String {
        let name = plan.workload == .mixed ? "mixed \(plan.readPercent)%" : plan.workload.rawValue
        var text =
            "\(name) \(ByteSize(bytes: UInt64(plan.blockBytes)).text)"
            + " depth \(plan.depth) queues \(plan.queueCount):"
            + " \(fixed(iops, 0)) IOPS, \(fixed(megabytesPerSecond, 1)) MB/s;"
            + " latency µs \(line(measurement.readsAndWrites));"
            + " CPU per I/O: client \(fixed(clientCPUMicroseconds, 2)) µs"
            + " (\(fixed(percent(measurement.clientCPUNanoseconds), 0))%)"
        if let server = serverCPUMicroseconds, let used = measurement.serverCPUNanoseconds {
            text += ", server \(fixed(server, 2)) µs (\(fixed(percent(used), 0))%)"
        } else {
            text += ", server unknown"
        }
        text += "; \(measurement.operations) in \(fixed(measurement.seconds, 2)) s, 0 errors"
        if plan.workload == .mixed {
            text += "\n  reads:  latency µs \(line(measurement.reads))"
            text += "\n  writes: latency µs \(line(measurement.writes))"
        }
        if plan.flushEvery > 0 {
            text += "\n  \(measurement.flushes.count) flushes: \(line(measurement.flushes))"
            let group = plan.flushEvery == 1 ? "write + flush" : "\(plan.flushEvery) writes + flush"
            text += "\n  \(group): \(line(measurement.groups))"
        }
        if plan.verifies { text += "\n  verified: \(verifiedBlockCount) blocks in the final pass" }
        return text
    }

    private func line(_ latencies: Latencies) -> String {
        percentiles.map { "\($0.name) \(fixed(latencies.microseconds(atPercentile: $0.value), 1))" }
            .joined(separator: " ")
            + " max \(fixed(latencies.maxMicroseconds, 1))"
            + " mean \(fixed(latencies.meanMicroseconds, 1))"
    }

    private var percentiles: [(name: String, value: Double)] {
        [("p50", 50), ("p99", 99), ("p99.9", 99.9)]
    }

    // MARK: For programs

    var json: String {
        var object = JSONObject()
        object.add("workload", string: plan.workload.rawValue)
        if plan.workload == .mixed { object.add("read_percent", "\(plan.readPercent)") }
        object.add("block_size", "\(plan.blockBytes)")
        object.add("depth", "\(plan.depth)")
        object.add("queues", "\(plan.queueCount)")
        object.add("seed", "\(plan.seed)")
        object.add("seconds", fixed(measurement.seconds, 6))
        object.add("operations", "\(measurement.operations)")
        object.add("bytes", "\(measurement.operations * UInt64(plan.blockBytes))")
        object.add("iops", fixed(iops, 1))
        object.add("mb_per_s", fixed(megabytesPerSecond, 3))
        object.add("latency_us", latencyObject(measurement.readsAndWrites))
        object.add("read_latency_us", latencyObject(measurement.reads))
        object.add("write_latency_us", latencyObject(measurement.writes))
        object.add("flush_every", "\(plan.flushEvery)")
        object.add("flushes", "\(measurement.flushes.count)")
        object.add("flush_latency_us", latencyObject(measurement.flushes))
        object.add("write_flush_latency_us", latencyObject(measurement.groups))
        object.add("client_cpu_us_per_io", fixed(clientCPUMicroseconds, 3))
        object.add("client_cpu_percent", fixed(percent(measurement.clientCPUNanoseconds), 1))
        object.add("server_pid", serverPID.map { "\($0)" } ?? "null")
        object.add("server_cpu_us_per_io", serverCPUMicroseconds.map { fixed($0, 3) } ?? "null")
        let serverPercent = measurement.serverCPUNanoseconds.map { fixed(percent($0), 1) }
        object.add("server_cpu_percent", serverPercent ?? "null")
        object.add("verify", plan.verifies ? "true" : "false")
        object.add("verified_blocks", "\(verifiedBlockCount)")
        object.add("errors", "0")
        object.add("capacity_bytes", "\(capacityBytes)")
        object.add("features", string: features.description)
        return object.text
    }

    private func latencyObject(_ latencies: Latencies) -> String {
        guard latencies.count > 0 else { return "null" }
        var object = JSONObject()
        for (name, value) in percentiles {
            object.add(name, fixed(latencies.microseconds(atPercentile: value), 3))
        }
        object.add("max", fixed(latencies.maxMicroseconds, 3))
        object.add("mean", fixed(latencies.meanMicroseconds, 3))
        object.add("count", "\(latencies.count)")
        return object.text
    }
}

/// A JSON object, built member by member in order.
struct JSONObject {
    private var members: [String] = []

    /// `value` must be JSON already.
    mutating func add(_ name: String, _ value: String) { members.append("\"\(name)\":\(value)") }

    /// `string` must need no escapes.
    mutating func add(_ name: String, string: String) { add(name, "\"\(string)\"") }

    var text: String { "{" + members.joined(separator: ",") + "}" }
}

/// A number with a fixed count of decimals, rounded half up. Not for negative numbers.
func fixed(_ value: Double, _ decimals: Int) -> String {
    var scale: UInt64 = 1
    for _ in 0..<decimals { scale *= 10 }
    guard value.isFinite, value >= 0, value < 1e12 else { return "0" }
    let scaled = UInt64((value * Double(scale)).rounded())
    guard decimals > 0 else { return "\(scaled)" }
    let fraction = "\(scaled % scale)"
    let padding = String(repeating: "0", count: decimals - fraction.count)
    return "\(scaled / scale).\(padding)\(fraction)"
}
