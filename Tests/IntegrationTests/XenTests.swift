// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import Testing

/// The daemon's Xen side on a machine without Xen; with one it is in `scripts/xen-lab`.
@Suite struct XenTests {
    private static let hasXen = access("/proc/xen/capabilities", F_OK) == 0

    @Test(
        "where there is no Xen, attach says what is missing, and the VDI stays free",
        .disabled(if: hasXen, "this machine runs under Xen"))
    func withoutXen() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        try daemon.ctl("vdi", "create", "a", "--size", "1M")
        let refused = try daemon.run("attach", "a", "--xen", "1:xvda")
        #expect(refused.code == 1)
        let sentence = refused.errors
        let isExplained =
            sentence.contains("install libxengnttab1")
            || sentence.contains("xenstore cannot be reached")
        #expect(isExplained, "\(sentence)")
        #expect(sentence.split(separator: "\n").count == 1)
        _ = try daemon.ctl("attach", "a", "--nbd")
    }

    @Test("what is no device is not even sent", arguments: ["web1", "1:sda", "1:"])
    func badDevice(device: String) throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        try daemon.ctl("vdi", "create", "a", "--size", "1M")
        let refused = try daemon.run("attach", "a", "--xen", device)
        #expect(refused.code != 0)
        #expect(refused.errors.contains("xvda"), "\(refused.errors)")
    }
}
