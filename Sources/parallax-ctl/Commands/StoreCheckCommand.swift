// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ArgumentParser
import Glibc
import ParallaxControl
import ParallaxCore
import ParallaxIO

struct StoreCheckCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check", abstract: "Verify a store: every structure, reference and checksum.",
        discussion: """
            Reads only, and needs no daemon. While a daemon serves the store its last checkpoints \
            are verified. With --repair the store, which nobody may be using, is brought to the \
            best state that can be had, and what is lost is listed; nothing is written before that \
            has been said and confirmed. Exit code 0: no damage, or none any more. 2: damage that a \
            repair mends without loss. 3: something is lost. 4: a shard or the store cannot be read. \
            1: the check could not be made.
            """)

    @OptionGroup var output: OutputOptions

    @Argument(help: "The store's file or block device.")
    var path: String

    @Flag(
        inversion: .prefixedNo,
        help: "Read all data blocks, and not only what says where they are.")
    var data = true

    @Flag(help: "Mend what can be mended.")
    var repair = false

    @Flag(help: "Repair without asking.")
    var yes = false

    func validate() throws {
        try Usage.check { () throws(ControlError) in
            if yes, !repair { throw ControlError(.invalid, "--yes goes with --repair") }
            if repair, output.json, !yes {
                throw ControlError(
                    .invalid, "a repair that prints JSON cannot ask; add --yes to confirm it")
            }
        }
    }

    func run() throws {
        let progress = CheckProgress()
        defer { progress.end() }
        let outcome = try repair ? repairStore(progress) : checkStore(progress)
        progress.end()
        output.print(outcome) { outcome.text }
        let code = outcome.exitCode
        if code != 0 { throw ExitCode(code) }
    }

    private func checkStore(_ progress: CheckProgress) throws(ControlError) -> CheckOutcome {
        let (file, isLive) = try openToLook()
        let report = StoreCheck.run(medium: file, options: options(isLive: isLive)) {
            progress.show($0)
        }
        return CheckOutcome(path: path, report: report, verifiesData: data && !isLive)
    }

    /// LIMIT: the kernel takes a moment to let go of the lock of a daemon that was killed.
    private static let patienceMilliseconds = 1000

    /// Beside a daemon, if one has the store.
    private func openToLook() throws(ControlError) -> (StoreFile, isLive: Bool) {
        do throws(StoreFileError) {
            do throws(StoreFileError) {
                return (
                    try StoreFile.open(
                        path: path, access: .readOnly,
                        patienceMilliseconds: Self.patienceMilliseconds),
                    false
                )
            } catch {
                guard case .inUse = error.reason else { throw error }
                return (try StoreFile.open(path: path, access: .readOnlyUnlocked), true)
            }
        } catch {
            throw ControlError(.ioError, error.description)
        }
    }

    private func options(isLive: Bool) -> StoreCheck.Options {
        var options = StoreCheck.Options()
        options.verifiesData = data
        options.isLive = isLive
        return options
    }

    private func repairStore(_ progress: CheckProgress) throws -> CheckOutcome {
        let file: StoreFile
        do throws(StoreFileError) {
            file = try StoreFile.open(path: path)
        } catch {
            throw ControlError(.ioError, error.description)
        }
        do {
            let repair = try StoreRepair(medium: file, options: options(isLive: false)) {
                progress.show($0)
            }
            progress.end()
            var outcome = CheckOutcome(path: path, report: repair.after, verifiesData: data)
            outcome.noteRepair(of: repair.before)
            guard repair.isNeeded else { return outcome }
            if !yes, try !confirm(outcome, byteCount: repair.byteCount) {
                return CheckOutcome(path: path, report: repair.before, verifiesData: data)
            }
            try repair.apply()
            outcome.isRepaired = true
            return outcome
        } catch let error as StoreError {
            throw ControlError(.ioError, "\(path): \(error.message)")
        }
    }

    private func confirm(
        _ outcome: CheckOutcome, byteCount: Int
    ) throws(ControlError) -> Bool {
        // Standard output may be a file, in which nobody would see the question.
        guard isatty(STDIN_FILENO) == 1, isatty(STDERR_FILENO) == 1 else {
            throw ControlError(
                .invalid,
                "\(path) is damaged and was not repaired: there is no terminal to ask; "
                    + "add --yes, or leave --repair out to see the damage")
        }
        Terminal.write(outcome.text, to: STDERR_FILENO)
        Terminal.write(
            "Write the repair (\(ByteSize.format(UInt64(byteCount)))) to \(path)? [y/N] ",
            to: STDERR_FILENO)
        return readLine()?.lowercased().hasPrefix("y") == true
    }
}

/// A bar on a terminal: which part of the live blocks has been gone through.
final class CheckProgress {
    private static let width = 40
    private let isShown = isatty(STDERR_FILENO) == 1
    private var shown = -1

    func show(_ progress: StoreCheck.Progress) {
        guard isShown else { return }
        let inShard =
            progress.totalBlocks == 0
            ? 1000 : min(1000, Int(progress.doneBlocks * 1000 / progress.totalBlocks))
        let share = (progress.stream * 1000 + inShard) / max(1, progress.streamCount)
        guard share != shown else { return }
        shown = share
        let filled = share * Self.width / 1000
        let bar =
            String(repeating: "#", count: filled)
            + String(repeating: ".", count: Self.width - filled)
        write("\r[\(bar)] \(share / 10) %, shard \(progress.stream)\u{1B}[K")
    }

    func end() {
        guard isShown, shown >= 0 else { return }
        shown = -1
        write("\r\u{1B}[K")
    }

    private func write(_ text: String) {
        let bytes = Array(text.utf8)
        _ = Glibc.write(STDERR_FILENO, bytes, bytes.count)
    }
}
