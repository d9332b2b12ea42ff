// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxCore
import ParallaxNBD

/// What an NBD peer says, before and after it has chosen an export.
enum NBDStreams {
    private static func exports() -> NBDExportTable {
        NBDExportTable(
            [
                NBDExport(name: "disk", byteCount: 4096, description: "d"),
                NBDExport(name: "other", byteCount: 512),
            ], defaultName: "disk")
    }

    /// Raw bytes from the client's flags on, in pieces.
    static func negotiate(_ start: Input) {
        var input = start
        let exports = exports()
        var negotiation = NBDNegotiation()
        var heard = 0
        func drain() {
            while !negotiation.output.isEmpty {
                let count = negotiation.output.count
                heard += count
                negotiation.sent(count, exports: exports)
            }
        }
        let pieceBytes = 1 + input.below(64)
        var rest = input.rest()[...]
        drain()
        while !rest.isEmpty, negotiation.outcome == nil {
            let count = min(rest.count, negotiation.bytesWanted, pieceBytes)
            guard count > 0 else { break }
            Array(rest.prefix(count)).withUnsafeBytes {
                negotiation.receive($0, exports: exports)
            }
            rest = rest.dropFirst(count)
            drain()
        }
        // LIMIT: a listing of all that there is, for each option.
        precondition(heard < 1 << 24, "the server says more than it is asked for")
    }

    /// Raw bytes of requests, on a connection that works, beside a neighbour's.
    static func transmit(_ start: Input) {
        var input = start
        let kind = input.byte()
        let server = NBDTestServer(byteCount: 1 << 18, queueCapacity: 1 << (Int(kind >> 4) % 9))
        guard
            let (_, client) = try? server.connect(
                structured: kind & 1 != 0, allocation: kind & 2 != 0, readOnly: kind & 4 != 0)
        else { preconditionFailure("no connection") }
        client.readsWhileSending = true
        let pieceBytes = 1 + input.below(200)
        while !input.isAtEnd {
            guard client.send(request(&input) + input.take(min(pieceBytes, input.left))) else {
                break
            }
            server.turn()
        }
        client.hangUp()
        server.settle()
        precondition(server.requests.isEmpty, "a request of a peer that has gone is left")
    }

    /// Mostly with the right magic, so that what comes after it is looked at.
    private static func request(_ input: inout Input) -> [UInt8] {
        guard input.byte() & 3 != 0 else { return [] }
        let length = UInt32(input.below(16)) * 512 + UInt32(input.byte() == 0 ? input.byte() : 0)
        var bytes: [UInt8] = [0x25, 0x60, 0x95, 0x13, 0, input.byte() & 31, 0, input.byte() % 12]
        bytes += input.take(8)
        bytes += [UInt8](repeating: 0, count: 16 - bytes.count)
        bytes += [0, 0, 0, 0, 0, input.byte() & 7, input.byte() & 0xfe, input.byte() & 1]
        bytes += (0..<4).map { UInt8(truncatingIfNeeded: length >> (24 - 8 * $0)) }
        return bytes
    }
}
