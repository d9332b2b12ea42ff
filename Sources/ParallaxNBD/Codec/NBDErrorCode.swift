// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

package import ParallaxCore

/// The errors that NBD knows, with the values that go over the wire.
package enum NBDErrorCode: UInt32, BitwiseCopyable, Sendable, CaseIterable {
    case notPermitted = 1  // NBD_EPERM
    case inputOutput = 5  // NBD_EIO
    case invalid = 22  // NBD_EINVAL
    case noSpace = 28  // NBD_ENOSPC
    case overflow = 75  // NBD_EOVERFLOW
    case notSupported = 95  // NBD_ENOTSUP
    case shutdown = 108  // NBD_ESHUTDOWN

    /// The one place where an engine status becomes an NBD error. nil: no error.
    package init?(_ status: BlockStatus, to command: NBDCommand) {
        switch status {
        case .ok: return nil
        case .ioError, .corrupt: self = .inputOutput
        case .noSpace: self = .noSpace
        case .outOfRange: self = NBDErrorCode(pastTheEndOf: command)
        case .readOnly: self = .notPermitted
        case .invalid: self = .invalid
        case .shuttingDown: self = .shutdown
        }
    }

    /// A request that goes past the end of the export.
    package init(pastTheEndOf command: NBDCommand) {
        switch command {
        case .write, .writeZeroes: self = .noSpace
        case .read, .trim, .cache, .blockStatus, .flush, .disconnect: self = .invalid
        }
    }

    /// The sentence that goes with it in a structured error chunk.
    package var message: StaticString {
        switch self {
        case .notPermitted: "the export is read-only"
        case .inputOutput: "the store cannot read or write these blocks; see the daemon's log"
        case .invalid:
            "the request is unknown, not in whole sectors of 512 bytes, or not inside the export"
        case .noSpace: "the store is full, or the write goes past the end of the export"
        case .overflow: "too long for one reply; ask for less at a time"
        case .notSupported: "zeroing this range is not faster than writing zeroes"
        case .shutdown: "the export is being detached"
        }
    }
}
