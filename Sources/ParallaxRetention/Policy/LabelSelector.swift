// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Which labels are meant: any with this key, or the one with this key and value.
package struct LabelSelector: Sendable, Hashable {
    package let key: String
    package let value: String?

    // LIMIT: a policy must fit into RetentionPolicy.encodedBytesMax. A snapshot's label has keys
    // and values of up to 100 bytes, and all of them can be meant.
    static let keyBytesMax = 100
    static let valueBytesMax = 128

    package init(key: String, value: String? = nil) throws(RetentionError) {
        guard !key.isEmpty, key.utf8.count <= Self.keyBytesMax,
            !key.unicodeScalars.contains("="),
            value.map({ $0.utf8.count <= Self.valueBytesMax }) ?? true,
            !Self.hasControl(key), !Self.hasControl(value ?? "")
        else {
            throw RetentionError(
                .invalid,
                "\(RetentionError.quoted(key + (value.map { "=" + $0 } ?? ""))) is not a label; "
                    + "write KEY or KEY=VALUE, up to \(Self.keyBytesMax) and "
                    + "\(Self.valueBytesMax) bytes, without control characters")
        }
        self.key = key
        self.value = value
    }

    /// `KEY` or `KEY=VALUE`; the value may hold further `=`.
    package static func parse(_ text: String) throws(RetentionError) -> Self {
        // By scalars: a combining mark may follow the `=`.
        guard let equals = text.unicodeScalars.firstIndex(of: "=") else {
            return try Self(key: text)
        }
        let next = text.unicodeScalars.index(after: equals)
        return try Self(key: String(text[..<equals]), value: String(text[next...]))
    }

    package var text: String { value.map { "\(key)=\($0)" } ?? key }

    package func matches(_ labels: [String: String]) -> Bool {
        guard let found = labels[key] else { return false }
        return value.map { $0 == found } ?? true
    }

    private static func hasControl(_ text: String) -> Bool {
        text.unicodeScalars.contains { $0.properties.generalCategory == .control }
    }
}
