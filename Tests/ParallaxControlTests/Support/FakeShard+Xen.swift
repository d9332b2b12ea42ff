// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxControl
import ParallaxCore

extension FakeShard {
    func attachXen(
        identifier: VDIIdentifier, place: String, readOnly: Bool, isNew: Bool
    ) async throws {
        try await attachVhost(identifier: identifier, socketPath: place, readOnly: readOnly)
    }

    func endedXen() async throws -> [VDIIdentifier] { gone }
}
