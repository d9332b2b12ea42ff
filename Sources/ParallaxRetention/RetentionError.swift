// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Why a policy cannot be used, or a plan must not be carried out: one sentence for people.
package struct RetentionError: Error, Equatable, Sendable {
    package enum Kind: Sendable {
        /// The text, option or value makes no sense, whatever the snapshots.
        case invalid
        /// No rule in it, so that everything would go; `force` overrides.
        case emptyPolicy
        /// It has rules, and none of them keeps anything of what is there; `force` overrides.
        case wouldDeleteEverything
    }

    package var kind: Kind
    package var message: String

    package init(_ kind: Kind, _ message: String) {
        self.kind = kind
        self.message = message
    }

    /// Text that came from outside, short and on one line, for use within a sentence.
    static func quoted(_ text: some StringProtocol) -> String {
        let limit = 64
        let clean = text.unicodeScalars.prefix(limit).map { scalar in
            switch scalar.properties.generalCategory {
            case .control, .lineSeparator, .paragraphSeparator: Unicode.Scalar("?")
            default: scalar
            }
        }
        return
            "\"\(String(String.UnicodeScalarView(clean)))\(text.unicodeScalars.count > limit ? "..." : "")\""
    }
}
