// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// One bit for each block of an extent: whether anything refers to it. Exact, so that the cleaner
/// need not look for references, and so that a block which is given back twice is found out.
///
/// SAFETY: `words` and `frozen` belong to the `ExtentTable` that the bits are in, which compares each
/// block with `extentBlocks`, their number.
struct LiveBits: BitwiseCopyable {
    let words: UnsafeMutablePointer<UInt64>
    /// The bits as the checkpoint being written has them, once they differ from `words`.
    var frozen: UnsafeMutablePointer<UInt64>?

    init(words: UnsafeMutablePointer<UInt64>) { self.words = words }

    subscript(block: Int) -> Bool { words[block >> 6] & (1 << UInt64(block & 63)) != 0 }

    func set(_ block: Int) { words[block >> 6] |= 1 << UInt64(block & 63) }
    func clear(_ block: Int) { words[block >> 6] &= ~(1 << UInt64(block & 63)) }
    func setFrozen(_ block: Int) { frozen?[block >> 6] |= 1 << UInt64(block & 63) }
    func clearFrozen(_ block: Int) { frozen?[block >> 6] &= ~(1 << UInt64(block & 63)) }

    /// The last block before `end` that lives.
    func last(below end: Int) -> Int? {
        var block = end - 1
        while block >= 0 {
            let word = words[block >> 6] << UInt64(63 - block & 63)
            if word != 0 { return block - word.leadingZeroBitCount }
            block = (block & ~63) - 1
        }
        return nil
    }

    func deallocate() {
        words.deallocate()
        frozen?.deallocate()
    }
}

/// Memory for bits, used again and again.
struct LiveBitsPool: ~Copyable {
    let words: Int
    private var free: [UnsafeMutablePointer<UInt64>] = []

    init(blocks: Int) { words = (blocks + 63) / 64 }

    deinit { for memory in free { memory.deallocate() } }

    /// Zeros.
    mutating func take() -> UnsafeMutablePointer<UInt64> {
        let memory = free.popLast() ?? .allocate(capacity: words)
        memory.initialize(repeating: 0, count: words)
        return memory
    }

    mutating func giveBack(_ memory: UnsafeMutablePointer<UInt64>) { free.append(memory) }
}

/// Where the live bits are in the store. A page has the bits of 32,768 blocks in the order of the
/// slots, so that a checkpoint writes only pages on which anything has changed.
///
/// ```
///   slot 0    slot 1    slot 2    slot 3          64 MiB extents: two to a page;
///   |---- page 0 ----|  |---- page 1 ----|        1 GiB extents: eight pages to one
/// ```
/// I1 a page that is neither dirty nor being written has the content that its reference names.
struct LivePages {
    private let extentBytes: Int
    private(set) var references: [BlockReference]
    private var isDirty: [Bool]
    private(set) var dirty: [UInt32] = []
    /// The pages that the checkpoint under way writes.
    private(set) var writing: [UInt32] = []
    private var isWriting: [Bool]
    /// From the moment of the freeze until all pages are in chunks.
    private(set) var isFrozen = false

    init(slotCount: Int, extentBlocks: Int) {
        extentBytes = extentBlocks / 8
        let pages = (slotCount * extentBytes + blockBytes - 1) / blockBytes
        references = Array(repeating: .hole, count: pages)
        isDirty = Array(repeating: false, count: pages)
        isWriting = isDirty
    }

    mutating func grow(slotCount: Int) {
        let pages = (slotCount * extentBytes + blockBytes - 1) / blockBytes
        while references.count < pages {
            references.append(.hole)
            isDirty.append(false)
            isWriting.append(false)
        }
    }

    private func page(_ slot: ExtentSlot, _ block: Int) -> Int {
        (Int(slot.rawValue) * extentBytes + block / 8) / blockBytes
    }

    @inline(__always)
    mutating func touch(slot: ExtentSlot, block: Int, count: Int) {
        let first = page(slot, block)
        let last = page(slot, block + count - 1)
        for page in first...last where !isDirty[page] { markDirty(page) }
    }

    mutating func touch(slot: ExtentSlot) {
        touch(slot: slot, block: 0, count: extentBytes * 8)
    }

    @inline(never)
    private mutating func markDirty(_ page: Int) {
        isDirty[page] = true
        dirty.append(UInt32(page))
    }

    /// The page is to be written anew, wherever it is.
    mutating func touch(page: Int) { if !isDirty[page] { markDirty(page) } }

    mutating func freeze() {
        writing = dirty.sorted()
        dirty.removeAll(keepingCapacity: true)
        for page in writing {
            isDirty[Int(page)] = false
            isWriting[Int(page)] = true
        }
        isFrozen = true
    }

    /// The checkpoint under way writes the block's page too.
    mutating func include(slot: ExtentSlot, block: Int) {
        let page = page(slot, block)
        guard !isWriting[page] else { return }
        isWriting[page] = true
        writing.append(UInt32(page))
    }

    mutating func thaw() {
        for page in writing { isWriting[Int(page)] = false }
        writing.removeAll(keepingCapacity: true)
        isFrozen = false
    }

    mutating func setReference(_ page: Int, _ reference: BlockReference) {
        references[page] = reference
    }

    /// The bytes that a slot's bits and a page have in common: where they begin in the page and in
    /// the bits.
    func overlap(slot: Int, page: Int) -> (pageOffset: Int, offset: Int, count: Int)? {
        let first = max(slot * extentBytes, page * blockBytes)
        let end = min((slot + 1) * extentBytes, (page + 1) * blockBytes)
        guard first < end else { return nil }
        return (first - page * blockBytes, first - slot * extentBytes, end - first)
    }

    /// The slots of which the page has any bits.
    func slots(ofPage page: Int, slotCount: Int) -> Range<Int> {
        let first = page * blockBytes / extentBytes
        let end = ((page + 1) * blockBytes + extentBytes - 1) / extentBytes
        return min(first, slotCount)..<min(end, slotCount)
    }

    /// Upper bound of the pages that a checkpoint writes for `extents` extents.
    func pageCount(extents: Int) -> Int {
        min(references.count, extents * max(1, extentBytes / blockBytes))
    }
}
