// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxBlockd
import ParallaxControl
import Testing

/// What the control plane says of the store as a whole.
@Suite struct StoreTests {
    @Test("a growth is answered with both sizes, and the status has the new one from then on")
    func growth() async throws {
        let daemon = try await TestDaemon()
        let first = try await daemon.plane.growStore(GrowStoreRequest(sizeBytes: 3 << 29))
        #expect(first.previousSizeBytes == 1 << 30)
        #expect(first.sizeBytes == 3 << 29)
        #expect(first.extentsAdded == 8)
        let second = try await daemon.plane.growStore(GrowStoreRequest(sizeBytes: nil))
        #expect(second.previousSizeBytes == 3 << 29)
        #expect(second.extentCount == 32)
        let store = try await daemon.plane.status().store
        #expect(store.sizeBytes == 2 << 30)
        #expect(store.extentCount == 32)
        await daemon.stop()
        let error = await failure {
            _ = try await daemon.plane.growStore(GrowStoreRequest(sizeBytes: nil))
        }
        #expect(error?.kind == .stopping)
    }
}
