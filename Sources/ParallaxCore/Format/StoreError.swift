// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Why a store could not be formatted, opened or changed: one sentence that names the object and
/// says what to do.
package struct StoreError: Error, Equatable, CustomStringConvertible {
    package enum Kind: Equatable, Sendable {
        /// Not a Parallax store at all.
        case notAStore
        /// Written by a newer program.
        case unsupportedVersion
        /// Damaged beyond what opening can repair.
        case damaged
        /// The log changes more radix nodes than there are frames for: it was written with a larger cache.
        /// An opening tries again with more, so nobody else meets it.
        case tooFewFrames
        /// The file or device is smaller than the store in it.
        case truncated
        /// Options that make no store.
        case invalidOptions
        /// The file or device failed.
        case device
    }

    package var kind: Kind
    package var message: String

    package init(_ kind: Kind, _ message: String) {
        self.kind = kind
        self.message = message
    }

    init(_ error: MediumError) {
        let verb =
            switch error.operation {
            case .read: "Reading"
            case .write: "Writing"
            case .sync: "Flushing"
            }
        self.init(
            .device,
            "\(verb) the store failed at byte \(error.offset) with errno \(error.errno); "
                + "check the device and the kernel log.")
    }

    package var description: String { message }
}
