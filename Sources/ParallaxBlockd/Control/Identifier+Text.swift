// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

package import ParallaxCore

/// Sixteen hexadecimal digits: how the API and the attachments file write identifiers, since JSON
/// numbers lose precision above 2^53.
private func hexadecimalDigits(_ value: UInt64) -> String {
    let digits = String(value, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
}

extension VDIIdentifier {
    package var hexadecimal: String { hexadecimalDigits(rawValue) }

    /// Only what `hexadecimal` writes.
    package init?(hexadecimal text: String) {
        guard let value = UInt64(text, radix: 16), hexadecimalDigits(value) == text else {
            return nil
        }
        self.init(value)
    }
}

extension SnapshotIdentifier {
    package var hexadecimal: String { hexadecimalDigits(rawValue) }

    /// Only what `hexadecimal` writes.
    package init?(hexadecimal text: String) {
        guard let value = UInt64(text, radix: 16), hexadecimalDigits(value) == text,
            value >> 63 == 1
        else { return nil }
        self.init(value)
    }
}
