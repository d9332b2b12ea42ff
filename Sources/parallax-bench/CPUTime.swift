// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import Glibc

/// CPU time that a process has used, all threads, living and gone.
enum CPUTime {
    /// From /proc/PID/stat, or nil when there is no such process or no right to ask.
    static func nanoseconds(ofProcess pid: Int32) -> UInt64? {
        guard let text = readFile("/proc/\(pid)/stat") else { return nil }
        return parse(stat: text, ticksPerSecond: UInt64(max(1, sysconf(Int32(_SC_CLK_TCK)))))
    }

    /// The second field, the program's name in parentheses, may hold anything, also ") ": the
    /// numbers start after the last parenthesis. utime and stime are fields 14 and 15.
    static func parse(stat: String, ticksPerSecond: UInt64) -> UInt64? {
        guard let end = stat.lastIndex(of: ")") else { return nil }
        let fields = stat[stat.index(after: end)...].split(separator: " ")
        guard fields.count > 12, let user = UInt64(fields[11]), let system = UInt64(fields[12])
        else { return nil }
        return (user + system) * (1_000_000_000 / ticksPerSecond)
    }

    static func nanosecondsOfThisProcess() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    private static func readFile(_ path: String) -> String? {
        let fd = open(path, O_RDONLY | O_CLOEXEC)
        guard fd >= 0 else { return nil }
        defer { close(fd) }
        var bytes = [UInt8](repeating: 0, count: 2048)
        let count = read(fd, &bytes, bytes.count)
        guard count > 0 else { return nil }
        return String(decoding: bytes.prefix(count), as: UTF8.self)
    }
}
