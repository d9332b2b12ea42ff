// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// `VDI` for the head, `VDI@SNAPSHOT` for a snapshot. What follows the `@` is a snapshot's name,
/// `latest`, a time or `-2h`; which of them, and which snapshot that is, the daemon finds out.
package struct VersionName: Equatable, Sendable, CustomStringConvertible {
    package var vdi: String
    package var snapshot: String?

    package init(vdi: String, snapshot: String? = nil) {
        self.vdi = vdi
        self.snapshot = snapshot
    }

    package init(_ text: String) throws(ControlError) {
        // By scalars, as the rule for names looks: a combining mark may follow the `@`.
        guard let at = text.unicodeScalars.firstIndex(of: "@") else {
            try VDIName.validate(text)
            self.init(vdi: text)
            return
        }
        let next = text.unicodeScalars.index(after: at)
        let (vdi, snapshot) = (String(text[..<at]), String(text[next...]))
        try VDIName.validate(vdi)
        try NameRule.validate(snapshot, of: "snapshot")
        self.init(vdi: vdi, snapshot: snapshot)
    }

    /// The same, where only a snapshot makes sense.
    package static func snapshot(
        _ text: String
    ) throws(ControlError) -> (vdi: String, snapshot: String) {
        let name = try VersionName(text)
        guard let snapshot = name.snapshot else {
            throw ControlError(.invalid, "\(quoted(text)) names no snapshot; write VDI@SNAPSHOT")
        }
        return (name.vdi, snapshot)
    }

    package var description: String { snapshot.map { "\(vdi)@\($0)" } ?? vdi }
}

/// How one of a VDI's snapshots is asked for when its text is not one's name.
package enum SnapshotSelector: Equatable, Sendable {
    case latest
    /// The newest that is not after this time, in nanoseconds since 1970.
    case notAfter(UInt64)

    /// nil: the text can only be a name.
    package init?(_ text: String, nowNanoseconds now: UInt64) {
        if text == SnapshotName.latest {
            self = .latest
        } else if let age = Self.age(text) {
            self = .notAfter(now > age ? now - age : 0)
        } else if let time = TimeText.parse(text), text != TimeText.milliseconds(time) {
            // In the form of automatic names it is a name and nothing else: who deletes a snapshot
            // that is gone already must not hit an older one.
            self = .notAfter(time)
        } else {
            return nil
        }
    }

    /// `latest` or an age: after a deletion the same text can stand for another snapshot.
    package static func isRelative(_ text: String) -> Bool {
        text == SnapshotName.latest || age(text) != nil
    }

    /// `-90s`, `-15m`, `-2h`, `-3d`, `-1w` in nanoseconds.
    private static func age(_ text: String) -> UInt64? {
        guard text.first == "-", let unit = text.last, let seconds = units[unit],
            let count = UInt64(text.dropFirst().dropLast()), text.utf8.count <= 12
        else { return nil }
        let (product, isTooLong) = count.multipliedReportingOverflow(by: seconds * 1_000_000_000)
        return isTooLong ? .max : product
    }

    private static let units: [Character: UInt64] = [
        "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800,
    ]
}
