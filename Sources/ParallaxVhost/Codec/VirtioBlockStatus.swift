// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

package import ParallaxCore

/// The last byte of a virtio-blk request.
package enum VirtioBlockStatus: UInt8, BitwiseCopyable, Sendable {
    case ok = 0  // VIRTIO_BLK_S_OK
    case ioError = 1  // VIRTIO_BLK_S_IOERR
    case unsupported = 2  // VIRTIO_BLK_S_UNSUPP

    /// The one place where the engine's answers become virtio's: there is one error for all.
    package init(_ status: BlockStatus) {
        switch status {
        case .ok: self = .ok
        case .ioError, .corrupt, .noSpace, .outOfRange, .readOnly, .invalid, .shuttingDown:
            self = .ioError
        }
    }
}
