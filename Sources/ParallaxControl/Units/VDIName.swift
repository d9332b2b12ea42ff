// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The one rule for what a VDI may be called, used by the daemon and by the command line.
///
/// `@` is kept for `VDI@SNAPSHOT` and `/` for paths; a name is otherwise any line of text, since
/// it travels percent-encoded in URLs and is never used as a file name.
package enum VDIName {
    package static let maximumBytes = NameRule.maximumBytes

    package static func validate(_ name: String) throws(ControlError) {
        try NameRule.validate(name, of: "VDI")
    }
}

/// The same rule for snapshots, whose names are unique within their VDI.
package enum SnapshotName {
    /// Stands for the newest snapshot wherever a snapshot is named.
    package static let latest = "latest"

    package static func validate(_ name: String) throws(ControlError) {
        try NameRule.validate(name, of: "snapshot")
        guard name != latest else {
            throw ControlError(
                .invalid, "a snapshot cannot be called \(quoted(latest)): that is always the newest"
            )
        }
    }
}

enum NameRule {
    static let maximumBytes = 100

    static func validate(_ name: String, of kind: String) throws(ControlError) {
        guard !name.isEmpty else {
            throw ControlError(.invalid, "a \(kind)'s name cannot be empty")
        }
        guard name.utf8.count <= maximumBytes else {
            throw ControlError(
                .invalid,
                "a \(kind)'s name can have at most \(maximumBytes) bytes and this one has "
                    + "\(name.utf8.count)")
        }
        for scalar in name.unicodeScalars where scalar == "@" || scalar == "/" {
            throw ControlError(
                .invalid, "a \(kind)'s name cannot contain '\(scalar)' and \(quoted(name)) does")
        }
        try TextRule.requirePrintable(name, "a \(kind)'s name")
        guard name.first?.isWhitespace == false, name.last?.isWhitespace == false else {
            throw ControlError(
                .invalid,
                "a \(kind)'s name cannot begin or end with a space and \(quoted(name)) does")
        }
        guard name != ".", name != ".." else {
            throw ControlError(.invalid, "a \(kind) cannot be called \(quoted(name))")
        }
    }
}

/// Text that people write about things: one line, of which all can be seen.
enum TextRule {
    static func validate(
        _ text: String, _ what: String, bytes: ClosedRange<Int>
    ) throws(ControlError) {
        let count = text.utf8.count
        guard count >= bytes.lowerBound else {
            throw ControlError(.invalid, "\(what) cannot be empty")
        }
        guard count <= bytes.upperBound else {
            throw ControlError(
                .invalid,
                "\(what) can have at most \(bytes.upperBound) bytes and this one has \(count)")
        }
        try requirePrintable(text, what)
    }

    static func requirePrintable(_ text: String, _ what: String) throws(ControlError) {
        guard text.unicodeScalars.allSatisfy(isPrintable) else {
            throw ControlError(
                .invalid, "\(what) cannot contain control characters and \(quoted(text)) does")
        }
    }

    /// Line and paragraph separators and the invisible direction marks would let one name look
    /// like another, or like two lines, in a list.
    private static func isPrintable(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.properties.generalCategory {
        case .control, .lineSeparator, .paragraphSeparator: false
        case .format: scalar == "\u{200D}" || scalar == "\u{200C}"
        default: true
        }
    }
}
