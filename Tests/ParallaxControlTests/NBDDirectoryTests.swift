// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxCore
import ParallaxIO
import ParallaxNBD
import Testing

@testable import ParallaxBlockd

@Suite("The exports of the shared NBD socket")
struct NBDDirectoryTests {
    private let mailbox: ShardMailbox
    private let directory = NBDDirectory()

    init() throws {
        mailbox = try ShardMailbox()
        directory.connect([mailbox])
    }

    private func put(_ vdi: UInt64, _ name: String) {
        let version = VersionReference.head(VDIIdentifier(vdi))
        directory.put(
            NBDDirectory.Entry(
                version: version, shard: 0,
                export: NBDExport(name: name, byteCount: 4096, identity: version.rawValue)))
    }

    private func drain() -> [ShardMessage] {
        var messages: [ShardMessage] = []
        mailbox.drain(into: &messages)
        return messages
    }

    /// What a client of the shared socket gets that asks for this name now; nil: nothing.
    private func export(_ name: String) -> NBDExport? {
        let tables = drain().compactMap { message -> NBDExportTable? in
            if case .setExports(let table) = message { table } else { nil }
        }
        return tables.last?.find(ArraySlice(name.utf8))
    }

    @Test("a client gets the disk that it has agreed on, though another has its name by now")
    func renamed() throws {
        put(1, "a")
        put(2, "new")
        let chosen = try #require(export("a"))
        put(1, "old")
        put(2, "a")
        _ = drain()
        directory.pass(
            NBDHandover(
                agreement: NBDAgreement(
                    exportName: "a", exportIdentity: chosen.identity, usesStructuredReplies: true,
                    reportsAllocation: false), socketFD: -1))
        let versions = drain().compactMap { message -> VersionReference? in
            if case .handover(_, let version) = message { version } else { nil }
        }
        #expect(versions == [.head(VDIIdentifier(1))])
    }

    @Test("a name that two disks have is nobody's until one is renamed")
    func ambiguous() {
        put(1, "x")
        put(2, "x")
        #expect(export("x") == nil)
        put(2, "y")
        #expect(export("x")?.identity == 1)
        directory.remove(.head(VDIIdentifier(1)))
        #expect(export("x") == nil)
    }
}
