// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

package import ParallaxCore

/// Which disk a device serves: the same under a new name, after a rollback and read-only; another
/// for a clone and for a snapshot.
package struct VhostDiskIdentity: BitwiseCopyable, Equatable, Sendable, CustomStringConvertible {
    package var store: StoreUUID
    /// Of a `VersionReference`: never used again in the same store.
    package var version: UInt64

    package init(store: StoreUUID, version: UInt64) {
        self.store = store
        self.version = version
    }

    /// The version as the control API shows it, and its store.
    package var description: String {
        let digits = String(version, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits + " of store \(store)"
    }
}
