// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxRetention
import Testing

@Suite("The default policy")
struct DefaultPolicyTests {
    @Test("it is what the documents say")
    func options() {
        let words = RetentionPolicy.standard.options.joined(separator: " ")
        #expect(
            words == "--keep-last 10 --keep-hourly 24 --keep-daily 7 --keep-weekly 4 "
                + "--keep-monthly 12")
    }
}
