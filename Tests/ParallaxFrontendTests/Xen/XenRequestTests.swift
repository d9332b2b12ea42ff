// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxCore
import ParallaxGuest
import ParallaxXen
import Testing

/// What a guest does with a disk, request by request.
extension XenRig {
    static let read: UInt8 = 0
    static let write: UInt8 = 1
    static let barrier: UInt8 = 2
    static let flush: UInt8 = 3
    static let discard: UInt8 = 5

    static func pattern(_ count: Int, seed: Int = 1) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: ($0 &* 31) ^ ($0 >> 8) &+ seed &* 97) }
    }

    func bytes(atSector sector: Int, count: Int) -> [UInt8] {
        [UInt8](disk[(sector * sectorBytes)..<(sector * sectorBytes + count)])
    }

    /// As a truth value, so that a failure does not print a thousand numbers.
    func holds(_ bytes: [UInt8], atSector sector: Int) -> Bool {
        self.bytes(atSector: sector, count: bytes.count) == bytes
    }

    func fill(sector: Int, _ bytes: [UInt8]) {
        for (index, byte) in bytes.enumerated() { disk[sector * sectorBytes + index] = byte }
    }

    /// Shows what was put and returns the answers.
    func run(_ queue: Int = 0) -> [BlkfrontResponse] {
        front.queues[queue].push()
        settle()
        return front.queues[queue].reap()
    }

    /// One request on queue 0, to its answer.
    func request(
        _ operation: UInt8, id: UInt64 = 77, sector: UInt64, _ segments: [BlkfrontSegment],
        count: UInt8? = nil
    ) -> BlkfrontResponse? {
        front.queues[0].put(
            operation: operation, id: id, sector: sector, segments: segments, count: count)
        let responses = run()
        return responses.count == 1 ? responses[0] : nil
    }

    /// A page with these bytes at its beginning.
    func page(_ bytes: [UInt8] = [], isReadOnly: Bool = false) -> (UInt32, UnsafeMutableRawPointer)
    {
        let (reference, page) = front.allocatePage(isReadOnly: isReadOnly)
        bytes.withUnsafeBytes { bytes in
            if let base = bytes.baseAddress { memcpy(page, base, min(bytes.count, 4096)) }
        }
        return (reference, page)
    }

    /// An indirect request over whole pages.
    func putIndirect(
        _ operation: UInt8, id: UInt64, sector: UInt64, _ segments: [BlkfrontSegment],
        queue: Int = 0
    ) {
        let (table, page) = front.allocatePage()
        for (index, segment) in segments.enumerated() {
            BlkfrontQueue.store(segment, at: page + 8 * index)
        }
        front.queues[queue].putIndirect(
            operation: operation, id: id, sector: sector, count: UInt16(segments.count),
            pages: [table])
    }
}

func isPage(_ page: UnsafeMutableRawPointer, _ bytes: [UInt8]) -> Bool {
    [UInt8](UnsafeRawBufferPointer(start: page, count: bytes.count)) == bytes
}

@Suite("blkif requests")
struct XenRequestTests {
    private func okay(_ operation: UInt8, id: UInt64 = 77) -> BlkfrontResponse {
        BlkfrontResponse(id: id, operation: operation, status: 0)
    }

    private func error(_ operation: UInt8, id: UInt64 = 77) -> BlkfrontResponse {
        BlkfrontResponse(id: id, operation: operation, status: -1)
    }

    private func unsupported(_ operation: UInt8, id: UInt64 = 77) -> BlkfrontResponse {
        BlkfrontResponse(id: id, operation: operation, status: -2)
    }

    @Test(
        "what is written is read back, in each layout, with and without persistent grants",
        arguments: BlkfrontLayout.allCases, [true, false])
    func writeAndRead(layout: BlkfrontLayout, isPersistent: Bool) throws {
        let rig = XenRig()
        try rig.connect(BlkfrontOptions(isPersistent: isPersistent, layout: layout))
        let data = XenRig.pattern(4096)
        let (source, _) = rig.page(data)
        let written = rig.request(
            XenRig.write, sector: 9, [BlkfrontSegment(reference: source)])
        #expect(written == okay(XenRig.write))
        #expect((rig.holds(data, atSector: 9)) as Bool)
        let (target, page) = rig.page()
        let got = rig.request(XenRig.read, sector: 9, [BlkfrontSegment(reference: target)])
        #expect(got == okay(XenRig.read))
        #expect(isPage(page, data))
        #expect(rig.counters.pagesMapped == (isPersistent ? 3 : 1))
    }

    @Test("eleven segments take the sectors that they name, in order")
    func manySegments() throws {
        let rig = XenRig()
        try rig.connect()
        let pages = (0..<11).map { rig.page(XenRig.pattern(4096, seed: $0)) }
        let segments = pages.enumerated().map { index, page in
            BlkfrontSegment(reference: page.0, first: UInt8(index % 4), last: UInt8(4 + index % 4))
        }
        let written = rig.request(XenRig.write, sector: 100, segments)
        #expect(written == okay(XenRig.write))
        for index in 0..<11 {
            let first = index % 4 * 512
            let part = Array(XenRig.pattern(4096, seed: index)[first..<(first + 5 * 512)])
            #expect((rig.holds(part, atSector: 100 + 5 * index)) as Bool)
        }
    }

    @Test("an indirect request has up to 256 segments, and its answer repeats what it wraps")
    func indirect() throws {
        for isPersistent in [true, false] {
            let rig = XenRig()
            try rig.connect(BlkfrontOptions(isPersistent: isPersistent))
            let pages = (0..<256).map { rig.page(XenRig.pattern(4096, seed: $0)) }
            rig.putIndirect(
                XenRig.write, id: 5, sector: 8, pages.map { BlkfrontSegment(reference: $0.0) })
            let written = rig.run()
            #expect(written == [okay(XenRig.write, id: 5)])
            for index in 0..<256 {
                #expect(
                    (rig.holds(XenRig.pattern(4096, seed: index), atSector: 8 + 8 * index)) as Bool)
            }
            #expect(rig.counters.indirectRequests == 1)
            #expect(rig.seen.count == 1 && rig.seen[0].segmentCount <= 256)
            rig.fill(sector: 8, XenRig.pattern(8192, seed: 99))
            rig.putIndirect(
                XenRig.read, id: 6, sector: 8,
                pages[0..<2].map { BlkfrontSegment(reference: $0.0) })
            let got = rig.run()
            #expect(got == [okay(XenRig.read, id: 6)])
            #expect(isPage(pages[1].1, Array(XenRig.pattern(8192, seed: 99)[4096...])))
        }
    }

    @Test("flush, discard and their answers")
    func flushAndDiscard() throws {
        let rig = XenRig()
        try rig.connect()
        rig.fill(sector: 16, XenRig.pattern(8192))
        #expect(rig.request(XenRig.flush, sector: 0, []) == okay(XenRig.flush))
        #expect(rig.seen.last?.operation == .flush)
        rig.front.queues[0].putDiscard(id: 1, sector: 16, sectorCount: 8)
        #expect(rig.run() == [okay(XenRig.discard, id: 1)])
        #expect((rig.holds([UInt8](repeating: 0, count: 4096), atSector: 16)) as Bool)
        #expect((rig.holds(Array(XenRig.pattern(8192)[4096...]), atSector: 24)) as Bool)
        rig.front.queues[0].putDiscard(id: 2, sector: 0, sectorCount: 0)
        #expect(rig.run() == [okay(XenRig.discard, id: 2)])
        rig.front.queues[0].putDiscard(id: 3, sector: 16, sectorCount: 8, isSecure: true)
        #expect(rig.run() == [unsupported(XenRig.discard, id: 3)])
        rig.front.queues[0].putDiscard(id: 4, sector: 4090, sectorCount: 7)
        #expect(rig.run() == [error(XenRig.discard, id: 4)])
        rig.front.queues[0].putDiscard(id: 5, sector: 8, sectorCount: .max)
        #expect(rig.run() == [error(XenRig.discard, id: 5)])
    }

    @Test("a flush that carries data, as old front ends send it, is a durable write")
    func flushWithData() throws {
        let rig = XenRig()
        try rig.connect()
        let (reference, _) = rig.page(XenRig.pattern(4096))
        let response = rig.request(XenRig.flush, sector: 8, [BlkfrontSegment(reference: reference)])
        #expect(response == okay(XenRig.flush))
        #expect(rig.seen.last?.operation == .write && rig.seen.last?.forceUnitAccess == true)
    }

    @Test("a barrier waits for what came before, and what comes after waits for it")
    func barriers() throws {
        let rig = XenRig()
        try rig.connect()
        rig.isHolding = true
        let pages = (0..<4).map { rig.page(XenRig.pattern(512, seed: $0)) }
        for (index, operation) in [XenRig.write, XenRig.write, XenRig.barrier, XenRig.write]
            .enumerated()
        {
            rig.front.queues[0].put(
                operation: operation, id: UInt64(index), sector: UInt64(index),
                segments: [BlkfrontSegment(reference: pages[index].0, last: 0)])
        }
        _ = rig.run()
        #expect(rig.held.count == 2)
        rig.release(at: 1)
        #expect(rig.held.count == 1, "the barrier started too early")
        rig.release(at: 0)
        #expect(rig.held.count == 1)
        #expect(rig.held.first?.forceUnitAccess == true)
        rig.release(at: 0)
        #expect(rig.held.count == 1)
        #expect(rig.held.first?.firstSector == 3 && rig.held.first?.forceUnitAccess == false)
        rig.isHolding = false
        rig.release()
        #expect(rig.front.queues[0].reap().map(\.id) == [1, 0, 2, 3])
        #expect(rig.request(XenRig.barrier, sector: 0, []) == okay(XenRig.barrier))
        #expect(rig.seen.last?.operation == .flush)
    }

    @Test("a read-only disk is read and flushed, and nothing else")
    func readOnly() throws {
        let rig = XenRig(readOnly: true)
        try rig.connect()
        #expect(rig.front.property("info") == "4")
        #expect(rig.front.property("feature-discard") == "0")
        let (reference, _) = rig.page(XenRig.pattern(4096))
        let segments = [BlkfrontSegment(reference: reference)]
        #expect(rig.request(XenRig.read, sector: 0, segments) == okay(XenRig.read))
        #expect(rig.request(XenRig.write, sector: 0, segments) == error(XenRig.write))
        #expect(rig.request(XenRig.barrier, sector: 0, segments) == error(XenRig.barrier))
        #expect(rig.request(XenRig.flush, sector: 0, []) == okay(XenRig.flush))
        rig.front.queues[0].putDiscard(id: 4, sector: 0, sectorCount: 8)
        #expect(rig.run() == [error(XenRig.discard, id: 4)])
        rig.putIndirect(XenRig.write, id: 5, sector: 8, segments)
        #expect(rig.run() == [error(XenRig.write, id: 5)])
    }

    @Test("a request that cannot be is answered with an error, and the next one is served")
    func badRequests() throws {
        let rig = XenRig()
        try rig.connect()
        let (reference, _) = rig.page()
        let (guarded, _) = rig.page(isReadOnly: true)
        let good = BlkfrontSegment(reference: reference)
        let cases: [(UInt8, UInt64, [BlkfrontSegment], UInt8?)] = [
            (XenRig.read, 0, [], nil), (XenRig.write, 0, [], nil),
            (XenRig.read, 0, [good], 12), (XenRig.read, 0, [good], 255),
            (XenRig.read, 0, [BlkfrontSegment(reference: reference, first: 5, last: 4)], nil),
            (XenRig.read, 0, [BlkfrontSegment(reference: reference, first: 0, last: 8)], nil),
            (XenRig.write, 0, [BlkfrontSegment(reference: reference, first: 255, last: 255)], nil),
            (XenRig.read, 4089, [good], nil), (XenRig.read, 4096, [good], nil),
            (XenRig.read, .max, [good], nil), (XenRig.write, .max - 3, [good], nil),
            (XenRig.read, 0, [good, BlkfrontSegment(reference: 999_999)], nil),
            (XenRig.read, 0, [BlkfrontSegment(reference: guarded)], nil),
        ]
        for (operation, sector, segments, count) in cases {
            let response = rig.request(operation, sector: sector, segments, count: count)
            #expect(response == error(operation), "\(operation) at \(sector) of \(segments)")
        }
        for operation: UInt8 in [4, 7, 200] {
            #expect(rig.request(operation, sector: 0, [good]) == unsupported(operation))
        }
        #expect(rig.request(XenRig.read, sector: 4088, [good]) == okay(XenRig.read))
        #expect(rig.seen.count == 1)
        #expect(rig.counters.failures == UInt64(cases.count + 3))
    }

    @Test("a grant for reading is enough for a write, persistent or not")
    func readOnlyGrant() throws {
        let rig = XenRig()
        try rig.connect()
        let (guarded, _) = rig.page(XenRig.pattern(4096), isReadOnly: true)
        let response = rig.request(XenRig.write, sector: 0, [BlkfrontSegment(reference: guarded)])
        #expect(response == okay(XenRig.write))
        #expect((rig.holds(XenRig.pattern(4096), atSector: 0)) as Bool)
    }

    @Test("an indirect request that cannot be is answered with an error")
    func badIndirect() throws {
        let rig = XenRig()
        try rig.connect()
        let (reference, _) = rig.page()
        let good = BlkfrontSegment(reference: reference)
        rig.putIndirect(XenRig.read, id: 1, sector: 0, [])
        rig.front.queues[0].putIndirect(
            operation: XenRig.read, id: 2, sector: 0, count: 257, pages: [reference])
        rig.front.queues[0].putIndirect(
            operation: XenRig.read, id: 3, sector: 0, count: 1, pages: [999_999])
        rig.putIndirect(XenRig.flush, id: 4, sector: 0, [good])
        rig.putIndirect(6, id: 5, sector: 0, [good])
        rig.putIndirect(XenRig.read, id: 6, sector: 4090, [good])
        let responses = rig.run()
        #expect(responses.map(\.id).sorted() == [1, 2, 3, 4, 5, 6])
        #expect(responses.allSatisfy { $0.status == -1 })
        #expect(rig.seen.isEmpty)
        rig.putIndirect(XenRig.read, id: 7, sector: 0, [good])
        #expect(rig.run() == [okay(XenRig.read, id: 7)])
    }

    @Test("an error of the engine is the answer's status, and nothing stays mapped")
    func engineErrors() throws {
        let rig = XenRig()
        try rig.connect(BlkfrontOptions(isPersistent: false))
        let (reference, _) = rig.page()
        rig.failure = .corrupt
        let response = rig.request(XenRig.read, sector: 0, [BlkfrontSegment(reference: reference)])
        #expect(response == error(XenRig.read))
        #expect(rig.counters.pagesMapped == 1)
    }
}
