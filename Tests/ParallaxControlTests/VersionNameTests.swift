// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxControl
import Testing

@Suite struct VersionNameTests {
    @Test(
        "times are read in every form that people write",
        arguments: [
            ("1970-01-01", 0), ("2026-11-22", 1_795_305_600_000_000_000),
            ("2026-11-22T10:00", 1_795_341_600_000_000_000),
            ("2026-11-22t10:00:05z", 1_795_341_605_000_000_000),
            ("2026-11-22T10:00:05.123Z", 1_795_341_605_123_000_000),
            ("2026-11-22T12:00+02:00", 1_795_341_600_000_000_000),
            ("2026-11-22T04:30-0530", 1_795_341_600_000_000_000),
            ("2026-11-22T11:00+01", 1_795_341_600_000_000_000),
            ("2024-02-29", 1_709_164_800_000_000_000),
            ("2026-11-22T10:00:00.000000001", 1_795_341_600_000_000_001),
        ] as [(String, UInt64)])
    func times(_ text: String, _ nanoseconds: UInt64) {
        #expect(TimeText.parse(text) == nanoseconds)
    }

    @Test(
        "what is no time is not taken for one",
        arguments: [
            "", "2026", "2026-11", "2026-13-01", "2026-02-29", "2026-11-31", "2026-11-22T",
            "2026-11-22T24:00", "2026-11-22T10:60", "2026-11-22T10:00:60", "2026-11-22T10:00:00.",
            "2026-11-22T10", "2026-11-22 10:00", "2026-11-22T10:00+15:00", "2026-11-22T10:00+2",
            "2026-11-22T10:00ZZ", "1969-12-31", "0000-01-01", "1970-01-01T00:00+01:00",
            "99999-01-01", "\u{664}026-11-22",
        ])
    func noTimes(_ text: String) {
        #expect(TimeText.parse(text) == nil)
    }

    @Test("a time that was written is read back, on each day of 400 years")
    func roundTrip() {
        for day: UInt64 in 0..<146_097 {
            let time = day * 86_400_000_000_000 + 45_296_789_000_000
            let text = TimeText.milliseconds(time)
            guard TimeText.parse(text) == time, text.utf8.count == 24 else {
                Issue.record("\(text) is not \(time)")
                return
            }
        }
        #expect(TimeText.milliseconds(1_795_341_605_123_999_999) == "2026-11-22T10:00:05.123Z")
    }

    @Test("a version is a VDI, or a VDI and what names one of its snapshots")
    func names() throws {
        #expect(try VersionName("a") == VersionName(vdi: "a"))
        #expect(try VersionName("a b@x-1") == VersionName(vdi: "a b", snapshot: "x-1"))
        #expect(
            try VersionName("a@2026-11-22T12:00+02:00").snapshot == "2026-11-22T12:00+02:00")
        #expect(try VersionName("a@latest").description == "a@latest")
        for text in ["", "@", "a@", "@b", "a@b@c", "a/b@c", "a@b/c", "a@ b", "a@b\n", "a@.."] {
            let error = failure { _ = try VersionName(text) }
            #expect(error?.kind == .invalid, "\(text)")
        }
        // What may be a name may stand behind the `@`, a combining mark in front too.
        try SnapshotName.validate("\u{301}x")
        let marked = try VersionName("a@\u{301}x")
        #expect(marked == VersionName(vdi: "a", snapshot: "\u{301}x"))
        #expect(try VersionName(marked.description) == marked)
        #expect(failure { _ = try VersionName("a@b@\u{301}") }?.kind == .invalid)
        #expect(failure { _ = try VersionName.snapshot("a") }?.message.contains("VDI@") == true)
        #expect(failure { try SnapshotName.validate("latest") }?.kind == .invalid)
    }

    @Test("latest, times and ages select, and anything else can only be a name")
    func selectors() {
        let hour: UInt64 = 3_600_000_000_000
        let now = 1000 * hour
        #expect(SnapshotSelector("latest", nowNanoseconds: now) == .latest)
        #expect(SnapshotSelector("-2h", nowNanoseconds: now) == .notAfter(998 * hour))
        #expect(SnapshotSelector("-90m", nowNanoseconds: now) == .notAfter(now - hour * 3 / 2))
        #expect(SnapshotSelector("-1w", nowNanoseconds: now) == .notAfter(832 * hour))
        #expect(SnapshotSelector("-999999999w", nowNanoseconds: now) == .notAfter(0))
        #expect(SnapshotSelector("1970-01-02", nowNanoseconds: now) == .notAfter(24 * hour))
        #expect(
            SnapshotSelector("1970-01-02T00:00:00.000", nowNanoseconds: now)
                == .notAfter(24 * hour))
        for text in [
            "1970-01-02T00:00:00.000Z", "", "-", "-h", "-2", "2h", "-2y", "--2h", "-2.5h", "-2h ",
            "before",
        ] {
            #expect(SnapshotSelector(text, nowNanoseconds: now) == nil, "\(text)")
        }
    }

    @Test(
        "labels, comments and reasons with odd bytes are refused in a sentence",
        arguments: [
            ["k"], ["=v"], [" k=v"], ["k =v"], ["k\u{7}=v"], ["k=\n"], ["parallax.x=1"],
            ["k=v", "k=w"],
            [String(repeating: "k", count: 101) + "=v"],
            ["k=" + String(repeating: "v", count: 101)],
            (0..<17).map { "k\($0)=v" },
        ])
    func oddLabels(_ labels: [String]) {
        let error = failure { _ = try SnapshotText.parse(labels: labels) }
        #expect(error?.kind == .invalid)
        #expect(error?.message.contains("label") == true)
        #expect(error?.message.contains("\n") == false)
    }

    @Test("a label's value may hold anything that can be seen")
    func labels() throws {
        #expect(try SnapshotText.parse(labels: ["a=b=c", "k="]) == ["a": "b=c", "k": ""])
        #expect(try SnapshotText.parse(labels: ["k=\u{301}"]) == ["k": "\u{301}"])
        #expect(failure { try SnapshotText.validate(labelKey: "k=\u{301}") } != nil)
        #expect(failure { try SnapshotText.validate(comment: "two\nlines") } != nil)
        #expect(failure { try SnapshotText.validate(holdReason: "") } != nil)
        let long = String(repeating: "x", count: 513)
        #expect(failure { try SnapshotText.validate(comment: long) } != nil)
    }
}
