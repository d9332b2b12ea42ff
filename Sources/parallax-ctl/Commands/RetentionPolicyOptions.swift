// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ArgumentParser
import ParallaxControl
import ParallaxRetention

/// A retention policy on the command line. What the options mean is the library's business: they
/// go to `RetentionPolicy.parse(options:)` as they are.
struct RetentionPolicyOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Keep the newest N.", valueName: "n"))
    var keepLast: String?

    @Option(
        name: [.customLong("keep-hourly"), .customLong("hourly")],
        help: ArgumentHelp(
            "Keep the newest of each hour, for N hours that have one.", valueName: "n"))
    var keepHourly: String?

    @Option(
        name: [.customLong("keep-daily"), .customLong("daily")],
        help: ArgumentHelp("The same for days.", valueName: "n"))
    var keepDaily: String?

    @Option(
        name: [.customLong("keep-weekly"), .customLong("weekly")],
        help: ArgumentHelp("The same for ISO weeks, which begin on Monday.", valueName: "n"))
    var keepWeekly: String?

    @Option(
        name: [.customLong("keep-monthly"), .customLong("monthly")],
        help: ArgumentHelp("The same for months.", valueName: "n"))
    var keepMonthly: String?

    @Option(
        name: [.customLong("keep-yearly"), .customLong("yearly")],
        help: ArgumentHelp("The same for years.", valueName: "n"))
    var keepYearly: String?

    @Option(
        help: ArgumentHelp(
            "Keep all that are not older, such as 15m, 2h, 7d, 4w, 6mo, 1y.", valueName: "duration")
    )
    var keepWithin: String?

    @Option(
        help: ArgumentHelp(
            "Keep the newest of each hour among those not older.", valueName: "duration"))
    var keepWithinHourly: String?

    @Option(help: ArgumentHelp("The same for days.", valueName: "duration"))
    var keepWithinDaily: String?

    @Option(help: ArgumentHelp("The same for weeks.", valueName: "duration"))
    var keepWithinWeekly: String?

    @Option(help: ArgumentHelp("The same for months.", valueName: "duration"))
    var keepWithinMonthly: String?

    @Option(help: ArgumentHelp("The same for years.", valueName: "duration"))
    var keepWithinYearly: String?

    @Option(
        help: ArgumentHelp("Keep all with this label; may be repeated.", valueName: "key[=value]"))
    var keepLabelled: [String] = []

    @Option(help: ArgumentHelp("Keep N at least, the newest first.", valueName: "n"))
    var minCount: String?

    @Option(
        help: ArgumentHelp(
            "keep-one, keep-all, keep-safe (all of the window, then only the newest) or "
                + "keep-landmarks (all of the window, then ever fewer with age).",
            valueName: "mode"))
    var mode: String?

    @Option(
        help: ArgumentHelp(
            "The window of keep-safe and keep-landmarks (default: "
                + "\(RetentionMode.defaultWindow.text)).", valueName: "duration"))
    var window: String?

    @Option(
        help: ArgumentHelp(
            "Snapshots with this label may go too, whoever made them.", valueName: "key[=value]"))
    var label: String?

    @Flag(help: "Snapshots made by hand may go too.")
    var includeManual = false

    @Option(
        help: ArgumentHelp(
            "Whose hours and days count (default: \(RetentionPolicy.defaultTimeZone)).",
            valueName: "zone"))
    var timeZone: String?

    /// Call it in `validate()` through `Usage.check` too, so that a slip is a usage error.
    func policy() throws(ControlError) -> RetentionPolicy {
        do throws(RetentionError) {
            return try RetentionPolicy.parse(options: words)
        } catch {
            throw ControlError(error)
        }
    }

    private var words: [String] {
        let values: [(String, String?)] = [
            ("keep-last", keepLast), ("keep-hourly", keepHourly), ("keep-daily", keepDaily),
            ("keep-weekly", keepWeekly), ("keep-monthly", keepMonthly),
            ("keep-yearly", keepYearly), ("keep-within", keepWithin),
            ("keep-within-hourly", keepWithinHourly), ("keep-within-daily", keepWithinDaily),
            ("keep-within-weekly", keepWithinWeekly), ("keep-within-monthly", keepWithinMonthly),
            ("keep-within-yearly", keepWithinYearly), ("min-count", minCount), ("mode", mode),
            ("window", window), ("label", label), ("time-zone", timeZone),
        ]
        return values.compactMap { name, value in value.map { "--\(name)=\($0)" } }
            + keepLabelled.map { "--keep-labelled=\($0)" }
            + (includeManual ? ["--include-manual"] : [])
    }
}
