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

    @Test("a driver that is unbound and bound again finds its disk, as after kexec or a resume")
    func rebind() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        let socket = try daemon.createVhost("guest-root", size: "128M")
        // Now and then the kernel finds the pages of the old rings for the new ones.
        let outcome = try boot(
            daemon, disk: "vhost:\(socket)",
            """
            set -e
            dd if=/dev/urandom of=/random bs=64k count=16 2>/dev/null
            dd if=/random of=/dev/vda bs=64k conv=fsync 2>/dev/null
            device=$(basename "$(readlink -f /sys/block/vda/device)")
            for round in $(seq 1 50); do
                echo "$device" >/sys/bus/virtio/drivers/virtio_blk/unbind
                echo "$device" >/sys/bus/virtio/drivers/virtio_blk/bind
                dd if=/dev/vda bs=64k count=16 2>/dev/null | cmp - /random
                dd if=/random of=/dev/vda bs=64k seek=$((16 * round)) count=2 conv=fsync 2>/dev/null
            done
            """)
        #expect(outcome.succeeded, "\(outcome)\n\(daemon.log)")
        #expect(try daemon.terminate() == 0)
    }

    @Test("a guest that runs sees the new size of its disk")
    func resize() throws {
        let daemon = try DaemonHarness()
        try daemon.start()
        let socket = try daemon.createVhost("guest-root", size: "128M")
        let client = try daemon.client
        let resizer = BackgroundThread {
            // The guest writes when it has seen the old size.
            let deadline = ContinuousClock.now + .seconds(Self.timeoutSeconds)
            while try client.status().shards.allSatisfy({ $0.writes == 0 }) {
                guard ContinuousClock.now < deadline else { throw TestFailure("no write came") }
                usleep(50_000)
            }
            _ = try client.change("guest-root", ChangeVDIRequest(sizeBytes: 256 << 20))
        }
        let outcome = try boot(
            daemon, disk: "vhost:\(socket)",
            """
            set -e
            [ "$(cat /sys/block/vda/size)" = 262144 ]
            dd if=/dev/urandom of=/dev/vda bs=4k count=1 conv=fsync 2>/dev/null
            tries=0
            until [ "$(cat /sys/block/vda/size)" = 524288 ]; do
                tries=$((tries + 1))
                [ "$tries" -lt 60 ]
                sleep 1
            done
            dd if=/dev/urandom of=/dev/vda bs=4k count=1 seek=50000 conv=fsync 2>/dev/null
            """)
        #expect(outcome.succeeded, "\(outcome)\n\(daemon.log)")
        try resizer.join()
        #expect(try daemon.terminate() == 0)
    }
}
