// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
package import ParallaxControl
import TOMLKit

/// `parallax.toml`: each key is the name of a flag without its dashes, each value is text in the
/// form that the flag takes.
package enum ConfigurationFile {
    /// The file at `path`. Without a path, the default file, which need not exist.
    package static func load(path: String?) throws(ControlError) -> PartialConfiguration {
        let file = path ?? DaemonConfiguration.defaultFilePath
        let bytes: [UInt8]
        do throws(SystemError) {
            bytes = try SmallFile.read(file, limitBytes: 1 << 20)
        } catch {
            if error.number == ENOENT, path == nil { return PartialConfiguration() }
            throw ControlError(.invalid, "cannot read the configuration \(file): \(error)")
        }
        return try parse(bytes, path: file)
    }

    package static func parse(
        _ bytes: [UInt8], path: String
    ) throws(ControlError) -> PartialConfiguration {
        // The TOML library takes a C string and would not see what follows a zero byte.
        guard let text = String(validating: bytes, as: UTF8.self), !bytes.contains(0) else {
            throw ControlError(.invalid, "the configuration \(path) is not UTF-8 text")
        }
        let table: TOMLTable
        do {
            table = try TOMLTable(string: text)
        } catch let error as TOMLParseError {
            throw ControlError(
                .invalid,
                "the configuration \(path) is not valid TOML, line \(error.source.begin.line): "
                    + error.description)
        } catch {
            throw ControlError(.invalid, "the configuration \(path) is not valid TOML")
        }
        return try settings(in: table, path: path)
    }

    private static func settings(
        in table: TOMLTable, path: String
    ) throws(ControlError) -> PartialConfiguration {
        var result = PartialConfiguration()
        try read(table, section: "", into: &result, path: path)
        return result
    }

    /// The keys of one table; those of a section have its name before them.
    private static func read(
        _ table: TOMLTable, section: String, into result: inout PartialConfiguration, path: String
    ) throws(ControlError) {
        for key in table.keys.sorted() {
            if section.isEmpty, sections.contains(key), let inner = table[key]?.table {
                try read(inner, section: key + ".", into: &result, path: path)
                continue
            }
            guard let field = fields[section + key] else {
                throw ControlError(
                    .invalid,
                    "the configuration \(path) has the unknown key \(quoted(section + key)); "
                        + "known are " + fields.keys.sorted().joined(separator: ", "))
            }
            guard let value = table[key]?.string else {
                throw ControlError(
                    .invalid,
                    "the key \(section + key) in the configuration \(path) must be text in quotes")
            }
            result[keyPath: field] = value
        }
    }

    private static let sections: Set = ["retention"]

    private static var fields: [String: WritableKeyPath<PartialConfiguration, String?>] {
        [
            "store": \.store, "control": \.control, "nbd": \.nbd,
            "state-dir": \.stateDirectory, "engine": \.engine, "cache-size": \.cacheSize,
            "log-level": \.logLevel, "punch-after": \.punchAfter,
            "retention.default": \.retentionDefault,
        ]
    }
}
