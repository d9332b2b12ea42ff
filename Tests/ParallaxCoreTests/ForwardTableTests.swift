// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxSimulation
import Testing

@testable import ParallaxCore

@Suite("The table of forwards")
struct ForwardTableTests {
    /// A table that grows and shrinks while checkpoints of it are being written, page by page, and what
    /// the store would have after each of them.
    private struct Course: ~Copyable {
        struct FrozenPage {
            var depth: Int
            var prefix: UInt64
            var reference: BlockReference
        }

        var table = ForwardTable()
        var model: [UInt64: UInt64] = [:]
        var random: SeededRandom
        /// Blocks of the store by their addresses.
        var store: [UInt64: [UInt64]] = [:]
        var nextAddress: UInt64 = 1
        /// Of 100 changes, those that forget a name.
        var removals = 20

        init(seed: UInt64) { random = SeededRandom(seed: seed) }

        mutating func change() {
            let name = UInt64(random.integer(in: 1...6000)) << 20 | 7
            if random.chance(percent: removals) {
                let expected = model.removeValue(forKey: name)
                let removed = table.remove(BlockAddress(rawValue: name))?.rawValue
                #expect(removed == expected)
            } else {
                let place = UInt64(random.integer(in: 1...1 << 40))
                model[name] = place
                table.set(BlockAddress(rawValue: name), to: BlockAddress(rawValue: place))
            }
        }

        /// Begins a checkpoint: all pages, of which those without a reference are yet to be written.
        mutating func freeze() -> (pages: [FrozenPage], frozen: [Int]) {
            release(table.takeAbandoned())
            var frozen: [Int] = []
            for page in table.pages.indices where table.pages[page].isDirty {
                frozen.append(page)
                release([table.freeze(page)])
            }
            let pages = table.pages.map { page in
                FrozenPage(depth: page.depth, prefix: page.prefix, reference: page.reference)
            }
            return (pages, frozen)
        }

        private mutating func release(_ references: [BlockReference]) {
            for reference in references where !reference.isHole {
                let block = store.removeValue(forKey: reference.address.rawValue)
                #expect(block != nil, "a block is given back twice")
            }
        }

        /// Writes one frozen page.
        mutating func write(_ number: Int) -> BlockReference {
            let content = UnsafeRawBufferPointer(
                start: table.frozenContent(number), count: blockBytes)
            var reference = BlockReference.hole
            if content.contains(where: { $0 != 0 }) {
                reference = BlockReference(
                    address: BlockAddress(rawValue: nextAddress), checksum: 0, birth: 0)
                store[nextAddress] = Array(content.bindMemory(to: UInt64.self))
                nextAddress += 1
            }
            table.finishFrozen(number, reference)
            return reference
        }

        /// What an opening after the checkpoint finds; nil: no table.
        func load(_ pages: [FrozenPage]) -> [UInt64: UInt64]? {
            var loaded = ForwardTable()
            for page in pages {
                let content =
                    page.reference.isHole
                    ? Array(repeating: 0, count: blockBytes / 8)
                    : store[page.reference.address.rawValue]
                guard let content,
                    content.withUnsafeBytes({ bytes in
                        bytes.baseAddress.map {
                            loaded.load(
                                $0, depth: page.depth, prefix: page.prefix,
                                reference: page.reference)
                        } ?? false
                    })
                else { return nil }
            }
            guard loaded.finishLoad() else { return nil }
            var found: [UInt64: UInt64] = [:]
            loaded.forEach { found[$0.rawValue] = $1.rawValue }
            return found
        }
    }

    @Test("a checkpoint has what the table was when it began", arguments: 1...40)
    func freezing(seed: UInt64) {
        var course = Course(seed: seed)
        var mostPages = 0
        for round in 0..<24 {
            course.removals = round % 8 < 4 ? 20 : 90
            for _ in 0..<1500 { course.change() }
            let frozenModel = course.model
            var (pages, frozen) = course.freeze()
            mostPages = max(mostPages, pages.count)
            for number in frozen.indices {
                for _ in 0..<course.random.integer(in: 0...60) { course.change() }
                pages[frozen[number]].reference = course.write(number)
            }
            course.table.endFreeze()
            let found = course.load(pages)
            #expect(found == frozenModel)
            let count = course.table.count
            #expect(count == course.model.count)
        }
        #expect(mostPages > 16, "no page was ever split: \(mostPages)")
    }
}
