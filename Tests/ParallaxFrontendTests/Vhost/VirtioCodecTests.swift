// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxVhost
import Testing

@Suite("virtio-blk codec")
struct VirtioCodecTests {
    @Test("a descriptor has its fields at 0, 8, 12 and 14")
    func descriptorLayout() {
        let bytes: [UInt8] = [1, 0, 0, 0, 0, 0, 0, 2, 3, 0, 0, 4, 5, 6, 7, 8]
        let descriptor = Descriptor(decoding: bytes.load(at: 0), bytes.load(at: 8))
        #expect(descriptor.address == 0x0200_0000_0000_0001)
        #expect(descriptor.byteCount == 0x0400_0003)
        #expect(descriptor.flags == 0x0605)
        #expect(descriptor.next == 0x0807)
        #expect(descriptor.bytes == bytes)
    }

    @Test("a request header has its type at 0 and its sector at 8")
    func headerLayout() {
        for kind in BlockRequestHeader.Kind.allCases {
            let header = BlockRequestHeader(decoding: UInt64(kind.rawValue) | 9 << 32, 0x1234)
            #expect(header == BlockRequestHeader(kind: kind, firstSector: 0x1234))
        }
        for unknown: UInt64 in [2, 3, 5, 7, 10, 12, 14, 15, 0xffff_ffff] {
            #expect(BlockRequestHeader(decoding: unknown, 0).kind == nil)
        }
    }

    @Test("the configuration space has its fields where virtio wants them")
    func configLayout() {
        let config = BlockConfig(sectors: 0x1122, isWriteback: true, readOnly: false)
        let bytes = (0..<64).map { config.byte(at: UInt64($0)) }
        #expect(bytes.load(at: 0, as: UInt64.self) == 0x1122)
        #expect(bytes.load(at: 8, as: UInt32.self) == 128 << 10)
        #expect(bytes.load(at: 12, as: UInt32.self) == 254)
        #expect(bytes.load(at: 16, as: UInt32.self) == 0)
        #expect(bytes.load(at: 20, as: UInt32.self) == 512)
        #expect(bytes[24] == 3)
        #expect(bytes[25] == 0)
        #expect(bytes.load(at: 26, as: UInt16.self) == 8)
        #expect(bytes.load(at: 28, as: UInt32.self) == 2048)
        #expect(bytes[32] == 1)
        #expect(bytes.load(at: 34, as: UInt16.self) == 16)
        #expect(bytes.load(at: 36, as: UInt32.self) == 1 << 22)
        #expect(bytes.load(at: 40, as: UInt32.self) == 64)
        #expect(bytes.load(at: 44, as: UInt32.self) == 8)
        #expect(bytes.load(at: 48, as: UInt32.self) == 1 << 22)
        #expect(bytes.load(at: 52, as: UInt32.self) == 64)
        #expect(bytes[56] == 1)
        #expect(bytes[57...] == [0, 0, 0, 0, 0, 0, 0])
        let readOnly = BlockConfig(sectors: 1, isWriteback: false, readOnly: true)
        #expect((32..<34).allSatisfy { readOnly.byte(at: $0) == 0 })
        #expect((36..<60).allSatisfy { readOnly.byte(at: $0) == 0 })
    }

    @Test("a range's flags are judged before its place")
    func ranges() {
        func check(_ sector: UInt64, _ count: UInt32, _ flags: UInt32, discard: Bool)
            -> VirtioBlockStatus
        {
            BlockRange(decoding: sector, UInt64(flags) << 32 | UInt64(count))
                .check(isDiscard: discard, capacitySectors: 100)
        }
        #expect(check(0, 100, 0, discard: true) == .ok)
        #expect(check(100, 0, 0, discard: true) == .ok)
        #expect(check(99, 2, 0, discard: true) == .ioError)
        #expect(check(.max, 1, 0, discard: true) == .ioError)
        #expect(check(0, .max, 0, discard: true) == .ioError)
        #expect(check(0, 1, 1, discard: true) == .unsupported)
        #expect(check(0, 1, 1, discard: false) == .ok)
        #expect(check(0, 1, 2, discard: false) == .unsupported)
        #expect(check(.max, .max, 0x8000_0000, discard: false) == .unsupported)
        let long = BlockRange(decoding: 0, UInt64(VhostLimits.rangeSectorsMax) + 1)
        #expect(long.check(isDiscard: true, capacitySectors: .max) == .ioError)
    }

    @Test("a chain follows next and stops at the last descriptor")
    func chain() throws {
        var walk = ChainWalk(queueSize: 8, isIndirectAllowed: false)
        let first = Descriptor(address: 0, byteCount: 16, flags: Descriptor.nextFlag, next: 7)
        #expect(try walk.accept(first) == .buffer(next: 7))
        let last = Descriptor(address: 0, byteCount: 1, flags: Descriptor.writableFlag, next: 99)
        #expect(try walk.accept(last) == .buffer(next: nil))
    }

    @Test("an indirect table may follow direct descriptors and sets its own bound")
    func indirect() throws {
        var walk = ChainWalk(queueSize: 2, isIndirectAllowed: true)
        let direct = Descriptor(address: 0, byteCount: 16, flags: Descriptor.nextFlag, next: 1)
        #expect(try walk.accept(direct) == .buffer(next: 1))
        let table = Descriptor(address: 5, byteCount: 64, flags: Descriptor.indirectFlag)
        #expect(try walk.accept(table) == .table(address: 5, count: 4))
        let inside = Descriptor(address: 0, byteCount: 16, flags: Descriptor.nextFlag, next: 3)
        #expect(try walk.accept(inside) == .buffer(next: 3))
        let outside = Descriptor(address: 0, byteCount: 16, flags: Descriptor.nextFlag, next: 4)
        #expect(throws: RingFault.nextOutOfRange) { try walk.accept(outside) }
    }

    static let illegal: [(Descriptor, Bool, RingFault)] = [
        (.init(address: 0, byteCount: 16, flags: 4), false, .indirectNotNegotiated),
        (.init(address: 0, byteCount: 16, flags: 5), true, .indirectWithNext),
        (.init(address: 0, byteCount: 0, flags: 4), true, .indirectLength),
        (.init(address: 0, byteCount: 17, flags: 4), true, .indirectLength),
        (.init(address: 0, byteCount: 1, flags: 1, next: 8), true, .nextOutOfRange),
        (.init(address: 0, byteCount: 1, flags: 1, next: .max), true, .nextOutOfRange),
    ]

    @Test("a descriptor that breaks a rule is refused", arguments: illegal)
    func faults(descriptor: Descriptor, isIndirectAllowed: Bool, expected: RingFault) {
        var walk = ChainWalk(queueSize: 8, isIndirectAllowed: isIndirectAllowed)
        #expect(throws: expected) { try walk.accept(descriptor) }
    }

    @Test("tables in tables, readable after writable, and loops are refused")
    func sequences() throws {
        var nested = ChainWalk(queueSize: 8, isIndirectAllowed: true)
        let table = Descriptor(address: 0, byteCount: 32, flags: Descriptor.indirectFlag)
        _ = try nested.accept(table)
        #expect(throws: RingFault.indirectNested) { try nested.accept(table) }

        var order = ChainWalk(queueSize: 8, isIndirectAllowed: true)
        _ = try order.accept(.init(address: 0, byteCount: 1, flags: 3, next: 1))
        #expect(throws: RingFault.readableAfterWritable) {
            try order.accept(.init(address: 0, byteCount: 1, flags: 0))
        }

        var loop = ChainWalk(queueSize: 8, isIndirectAllowed: true)
        let again = Descriptor(address: 0, byteCount: 1, flags: Descriptor.nextFlag, next: 0)
        for _ in 0..<VhostLimits.chainLengthMax { _ = try loop.accept(again) }
        #expect(throws: RingFault.chainTooLong) { try loop.accept(again) }
    }
}
