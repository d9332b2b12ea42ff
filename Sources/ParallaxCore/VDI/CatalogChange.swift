// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// What the control plane may change in a stream's catalogue. Names are unique per daemon, which
/// its control plane sees to; the engine checks the rest.
package enum CatalogChange: Equatable, Sendable {
    case create(name: String, sizeBytes: UInt64, createdAtNanoseconds: UInt64)
    /// Growing is always possible; shrinking discards what lies behind the new end.
    case resize(VDIIdentifier, sizeBytes: UInt64)
    case rename(VDIIdentifier, name: String)
    /// The VDI is gone at once; its space comes back in the background.
    case delete(VDIIdentifier)
}

/// Why a change was not made. Nothing was changed.
package enum CatalogError: Error, Equatable, Sendable {
    case noSuchVDI
    case invalidSize
    case invalidName
    case tooManyVDIs
    case noSpace
    /// The log cannot be written any more.
    case ioError
}

/// The answer to one change, given when it is durable.
package struct CatalogReply: Sendable {
    package var ticket: UInt64
    package var result: Result<VDIIdentifier, CatalogError>
}

/// One VDI as lists show it.
package struct VDISummary: Equatable, Sendable {
    package var identifier: VDIIdentifier
    package var name: String
    package var sizeBytes: UInt64
    package var allocatedBytes: UInt64
    package var createdAtNanoseconds: UInt64
    package var isDeleting: Bool
}
