// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxCore
import ParallaxNBD
import Testing

/// Seeded nonsense. A failing seed replays exactly; what must hold: nothing traps, nothing hangs,
/// nothing is left taken, and a neighbour is served as ever.
@Suite("NBD fuzz")
struct NBDFuzzTests {
    @Test("negotiation survives anything, however it is cut up", arguments: 0..<24)
    func negotiation(seed: Int) {
        var random = SplitMix(seed: UInt64(seed))
        let exports = [
            NBDExport(name: "disk", byteCount: 4096, description: "d"),
            NBDExport(name: "other", byteCount: 512),
        ]
        for _ in 0..<150 {
            var peer = NegotiationPeer(
                exports, defaultName: "disk", flags: UInt32.random(in: 0...4, using: &random))
            peer.pieceBytes = Int.random(in: 1...64, using: &random)
            for _ in 0..<12 where peer.negotiation.outcome == nil {
                peer.say(option(using: &random))
                #expect(peer.hear().count < 100_000)
            }
        }
    }

    /// An option that is often nearly right.
    private func option(using random: inout SplitMix) -> [UInt8] {
        var data: [UInt8] = []
        for _ in 0..<Int.random(in: 0...4, using: &random) {
            switch Int.random(in: 0..<6, using: &random) {
            case 0: data += named("disk")
            case 1: data += named("base:allocation")
            case 2: data += big(UInt32.random(in: 0...3, using: &random))
            case 3: data += big(UInt16.random(in: 0...4, using: &random))
            case 4: data += big(UInt32.random(in: 0 ... .max, using: &random))
            default: data += (0..<7).map { _ in UInt8.random(in: 0 ... .max, using: &random) }
            }
        }
        var bytes = NegotiationPeer.encode(UInt32.random(in: 0...12, using: &random), data)
        if Int.random(in: 0..<8, using: &random) == 0 {
            bytes[Int.random(in: 0..<bytes.count, using: &random)] ^=
                1
                << UInt8.random(
                    in: 0..<8, using: &random)
        }
        return bytes
    }

    @Test("transmission survives anything", arguments: 0..<24)
    func transmission(seed: Int) throws {
        var random = SplitMix(seed: UInt64(seed))
        let server = NBDTestServer(byteCount: 1 << 20, queueCapacity: 1 << (seed % 9))
        let (_, neighbour) = try server.connect()
        for round in 0..<20 {
            let (_, client) = try server.connect(
                structured: round % 2 == 0, allocation: round % 3 == 0, readOnly: round % 5 == 4)
            client.readsWhileSending = true
            var order = SplitMix(seed: random.next())
            server.pick = { count in
                // Sometimes nothing is answered in a turn.
                let chosen = Int(order.next() % UInt64(count + 1))
                return chosen < count ? chosen : nil
            }
            for _ in 0..<Int.random(in: 1...40, using: &random) {
                guard client.send(request(using: &random)) else { break }
                if Int.random(in: 0..<3, using: &random) == 0 {
                    _ = client.receive(Int.random(in: 0..<50_000, using: &random))
                }
            }
            client.hangUp()
            server.pick = { $0 > 0 ? 0 : nil }
            server.settle()
            #expect(server.connections.count == 1)
            neighbour.ask(.read, cookie: UInt64(round), length: 8192)
            #expect(neighbour.reply(dataBytes: 8192)?.cookie == UInt64(round))
        }
    }

    private func request(using random: inout SplitMix) -> [UInt8] {
        let lengths: [UInt32] = [0, 512, 4096, 65_536, 262_144, 300_032, 1 << 20, 1, .max]
        let offsets: [UInt64] = [0, 512, 4096, 8704, 1 << 19, (1 << 20) - 512, 1 << 20, .max, 1]
        let request = NBDRequest(
            type: UInt16.random(in: 0...9, using: &random),
            flags: NBDCommandFlags(
                rawValue: Bool.random(using: &random)
                    ? 0 : 1 << UInt16.random(in: 0..<6, using: &random)),
            cookie: random.next(), offset: offsets.randomElement(using: &random) ?? 0,
            length: lengths.randomElement(using: &random) ?? 0)
        let isBroken = Int.random(in: 0..<60, using: &random) == 0
        var bytes = NBDTestClient.encode(request, magic: isBroken ? 1 : NBDMagic.request)
        if request.type == NBDCommand.write.rawValue, request.length <= 1 << 20 {
            // Sometimes too little, so that the next request is taken for data.
            let isShort = Int.random(in: 0..<20, using: &random) == 0
            let count = Int(request.length) / (isShort ? 2 : 1)
            bytes += [UInt8](repeating: 0x25, count: count)
        }
        return bytes
    }
}
