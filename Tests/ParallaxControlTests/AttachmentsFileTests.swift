// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxBlockd
import ParallaxControl
import ParallaxCore
import Testing

@Suite struct AttachmentsFileTests {
    private let directory: TemporaryDirectory
    private let file: AttachmentsFile

    init() throws {
        directory = try TemporaryDirectory()
        file = AttachmentsFile(stateDirectory: directory.file("a/b"), storeUUID: "uuid-1")
    }

    private static let records = [
        AttachmentRecord(
            identifier: VDIIdentifier(1), kind: .vhostUser, socketPath: "/run/é \"x\"",
            isReadOnly: true),
        AttachmentRecord(
            identifier: VDIIdentifier(0xFFFF_0000_0000_0002), kind: .nbd,
            socketPath: nil, isReadOnly: false),
        AttachmentRecord(
            identifier: VDIIdentifier(0xFFFF_0000_0000_0003), kind: .xen,
            socketPath: "/local/domain/0/backend/vbd/3/51712", isReadOnly: false),
    ]

    @Test("what was saved is loaded, in a private file whose directories are made")
    func roundTrip() throws {
        #expect(try file.load().isEmpty)
        try file.save(Self.records)
        #expect(try file.load() == Self.records)
        #expect(permissions(file.path) == 0o600)
        #expect(permissions(directory.file("a")) == 0o700)
        #expect(!exists(file.path + ".new"))
    }

    @Test("a daemon that knows no Xen nodes passes over them, and its file is read")
    func nodes() throws {
        try file.save(Self.records)
        let text = String(
            decoding: try SmallFile.read(file.path, limitBytes: 1 << 20), as: UTF8.self)
        let pieces = text.split(separator: "\"xen_nodes\"")
        #expect(pieces.count == 2)
        #expect(pieces.first?.contains("\"nbd\"") == true)
        #expect(pieces.first?.contains("vbd/3") == false)
        let old = #"{"version":2,"store":"uuid-1","attachments":[]}"#
        try SmallFile.replace(file.path, with: Array(old.utf8))
        #expect(try file.load().isEmpty)
    }

    @Test("a change that cannot be made durable is taken back, and only then nothing was changed")
    func unsynced() throws {
        try file.save([])
        let old = try SmallFile.read(file.path, limitBytes: 1 << 20)
        func fail(_ descriptor: Int32) -> Int32 {
            errno = EIO
            return -1
        }
        #expect(throws: ReplaceError(reason: SystemError(EIO))) {
            try SmallFile.replace(file.path, with: [1, 2, 3], sync: fail)
        }
        #expect(try SmallFile.read(file.path, limitBytes: 1 << 20) == old)
        #expect(throws: ReplaceError(reason: SystemError(EIO))) {
            try SmallFile.replace(directory.file("new"), with: [1], sync: fail)
        }
        #expect(!exists(directory.file("new")))
        // Nor can it be taken back here.
        let path = file.path
        let error = #expect(throws: ReplaceError.self) {
            try SmallFile.replace(path, with: [4, 5]) { descriptor in
                _ = mkdir(path + ".new", 0o700)
                return fail(descriptor)
            }
        }
        #expect(error?.isReplaced == true)
        #expect(error?.description.contains("has the change all the same") == true)
        #expect(try SmallFile.read(path, limitBytes: 1 << 20) == [4, 5])
    }

    @Test("a file cut off anywhere is an error that names it, never a crash or a part of it")
    func torn() throws {
        try file.save(Self.records)
        let bytes = try SmallFile.read(file.path, limitBytes: 1 << 20)
        // The last byte is the newline after the closing brace, which nothing needs.
        for length in 0..<bytes.count - 1 {
            try SmallFile.replace(file.path, with: Array(bytes[..<length]))
            let error = try #require(failure { _ = try file.load() }, "\(length) bytes")
            #expect(error.message.contains(file.path))
        }
    }

    @Test(
        "a file that is damaged in some other way is an error too",
        arguments: [
            "[]", "null", "{}", #"{"version":3,"store":"uuid-1","attachments":[]}"#,
            #"{"version":1,"store":"uuid-2","attachments":[]}"#,
            #"{"version":1,"store":"uuid-1","attachments":[{}]}"#,
            #"{"version":1,"store":"uuid-1","attachments":[{"vdi":"1","kind":"nbd","read_only":false}]}"#,
            #"{"version":1,"store":"uuid-1","attachments":[{"vdi":"0000000000000001","kind":"vhost-user","read_only":false}]}"#,
            #"{"version":1,"store":"uuid-1","attachments":[{"vdi":"0000000000000001","kind":"x","read_only":false}]}"#,
            #"""
            {"version":1,"store":"uuid-1","attachments":[
            {"vdi":"0000000000000001","kind":"nbd","read_only":false},
            {"vdi":"0000000000000001","kind":"nbd","read_only":true}]}
            """#,
            #"""
            {"version":2,"store":"uuid-1","attachments":[
            {"vdi":"0000000000000001","kind":"nbd","read_only":false}],"xen_nodes":[
            {"vdi":"0000000000000001","kind":"xen","socket":"/a","read_only":true}]}
            """#,
        ])
    func damaged(text: String) throws {
        try file.save([])
        try SmallFile.replace(file.path, with: Array(text.utf8))
        let error = try #require(failure { _ = try file.load() })
        #expect(error.message.contains(file.path))
    }

    @Test("any single damaged byte gives an error or valid records, never a crash")
    func bitRot() throws {
        try file.save(Self.records)
        let bytes = try SmallFile.read(file.path, limitBytes: 1 << 20)
        for place in bytes.indices {
            var damaged = bytes
            damaged[place] ^= 0x55
            try SmallFile.replace(file.path, with: damaged)
            _ = try? file.load()
        }
    }

    @Test("a save that fails leaves the old file and says so")
    func failedSave() throws {
        try file.save(Self.records)
        // A directory in the way of the temporary file: this fails for root as well.
        #expect(mkdir(file.path + ".new", 0o700) == 0)
        let error = try #require(failure { try file.save([]) })
        #expect(error.message.contains("nothing was changed"))
        #expect(try file.load() == Self.records)
    }
}
