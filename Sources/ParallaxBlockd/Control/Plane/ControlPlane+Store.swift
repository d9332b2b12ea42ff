// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Logging
package import ParallaxControl

extension ControlPlane {
    /// The lock of the store as a whole: no VDI's name has a slash.
    private static var storeLock: String { "/" }

    /// Makes the store larger while it is used.
    package func growStore(_ request: GrowStoreRequest) async throws(ControlError) -> StoreGrowth {
        try await changing([Self.storeLock]) {
            let before = runtime.identity
            let after = try await runtime.grow(request.sizeBytes)
            runtime.identity = after
            log.info(
                "store grown",
                metadata: [
                    "from": "\(ByteSize.format(before.sizeBytes))",
                    "to": "\(ByteSize.format(after.sizeBytes))",
                ])
            return StoreGrowth(
                path: after.path, previousSizeBytes: before.sizeBytes, sizeBytes: after.sizeBytes,
                extentCount: after.extentCount,
                extentsAdded: after.extentCount - before.extentCount)
        }
    }
}
