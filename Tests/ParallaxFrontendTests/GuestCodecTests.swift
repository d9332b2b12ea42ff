// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxGuest
import Testing

@Suite struct GuestCodecTests {
    @Test("wire structures have the sizes that virtio gives them")
    func sizes() {
        #expect(MemoryLayout<Descriptor>.size == 16)
        #expect(MemoryLayout<Descriptor>.offset(of: \.byteCount) == 8)
        #expect(MemoryLayout<Descriptor>.offset(of: \.flags) == 12)
        #expect(MemoryLayout<Descriptor>.offset(of: \.next) == 14)
        #expect(MemoryLayout<BlockRequestHeader>.size == 16)
        #expect(MemoryLayout<BlockRequestHeader>.offset(of: \.firstSector) == 8)
        #expect(MemoryLayout<BlockRange>.size == 16)
        #expect(MemoryLayout<BlockRange>.offset(of: \.sectorCount) == 8)
        #expect(MemoryLayout<BlockRange>.offset(of: \.flags) == 12)
    }

    @Test("feature bits have the numbers of the standard")
    func featureBits() {
        #expect(VirtioFeatures.version1.rawValue == 1 << 32)
        #expect(VirtioFeatures.indirectDescriptors.rawValue == 1 << 28)
        #expect(VirtioFeatures.eventIndex.rawValue == 1 << 29)
        #expect(VirtioFeatures.protocolFeatures.rawValue == 1 << 30)
        #expect(VirtioFeatures.multiQueue.rawValue == 1 << 12)
        #expect(VirtioFeatures.flush.rawValue == 1 << 9)
        #expect(VhostUserProtocolFeatures.understood.rawValue == 1 | 1 << 3 | 1 << 9 | 1 << 15)
    }

    @Test("a header survives encoding and decoding")
    func header() {
        let header = VhostUserHeader(
            request: .setVringCall, flags: VhostUserHeader.needReplyFlag | 1, payloadByteCount: 8)
        #expect(header.encoded == [13, 0, 0, 0, 9, 0, 0, 0, 8, 0, 0, 0])
        #expect(VhostUserHeader(decoding: header.encoded) == header)
    }

    @Test("the configuration space is read at the offsets of virtio 1.2, 5.2.4")
    func config() {
        let config = BlockDeviceConfig(decoding: (0..<60).map { UInt8($0) })
        #expect(config.capacitySectors == 0x0706_0504_0302_0100)
        #expect(config.dataSegmentBytesMax == 0x0b0a_0908)
        #expect(config.dataSegmentCountMax == 0x0f0e_0d0c)
        #expect(config.blockBytes == 0x1716_1514)
        #expect(config.physicalBlockExponent == 0x18)
        #expect(config.alignmentOffset == 0x19)
        #expect(config.minimumIOBlocks == 0x1b1a)
        #expect(config.optimalIOBlocks == 0x1f1e_1d1c)
        #expect(config.isWriteback)
        #expect(config.queueCount == 0x2322)
        #expect(config.discardSectorsMax == 0x2726_2524)
        #expect(config.discardRangesMax == 0x2b2a_2928)
        #expect(config.discardAlignmentSectors == 0x2f2e_2d2c)
        #expect(config.writeZeroesSectorsMax == 0x3332_3130)
        #expect(config.writeZeroesRangesMax == 0x3736_3534)
        #expect(config.writeZeroesMayUnmap)
    }

    @Test("a short configuration space reads as zeroes beyond its end")
    func shortConfig() {
        let config = BlockDeviceConfig(decoding: [1, 0, 0, 0, 0, 0, 0, 0, 5])
        #expect(config.capacitySectors == 1)
        #expect(config.dataSegmentBytesMax == 0)
        #expect(config.queueCount == 0)
    }

    @Test("guest memory is found by address only when one region holds all of it")
    func memory() throws {
        let memory = try GuestMemory(regions: [(0x1000, 1), (1 << 32, 8192)])
        #expect(memory.regions.map(\.byteCount) == [4096, 8192])
        #expect(memory.regions.map(\.fileOffset) == [0, 4096])
        let first = memory.pointer(to: 0x1fff, byteCount: 1)
        #expect(first != nil)
        let across = memory.pointer(to: 0x1fff, byteCount: 2)
        #expect(across == nil)
        let below = memory.pointer(to: 0xfff, byteCount: 1)
        #expect(below == nil)
        let second = memory.pointer(to: 1 << 32, byteCount: 8192)
        #expect(UInt64(UInt(bitPattern: second)) == memory.regions[1].userAddress)
        let far = memory.pointer(to: .max, byteCount: 1)
        #expect(far == nil)
    }

    @Test("a layout that cannot work is refused with a reason")
    func layouts() throws {
        func failure(_ size: Int, _ slots: Int, _ bytes: Int, indirect: Bool) -> String? {
            do {
                _ = try QueueLayout(
                    size: size, slotCount: slots, bufferBytes: bytes, dataSegmentBytes: 4096,
                    usesIndirect: indirect)
                return nil
            } catch {
                return error.message
            }
        }
        #expect(failure(128, 128, 1 << 20, indirect: true) == nil)
        #expect(failure(128, 42, 4096, indirect: false) == nil)
        #expect(failure(128, 43, 4096, indirect: false)?.contains("129 descriptors") == true)
        #expect(failure(128, 129, 4096, indirect: true) != nil)
        #expect(failure(100, 1, 4096, indirect: true)?.contains("power of two") == true)
        #expect(failure(65536, 1, 4096, indirect: true) != nil)
        #expect(failure(128, 0, 4096, indirect: true) != nil)
        #expect(failure(128, 1, 511, indirect: true) != nil)
    }
}
