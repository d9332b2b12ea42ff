// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxSimulation
import Testing

@testable import ParallaxCore

@Suite("Format")
struct FormatTests {
    static let uuid = StoreUUID(high: 0x0123_4567_89AB_CDEF, low: 0xFEDC_BA98_7654_3210)

    static let superblock = Superblock(
        uuid: uuid, storeBytes: 1 << 30, extentBytes: 1 << 20, slotCount: 1000, streamCount: 2,
        generation: 5, createdAtNanoseconds: 77)

    @Test("a superblock's fields are where docs/format.md says")
    func superblockOffsets() throws {
        let block = BlockBuffer()
        Self.superblock.encode(to: block.base)
        #expect(word(block, 0) == Superblock.magic)
        #expect(String(decoding: block.bytes.prefix(8), as: UTF8.self) == "PARALLAX")
        #expect(half(block, 8) == 3)
        #expect(half(block, 12) == 4096)
        #expect(word(block, 40) == Self.uuid.high)
        #expect(word(block, 48) == Self.uuid.low)
        #expect(word(block, 56) == 1 << 30)
        #expect(word(block, 64) == 1 << 20)
        #expect(word(block, 72) == 1 << 20)
        #expect(half(block, 80) == 1000)
        #expect(half(block, 84) == 2)
        #expect(word(block, 88) == 5)
        #expect(word(block, 96) == 77)
        #expect(try Superblock.decode(from: block.base) == Self.superblock)
    }

    @Test("any flipped bit of a superblock is found")
    func superblockDamage() {
        let block = BlockBuffer()
        Self.superblock.encode(to: block.base)
        for bit in stride(from: 0, to: blockBytes * 8, by: 61) {
            block.bytes[bit / 8] ^= 1 << UInt8(bit % 8)
            #expect(throws: Superblock.Fault.self) { try Superblock.decode(from: block.base) }
            block.bytes[bit / 8] ^= 1 << UInt8(bit % 8)
        }
    }

    @Test("a newer version and unknown features are named as such")
    func newerSuperblock() {
        let block = BlockBuffer()
        var newer = Self.superblock
        let version = Superblock.currentVersion + 1
        newer.version = version
        newer.encode(to: block.base)
        #expect(throws: Superblock.Fault.otherVersion(version)) {
            try Superblock.decode(from: block.base)
        }
        newer = Self.superblock
        newer.incompatibleFeatures = 4
        newer.encode(to: block.base)
        #expect(throws: Superblock.Fault.unknownFeatures(4)) {
            try Superblock.decode(from: block.base)
        }
        newer = Self.superblock
        newer.compatibleFeatures = 4
        newer.encode(to: block.base)
        #expect(throws: Never.self) { try Superblock.decode(from: block.base) }
    }

    @Test("numbers that do not fit each other are refused, whatever the checksum says")
    func inconsistentSuperblock() {
        for spoil in [
            { (block: inout Superblock) in block.slotCount = 0 },
            { $0.slotCount = .max }, { $0.extentBytes = 3 << 20 }, { $0.extentBytes = 0 },
            { $0.streamCount = 0 }, { $0.streamCount = 33 }, { $0.storeBytes = 0 },
            { $0.generation = 0 }, { $0.extentBytes = 1 << 63 },
        ] {
            var superblock = Self.superblock
            spoil(&superblock)
            let block = BlockBuffer()
            superblock.encode(to: block.base)
            #expect(throws: Superblock.Fault.inconsistent) {
                try Superblock.decode(from: block.base)
            }
        }
    }

    @Test("a checkpoint root survives coding and belongs to its store and stream")
    func checkpointRoot() {
        var root = CheckpointRoot(
            uuid: Self.uuid, stream: 1, tableLevels: 2, sequence: 9, generation: 3,
            tableBytes: 1234,
            table: BlockReference(
                address: BlockAddress(extent: ExtentNumber(4), block: 17), checksum: 5, birth: 0),
            replayLSN: LogSequenceNumber(99), replayExtent: ExtentNumber(8), replayBlock: 200,
            nodeFrames: 64, nextExtent: ExtentNumber(11), nextVDI: 6, nextSnapshot: 7)
        let block = BlockBuffer()
        root.encode(to: block.base)
        #expect(word(block, 32) == 9)
        #expect(word(block, 72) == 99)
        #expect(half(block, 88) == 200)
        let other = StoreUUID(high: 1, low: 2)
        #expect(CheckpointRoot.decode(from: block.base, uuid: Self.uuid, stream: 1) == root)
        #expect(CheckpointRoot.decode(from: block.base, uuid: Self.uuid, stream: 0) == nil)
        #expect(CheckpointRoot.decode(from: block.base, uuid: other, stream: 1) == nil)
        block.bytes[2000] = 1
        #expect(CheckpointRoot.decode(from: block.base, uuid: Self.uuid, stream: 1) == nil)
        // The first chunk has LSN 1.
        root.replayLSN = LogSequenceNumber(0)
        root.encode(to: block.base)
        #expect(CheckpointRoot.decode(from: block.base, uuid: Self.uuid, stream: 1) == nil)
    }

    @Test("a reference is 16 bytes: address, checksum, birth")
    func reference() {
        #expect(MemoryLayout<BlockReference>.size == 16)
        #expect(MemoryLayout<BlockReference>.stride == 16)
        #expect(radixFanout == 256)
        let address = BlockAddress(extent: ExtentNumber(0x12_3456_789A), block: 0xF_FFFF)
        #expect(address.rawValue == 0x1234_5678_9AFF_FFF0)
        #expect(address.extent == ExtentNumber(0x12_3456_789A))
        #expect(address.block == 0xF_FFFF)
        #expect(!address.isHole && !address.isResident)
        let frame = BlockAddress(residentFrame: 70_000)
        #expect(frame.isResident && frame.residentFrame == 70_000)
    }

    @Test("a VDI record survives coding, and nonsense is no record")
    func vdiRecord() {
        var record = VDIRecord(
            identifier: VDIIdentifier(7), name: "büro-disk", sizeBytes: 1 << 30,
            createdAtNanoseconds: 5)
        record.levels = 3
        record.epoch = 4
        record.isDeleting = true
        record.allocatedBlocks = 99
        record.root = BlockReference(
            address: BlockAddress(extent: ExtentNumber(3), block: 2), checksum: 8, birth: 4)
        let block = BlockBuffer()
        var writer = ByteWriter(block.base, capacity: block.count)
        record.encode(to: &writer)
        #expect(writer.count == record.encodedBytes)
        var reader = ByteReader(block.base, count: writer.count)
        #expect(VDIRecord.decode(from: &reader) == record)
        for length in 0..<record.encodedBytes {
            var short = ByteReader(block.base, count: length)
            #expect(VDIRecord.decode(from: &short) == nil)
        }
    }

    @Test("a version's record and what is said about it survive coding, and parts are none")
    func versionRecord() {
        let details = SnapshotDetails(
            name: "vor dem Umzug", comment: "größer", labels: [.init(key: "keep", value: "yes")],
            holds: [.init(reason: "audit", createdAtSeconds: 12)], origin: .scheduled)
        var version = Version()
        version.identifier = SnapshotIdentifier(stream: 3, row: 77, sequence: 1 << 33)
        version.vdi = VDIIdentifier(9)
        version.epoch = 5
        version.levels = 2
        version.state = .visible
        version.sizeBlocks = 4096
        version.exclusiveBlocks = 12
        version.isCounted = true
        version.root = BlockReference(
            address: BlockAddress(extent: ExtentNumber(3), block: 2), checksum: 8, birth: 5)
        let record = VersionRecord(
            version: version, parent: SnapshotIdentifier(stream: 3, row: 1, sequence: 2),
            details: details.encoded)
        let block = BlockBuffer()
        var writer = ByteWriter(block.base, capacity: block.count)
        record.encode(to: &writer)
        #expect(writer.count == record.encodedBytes)
        var reader = ByteReader(block.base, count: writer.count)
        let decoded = VersionRecord.decode(from: &reader)
        #expect(decoded?.version.identifier == version.identifier)
        #expect(decoded?.version.identifier.row == 77)
        #expect(decoded?.version.identifier.stream == 3)
        #expect(decoded?.version.root == version.root)
        #expect(decoded?.parent == record.parent)
        #expect(decoded?.details == details.encoded)
        var detailReader = ByteReader(block.base, count: writer.count, at: VersionRecord.fixedBytes)
        #expect(SnapshotDetails.decode(from: &detailReader) == details)
        for length in 0..<record.encodedBytes {
            var short = ByteReader(block.base, count: length)
            let isNone = VersionRecord.decode(from: &short) == nil
            #expect(isNone)
        }
    }

    @Test("catalogue records survive coding, and parts of them are none")
    func catalogRecords() {
        let details = SnapshotDetails(name: "n").encoded
        let snapshot = SnapshotIdentifier(stream: 1, row: 4, sequence: 9)
        let records: [CatalogRecord] = [
            .resize(VDIIdentifier(4), sizeBytes: 1 << 20),
            .setAttributes(VDIIdentifier(4), VDIAttributes(isTemplate: true, policy: "{}")),
            .snapshot(snapshot, VDIIdentifier(4), createdAt: 5, group: 6, details: details),
            .setDetails(snapshot, details: details), .deleteSnapshot(snapshot),
            .rollback(
                VDIIdentifier(4), to: snapshot, kept: snapshot, createdAt: 3, isVisible: true,
                details: details),
            .finishGroup(77, commit: true),
        ]
        let block = BlockBuffer()
        for record in records {
            var writer = ByteWriter(block.base, capacity: block.count)
            record.encode(to: &writer)
            #expect(writer.count == record.encodedBytes)
            var reader = ByteReader(block.base, count: writer.count)
            let decoded = CatalogRecord.decode(kind: record.kind, from: &reader)
            #expect(decoded == record)
            var short = ByteReader(block.base, count: writer.count - 1)
            let cut = CatalogRecord.decode(kind: record.kind, from: &short)
            #expect(cut != record)
        }
    }

    @Test("what is longer or larger than it can be is no record")
    func bounds() throws {
        func survives(_ record: CatalogRecord) -> Bool {
            let block = BlockBuffer()
            var writer = ByteWriter(block.base, capacity: blockBytes)
            record.encode(to: &writer)
            var reader = ByteReader(block.base, count: record.encodedBytes)
            return CatalogRecord.decode(kind: record.kind, from: &reader) == record
        }
        func text(_ count: Int) -> String { String(repeating: "x", count: count) }
        let vdi = VDIIdentifier(3)
        for (count, isValid) in [(100, true), (101, false), (300, false)] {
            #expect(survives(.rename(vdi, name: text(count))) == isValid)
        }
        for (count, isValid) in [(1024, true), (1025, false), (3900, false)] {
            let attributes = VDIAttributes(isTemplate: false, policy: text(count), quotaBytes: 0)
            #expect(survives(.setAttributes(vdi, attributes)) == isValid)
            var record = VDIRecord(
                identifier: vdi, name: text(100), sizeBytes: 1 << 20, createdAtNanoseconds: 0)
            record.attributes = attributes
            if count < 3000 { #expect(survives(.create(record)) == isValid) }
        }
    }

    @Test("moves lead to a cold extent, and end in it")
    func moves() {
        let cold = ExtentNumber(1 << 40 - 1)
        for (to, isValid) in [
            (BlockAddress(extent: cold, block: 7), true),
            (BlockAddress(extent: cold, block: 0xF_FFFF), false),
            (BlockAddress(extent: ExtentNumber(7), block: 7), false),
            (BlockAddress(rawValue: .max), false),
        ] {
            let block = BlockBuffer()
            var writer = ByteWriter(block.base, capacity: blockBytes, at: ChunkHeader.recordsOffset)
            writer.put(ChunkRecord.Kind.moves)
            writer.put(UInt8(0))
            writer.put(UInt16(2))
            writer.put(UInt32(0))
            writer.put(to.rawValue)
            writer.put(UInt64(1))
            writer.put(UInt64(2))
            var reader = ChunkRecordReader(header: block.base, recordBytes: 32)
            #expect((reader.next() != nil) == isValid)
            #expect(reader.isMalformed != isValid)
        }
    }

    @Test("a damaged root asks for no more node frames than a replay can need")
    func frames() throws {
        let store = try SmallStore()
        let superblock = try Store.inspect(medium: store.device).superblock
        var root = store.look { $0.checkpoint.root }
        root.nodeFrames = Int(UInt32.max)
        #expect(root.replayFrames(superblock) < 1 << 16)
        root.nodeFrames = 3
        #expect(root.replayFrames(superblock) == 3)
    }

    @Test("a root whose counters have no room to go on is none")
    func counters() throws {
        let store = try SmallStore()
        let good = store.look { $0.checkpoint.root }
        let changes: [(inout CheckpointRoot) -> Void] = [
            { $0.sequence = .max }, { $0.generation = .max },
            { $0.replayLSN = LogSequenceNumber(.max) }, { $0.replayLSN = LogSequenceNumber(0) },
            { $0.replayExtent = .firstCold }, { $0.nextExtent = ExtentNumber(.max) },
            { $0.nextVDI = .max }, { $0.nextSnapshot = .max },
        ]
        let block = BlockBuffer()
        let decode = { CheckpointRoot.decode(from: block.base, uuid: good.uuid, stream: 0) }
        good.encode(to: block.base)
        #expect(decode() == good)
        for (index, change) in changes.enumerated() {
            var root = good
            change(&root)
            root.encode(to: block.base)
            #expect(decode() == nil, "change \(index)")
        }
    }

    @Test("random bytes are no chunk header and no records, and never trap")
    func randomBytes() {
        var generator = SeededRandom(seed: 3)
        let block = BlockBuffer()
        for _ in 0..<2000 {
            for index in 0..<block.count {
                block.bytes[index] = UInt8(truncatingIfNeeded: generator.next())
            }
            #expect(ChunkHeader.decode(from: block.base, uuid: Self.uuid, stream: 0) == nil)
            for index in stride(from: 96, to: 400, by: 24) { block.bytes[index] &= 7 }
            var records = ChunkRecordReader(header: block.base, recordBytes: 4000)
            var count = 0
            while records.next() != nil { count += 1 }
            #expect(count <= 500)
        }
    }

    private func word(_ block: borrowing BlockBuffer, _ offset: Int) -> UInt64 {
        block.base.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
    }

    private func half(_ block: borrowing BlockBuffer, _ offset: Int) -> UInt32 {
        block.base.loadUnaligned(fromByteOffset: offset, as: UInt32.self)
    }
}
