// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxControl
import Testing

/// A real Linux in QEMU, with its own drivers and file system. Left out by `scripts/test
/// --no-guest`, which sets the variable.
@Suite(
    .enabled("PARALLAX_TEST_NO_GUEST is set") { getenv("PARALLAX_TEST_NO_GUEST") == nil })
struct GuestTests {
    private static let timeoutSeconds = 150

    private func boot(_ daemon: DaemonHarness, disk: String, _ script: String) throws -> Outcome {
        let path = daemon.directory.file("script")
        try writeFile(path, Array(script.utf8))
        return try Command.run(
            [
                "\(Programs.sourceDirectory)/scripts/guest/run-guest", "--disk", disk, "--script",
                path, "--timeout", "\(Self.timeoutSeconds)",
            ], seconds: Self.timeoutSeconds + 30)
    }

    @Test("files that a guest wrote and synced over vhost-user are whole, also over NBD")
    func files() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        let socket = try daemon.createVhost("guest-root", size: "128M")
        let first = try boot(
            daemon, disk: "vhost:\(socket)",
            """
            set -e
            [ "$(cat /sys/block/vda/serial)" = guest-root ]
            [ "$(cat /sys/block/vda/size)" = 262144 ]
            mkfs.ext4 -q -F /dev/vda
            mount -o discard /dev/vda /mnt
            dd if=/dev/urandom of=/mnt/random bs=64k count=128 2>/dev/null
            for i in 1 2 3 4 5 6 7 8; do cp /mnt/random /mnt/copy$i; done
            rm /mnt/copy2 /mnt/copy5
            sync
            cd /mnt && md5sum * 2>/dev/null >sums || true
            sync
            mount -o remount,nodiscard /mnt
            for i in 1 2 3 4; do cat /mnt/random; done >/mnt/trimmed
            sync
            rm /mnt/trimmed
            sync
            fstrim /mnt
            cd / && umount /mnt
            """)
        #expect(first.succeeded, "\(first)\n\(daemon.log)")
        // Seven files of 8 MiB are there; two have gone by -o discard, and 32 MiB by fstrim.
        let allocated = try daemon.client.vdi("guest-root").allocatedBytes
        #expect(allocated > 56 << 20 && allocated < 64 << 20, "\(allocated) bytes are allocated")
        try daemon.kill()
        try daemon.start()
        try daemon.ctl("detach", "guest-root")
        try daemon.ctl("attach", "guest-root", "--nbd")
        let second = try boot(
            daemon, disk: "nbd:\(daemon.nbdSocket)#guest-root",
            """
            set -e
            e2fsck -f -n /dev/vda
            mount -o ro /dev/vda /mnt
            cd /mnt
            [ "$(grep -c copy sums)" = 6 ]
            grep -v sums sums | md5sum -c
            cd / && umount /mnt
            """)
        #expect(second.succeeded, "\(second)\n\(daemon.log)")
        #expect(try daemon.terminate() == 0)
    }
}
