// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

package import ParallaxCore

extension VDIIdentifier {
    /// Sixteen hexadecimal digits: how the API and the attachments file write it, since JSON
    /// numbers lose precision above 2^53.
    package var hexadecimal: String {
        let digits = String(rawValue, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }

    /// Only what `hexadecimal` writes.
    package init?(hexadecimal text: String) {
        guard let value = UInt64(text, radix: 16) else { return nil }
        self.init(value)
        guard hexadecimal == text else { return nil }
    }
}
