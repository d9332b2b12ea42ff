// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Foundation
import Testing

/// `parallax-ctl retention simulate`, which needs no daemon.
@Suite struct RetentionTests {
    private func simulate(_ words: String...) throws -> Outcome {
        try Command.run([Programs.control, "retention", "simulate"] + words)
    }

    private func json(_ words: String...) throws -> [String: Any] {
        let text = try Command.succeed(
            [Programs.control, "retention", "simulate", "--json"] + words)
        let value = try JSONSerialization.jsonObject(with: Data(text.utf8))
        return try #require(value as? [String: Any], "no JSON object: \(text)")
    }

    @Test("every example in the administrator's page prints what it says")
    func examples() throws {
        let page = "\(Programs.sourceDirectory)/docs/retention.md"
        let text = try String(contentsOfFile: page, encoding: .utf8)
        let blocks = text.components(separatedBy: "```\n").filter { $0.hasPrefix("$ ") }
        #expect(blocks.count == 5)
        for block in blocks {
            var lines = block.components(separatedBy: "\n")
            var command = ""
            repeat {
                command += lines.removeFirst() + "\n"
            } while command.hasSuffix("\\\n")
            let outcome = try Command.run(
                ["sh", "-c", "PATH=\(Programs.directory):$PATH; \(command.dropFirst(2))"])
            #expect(outcome.text == lines.joined(separator: "\n"), "\(command)")
        }
    }

    @Test("a year of snapshots every quarter of an hour, as JSON")
    func shapes() throws {
        let shown = try json(
            "--every", "15m", "--for", "1y", "--now", "2026-11-25T10:00:00Z", "--daily", "7",
            "--keep-last", "2")
        #expect(shown["kept_count"] as? Int == 8)
        #expect(shown["deleted_count"] as? Int == 35_032)
        #expect(shown["future_count"] as? Int == 0)
        #expect(shown["now"] as? String == "2026-11-25T10:00:00Z")
        #expect((shown["policy"] as? [String: Any])?["keep_daily"] as? Int == 7)
        let kept = try #require(shown["kept"] as? [[String: Any]])
        #expect(kept[1]["time"] as? String == "2026-11-25T09:45:00Z")
        #expect(kept[1]["reasons"] as? [String] == ["last 2 of 2"])
        let deleted = try #require(shown["deleted"] as? [String])
        #expect(deleted.first == "2026-11-25T09:30:00Z" && deleted.count == 35_032)
    }

    @Test("every option of a policy reaches it")
    func options() throws {
        let shown = try json(
            "--every", "1h", "--for", "2d", "--now", "2026-11-25T10:00:00Z",
            "--keep-last", "1", "--hourly", "2", "--keep-daily", "3", "--weekly", "4",
            "--monthly", "5", "--yearly", "6", "--keep-within", "7s", "--keep-within-hourly", "8m",
            "--keep-within-daily", "9h", "--keep-within-weekly", "10d", "--keep-within-monthly",
            "11w", "--keep-within-yearly", "12mo", "--keep-labelled", "a", "--keep-labelled", "b=c",
            "--min-count", "13", "--mode", "keep-safe", "--window", "14y", "--label", "e=f",
            "--include-manual", "--time-zone", "Europe/Berlin")
        let policy = try #require(shown["policy"] as? [String: Any])
        let texts = [
            "keep_within": "7s", "keep_within_hourly": "8m", "keep_within_daily": "9h",
            "keep_within_weekly": "10d", "keep_within_monthly": "11w",
            "keep_within_yearly": "12mo", "mode": "keep-safe", "window": "14y", "label": "e=f",
            "time_zone": "Europe/Berlin",
        ]
        for (key, value) in texts { #expect(policy[key] as? String == value, "\(key)") }
        let counts = [
            "keep_last": 1, "keep_hourly": 2, "keep_daily": 3, "keep_weekly": 4, "keep_monthly": 5,
            "keep_yearly": 6, "min_count": 13,
        ]
        for (key, value) in counts { #expect(policy[key] as? Int == value, "\(key)") }
        #expect(policy["keep_labelled"] as? [String] == ["a", "b=c"])
        #expect(policy["include_manual"] as? Bool == true)
        #expect(policy.count == texts.count + counts.count + 2)
    }

    @Test("a file of times: comments, blank lines, any order; the future is reported")
    func timesFile() throws {
        let directory = try TemporaryDirectory()
        let file = directory.file("times")
        let lines = """
            # made by the old tool
            2026-11-25T09:00:00Z   # the last one

            2026-11-20T09:00:00+01:00
            2026-11-21T09:00:00Z\r
            2027-01-01T00:00:00Z
            """
        try lines.write(toFile: file, atomically: false, encoding: .utf8)
        let outcome = try simulate(
            "--times", file, "--now", "2026-11-25T10:00:00Z", "--keep-last", "2")
        let expected = """
            TIME                  STAYS BECAUSE OF
            2027-01-01T00:00:00Z  in the future, newest
            2026-11-25T09:00:00Z  last 1 of 2, newest
            2026-11-21T09:00:00Z  last 2 of 2
                                  (1 goes)
            3 of 4 stay, 1 go; 1 in the future, check the clock

            """
        #expect(outcome.succeeded && outcome.output == expected, "\(outcome)")
    }

    @Test("an empty list is no error")
    func noTimes() throws {
        let outcome = try simulate("--times", "/dev/null", "--keep-last", "1")
        #expect(outcome.succeeded && outcome.output == "0 of 0 stay, 0 go\n", "\(outcome)")
    }

    @Test("--force shows what a refused policy would leave")
    func force() throws {
        let words = ["--every", "1d", "--for", "3d", "--now", "2026-11-25T10:00:00Z"]
        let program = [Programs.control, "retention", "simulate"] + words
        let refused = try Command.run(program)
        #expect(refused.code == 1 && refused.errors.contains("no rule that keeps"), "\(refused)")
        let forced = try Command.run(program + ["--force"])
        #expect(forced.output.hasSuffix("1 of 3 stay, 2 go\n"), "\(forced)")
    }

    @Test(
        "what makes no sense is one sentence: 64 for the command line, 1 for what it names",
        arguments: [
            ("", 64, "say which snapshots"),
            ("--every 15m", 64, "say which snapshots"),
            ("--times - --for 1y", 64, "say which snapshots"),
            ("--times - --every 1d --for 1y", 64, "say which snapshots"),
            ("--every 15 --for 1y", 64, "is not a length of time"),
            ("--every 15m --for 1y --now yesterday", 64, "is not a time"),
            ("--every 15m --for 1y --daily many", 64, "is not a whole number"),
            ("--every 15m --for 1y --mode keep-some", 64, "is not a mode"),
            ("--every 15m --for 1y --time-zone Mars", 64, "is not a known time zone"),
            ("--every 1s --for 1y --daily 1", 1, "more than 1000000"),
            ("--times /dev/zero --daily 1", 1, "more than 64 MiB"),
            ("--times / --daily 1", 1, "cannot read /"),
            ("--times /nowhere --daily 1", 1, "cannot open /nowhere"),
        ])
    func refusals(options: String, code: Int, part: String) throws {
        let words = options.split(separator: " ").map(String.init)
        let outcome = try Command.run([Programs.control, "retention", "simulate"] + words)
        #expect(outcome.code == code && outcome.output.isEmpty, "\(outcome)")
        #expect(outcome.errors.contains(part), "\(outcome)")
        #expect(outcome.errors.split(separator: "\n").count == 1, "\(outcome)")
    }

    @Test("a line that is no time is named")
    func badLine() throws {
        let directory = try TemporaryDirectory()
        let file = directory.file("times")
        try "2026-11-25T09:00:00Z\n\nno time\n".write(
            toFile: file, atomically: false, encoding: .utf8)
        let outcome = try simulate("--times", file, "--keep-last", "2")
        #expect(outcome.code == 1 && outcome.errors.contains("line 3 of \(file): \"no time\""))
    }
}
