// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// A policy as one line: what a list shows, what is pasted into a shell, and what the settings of
/// the daemon hold.
extension RetentionPolicy {
    /// The options with quotes where a shell, and `parse(line:)`, need them.
    package var line: String { options.map(Self.quotedWord).joined(separator: " ") }

    /// From words between spaces. As in a shell `'...'` is taken as it is; in `"..."`, and outside
    /// of quotes, a backslash takes the next character as it is.
    package static func parse(line: String) throws(RetentionError) -> Self {
        var words: [String] = []
        var word: String?
        var quote: Unicode.Scalar?
        // By scalars, as a shell reads it: with a combining mark behind it a quote would be part of
        // another character.
        var scalars = line.unicodeScalars[...]
        while let scalar = scalars.popFirst() {
            if scalar == quote {
                quote = nil
            } else if scalar == "\\", quote != "'" {
                guard let next = scalars.popFirst() else { throw unfinished(line) }
                word = (word ?? "") + String(next)
            } else if quote == nil, scalar == "'" || scalar == "\"" {
                quote = scalar
                word = word ?? ""
            } else if quote == nil, scalar.properties.isWhitespace {
                if let word { words.append(word) }
                word = nil
            } else {
                word = (word ?? "") + String(scalar)
            }
        }
        guard quote == nil else { throw unfinished(line) }
        if let word { words.append(word) }
        return try parse(options: words)
    }

    private static func unfinished(_ line: String) -> RetentionError {
        RetentionError(
            .invalid,
            "the options \(RetentionError.quoted(line)) end within quotes or with a backslash; "
                + "close the quotes")
    }

    private static func quotedWord(_ word: String) -> String {
        let isPlain = word.unicodeScalars.allSatisfy { scalar in
            switch scalar {
            case "a"..."z", "A"..."Z", "0"..."9", "-", "_", "=", "/", ".", ",", ":", "+", "@", "%":
                true
            default: scalar.properties.isAlphabetic
            }
        }
        guard !isPlain || word.isEmpty else { return word }
        var quoted = "'"
        for scalar in word.unicodeScalars {
            quoted += scalar == "'" ? "'\\''" : String(scalar)
        }
        return quoted + "'"
    }
}
