// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Which disk a ring belongs to: the same under a new name and after a rollback; another for a
/// clone and for a snapshot. It is in the back-end directory as `STORE/VERSION`, the version in
/// hexadecimal, so that a daemon that starts knows whose requests it finds.
package struct XenDiskIdentity: Equatable, Sendable, CustomStringConvertible {
    /// In the back-end directory.
    package static let key = "parallax-version"

    /// The store's UUID.
    package var store: String
    /// Of a `VersionReference`: never used again in the same store.
    package var version: UInt64

    package init(store: String, version: UInt64) {
        self.store = store
        self.version = version
    }

    /// nil: not what `description` writes.
    package init?(_ text: String) {
        guard let slash = text.lastIndex(of: "/"),
            let version = UInt64(text[text.index(after: slash)...], radix: 16)
        else { return nil }
        self.init(store: String(text[..<slash]), version: version)
        guard description == text else { return nil }
    }

    package var description: String {
        let digits = String(version, radix: 16)
        return store + "/" + String(repeating: "0", count: 16 - digits.count) + digits
    }
}
