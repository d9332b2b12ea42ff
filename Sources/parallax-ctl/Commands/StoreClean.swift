// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ArgumentParser
import Glibc
import ParallaxControl

struct StoreClean: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "clean", abstract: "Gather what lives, so that whole extents become free.",
        discussion: """
            The daemon does this by itself when space runs low; by hand it is for a quiet hour, or \
            to put disks that were written at random back in order. Guests go on. Waits for the \
            end; interrupted, the daemon goes on with it. Exit code 1 when --until cannot be \
            reached.
            """)

    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var output: OutputOptions

    @Option(
        help: ArgumentHelp(
            "End when so much of the store is free (default: when no more can be gained).",
            valueName: "percent"))
    var until: String?

    func validate() throws {
        try Usage.check { () throws(ControlError) in _ = try percent() }
    }

    private func percent() throws(ControlError) -> UInt64? {
        guard let until else { return nil }
        let digits = until.hasSuffix("%") ? until.dropLast() : until[...]
        guard let percent = UInt64(digits), (1...100).contains(percent) else {
            throw ControlError(
                .invalid, "--until is a percentage from 1% to 100%, not \(quoted(until))")
        }
        return percent
    }

    func run() throws {
        let client = try connection.client()
        let percent = try percent()
        let first = try client.status()
        try client.cleanStore(untilPercent: percent)
        let progress = CleaningProgress(first: first, untilPercent: percent)
        var latest = try client.status()
        while latest.shards.contains(where: \.cleaner.asked) {
            progress.show(latest)
            usleep(200_000)
            latest = try client.status()
        }
        progress.end()
        let report = progress.report(latest)
        output.print(report) {
            "\(latest.store.path): \(report.cleanedExtents) extents cleaned, "
                + "\(ByteSize.format(report.movedBytes)) moved, "
                + "\(ByteSize.format(report.freeBytes)) of \(ByteSize.format(report.sizeBytes)) free"
        }
        guard let percent, !report.isReached else { return }
        throw ControlError(
            .noSpace,
            "\(percent) % cannot be made free by cleaning: the rest lives; delete snapshots or "
                + "VDIs, or make the store larger")
    }
}

/// What a cleaning has done.
struct CleaningReport: Encodable {
    var freeBytesBefore: UInt64
    var freeBytes: UInt64
    var sizeBytes: UInt64
    var cleanedExtents: UInt64
    var movedBytes: UInt64
    /// Of `--until`; without it there is nothing to reach.
    var isReached: Bool

    enum CodingKeys: String, CodingKey {
        case freeBytesBefore = "free_bytes_before"
        case freeBytes = "free_bytes"
        case sizeBytes = "size_bytes"
        case cleanedExtents = "cleaned_extents"
        case movedBytes = "moved_bytes"
        case isReached = "reached"
    }
}

/// A bar on a terminal: how much of what is to become free is free.
struct CleaningProgress {
    private static let width = 40

    private let first: DaemonStatus
    private let goalBytes: UInt64?
    private let isShown = isatty(STDERR_FILENO) == 1

    init(first: DaemonStatus, untilPercent: UInt64?) {
        self.first = first
        let store = first.store
        goalBytes = untilPercent.map {
            (store.extentCount * $0 + 99) / 100 * store.extentBytes
        }
    }

    /// In thousandths. Without a goal all that is dead is to become free.
    private func share(_ status: DaemonStatus) -> UInt64 {
        let goal = goalBytes ?? first.store.freeBytes + first.store.deadBytes
        let wanted = goal - min(goal, first.store.freeBytes)
        let done = status.store.freeBytes - min(status.store.freeBytes, first.store.freeBytes)
        return wanted == 0 ? 1000 : min(1000, done * 1000 / wanted)
    }

    func show(_ status: DaemonStatus) {
        guard isShown else { return }
        let share = share(status)
        let filled = Int(share) * Self.width / 1000
        let bar =
            String(repeating: "#", count: filled)
            + String(repeating: ".", count: Self.width - filled)
        let moved = ByteSize.format(report(status).movedBytes)
        write(
            "\r[\(bar)] \(share / 10) %, \(moved) moved, "
                + "\(ByteSize.format(status.store.freeBytes)) free\u{1B}[K")
    }

    func end() { if isShown { write("\r\u{1B}[K") } }

    private func write(_ text: String) {
        let bytes = Array(text.utf8)
        _ = Glibc.write(STDERR_FILENO, bytes, bytes.count)
    }

    func report(_ latest: DaemonStatus) -> CleaningReport {
        func gained(_ figure: (CleanerDescription) -> UInt64) -> UInt64 {
            let before = first.shards.reduce(0) { $0 + figure($1.cleaner) }
            let after = latest.shards.reduce(0) { $0 + figure($1.cleaner) }
            return after - min(after, before)
        }
        return CleaningReport(
            freeBytesBefore: first.store.freeBytes, freeBytes: latest.store.freeBytes,
            sizeBytes: latest.store.sizeBytes, cleanedExtents: gained(\.cleanedExtents),
            movedBytes: gained(\.movedBytes),
            isReached: latest.store.freeBytes >= goalBytes ?? 0)
    }
}
