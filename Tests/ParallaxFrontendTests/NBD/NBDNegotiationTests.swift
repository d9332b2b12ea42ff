// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxNBD
import Testing

/// Feeds a negotiation the way a socket would, in pieces of a given size.
struct NegotiationPeer {
    var negotiation = NBDNegotiation()
    var exports: NBDExportTable
    var pieceBytes = Int.max
    var heard: [UInt8] = []

    init(_ exports: [NBDExport], defaultName: String? = nil, flags: UInt32? = 3) {
        self.exports = NBDExportTable(exports, defaultName: defaultName)
        _ = hear()
        if let flags { say(big(flags)) }
    }

    /// Says as much of `bytes` as is taken; returns what is left.
    @discardableResult
    mutating func say(_ bytes: [UInt8]) -> Int {
        var rest = bytes[...]
        while !rest.isEmpty {
            drain()
            let count = min(rest.count, negotiation.bytesWanted, pieceBytes)
            guard count > 0 else { return rest.count }
            Array(rest.prefix(count)).withUnsafeBytes {
                negotiation.receive($0, exports: exports)
            }
            rest = rest.dropFirst(count)
        }
        drain()
        return 0
    }

    mutating func option(_ option: NBDOption, _ data: [UInt8] = []) {
        say(Self.encode(option.rawValue, data))
    }

    static func encode(_ option: UInt32, _ data: [UInt8] = []) -> [UInt8] {
        big(NBDMagic.option) + big(option) + big(UInt32(data.count)) + data
    }

    private mutating func drain() {
        while !negotiation.output.isEmpty {
            let count = min(negotiation.output.count, pieceBytes)
            heard += negotiation.output[..<count]
            negotiation.sent(count, exports: exports)
        }
    }

    /// What the server said since the last time.
    mutating func hear() -> [UInt8] {
        drain()
        defer { heard = [] }
        return heard
    }
}

func big<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.appendBigEndian(value)
    return bytes
}

func optionReply(_ option: NBDOption, _ type: NBDOptionReply, _ data: [UInt8] = []) -> [UInt8] {
    big(NBDMagic.optionReply) + big(option.rawValue) + big(type.rawValue)
        + big(UInt32(data.count)) + data
}

func named(_ name: String) -> [UInt8] { big(UInt32(name.utf8.count)) + Array(name.utf8) }

@Suite("NBD negotiation")
struct NBDNegotiationTests {
    let disk = NBDExport(name: "disk", byteCount: 0x1234_5600, description: "a disk")
    let frozen = NBDExport(name: "disk@noon", byteCount: 4096, isReadOnly: true)

    private let blockSizes: [UInt8] = [0, 3, 0, 0, 2, 0, 0, 0, 0x10, 0, 2, 0, 0, 0]

    @Test("the greeting is NBDMAGIC, IHAVEOPT, fixed newstyle and no zeroes")
    func greeting() {
        #expect(NBDNegotiation().output == Array("NBDMAGICIHAVEOPT".utf8) + [0, 3])
    }

    @Test("EXPORT_NAME is answered with size, flags and 124 zeroes unless the client waives them")
    func exportName() {
        for flags: UInt32 in [0, 1, 3] {
            var peer = NegotiationPeer([disk], flags: flags)
            peer.option(.exportName, Array("disk".utf8))
            let zeroes = [UInt8](repeating: 0, count: flags & 2 == 0 ? 124 : 0)
            #expect(peer.hear() == [0, 0, 0, 0, 0x12, 0x34, 0x56, 0x00, 0x0d, 0x6d] + zeroes)
            let agreement = NBDAgreement(
                exportName: "disk", usesStructuredReplies: false, reportsAllocation: false)
            #expect(peer.negotiation.outcome == .transmission(agreement))
        }
    }

    @Test("EXPORT_NAME of an unknown export ends the conversation without a word")
    func unknownExportName() {
        var peer = NegotiationPeer([disk])
        peer.option(.exportName, Array("dis".utf8))
        #expect(peer.hear().isEmpty)
        #expect(peer.negotiation.outcome == .closed)
    }

    @Test(
        "GO answers with the export's size and flags and the block sizes", arguments: [1, 3, 999])
    func go(pieceBytes: Int) {
        var peer = NegotiationPeer([disk, frozen])
        peer.pieceBytes = pieceBytes
        peer.option(.structuredReply)
        #expect(peer.hear() == optionReply(.structuredReply, .acknowledged))
        peer.option(.go, named("disk@noon") + big(UInt16(1)) + big(UInt16(3)))
        let export: [UInt8] = [0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0x05, 0x8f]
        #expect(
            peer.hear() == optionReply(.go, .info, export) + optionReply(.go, .info, blockSizes)
                + optionReply(.go, .acknowledged))
        let agreement = NBDAgreement(
            exportName: "disk@noon", usesStructuredReplies: true, reportsAllocation: false)
        #expect(peer.negotiation.outcome == .transmission(agreement))
        // What follows belongs to the transmission phase.
        #expect(peer.say([1, 2, 3]) == 3)
    }

    @Test("INFO tells name and description when asked, and the conversation goes on")
    func info() {
        var peer = NegotiationPeer([disk], defaultName: "disk")
        peer.option(.info, named("") + big(UInt16(3)) + big(UInt16(1)) + [0, 2] + [0xff, 0xff])
        let export: [UInt8] = [0, 0, 0, 0, 0, 0, 0x12, 0x34, 0x56, 0x00, 0x0d, 0x6d]
        #expect(
            peer.hear() == optionReply(.info, .info, export)
                + optionReply(.info, .info, [0, 1] + Array("disk".utf8))
                + optionReply(.info, .info, [0, 2] + Array("a disk".utf8))
                + optionReply(.info, .info, blockSizes) + optionReply(.info, .acknowledged))
        #expect(peer.negotiation.outcome == nil)
    }

    @Test("LIST names every export with its description, in order")
    func list() {
        var peer = NegotiationPeer([frozen, disk])
        peer.option(.list)
        #expect(
            peer.hear() == optionReply(.list, .server, named("disk") + Array("a disk".utf8))
                + optionReply(.list, .server, named("disk@noon"))
                + optionReply(.list, .acknowledged))
        peer.option(.list, [0])
        #expect(replyTypes(peer.hear()) == [.invalid])
    }

    @Test("a listing of ten thousand exports goes out in pieces and misses none")
    func longList() {
        let exports = (0..<10_000).map { NBDExport(name: "vdi-\($0)", byteCount: 512) }
        var negotiation = NBDNegotiation()
        let table = NBDExportTable(exports.shuffled())
        negotiation.sent(18, exports: table)
        for bytes in [big(UInt32(3)), NegotiationPeer.encode(3)] {
            bytes.withUnsafeBytes { negotiation.receive($0, exports: table) }
        }
        var names: Set<String> = []
        while negotiation.bytesWanted == 0 {
            #expect(negotiation.output.count < NBDLimits.listingBytes + 100)
            for reply in split(negotiation.output) where reply.type == .server {
                names.insert(String(decoding: reply.data[4...], as: UTF8.self))
            }
            negotiation.sent(negotiation.output.count, exports: table)
        }
        #expect(names == Set(exports.map(\.name)))
    }

    @Test("an unknown option and its data are skipped, and the conversation goes on in step")
    func unknownOption() {
        for length in [0, 1, 65_536, 65_537, 1_000_000] {
            var peer = NegotiationPeer([disk])
            let data = [UInt8](repeating: 0x49, count: length)
            peer.say(NegotiationPeer.encode(0x4242, data))
            #expect(replyTypes(peer.hear()) == [.unsupported])
            peer.option(.extendedHeaders)
            peer.option(.peekExport)
            peer.option(.startTLS)
            #expect(replyTypes(peer.hear()) == [.unsupported, .unsupported, .unsupported])
            peer.option(.startTLS, [1])
            #expect(replyTypes(peer.hear()) == [.invalid])
        }
    }

    @Test("ABORT is acknowledged, data or not, and ends the conversation")
    func abort() {
        for data in [[], [UInt8](repeating: 1, count: 9), [UInt8](repeating: 1, count: 70_000)] {
            var peer = NegotiationPeer([disk])
            peer.option(.abort, data)
            #expect(peer.hear() == optionReply(.abort, .acknowledged))
            #expect(peer.negotiation.outcome == .closed)
        }
    }

    @Test("structured replies are agreed on once, and take no data")
    func structuredReplies() {
        var peer = NegotiationPeer([disk])
        peer.option(.structuredReply, [1])
        peer.option(.structuredReply)
        peer.option(.structuredReply)
        #expect(replyTypes(peer.hear()) == [.invalid, .acknowledged, .invalid])
    }

    @Test("malformed INFO and GO are refused and change nothing")
    func malformedGo() {
        let bad: [[UInt8]] = [
            [], [0], big(UInt32(4)), named("disk"), named("disk") + [0],
            named("disk") + big(UInt16(1)), named("disk") + big(UInt16(1)) + [0],
            named("disk") + big(UInt16(0)) + [0], big(UInt32.max) + [0, 0],
            big(UInt32(4097)) + [UInt8](repeating: 65, count: 4097) + [0, 0],
        ]
        for data in bad {
            var peer = NegotiationPeer([disk])
            peer.option(.go, data)
            peer.option(.info, data)
            #expect(replyTypes(peer.hear()) == [.invalid, .invalid], "\(data)")
            peer.option(.go, named("dusk") + [0, 0])
            #expect(replyTypes(peer.hear()) == [.unknown])
            #expect(peer.negotiation.outcome == nil)
        }
    }

    @Test("bad magics, unknown flags and absurd lengths end the conversation")
    func hopeless() {
        for flags: UInt32 in [4, 7, 0x8000_0000, .max] {
            #expect(NegotiationPeer([disk], flags: flags).negotiation.outcome == .closed)
        }
        let headers: [[UInt8]] = [
            big(NBDMagic.option ^ 1) + big(UInt32(3)) + big(UInt32(0)),
            big(NBDMagic.newstyle) + big(UInt32(3)) + big(UInt32(0)),
            big(NBDMagic.option) + big(UInt32(3)) + big(UInt32(32 * 1024 * 1024 + 1)),
            big(NBDMagic.option) + big(UInt32(99)) + big(UInt32.max),
        ]
        for header in headers {
            var peer = NegotiationPeer([disk])
            peer.say(header)
            #expect(peer.negotiation.outcome == .closed)
            #expect(peer.say([0]) == 1)
        }
    }

    @Test("a client without fixed newstyle may only name an export")
    func plainNewstyle() {
        for option in NBDOption.allCases where option != .exportName {
            var peer = NegotiationPeer([disk], flags: 0)
            peer.option(option)
            #expect(peer.hear().isEmpty)
            #expect(peer.negotiation.outcome == .closed)
        }
    }

    @Test("a client that only ever sends options is dropped after some thousands")
    func optionFlood() {
        var peer = NegotiationPeer([disk])
        for _ in 0..<NBDLimits.optionsPerClient { peer.option(.list) }
        #expect(peer.negotiation.outcome == nil)
        peer.option(.list)
        #expect(peer.negotiation.outcome == .closed)
    }

    @Test("nothing is taken while a reply has not left")
    func backPressure() {
        var negotiation = NBDNegotiation()
        #expect(negotiation.bytesWanted == 0)
        negotiation.sent(17, exports: NBDExportTable())
        #expect(negotiation.bytesWanted == 0)
        negotiation.sent(1, exports: NBDExportTable())
        #expect(negotiation.bytesWanted == 4)
    }
}

/// One option reply, taken apart.
struct OptionReply {
    var type: NBDOptionReply?
    var data: [UInt8]
}

func split(_ bytes: [UInt8]) -> [OptionReply] {
    var rest = bytes[...]
    var replies: [OptionReply] = []
    while rest.count >= 20 {
        var reader = ByteReader(Array(rest.dropFirst(12).prefix(8)))
        let type = reader.integer(UInt32.self) ?? 0
        let count = Int(reader.integer(UInt32.self) ?? 0)
        replies.append(
            OptionReply(
                type: NBDOptionReply(rawValue: type),
                data: Array(rest.dropFirst(20).prefix(count))))
        rest = rest.dropFirst(20 + count)
    }
    #expect(rest.isEmpty)
    return replies
}

func replyTypes(_ bytes: [UInt8]) -> [NBDOptionReply?] { split(bytes).map(\.type) }
