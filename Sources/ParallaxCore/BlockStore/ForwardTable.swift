// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Where the cleaner has put blocks that are still referred to by the address at which they were
/// written: a block's *name*. Trees that cannot be changed keep the name; this table knows the
/// place.
///
/// ```
///   hash of the name --> directory --> page of 256 places for (name u64, place u64)
/// ```
/// Extendible hashing: a page that is full is split in two, two that are nearly empty become one.
/// A page in memory is a page in the store, so a checkpoint writes those that have changed.
///
/// I1 a block has one name in all trees: an entry is removed when the block dies, or when its only
///    owner takes up the place as the block's name (`RadixForest.renameMoved`).
/// I2 a place is the value of at most one entry.
/// I3 a page holds at most `pageLimit` entries, all of which have the page's prefix as the highest
///    bits of their hashes.
/// I4 what a checkpoint writes of a page is its content as of the freeze: who changes it before it has
///    been written leaves a copy behind.
///
/// SAFETY: owns its pages; every index into one is masked.
struct ForwardTable: ~Copyable {
    struct Entry: BitwiseCopyable {
        var name: UInt64
        var place: UInt64
    }

    struct Page {
        let entries: UnsafeMutablePointer<Entry>
        var count = 0
        var depth = 0
        var prefix: UInt64 = 0
        var reference = BlockReference.hole
        fileprivate(set) var isDirty = false
        /// Its number among the pages that the checkpoint under way has yet to write, or -1.
        var frozen: Int32 = -1
    }

    /// A page that the checkpoint under way writes.
    private struct FrozenPage {
        /// Where it is now; -1: nowhere any more.
        var page: Int32
        /// What it was, if it is that no more.
        var content: UnsafeMutablePointer<Entry>?
    }

    private static let slots = 256
    private static let pageLimit = 224
    /// LIMIT: 2^26 pages of 224 names; what is read and has more is not believed.
    private static let depthLimit = 26
    /// Two pages with fewer entries than this between them become one.
    private static let mergeLimit = 96

    private(set) var pages: [Page] = []
    private(set) var count = 0
    /// Pages that the next checkpoint writes.
    private(set) var dirtyCount = 0
    /// Pages of the store whose content has become part of another page.
    private(set) var abandoned: [BlockReference] = []
    private var frozenPages: [FrozenPage] = []
    private var directory: [UInt32] = []
    private var depth = 0

    var isEmpty: Bool { count == 0 }

    deinit {
        for page in pages { page.entries.deallocate() }
        for frozen in frozenPages { frozen.content?.deallocate() }
    }

    @inline(__always)
    private static func hash(_ name: UInt64) -> UInt64 {
        var value = name &* 0x9E37_79B9_7F4A_7C15
        value ^= value >> 32
        return value &* 0xD6E8_FEB8_6659_FD93
    }

    @inline(__always)
    private func pageIndex(_ hash: UInt64) -> Int {
        Int(directory[depth == 0 ? 0 : Int(hash >> UInt64(64 - depth))])
    }

    /// The slot of a name in its page, or the free one where it would be.
    @inline(__always)
    private static func slot(
        of name: UInt64, _ hash: UInt64, in entries: UnsafeMutablePointer<Entry>
    ) -> Int {
        var slot = Int(hash & UInt64(slots - 1))
        while entries[slot].name != 0 && entries[slot].name != name {
            slot = (slot + 1) & (slots - 1)
        }
        return slot
    }

    /// Where the block of this name has been put; nil: it is where its name says.
    func find(_ name: BlockAddress) -> BlockAddress? {
        guard count > 0 else { return nil }
        let hash = Self.hash(name.rawValue)
        let entries = pages[pageIndex(hash)].entries
        let entry = entries[Self.slot(of: name.rawValue, hash, in: entries)]
        return entry.name == 0 ? nil : BlockAddress(rawValue: entry.place)
    }

    mutating func set(_ name: BlockAddress, to place: BlockAddress) {
        if pages.isEmpty { addFirstPage() }
        let hash = Self.hash(name.rawValue)
        while true {
            let page = pageIndex(hash)
            let entries = pages[page].entries
            let slot = Self.slot(of: name.rawValue, hash, in: entries)
            if entries[slot].name == 0 {
                guard pages[page].count < Self.pageLimit else {
                    split(page)
                    continue
                }
                pages[page].count += 1
                count += 1
            }
            prepareToChange(page)
            entries[slot] = Entry(name: name.rawValue, place: place.rawValue)
            return
        }
    }

    /// Forgets a name. Returns the place that it had; nil: it was not in the table.
    mutating func remove(_ name: BlockAddress) -> BlockAddress? {
        guard count > 0 else { return nil }
        let hash = Self.hash(name.rawValue)
        let page = pageIndex(hash)
        let entries = pages[page].entries
        let slot = Self.slot(of: name.rawValue, hash, in: entries)
        guard entries[slot].name != 0 else { return nil }
        let place = BlockAddress(rawValue: entries[slot].place)
        prepareToChange(page)
        Self.close(slot, in: entries)
        pages[page].count -= 1
        count -= 1
        mergeIfSmall(page)
        return place
    }

    /// Empties a slot and moves those behind it up, so that no search stops short.
    private static func close(_ slot: Int, in entries: UnsafeMutablePointer<Entry>) {
        var hole = slot
        var next = (slot + 1) & (slots - 1)
        while entries[next].name != 0 {
            let home = Int(hash(entries[next].name) & UInt64(slots - 1))
            if (next - home) & (slots - 1) >= (next - hole) & (slots - 1) {
                entries[hole] = entries[next]
                hole = next
            }
            next = (next + 1) & (slots - 1)
        }
        entries[hole] = Entry(name: 0, place: 0)
    }
}

extension ForwardTable {
    private static func allocateEntries() -> UnsafeMutablePointer<Entry> {
        Memory.allocatePages(byteCount: blockBytes).bindMemory(to: Entry.self, capacity: slots)
    }

    private static func emptyEntries() -> UnsafeMutablePointer<Entry> {
        let entries = allocateEntries()
        Memory.zero(entries, count: blockBytes)
        return entries
    }

    private mutating func addFirstPage() {
        pages.append(Page(entries: Self.emptyEntries()))
        directory = [0]
        depth = 0
    }

    private mutating func split(_ page: Int) {
        if pages[page].depth == depth { doubleDirectory() }
        prepareToChange(page)
        let old = pages[page]
        let other = pages.count
        pages[page].depth += 1
        pages[page].prefix = old.prefix << 1
        pages.append(
            Page(
                entries: Self.emptyEntries(), depth: old.depth + 1,
                prefix: old.prefix << 1 | 1))
        touch(other)
        point(to: other)
        let kept = Self.emptyEntries()
        var moved = 0
        for slot in 0..<Self.slots where old.entries[slot].name != 0 {
            let entry = old.entries[slot]
            let hash = Self.hash(entry.name)
            let isOther = hash >> UInt64(63 - old.depth) & 1 == 1
            let target = isOther ? pages[other].entries : kept
            target[Self.slot(of: entry.name, hash, in: target)] = entry
            if isOther { moved += 1 }
        }
        old.entries.update(from: kept, count: Self.slots)
        kept.deallocate()
        pages[other].count = moved
        pages[page].count = old.count - moved
    }

    private mutating func doubleDirectory() {
        var larger: [UInt32] = []
        larger.reserveCapacity(directory.count * 2)
        for page in directory {
            larger.append(page)
            larger.append(page)
        }
        directory = larger
        depth += 1
    }

    /// Lets the part of the directory that has the page's prefix name the page.
    private mutating func point(to page: Int) {
        let width = 1 << (depth - pages[page].depth)
        let first = Int(pages[page].prefix) * width
        for index in first..<first + width { directory[index] = UInt32(page) }
    }

    /// From the page, which has just been changed, and the other half of what it was split from.
    private mutating func mergeIfSmall(_ page: Int) {
        guard pages[page].depth > 0, pages[page].count < Self.mergeLimit / 2 else { return }
        let sibling = pages[page].prefix ^ 1
        let width = 1 << (depth - pages[page].depth)
        let buddy = Int(directory[Int(sibling) * width])
        guard pages[buddy].depth == pages[page].depth,
            pages[buddy].count + pages[page].count < Self.mergeLimit
        else { return }
        let from = pages[buddy].entries
        let to = pages[page].entries
        for slot in 0..<Self.slots where from[slot].name != 0 {
            let hash = Self.hash(from[slot].name)
            to[Self.slot(of: from[slot].name, hash, in: to)] = from[slot]
        }
        pages[page].count += pages[buddy].count
        pages[page].depth -= 1
        pages[page].prefix >>= 1
        point(to: page)
        dropPage(buddy)
    }

    private mutating func dropPage(_ page: Int) {
        if !pages[page].reference.isHole { abandoned.append(pages[page].reference) }
        if pages[page].isDirty { dirtyCount -= 1 }
        keepFrozenContent(of: page)
        if pages[page].frozen >= 0 { frozenPages[Int(pages[page].frozen)].page = -1 }
        pages[page].entries.deallocate()
        let last = pages.count - 1
        if page != last {
            pages[page] = pages[last]
            if pages[page].frozen >= 0 {
                frozenPages[Int(pages[page].frozen)].page = Int32(page)
            }
            point(to: page)
        }
        pages.removeLast()
    }
}

/// To and from the store.
extension ForwardTable {
    /// For a checkpoint: the places of pages that are needed no more.
    mutating func takeAbandoned() -> [BlockReference] {
        defer { abandoned = [] }
        return abandoned
    }

    /// The page becomes part of the checkpoint that begins now: its old place is returned, its new
    /// one will be told by `finishFrozen`.
    mutating func freeze(_ page: Int) -> BlockReference {
        defer { pages[page].reference = .hole }
        if pages[page].isDirty { dirtyCount -= 1 }
        pages[page].isDirty = false
        pages[page].frozen = Int32(frozenPages.count)
        frozenPages.append(FrozenPage(page: Int32(page)))
        return pages[page].reference
    }

    /// To be called before a page's entries change.
    private mutating func prepareToChange(_ page: Int) {
        keepFrozenContent(of: page)
        touch(page)
    }

    /// I4.
    private mutating func keepFrozenContent(of page: Int) {
        let frozen = Int(pages[page].frozen)
        guard frozen >= 0, frozenPages[frozen].content == nil else { return }
        let copy = Self.allocateEntries()
        copy.initialize(from: pages[page].entries, count: Self.slots)
        frozenPages[frozen].content = copy
    }

    /// The content of a page as of the freeze: a block, valid until the table changes.
    func frozenContent(_ frozen: Int) -> UnsafeRawPointer {
        let state = frozenPages[frozen]
        return UnsafeRawPointer(state.content ?? pages[Int(state.page)].entries)
    }

    /// The page of the checkpoint has its place; a hole, if there was nothing on it.
    mutating func finishFrozen(_ frozen: Int, _ reference: BlockReference) {
        let state = frozenPages[frozen]
        frozenPages[frozen].content?.deallocate()
        frozenPages[frozen].content = nil
        if state.page >= 0 {
            pages[Int(state.page)].reference = reference
            pages[Int(state.page)].frozen = -1
        } else if !reference.isHole {
            abandoned.append(reference)
        }
        frozenPages[frozen].page = -1
    }

    /// All pages of the checkpoint have their places.
    mutating func endFreeze() { frozenPages.removeAll() }

    /// The page is to be written anew.
    mutating func touch(_ page: Int) {
        guard !pages[page].isDirty else { return }
        pages[page].isDirty = true
        dirtyCount += 1
    }

    /// Adds a page as it was read. False: it makes no sense.
    mutating func load(
        _ content: UnsafeRawPointer, depth pageDepth: Int, prefix: UInt64,
        reference: BlockReference
    ) -> Bool {
        guard pageDepth <= Self.depthLimit,
            pageDepth == 0 ? prefix == 0 : prefix >> UInt64(pageDepth) == 0
        else { return false }
        var page = Page(entries: Self.emptyEntries(), depth: pageDepth, prefix: prefix)
        page.reference = reference
        Memory.copy(to: page.entries, from: content, count: blockBytes)
        for slot in 0..<Self.slots where page.entries[slot].name != 0 {
            page.count += 1
            let hash = Self.hash(page.entries[slot].name)
            if pageDepth > 0, hash >> UInt64(64 - pageDepth) != prefix { page.count = .max / 2 }
        }
        guard page.count <= Self.pageLimit else {
            page.entries.deallocate()
            return false
        }
        pages.append(page)
        count += page.count
        return true
    }

    /// All pages are there. False: they are not those of one table.
    mutating func finishLoad() -> Bool {
        guard !pages.isEmpty else { return true }
        depth = pages.reduce(0) { max($0, $1.depth) }
        guard depth <= Self.depthLimit else { return false }
        directory = Array(repeating: .max, count: 1 << depth)
        var covered = 0
        for index in pages.indices {
            point(to: index)
            covered += 1 << (depth - pages[index].depth)
        }
        return covered == directory.count && !directory.contains(.max)
    }

    /// Whether the name belongs on one of these pages.
    func isOn(_ positions: Set<Int>, _ name: BlockAddress) -> Bool {
        !pages.isEmpty && positions.contains(pageIndex(Self.hash(name.rawValue)))
    }

    /// Calls `body` with each name and place.
    func forEach(_ body: (BlockAddress, BlockAddress) -> Void) {
        for page in pages {
            for slot in 0..<Self.slots where page.entries[slot].name != 0 {
                body(
                    BlockAddress(rawValue: page.entries[slot].name),
                    BlockAddress(rawValue: page.entries[slot].place))
            }
        }
    }
}
