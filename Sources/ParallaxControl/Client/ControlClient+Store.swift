// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

extension ControlClient {
    /// nil: as large as the store's block device is now.
    package func growStore(to sizeBytes: UInt64?) throws(ControlError) -> StoreGrowth {
        let request = GrowStoreRequest(sizeBytes: sizeBytes)
        return try decoded(call("POST", "/v1/store/grow", ControlJSON.encode(request)))
    }
}
