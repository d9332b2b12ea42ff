// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ArgumentParser
import ParallaxBlockd
import ParallaxControl
import Testing

@testable import parallax_ctl

@Suite struct QuotaTests {
    @Test("a quota is set, survives the other attributes and a restart, and is taken away")
    func life() async throws {
        let daemon = try await TestDaemon(defaultPolicy: "--keep-last 10")
        let client = daemon.client
        #expect(try await client.create(name: "free", sizeBytes: 1 << 20).quotaBytes == nil)
        let made = try await client.call {
            try $0.create(name: "a", sizeBytes: 1 << 30, quotaBytes: 1 << 20)
        }
        #expect(made.quotaBytes == 1 << 20)
        #expect(made.chargedBytes == 0)
        #expect(made.retention == "--keep-last 10")

        let template = try await client.change("a", ChangeVDIRequest(template: true))
        #expect(template.quotaBytes == 1 << 20)
        let moved = try await client.change("a", ChangeVDIRequest(quotaBytes: 4096))
        #expect(moved.quotaBytes == 4096)
        #expect(moved.isTemplate)
        #expect(moved.retention == "--keep-last 10")
        try await client.call { try $0.clearRetention(of: "a") }
        let second = try await daemon.restarted()
        let kept = try await second.client.vdi("a")
        #expect(kept.quotaBytes == 4096)
        #expect(kept.isTemplate)
        #expect(kept.retention == nil)
        let unlimited = try await second.client.change("a", ChangeVDIRequest(quotaBytes: 0))
        #expect(unlimited.quotaBytes == nil)
        #expect(unlimited.isTemplate)
        await second.stop()
    }

    @Test("a clone has the quota that it is given, not that of its origin")
    func clones() async throws {
        let daemon = try await TestDaemon()
        let client = daemon.client
        try await client.call {
            _ = try $0.create(name: "gold", sizeBytes: 1 << 20, quotaBytes: 1 << 20)
            _ = try $0.createSnapshot(of: "gold", CreateSnapshotRequest(name: "s"))
        }
        let plain = try await client.call { try $0.clone(from: "gold@s", to: "plain") }
        #expect(plain.quotaBytes == nil)
        let limited = try await client.call {
            try $0.clone(from: "gold@s", to: "limited", quotaBytes: 8192)
        }
        #expect(limited.quotaBytes == 8192)
        await daemon.stop()
    }

    @Test("a VDI that cannot have its quota is not made")
    func refusedByTheShard() async throws {
        let daemon = try await TestDaemon()
        for shard in daemon.shards {
            await shard.failNext("attributes", with: ControlError(.noSpace, "full"))
        }
        let full = await failure {
            try await daemon.client.call {
                _ = try $0.create(name: "a", sizeBytes: 1 << 20, quotaBytes: 4096)
            }
        }
        #expect(full?.kind == .noSpace)
        #expect(try await daemon.client.vdis().isEmpty)
        await daemon.stop()
    }

    @Test("the daemon checks quotas too, and takes one change at a time")
    func badInput() async throws {
        let daemon = try await TestDaemon()
        let client = daemon.client
        try await client.create(name: "a", sizeBytes: 1 << 20)
        for bytes: UInt64 in [1, 4095, 4097, (1 << 53) + 4096, .max] {
            let changed = await failure {
                try await client.change("a", ChangeVDIRequest(quotaBytes: bytes))
            }
            #expect(changed?.kind == .invalid, "\(bytes)")
            let made = await failure {
                try await client.call {
                    _ = try $0.create(name: "b", sizeBytes: 1 << 20, quotaBytes: bytes)
                }
            }
            #expect(made?.kind == .invalid, "\(bytes)")
        }
        let two = await failure {
            try await client.change("a", ChangeVDIRequest(template: true, quotaBytes: 4096))
        }
        #expect(two?.kind == .invalid)
        #expect(two?.message.contains("quota_bytes") == true)
        for body in [#"{"quota_bytes":-1}"#, #"{"quota_bytes":"1G"}"#, #"{"quota":4096}"#] {
            let answer = try await client.exchange("PATCH", "/v1/vdis/a", Array(body.utf8))
            #expect(answer.startLine == .response(status: 400), "\(body)")
        }
        let left = try await client.vdis()
        #expect(left.map(\.name) == ["a"])
        #expect(left.first?.quotaBytes == nil)
        await daemon.stop()
    }

    @Test(
        "the command line reads sizes and none",
        arguments: [
            ("4K", 4096), ("30G", 30 << 30), ("2t", 2 << 40), ("none", 0), ("8192T", 1 << 53),
        ] as [(String, UInt64)])
    func sizes(_ text: String, _ bytes: UInt64) throws {
        #expect(try VDIQuota.parse(text) == bytes)
        let code = exitCode { _ = try RootCommand.parseAsRoot(["vdi", "quota", "a", text]) }
        #expect(code == 0)
        for words in [["vdi", "create", "a", "--size", "1M"], ["clone", "a@s", "b"]] {
            let code = exitCode { _ = try RootCommand.parseAsRoot(words + ["--quota", text]) }
            #expect(code == 0, "\(words)")
        }
    }

    @Test(
        "and refuses everything else in one sentence",
        arguments: [
            ("0", "a quota cannot be 0; write none to take the limit away"),
            (
                "5000",
                "a quota must be a multiple of 4 KiB and 5000 bytes is not; "
                    + "the next that fits is 8192"
            ),
            ("8193T", "8 PiB is too large for a quota; the largest is 8 PiB"),
            (
                "lots",
                "\"lots\" is not a size; write a whole number of bytes, or one followed by "
                    + "K, M, G or T (powers of 1024), such as 20G"
            ),
        ])
    func badSizes(_ text: String, _ sentence: String) {
        let places = [
            ["vdi", "quota", "a", text], ["vdi", "create", "a", "--size", "1M", "--quota", text],
            ["vdi", "create", "a", "--from", "b@s", "--quota", text],
            ["clone", "a@s", "b", "--quota", text],
        ]
        for words in places {
            var said = ""
            let code = exitCode {
                said = RootCommand.message(for: $0)
            } body: {
                _ = try RootCommand.parseAsRoot(words)
            }
            #expect(code == 64, "\(words)")
            #expect(said == sentence)
        }
    }

    @Test("lists and details show what is charged, and the quota")
    func output() {
        let limited = VDIDescription(
            name: "a", identifier: "1", sizeBytes: 20 << 30, allocatedBytes: 1 << 30,
            exclusiveBytes: 0, chargedBytes: 3 << 29, quotaBytes: 30 << 30, createdAt: "t",
            shard: 0,
            attachment: nil)
        var unlimited = limited
        unlimited.name = "b"
        unlimited.quotaBytes = nil
        #expect(
            Descriptions.list([limited, unlimited])
                == """
                NAME    SIZE   USED  CHARGED   QUOTA  SNAPSHOTS  ATTACHED
                a     20 GiB  1 GiB  1.5 GiB  30 GiB          0  -
                b     20 GiB  1 GiB  1.5 GiB       -          0  -

                """)
        let details = Descriptions.details(limited)
        #expect(details.contains("charged    1.5 GiB (1610612736 bytes)\n"))
        #expect(details.contains("quota      30 GiB (32212254720 bytes)\n"))
        #expect(Descriptions.details(unlimited).contains("quota      -\n"))
    }

    @Test("in JSON both are bytes, and no quota is no field")
    func json() throws {
        var vdi = VDIDescription(
            name: "a", identifier: "1", sizeBytes: 1 << 20, allocatedBytes: 0,
            exclusiveBytes: 0, chargedBytes: 4096, quotaBytes: 8192, createdAt: "t", shard: 0,
            attachment: nil)
        let text = String(decoding: ControlJSON.encode(vdi), as: UTF8.self)
        #expect(text.contains(#""charged_bytes":4096"#))
        #expect(text.contains(#""quota_bytes":8192"#))
        vdi.quotaBytes = nil
        let without = String(decoding: ControlJSON.encode(vdi), as: UTF8.self)
        #expect(!without.contains("quota"))
    }

    private func exitCode(
        _ report: (any Error) -> Void = { _ in }, body: () throws -> Void
    ) -> Int32 {
        do {
            try body()
            return 0
        } catch {
            report(error)
            return RootCommand.exitCode(for: error).rawValue
        }
    }
}
