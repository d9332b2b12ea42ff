// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ArgumentParser
import ParallaxControl

struct SnapshotDiff: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "diff",
        abstract: "Print the ranges in which a version differs from an older one.",
        usage: "parallax-ctl snapshot diff <vdi@snapshot> [<vdi>|<vdi@snapshot>] [--json]",
        discussion: """
            Changed, zeroed or discarded, in bytes. Without a second version the VDI as it is now \
            is compared. Data are not read.
            """)

    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var output: OutputOptions

    @Argument(help: ArgumentHelp("The older version.", valueName: "vdi@snapshot"))
    var from: String

    @Argument(help: ArgumentHelp("The newer version.", valueName: "vdi[@snapshot]"))
    var to: String?

    func validate() throws {
        try Usage.check { () throws(ControlError) in
            _ = try VersionName(from)
            guard let to else {
                _ = try VersionName.snapshot(from)
                return
            }
            _ = try VersionName(to)
        }
    }

    func run() throws {
        let client = try connection.client()
        let newer = try to ?? VersionName.snapshot(from).vdi
        var page = try client.diff(from: from, to: newer)
        var printer = DiffPrinter(isJSON: output.json)
        printer.begin(page)
        while true {
            printer.add(page.ranges)
            guard let next = page.next else { break }
            // By their own names: what is the latest may be another one by now.
            page = try client.diff(from: page.from, to: page.to, offset: next)
        }
        printer.end()
    }
}

/// Prints ranges as they come, so that a long list neither waits nor grows; neighbours of one kind
/// are one range, also across pages.
struct DiffPrinter {
    private let isJSON: Bool
    private let write: (String) -> Void
    private var last: DiffPage.Range?
    private var count = 0

    init(isJSON: Bool, write: @escaping (String) -> Void = { Terminal.write($0) }) {
        self.isJSON = isJSON
        self.write = write
    }

    mutating func begin(_ page: DiffPage) {
        if isJSON {
            write("{\"from\":\(Self.json(page.from)),\"to\":\(Self.json(page.to)),\"ranges\":[")
        } else {
            write("      OFFSET            LENGTH  KIND\n")
        }
    }

    mutating func add(_ ranges: [DiffPage.Range]) {
        var text = ""
        for range in ranges {
            if let last, last.kind == range.kind, last.offset + last.length == range.offset {
                self.last?.length += range.length
            } else {
                text += takeLast()
                last = range
            }
        }
        if !text.isEmpty { write(text) }
    }

    mutating func end() {
        let text = takeLast()
        write(isJSON ? text + "]}\n" : text)
    }

    private mutating func takeLast() -> String {
        guard let range = last else { return "" }
        last = nil
        count += 1
        if isJSON {
            let comma = count == 1 ? "\n  " : ",\n  "
            return comma
                + "{\"kind\":\"\(range.kind.rawValue)\",\"length\":\(range.length),"
                + "\"offset\":\(range.offset)}"
        }
        return "\(Self.padded(range.offset, 16))  \(Self.padded(range.length, 16))  "
            + "\(range.kind.rawValue)\n"
    }

    private static func padded(_ number: UInt64, _ width: Int) -> String {
        let digits = String(number)
        return String(repeating: " ", count: max(0, width - digits.count)) + digits
    }

    private static func json(_ text: String) -> String {
        String(decoding: ControlJSON.encode(text).dropLast(), as: UTF8.self)
    }
}
