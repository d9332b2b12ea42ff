// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxCore
import ParallaxXen
import Testing

@Suite("blkif codec")
struct XenCodecTests {
    /// Each byte tells its offset.
    private let counting = (0..<112).map { UInt8($0) }

    private func number(at offset: Int, bytes: Int) -> UInt64 {
        (0..<bytes).reversed().reduce(0) { $0 << 8 | UInt64(offset + $1) }
    }

    // The offsets are those of struct blkif_request compiled for both machines.
    @Test("a request's fields lie where the C structs have them")
    func offsets() {
        let wide = BlkifRequest(decoding: counting.span.bytes, layout: .alignedTo8)
        #expect(wide.id == number(at: 8, bytes: 8))
        #expect(wide.firstSector == number(at: 16, bytes: 8))
        #expect(wide.sectorCount == number(at: 24, bytes: 8))
        #expect(wide.indirectSegmentCount == Int(number(at: 2, bytes: 2)))
        #expect(wide.indirectOperationNumber == 1 && wide.segmentCount == 1)
        #expect(BlkifLayout.alignedTo8.indirectReferencesOffset == 28)

        let narrow = BlkifRequest(decoding: counting.span.bytes, layout: .x86For32)
        #expect(narrow.id == number(at: 4, bytes: 8))
        #expect(narrow.firstSector == number(at: 12, bytes: 8))
        #expect(narrow.sectorCount == number(at: 20, bytes: 8))
        #expect(BlkifLayout.x86For32.indirectReferencesOffset == 24)
        #expect(BlkifLayout.x86For32.entryBytes == 108)
        #expect(BlkifLayout.alignedTo8.entryBytes == 112)
    }

    @Test("a segment is a reference and a range of sectors in a page")
    func segments() {
        let segment = GrantSegment(decoding: counting.span.bytes, at: 24)
        #expect(segment.reference == UInt32(number(at: 24, bytes: 4)))
        #expect(segment.firstSector == 28 && segment.lastSector == 29)
        #expect(segment.sectorCount == nil)
        let whole = GrantSegment(reference: 1, firstSector: 0, lastSector: 7)
        #expect(whole.sectorCount == 8)
        let backwards = GrantSegment(reference: 1, firstSector: 3, lastSector: 2)
        #expect(backwards.sectorCount == nil)
        let one = GrantSegment(reference: 1, firstSector: 7, lastSector: 7)
        #expect(one.sectorCount == 1)
    }

    @Test("the response to an indirect request repeats what it wraps")
    func echo() {
        var bytes = [UInt8](repeating: 0, count: 112)
        bytes[0] = 6
        bytes[1] = 1
        let indirect = BlkifRequest(decoding: bytes.span.bytes, layout: .alignedTo8)
        #expect(indirect.echoedOperation == 1)
        bytes[0] = 5
        let discard = BlkifRequest(decoding: bytes.span.bytes, layout: .alignedTo8)
        #expect(discard.echoedOperation == 5 && discard.isSecure)
        bytes[0] = 4
        let reserved = BlkifRequest(decoding: bytes.span.bytes, layout: .alignedTo8)
        #expect(reserved.operation == nil && reserved.echoedOperation == 4)
    }

    @Test(
        "every status of the engine has an answer",
        arguments: [
            (BlockStatus.ok, BlkifStatus.okay), (.ioError, .error), (.corrupt, .error),
            (.noSpace, .error), (.outOfRange, .error), (.readOnly, .error), (.invalid, .error),
            (.shuttingDown, .error),
        ])
    func statuses(engine: BlockStatus, guest: BlkifStatus) {
        #expect(BlkifStatus(engine) == guest)
    }

    @Test("the layout goes by the protocol's name")
    func protocols() {
        #expect(BlkifLayout(protocolName: nil) == .alignedTo8)
        #expect(BlkifLayout(protocolName: "x86_64-abi") == .alignedTo8)
        #expect(BlkifLayout(protocolName: "x86_32-abi") == .x86For32)
        #expect(BlkifLayout(protocolName: "arm-abi") == .alignedTo8)
        #expect(BlkifLayout(protocolName: "x86_32") == nil)
    }

    @Test("a state is a number that exists, or unknown")
    func states() {
        for state in XenbusState.allCases {
            #expect(XenbusState(text: "\(state.rawValue)") == state)
        }
        for text in [nil, "", "9", "-1", "4 ", "four", "0x4"] as [String?] {
            #expect(XenbusState(text: text) == .unknown)
        }
    }

    @Test(
        "device names are numbers, both ways",
        arguments: [
            ("xvda", 51712), ("xvda1", 51713), ("xvdb", 51728), ("xvdp15", 51967),
            ("xvdq", 268_439_552), ("xvdaa", 268_442_112), ("xvda16", 268_435_472),
        ] as [(String, UInt32)])
    func deviceNames(name: String, number: UInt32) {
        #expect(XenDeviceNumber(name)?.rawValue == number)
        #expect(XenDeviceNumber(rawValue: number).description == name)
        #expect(XenDeviceNumber("\(number)")?.rawValue == number)
        #expect(XenDeviceNumber("0x" + String(number, radix: 16))?.rawValue == number)
    }

    @Test(
        "what is no device of a domain is refused",
        arguments: [
            "", ":", "3", "3:", ":xvda", "3:sda", "3:xvd", "3:xvda0", "3:xvda256", "3:xvdaaaa",
            "3:-1", "3:0x", "3:99999999999", "a/b:xvda", "a b:xvda",
        ])
    func badAddresses(text: String) {
        #expect(XenAddress(text) == nil)
    }

    @Test("an address has a domain, by number or name, and a device")
    func addresses() {
        #expect(XenAddress("3:xvda")?.description == "3:xvda")
        #expect(XenAddress("web:1:51728")?.description == "web:1:xvdb")
    }
}
