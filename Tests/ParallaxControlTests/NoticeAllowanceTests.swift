// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxBlockd
import Testing

@Suite struct NoticeAllowanceTests {
    @Test("a device that says something all the time is logged now and then, and with a count")
    func storm() {
        var allowance = NoticeAllowance()
        let start: UInt64 = 1_000_000_000_000
        let each = NoticeAllowance.nanosecondsEach
        let atOnce = (0..<1000).count { _ in allowance.take(nowNanoseconds: start) == 0 }
        #expect(atOnce == Int(NoticeAllowance.burst))
        // One place a period, and whoever gets it says how many had none.
        #expect(allowance.take(nowNanoseconds: start + each) == 1000 - atOnce)
        #expect(allowance.take(nowNanoseconds: start + each) == nil)
        #expect(allowance.take(nowNanoseconds: start + 2 * each) == 1)
        // After a while of quiet all is as it was.
        let later = start + 1000 * each
        let again = (0..<1000).count { _ in allowance.take(nowNanoseconds: later) == 0 }
        #expect(again == atOnce)
    }
}
