// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Logging
import ParallaxBlockd
import ParallaxControl
import Testing

@testable import parallax_ctl

@Suite struct OutputTests {
    @Test("columns line up, numbers to the right, without trailing blanks")
    func table() {
        var table = Table(header: ["NAME", "SIZE", "AT"], rightAligned: [1])
        table.add(["a", "20 GiB", "-"])
        table.add(["longer", "1 B", "/x"])
        #expect(table.text == "NAME      SIZE  AT\na       20 GiB  -\nlonger     1 B  /x\n")
    }

    @Test("a list shows where each disk is")
    func list() {
        let attachment = AttachmentDescription(
            vdi: "b", kind: .vhostUser, socket: "/s", uri: nil, readOnly: true, serving: false,
            problem: "gone")
        let vdis = [("a", nil), ("b", attachment)].map { name, attachment in
            VDIDescription(
                name: name, identifier: "1", sizeBytes: 20 << 30, allocatedBytes: 0,
                exclusiveBytes: 0, chargedBytes: 0, createdAt: "t", shard: 0, attachment: attachment
            )
        }
        let text = Descriptions.list(vdis)
        #expect(text.hasPrefix("NAME    SIZE  USED  CHARGED  QUOTA  SNAPSHOTS  ATTACHED\n"))
        #expect(text.contains("a     20 GiB   0 B      0 B      -          0  -\n"))
        #expect(
            text.contains(
                "b     20 GiB   0 B      0 B      -          0  "
                    + "vhost-user /s (read-only) (not serving)\n"))
    }

    @Test("a log line is one line, with its time and level or the journal's prefix")
    func logLines() {
        let event = LogEvent(
            level: .warning, message: "two\nlines", metadata: ["b": "x y", "a": "1"],
            source: "", file: "", function: "", line: 0)
        let terminal = StandardErrorLog(level: .info, isForJournal: false)
        #expect(
            terminal.line(for: event, secondsSince1970: 0)
                == "1970-01-01T00:00:00Z warning two lines a=1 b=\"x y\"\n")
        let journal = StandardErrorLog(level: .info, isForJournal: true)
        #expect(journal.line(for: event, secondsSince1970: 0) == "<4>two lines a=1 b=\"x y\"\n")
    }
}
