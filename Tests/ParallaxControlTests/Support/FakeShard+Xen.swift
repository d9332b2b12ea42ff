// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxControl
import ParallaxCore

extension FakeShard {
    func attachXen(
        version: VersionReference, place: String, readOnly: Bool, isNew: Bool
    ) async throws {
        try await attachVhost(version: version, socketPath: place, readOnly: readOnly)
    }

    func endedXen() async throws -> [VersionReference] {
        let gone = gone
        await runHook("ended")
        return gone
    }
}
