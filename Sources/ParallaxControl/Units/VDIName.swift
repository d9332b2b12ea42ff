// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The one rule for what a VDI may be called, used by the daemon and by the command line.
///
/// `@` is kept for `VDI@SNAPSHOT` and `/` for paths; a name is otherwise any line of text, since
/// it travels percent-encoded in URLs and is never used as a file name.
package enum VDIName {
    package static let maximumBytes = 100

    package static func validate(_ name: String) throws(ControlError) {
        guard !name.isEmpty else {
            throw ControlError(.invalid, "a VDI's name cannot be empty")
        }
        guard name.utf8.count <= maximumBytes else {
            throw ControlError(
                .invalid,
                "a VDI's name can have at most \(maximumBytes) bytes and this one has "
                    + "\(name.utf8.count)")
        }
        for scalar in name.unicodeScalars {
            if scalar == "@" || scalar == "/" {
                throw ControlError(
                    .invalid, "a VDI's name cannot contain '\(scalar)' and \(quoted(name)) does")
            }
            guard isPrintable(scalar) else {
                throw ControlError(
                    .invalid,
                    "a VDI's name cannot contain control characters and \(quoted(name)) does")
            }
        }
        guard name.first?.isWhitespace == false, name.last?.isWhitespace == false else {
            throw ControlError(
                .invalid, "a VDI's name cannot begin or end with a space and \(quoted(name)) does")
        }
        guard name != ".", name != ".." else {
            throw ControlError(.invalid, "a VDI cannot be called \(quoted(name))")
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
