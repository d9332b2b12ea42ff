// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ArgumentParser
import ParallaxControl
import Synchronization
import Testing

@testable import parallax_ctl

@Suite struct VersionOutputTests {
    private static func snapshot(_ name: String, parent: String?) -> SnapshotDescription {
        SnapshotDescription(
            vdi: "d", name: name, identifier: "1", createdAt: "t", origin: .manual, comment: "",
            labels: ["k": "v", "parallax.group": "1"], holds: [], parent: parent, sizeBytes: 0,
            allocatedBytes: 0, exclusiveBytes: name == "a" ? nil : 4096, bornBytes: 8192,
            childCount: 0, attachment: nil)
    }

    @Test("a list shows parents of the same VDI by their names, and counting as dots")
    func list() {
        let text = Descriptions.list([
            Self.snapshot("a", parent: "gold@v1"), Self.snapshot("b", parent: "d@a"),
        ])
        let lines = text.split(separator: "\n")
        #expect(lines[1].hasPrefix("a     t           ...  gold@v1"))
        #expect(lines[2].contains("4 KiB  a ") && lines[2].contains(" k=v "))
        #expect(!text.contains("parallax.group"))
        let marked = Descriptions.list([Self.snapshot("b", parent: "d@\u{301}a")])
        #expect(!marked.unicodeScalars.contains("@"))
    }

    @Test("details say what was written since the snapshot before, and lists in JSON too")
    func born() {
        let snapshot = Self.snapshot("b", parent: "d@a")
        #expect(Descriptions.details(snapshot).contains("written    8 KiB (8192 bytes)\n"))
        let list = ControlJSON.encode(SnapshotList(snapshots: [snapshot], next: nil, total: 1))
        #expect(String(decoding: list, as: UTF8.self).contains(#""born_bytes":8192"#))
    }

    @Test("a tree has the main line in one column and branches beside it")
    func tree() {
        let text = SnapshotTree.text([
            Self.snapshot("mon", parent: "gold@v1"), Self.snapshot("tue", parent: "d@mon"),
            Self.snapshot("wed", parent: "d@mon"), Self.snapshot("thu", parent: "d@wed"),
            Self.snapshot("tue2", parent: "d@tue"),
        ])
        let names = text.split(separator: "\n").dropFirst().map { $0.prefix(8) }
        #expect(
            names
                == ["mon      ", "|- tue  ", "|- tue2 ", "wed     ", "thu     "].map {
                    $0.prefix(8)
                })
    }

    @Test("a chain of a hundred thousand neither recurses nor grows to the right")
    func longTree() {
        var chain: [SnapshotDescription] = []
        for number in 0..<100_000 {
            chain.append(Self.snapshot("s\(number)", parent: "d@s\(number - 1)"))
        }
        let lines = SnapshotTree.text(chain).split(separator: "\n")
        #expect(lines.count == 100_001)
        #expect(lines.allSatisfy { !$0.contains("|-") })
    }

    @Test(
        "ranges that meet across pages are printed as one, in text and JSON",
        arguments: [false, true])
    func diff(_ isJSON: Bool) {
        let written = Mutex("")
        var printer = DiffPrinter(isJSON: isJSON) { text in written.withLock { $0 += text } }
        let pages: [[DiffPage.Range]] = [
            [.init(offset: 0, length: 4096, kind: .zeroed)],
            [.init(offset: 4096, length: 4096, kind: .changed)], [],
            [.init(offset: 8192, length: 8192, kind: .changed)],
        ]
        printer.begin(DiffPage(from: "d@\"a\"", to: "d", ranges: [], next: nil))
        for page in pages { printer.add(page) }
        printer.end()
        let text = written.withLock { $0 }
        if isJSON {
            #expect(
                text == #"{"from":"d@\"a\"","to":"d","ranges":["# + "\n  "
                    + #"{"kind":"zeroed","length":4096,"offset":0},"# + "\n  "
                    + #"{"kind":"changed","length":12288,"offset":4096}]}"# + "\n")
        } else {
            let words = text.split(whereSeparator: \.isWhitespace)
            #expect(
                words == [
                    "OFFSET", "LENGTH", "KIND", "0", "4096", "zeroed", "4096", "12288", "changed",
                ])
        }
    }

    @Test(
        "wrong usage is told before the daemon is asked",
        arguments: [
            ["snapshot", "a", "b"], ["snapshot", "a@b"], ["snapshot", "create"],
            ["snapshot", "a", "--name", "latest"], ["snapshot", "a", "--label", "x"],
            ["snapshot", "delete", "a"], ["snapshot", "show", "a"], ["hold", "a@b"],
            ["hold", "a@b", "--reason", ""], ["clone", "a", "b"], ["clone", "a@b", "c@d"],
            ["clone", "a@b", "c", "--size", "1"], ["vdi", "create", "a"],
            ["snapshot", "diff", "a"], ["snapshot", "list", "a", "--limit", "0"],
            ["snapshot", "list", "a", "--tree", "--limit", "3"], ["snapshot", "label", "a@b"],
            ["snapshot", "label", "a@b", "k=v", "--remove", "k"], ["detach", "a@b@c"],
            ["retention", "set", "a"], ["retention", "set", "a", "--keep-last", "x"],
            ["retention", "set", "a", "--clear", "--keep-last", "3"], ["retention", "apply"],
            ["retention", "apply", "a", "--all"], ["cron-snapshot"],
            ["cron-snapshot", "a@b"], ["cron-snapshot", "--all", "--label", "x"],
            ["cron-snapshot", "--all", "--quiet", "--json"],
        ])
    func usage(_ words: [String]) {
        let code = exitCode { _ = try RootCommand.parseAsRoot(words) }
        #expect(code == 64, "\(words)")
    }

    @Test(
        "the short forms are understood",
        arguments: [
            ["snapshot", "a"], ["snapshot", "create", "list"], ["snapshot", "a", "--name", "n"],
            ["snapshot", "create", "--group", "a", "b"], ["snapshot", "delete", "a@b", "c@-2h"],
            ["snapshot", "hold", "a@b", "--reason", "r"], ["release", "a@latest"],
            ["clone", "a@2026-11-22T10:00", "b", "--size", "2M"],
            ["vdi", "template", "a", "--off"],
            ["vdi", "create", "b", "--from", "a@s"], ["snapshot", "rollback", "a@b", "--no-keep"],
            ["snapshot", "diff", "a@b"], ["snapshot", "diff", "a@b", "a", "--json"],
            ["attach", "a@b", "--nbd"],
            ["retention", "set", "a", "--keep-last", "3", "--hourly", "24"],
            ["retention", "set", "a", "--clear"], ["retention", "apply", "--all", "--dry-run"],
            ["cron-snapshot", "--all", "--json"],
            ["cron-snapshot", "--all", "--quiet"], ["cron-snapshot", "a", "b", "--label", "k=v"],
            ["snapshot", "list", "a", "--tree"],
        ])
    func shortForms(_ words: [String]) {
        let code = exitCode { _ = try RootCommand.parseAsRoot(words) }
        #expect(code == 0, "\(words)")
    }

    private func exitCode(_ body: () throws -> Void) -> Int32 {
        do {
            try body()
            return 0
        } catch {
            return RootCommand.exitCode(for: error).rawValue
        }
    }
}
