// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ArgumentParser
import Glibc
import ParallaxControl

struct StoreScrub: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "scrub", abstract: "Read and verify all live data while guests go on.",
        discussion: """
            The daemon reads at most so much a second as is given, a piece at a time, and says in its \
            log what is damaged. Waits for the end; interrupted, the daemon goes on with it, also \
            after a restart. A scrub that was stopped goes on from where it was. Exit code 3 when \
            something is damaged, 1 when somebody else stopped it before its end.
            """)

    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var output: OutputOptions

    @Option(
        help: ArgumentHelp(
            "What is read at most in a second (default: 16M, or what it was).", valueName: "size"))
    var rate: String?

    @Flag(help: "Begin from the start, not from where the last one was stopped.")
    var restart = false

    @Flag(help: "Stop it where it is.")
    var stop = false

    @Flag(inversion: .prefixedNo, help: "Wait for the end.")
    var wait = true

    func validate() throws {
        try Usage.check { () throws(ControlError) in
            if let rate { _ = try ByteSize.parse(rate) }
            if stop, rate != nil || restart {
                throw ControlError(.invalid, "--stop goes with no other option")
            }
        }
    }

    func run() throws {
        let client = try connection.client()
        if stop {
            try client.stopScrub()
            try show(client.status())
            return
        }
        try client.scrubStore(rate: try rate.map { try ByteSize.parse($0) }, restart: restart)
        var latest = try client.status()
        let bar = ScrubProgress()
        while wait, latest.scrub?.state == .running {
            bar.show(latest)
            usleep(500_000)
            latest = try client.status()
        }
        bar.end()
        try show(latest)
        if wait { try requireEnd(latest) }
    }

    /// Somebody else may have stopped it, or a shard has failed.
    private func requireEnd(_ status: DaemonStatus) throws {
        guard let scrub = status.scrub else { return }
        let isStopped = scrub.state == .paused
        if isStopped {
            let failed = status.shards.first { $0.readOnlyReason != nil }
            writeStandardError(
                "parallax-ctl: the scrub of \(status.store.path) was stopped before its end "
                    + (failed.map {
                        "because shard \($0.index) is read-only; mend the cause, restart "
                            + "the daemon and scrub again"
                    }
                        ?? "by somebody else; `parallax-ctl store scrub` goes on with it"))
        }
        if scrub.damagedBlocks > 0 { throw ExitCode(3) }
        if isStopped { throw ExitCode(1) }
    }

    private func show(_ status: DaemonStatus) throws {
        guard let scrub = status.scrub else {
            throw ControlError(.internalError, "the daemon says nothing of a scrub")
        }
        output.print(scrub) { "\(status.store.path): \(Descriptions.scrub(scrub))" }
    }
}

/// A bar on a terminal: how much of what lived when the scrub began is verified.
private struct ScrubProgress {
    private static let width = 40
    private let isShown = isatty(STDERR_FILENO) == 1

    func show(_ status: DaemonStatus) {
        guard isShown, let scrub = status.scrub else { return }
        let share = Int(min(1000, scrub.verifiedBytes * 1000 / max(1, scrub.totalBytes)))
        let filled = share * Self.width / 1000
        let bar =
            String(repeating: "#", count: filled)
            + String(repeating: ".", count: Self.width - filled)
        write("\r[\(bar)] \(share / 10) %, \(Descriptions.scrub(scrub))\u{1B}[K")
    }

    func end() { if isShown { write("\r\u{1B}[K") } }

    private func write(_ text: String) {
        let bytes = Array(text.utf8)
        _ = Glibc.write(STDERR_FILENO, bytes, bytes.count)
    }
}
