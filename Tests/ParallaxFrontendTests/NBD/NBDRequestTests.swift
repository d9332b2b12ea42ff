// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxCore
import ParallaxNBD
import Testing

@Suite("NBD requests")
struct NBDRequestTests {
    static let size: UInt64 = 1 << 30

    private func rules(
        readOnly: Bool = false, structured: Bool = true, allocation: Bool = true
    ) -> NBDRules {
        NBDRules(
            exportBytes: Self.size, isReadOnly: readOnly, usesStructuredReplies: structured,
            reportsAllocation: allocation)
    }

    private func request(
        _ command: NBDCommand, _ offset: UInt64, _ length: UInt32, _ flags: NBDCommandFlags = []
    ) -> NBDRequest {
        NBDRequest(type: command.rawValue, flags: flags, offset: offset, length: length)
    }

    @Test("every engine status has its NBD error")
    func statuses() {
        let table: [(BlockStatus, NBDErrorCode?)] = [
            (.ok, nil), (.ioError, .inputOutput), (.corrupt, .inputOutput), (.noSpace, .noSpace),
            (.readOnly, .notPermitted), (.invalid, .invalid), (.shuttingDown, .shutdown),
        ]
        for (status, error) in table {
            for command in NBDCommand.allCases {
                #expect(NBDErrorCode(status, to: command) == error)
            }
        }
        for command in NBDCommand.allCases {
            let isWrite = command == .write || command == .writeZeroes
            #expect(NBDErrorCode(.outOfRange, to: command) == (isWrite ? .noSpace : .invalid))
        }
        let values: [UInt32] = [1, 5, 22, 28, 75, 95, 108]
        #expect(NBDErrorCode.allCases.map(\.rawValue) == values)
        #expect(NBDErrorCode.allCases.allSatisfy { $0.message.utf8CodeUnitCount > 10 })
    }

    @Test("past the end: writes and zeroes ENOSPC, everything else EINVAL; overflow too")
    func pastTheEnd() {
        let offsets: [UInt64] = [Self.size, Self.size - 512, .max - 1023, .max - 511]
        for offset in offsets {
            for command in [NBDCommand.write, .writeZeroes] {
                #expect(rules().judge(request(command, offset, 1024)) == .refuse(.noSpace))
            }
            for command in [NBDCommand.read, .trim, .cache, .blockStatus] {
                #expect(rules().judge(request(command, offset, 1024)) == .refuse(.invalid))
            }
        }
        #expect(rules().judge(request(.read, Self.size - 512, 512)) == .perform(.read))
    }

    @Test("changes to a read-only export are EPERM, wherever they go")
    func readOnly() {
        for command in [NBDCommand.write, .trim, .writeZeroes] {
            let verdict = rules(readOnly: true).judge(request(command, Self.size, 4096))
            #expect(verdict == .refuse(.notPermitted))
        }
        #expect(rules(readOnly: true).judge(request(.flush, 0, 0)) == .perform(.flush))
        #expect(rules(readOnly: true).judge(request(.read, 0, 512)) == .perform(.read))
    }

    @Test("requests that are not in whole sectors are EINVAL")
    func alignment() {
        let commands: [NBDCommand] = [.read, .write, .trim, .writeZeroes, .cache, .blockStatus]
        for command in commands {
            for (offset, length) in [(1, 512), (0, 511), (256, 256), (511, 1)] as [(UInt64, UInt32)]
            {
                #expect(rules().judge(request(command, offset, length)) == .refuse(.invalid))
            }
        }
    }

    @Test("each command takes its own flags and FUA, and no others")
    func flags() {
        let allowed: [NBDCommand: UInt16] = [
            .read: 0b101, .write: 1, .flush: 1, .trim: 1, .cache: 1, .writeZeroes: 0b10011,
            .blockStatus: 0b1001,
        ]
        for (command, mask) in allowed {
            let length: UInt32 = command == .flush ? 0 : 8192
            for bit in 0..<16 {
                let flag = NBDCommandFlags(rawValue: 1 << bit)
                let verdict = rules().judge(request(command, 0, length, flag))
                let isAllowed = mask & flag.rawValue != 0
                #expect((verdict == .refuse(.invalid)) != isAllowed, "\(command) bit \(bit)")
            }
        }
        let fragmented = rules(structured: false).judge(request(.read, 0, 512, .dontFragment))
        #expect(fragmented == .refuse(.invalid))
    }

    @Test("lengths: 32 MiB is served, more is refused, much more ends the connection")
    func lengths() {
        let most: UInt32 = 32 << 20
        #expect(rules().judge(request(.read, 0, most)) == .perform(.read))
        #expect(rules().judge(request(.write, 0, most)) == .perform(.write))
        #expect(rules().judge(request(.read, 0, most + 512)) == .refuse(.overflow))
        let simple = rules(structured: false)
        #expect(simple.judge(request(.read, 0, most + 512)) == .refuse(.invalid))
        #expect(rules().judge(request(.write, 0, most + 512)) == .refuse(.invalid))
        #expect(rules().judge(request(.write, 0, 2 * most)) == .refuse(.invalid))
        #expect(rules().judge(request(.write, 0, 2 * most + 1)) == .breakOff)
        #expect(rules(readOnly: true).judge(request(.write, 0, .max)) == .breakOff)
        #expect(rules().judge(request(.trim, 0, 1 << 30)) == .perform(.trim))
        #expect(rules().judge(request(.writeZeroes, 0, 1 << 30)) == .perform(.writeZeroes))
    }

    @Test("DF: one chunk up to 256 KiB, EOVERFLOW beyond")
    func dontFragment() {
        let limit = UInt32(NBDLimits.largePieceBytes)
        #expect(limit >= 65_536)
        #expect(rules().judge(request(.read, 512, limit, .dontFragment)) == .perform(.read))
        let verdict = rules().judge(request(.read, 0, limit + 512, .dontFragment))
        #expect(verdict == .refuse(.overflow))
    }

    @Test("FAST_ZERO is granted only where a whole block goes and holes are allowed")
    func fastZero() {
        let fast: [(UInt64, UInt32, Bool)] = [
            (0, 4096, true), (4096, 8192, true), (512, 8192, true), (0, 3584, false),
            (512, 4096, false), (512, 7680, true), (512, 7168, false), (3584, 1024, false),
        ]
        for (offset, length, isFast) in fast {
            let verdict = rules().judge(request(.writeZeroes, offset, length, .fastZero))
            let expected: NBDVerdict = isFast ? .perform(.writeZeroes) : .refuse(.notSupported)
            #expect(verdict == expected, "\(offset) \(length)")
            let plain = rules().judge(request(.writeZeroes, offset, length))
            #expect(plain == .perform(.writeZeroes))
        }
        let both = rules().judge(request(.writeZeroes, 0, 1 << 20, [.fastZero, .noHole]))
        #expect(both == .refuse(.notSupported))
    }

    @Test("BLOCK_STATUS needs a selected context and a length")
    func blockStatus() {
        #expect(rules().judge(request(.blockStatus, 0, 512)) == .perform(.blockStatus))
        #expect(rules().judge(request(.blockStatus, 0, 0)) == .refuse(.invalid))
        let without = rules(allocation: false).judge(request(.blockStatus, 0, 512))
        #expect(without == .refuse(.invalid))
    }

    @Test("nothing to do is acknowledged; flush takes no range; unknown commands are EINVAL")
    func oddities() {
        for command in [NBDCommand.read, .write, .trim, .writeZeroes] {
            #expect(rules().judge(request(command, 512, 0)) == .acknowledge(command))
        }
        #expect(rules().judge(request(.cache, 0, 1 << 30)) == .acknowledge(.cache))
        #expect(rules().judge(request(.flush, 0, 512)) == .refuse(.invalid))
        #expect(rules().judge(request(.flush, 512, 0)) == .refuse(.invalid))
        #expect(rules().judge(request(.disconnect, 7, 7)) == .disconnect)
        for type in [8, 9, 255, UInt16.max] {
            #expect(rules().judge(NBDRequest(type: type)) == .refuse(.invalid))
        }
    }

    @Test("a request header decodes field by field, and only with its magic")
    func decoding() throws {
        var bytes: [UInt8] = [0x25, 0x60, 0x95, 0x13] + (1...24).map { UInt8($0) }
        let request = try #require(bytes.withUnsafeBytes(decode))
        #expect(request.flags.rawValue == 0x0102)
        #expect(request.type == 0x0304)
        #expect(request.cookie == 0x0506_0708_090a_0b0c)
        #expect(request.offset == 0x0d0e_0f10_1112_1314)
        #expect(request.length == 0x1516_1718)
        bytes[3] ^= 1
        #expect(bytes.withUnsafeBytes(decode) == nil)
    }

    private func decode(_ bytes: UnsafeRawBufferPointer) -> NBDRequest? {
        bytes.baseAddress.flatMap { NBDRequest(decoding: $0) }
    }

    // MARK: Descriptors

    private func descriptors(
        _ extents: [AllocationExtent], range: UInt32, onlyOne: Bool = false, capacity: Int = 16
    ) -> [[UInt32]] {
        let memory = UnsafeMutableRawBufferPointer.allocate(
            byteCount: capacity * MemoryLayout<AllocationExtent>.stride, alignment: 16)
        defer { memory.deallocate() }
        memory.initializeMemory(as: UInt8.self, repeating: 0)
        for (index, extent) in extents.enumerated() {
            memory.storeBytes(
                of: extent, toByteOffset: index * MemoryLayout<AllocationExtent>.stride,
                as: AllocationExtent.self)
        }
        let count = NBDDescriptors.encode(memory, rangeBytes: range, onlyOne: onlyOne)
        return stride(from: 0, to: count, by: 8).map { offset in
            [0, 4].map {
                memory.loadUnaligned(fromByteOffset: offset + $0, as: UInt32.self).bigEndian
            }
        }
    }

    @Test("extents become descriptors: merged, cut at the range's end, at least one")
    func encoding() {
        let data = AllocationExtent(sectorCount: 8, isHole: false)
        let hole = AllocationExtent(sectorCount: 16, isHole: true)
        #expect(descriptors([data, hole], range: 12_288) == [[4096, 0], [8192, 3]])
        #expect(descriptors([data, data, hole], range: 16_384) == [[8192, 0], [8192, 3]])
        #expect(descriptors([data, hole], range: 4608) == [[4096, 0], [512, 3]])
        #expect(descriptors([data, hole], range: 1 << 20) == [[4096, 0], [8192, 3]])
        #expect(descriptors([hole, data], range: 1 << 20, onlyOne: true) == [[8192, 3]])
        #expect(descriptors([], range: 5120) == [[5120, 0]])
        let endless = AllocationExtent(sectorCount: .max, isHole: true)
        #expect(descriptors([endless], range: .max & ~511) == [[.max & ~511, 3]])
        let alternating = (0..<16).map { AllocationExtent(sectorCount: 1, isHole: $0 % 2 == 1) }
        #expect(descriptors(alternating, range: 1 << 20).count == 16)
    }
}
