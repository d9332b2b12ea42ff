// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
package import Logging

/// Log lines on standard error, one `write` each so that lines of two threads never mix.
///
///     2026-01-31T23:59:59Z info    attached at=/run/vm/boot.sock vdi=boot
///     <6>attached at=/run/vm/boot.sock vdi=boot                          under systemd
package struct StandardErrorLog: LogHandler {
    /// The journal adds the time itself, and takes the level from a prefix (sd-daemon(3)).
    private let isForJournal: Bool
    package var logLevel: Logger.Level
    package var metadata: Logger.Metadata = [:]
    package var metadataProvider: Logger.MetadataProvider?

    package init(level: Logger.Level, isForJournal: Bool) {
        logLevel = level
        self.isForJournal = isForJournal
    }

    package subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    package func log(event: LogEvent) {
        let seconds = time(nil)
        let line = line(for: event, secondsSince1970: Int64(seconds))
        _ = Array(line.utf8).withUnsafeBytes { write(STDERR_FILENO, $0.baseAddress, $0.count) }
    }

    /// The line that `event` becomes, newline included.
    package func line(for event: LogEvent, secondsSince1970: Int64) -> String {
        var line = ""
        if isForJournal {
            line = "<\(Self.syslogPriority(event.level))>"
        } else {
            let level = event.level.rawValue
            let padding = String(repeating: " ", count: max(1, 8 - level.count))
            line = "\(UTCTime.format(secondsSince1970: secondsSince1970)) \(level)\(padding)"
        }
        line += Self.oneLine("\(event.message)")
        let fields = metadata.merging(event.metadata ?? [:]) { $1 }
        for (key, value) in fields.sorted(by: { $0.key < $1.key }) {
            line += " \(key)=\(Self.field("\(value)"))"
        }
        return line + "\n"
    }

    private static func oneLine(_ text: String) -> String {
        guard text.contains(where: \.isNewline) else { return text }
        return text.split(whereSeparator: \.isNewline).joined(separator: " ")
    }

    private static func field(_ value: String) -> String {
        let text = oneLine(value)
        return text.contains(" ") || text.isEmpty ? "\"\(text)\"" : text
    }

    private static func syslogPriority(_ level: Logger.Level) -> Int {
        switch level {
        case .trace, .debug: 7
        case .info: 6
        case .notice: 5
        case .warning: 4
        case .error: 3
        case .critical: 2
        }
    }
}
