// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// What one measured stretch of time amounts to.
struct Measurement {
    var reads = Latencies()
    var writes = Latencies()
    var flushes = Latencies()
    /// From the submission of the first write after a flush to the completion of the next flush.
    var groups = Latencies()
    var startNanoseconds: UInt64 = 0
    var endNanoseconds: UInt64 = 0
    var clientCPUNanoseconds: UInt64 = 0
    /// Nil when the server's process is unknown or hidden.
    var serverCPUNanoseconds: UInt64?

    var operations: UInt64 { reads.count + writes.count }
    var seconds: Double { Double(endNanoseconds &- startNanoseconds) / 1e9 }

    var readsAndWrites: Latencies {
        if reads.count == 0 { return writes }
        var both = reads
        both.add(writes)
        return both
    }

    mutating func begin(now: UInt64, serverPID: Int32?) {
        reads.reset()
        writes.reset()
        flushes.reset()
        groups.reset()
        startNanoseconds = now
        clientCPUNanoseconds = CPUTime.nanosecondsOfThisProcess()
        serverCPUNanoseconds = serverPID.flatMap(CPUTime.nanoseconds(ofProcess:))
    }

    mutating func end(now: UInt64, serverPID: Int32?) {
        endNanoseconds = now
        clientCPUNanoseconds = CPUTime.nanosecondsOfThisProcess() - clientCPUNanoseconds
        let serverEnd = serverPID.flatMap(CPUTime.nanoseconds(ofProcess:))
        guard let start = serverCPUNanoseconds, let end = serverEnd, end >= start else {
            serverCPUNanoseconds = nil
            return
        }
        serverCPUNanoseconds = end - start
    }
}
