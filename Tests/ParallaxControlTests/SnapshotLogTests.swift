// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxBlockd
import ParallaxControl
import ParallaxCore
import Testing

@Suite struct SnapshotLogTests {
    private static func entry(
        _ number: UInt64, at time: UInt64, name: String? = nil, isHeld: Bool = false
    ) -> SnapshotEntry {
        var details = SnapshotDetails(name: name ?? TimeText.milliseconds(time))
        if isHeld { details.holds = [.init(reason: "r", createdAtSeconds: 0)] }
        return SnapshotEntry(
            identifier: SnapshotIdentifier(1 << 63 | number), createdAtNanoseconds: time,
            details: details)
    }

    private let second: UInt64 = 1_000_000_000

    @Test("an exact name wins over latest, a time and an age")
    func exactName() {
        var log = SnapshotLog()
        let now = 1_000_000 * second
        log.append(Self.entry(1, at: 10 * second, name: "-2h"))
        log.append(Self.entry(2, at: 20 * second, name: "1970-01-02"))
        log.append(Self.entry(3, at: 30 * second))
        func number(_ selector: String) -> UInt64? {
            log.resolve(selector, nowNanoseconds: now).map { $0.identifier.rawValue & 0xFF }
        }
        #expect(number("-2h") == 1)
        #expect(number("1970-01-02") == 2)
        #expect(number("latest") == 3)
        #expect(number("1970-01-01T00:00:29") == 2)
        #expect(log.resolve("1970-01-01T00:00:09", nowNanoseconds: now) == nil)
        #expect(log.resolve("none", nowNanoseconds: now) == nil)
    }

    @Test("an identifier finds its snapshot, and no other of the same sequence, nor a deleted one")
    func byIdentifier() {
        var log = SnapshotLog()
        log.append(Self.entry(1, at: 10 * second, name: "a"))
        log.append(Self.entry(3, at: 20 * second, name: "b"))
        let stranger = SnapshotIdentifier(1 << 63 | 1 << 58 | 3)
        #expect(log.find(Self.entry(1, at: 0).identifier)?.name == "a")
        #expect(log.find(Self.entry(3, at: 0).identifier)?.name == "b")
        #expect(log.find(Self.entry(2, at: 0).identifier) == nil)
        #expect(log.find(stranger) == nil)
        log.remove(Self.entry(1, at: 10 * second, name: "a"))
        #expect(log.find(Self.entry(1, at: 0).identifier) == nil)
    }

    @Test("after the clock has jumped back the last made is latest, and times are still times")
    func clockJumpsBack() {
        var log = SnapshotLog()
        for (number, time) in [100, 200, 50, 60, 200].enumerated() {
            log.append(
                Self.entry(UInt64(number), at: UInt64(time) * second, name: "s\(number)"))
        }
        #expect(log.newest?.name == "s4")
        #expect(log.newest(notAfter: 100 * second)?.name == "s0")
        #expect(log.newest(notAfter: 70 * second)?.name == "s3")
        #expect(log.newest(notAfter: 300 * second)?.name == "s4")
        #expect(log.newest(notAfter: 49 * second) == nil)
        #expect(log.page(after: nil, limit: 9).map(\.name) == ["s0", "s1", "s2", "s3", "s4"])
    }

    @Test("holds are counted through changes and deletions")
    func holds() throws {
        var log = SnapshotLog()
        log.append(Self.entry(1, at: 1, isHeld: true))
        log.append(Self.entry(2, at: second))
        #expect(log.heldCount == 1)
        let plain = try #require(log.newest)
        var details = plain.details
        details.holds = [.init(reason: "x", createdAtSeconds: 1)]
        log.update(plain, details)
        #expect(log.heldCount == 2)
        #expect(log.newest?.isHeld == true)
        details.holds = []
        log.update(plain, details)
        #expect(log.heldCount == 1)
    }

    @Test("a name that is reserved is taken, and finds nothing")
    func reservedNames() {
        var log = SnapshotLog()
        log.reserve("g")
        #expect(log.isTaken("g") && log.find("g") == nil && log.count == 0)
        log.append(Self.entry(1, at: 1, name: "h"))
        #expect(log.isTaken("h") && !log.isTaken("i"))
    }

    @Test("automatic names are unique within a millisecond")
    func automaticNames() {
        var log = SnapshotLog()
        for number: UInt64 in 0..<20 {
            let time = 5 * second + number * 100_000
            let name = SnapshotLog.automaticName(time) { log.find($0) != nil }
            log.append(Self.entry(number, at: time, name: name))
        }
        let names = log.all.map(\.name)
        #expect(Set(names).count == 20)
        #expect(names[0] == "1970-01-01T00:00:05.000Z" && names[1] == names[0] + "-2")
        for (entry, name) in zip(log.all, names) {
            #expect(log.find(name)?.identifier == entry.identifier)
        }
    }

    @Test("it does what a plain list does, over thousands of random steps", arguments: 0..<8)
    func model(_ seed: UInt64) {
        var random = Steps(state: seed &* 0x9E37_79B9_7F4A_7C15 | 1)
        var log = SnapshotLog()
        var list: [(name: String, time: UInt64)] = []
        var time = 1000 * second
        for number in 0..<3000 {
            if random.next(3) > 0 || list.isEmpty {
                // Now and then the clock jumps back, and for some logs never.
                time += UInt64(random.next(2_000_000_000))
                if seed % 2 == 1, random.next(50) == 0 { time -= 30 * second }
                let own = random.next(4) == 0 ? "n\(number)" : nil
                let name = own ?? SnapshotLog.automaticName(time) { log.find($0) != nil }
                log.append(Self.entry(UInt64(number), at: time, name: name))
                list.append((name, time))
            } else {
                // Runs of deletions, so that holes are squeezed out.
                for _ in 0..<random.next(20) where !list.isEmpty {
                    let gone = list.remove(at: random.next(list.count))
                    if let entry = log.find(gone.name) { log.remove(entry) }
                }
            }
            let limit = UInt64(random.next(Int(time / second))) * second
            let expected = list.filter { $0.time <= limit }.max { $0.time < $1.time }
            let matches =
                log.count == list.count && log.newest?.name == list.last?.name
                && log.newest(notAfter: limit)?.createdAtNanoseconds == expected?.time
            guard matches else {
                Issue.record("seed \(seed), step \(number)")
                return
            }
        }
        #expect(log.all.map(\.name) == list.map(\.name))
        var paged: [String] = []
        var last: SnapshotIdentifier?
        repeat {
            let page = log.page(after: last, limit: 7)
            paged += page.map(\.name)
            last = page.last?.identifier
        } while last != nil
        #expect(paged == list.map(\.name))
        let places = list.allSatisfy { log.find($0.name)?.createdAtNanoseconds == $0.time }
        #expect(places)
    }

    /// A generator whose seed repeats a run.
    private struct Steps {
        var state: UInt64

        mutating func next(_ bound: Int) -> Int {
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            return Int(state % UInt64(max(1, bound)))
        }
    }
}
