// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

extension ControlClient {
    /// nil: as large as the store's block device is now.
    package func growStore(to sizeBytes: UInt64?) throws(ControlError) -> StoreGrowth {
        let request = GrowStoreRequest(sizeBytes: sizeBytes)
        return try decoded(call("POST", "/v1/store/grow", ControlJSON.encode(request)))
    }

    /// Returns when cleaning has begun; nil: until nothing is left that is worth it.
    package func cleanStore(untilPercent: UInt64?) throws(ControlError) {
        let request = CleanStoreRequest(untilPercent: untilPercent)
        _ = try call("POST", "/v1/store/clean", ControlJSON.encode(request))
    }

    /// Returns when it has begun, or goes on.
    package func scrubStore(rate: UInt64?, restart: Bool) throws(ControlError) {
        let request = ScrubStoreRequest(
            rateBytesPerSecond: rate, restart: restart ? true : nil)
        _ = try call("POST", "/v1/store/scrub", ControlJSON.encode(request))
    }

    /// Interrupts it where it is.
    package func stopScrub() throws(ControlError) { _ = try call("DELETE", "/v1/store/scrub") }
}
