// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Who a record is about: the handle of a VDI, or the row of a version.
struct RecordOwner: BitwiseCopyable, Equatable {
    private let code: UInt32

    static func vdi(_ handle: Int) -> RecordOwner { RecordOwner(code: UInt32(handle)) }
    static func version(_ row: Int) -> RecordOwner { RecordOwner(code: 1 << 31 | UInt32(row)) }

    private init(code: UInt32) { self.code = code }

    var handle: Int? { code >> 31 == 0 ? Int(code) : nil }
    var row: Int? { code >> 31 == 0 ? nil : Int(code & 0x7FFF_FFFF) }

    var link: VersionLink {
        row.map(VersionLink.snapshot) ?? handle.map(VersionLink.head) ?? .none
    }
}

/// Which record stands on which page of the store. A checkpoint writes only the pages on which
/// anything has changed, and the index blocks above those; so its cost follows what changed and
/// not how many VDIs and snapshots there are.
///
/// ```
///   tables ---> index block (256 references) ---> page (4 KiB of records) x 256
///          ---> index block ...
/// ```
/// Owned by the shard thread; not on the path of requests.
/// I1 `used` is the sum of the encoded bytes of a page's members, and at most `capacity`.
/// I2 a page that is not dirty has the content that `reference` names, or is empty and a hole.
struct RecordPages {
    struct Page {
        /// Where the newest checkpoint has, or is putting, the page.
        var reference = BlockReference.hole
        var used = 0
        var members: [RecordOwner] = []
        var isDirty = false
        var isOffered = false
    }

    /// Bytes of records on a page; in front of them stands their number.
    static let headerBytes = 8
    static let capacity = blockBytes - headerBytes

    private(set) var pages: [Page] = []
    var index: [BlockReference] = []
    private(set) var dirty: [UInt32] = []
    /// Pages that may have room, the best last.
    private var offered: [UInt32] = []

    /// Room that makes a page worth another look.
    private static let worthwhileRoom = 512

    /// Finds room for a new record.
    mutating func place(_ owner: RecordOwner, bytes: Int) -> UInt32 {
        precondition(bytes <= Self.capacity, "RecordPages: a record is larger than a page")
        while let page = offered.last {
            if pages[Int(page)].used + bytes <= Self.capacity {
                add(owner, bytes, to: page)
                return page
            }
            pages[Int(page)].isOffered = false
            offered.removeLast()
        }
        let page = UInt32(pages.count)
        pages.append(Page())
        offer(page)
        add(owner, bytes, to: page)
        return page
    }

    private mutating func add(_ owner: RecordOwner, _ bytes: Int, to page: UInt32) {
        pages[Int(page)].members.append(owner)
        pages[Int(page)].used += bytes
        touch(page)
    }

    private mutating func offer(_ page: UInt32) {
        guard !pages[Int(page)].isOffered,
            Self.capacity - pages[Int(page)].used >= Self.worthwhileRoom
        else { return }
        pages[Int(page)].isOffered = true
        offered.append(page)
    }

    mutating func remove(_ owner: RecordOwner, bytes: Int, from page: UInt32) {
        guard let position = pages[Int(page)].members.firstIndex(of: owner) else {
            preconditionFailure("RecordPages I1: the record is not on its page")
        }
        pages[Int(page)].members.remove(at: position)
        pages[Int(page)].used -= bytes
        touch(page)
        offer(page)
    }

    /// The record has another length now. Returns its page, perhaps another.
    mutating func resize(
        _ owner: RecordOwner, from oldBytes: Int, to bytes: Int, on page: UInt32
    ) -> UInt32 {
        if pages[Int(page)].used - oldBytes + bytes <= Self.capacity {
            pages[Int(page)].used += bytes - oldBytes
            touch(page)
            return page
        }
        remove(owner, bytes: oldBytes, from: page)
        return place(owner, bytes: bytes)
    }

    /// The page's content is no longer that in the store.
    mutating func touch(_ page: UInt32) {
        guard !pages[Int(page)].isDirty else { return }
        pages[Int(page)].isDirty = true
        dirty.append(page)
    }

    /// For a checkpoint: the dirty pages, which are clean from now on.
    mutating func takeDirty() -> [UInt32] {
        let taken = dirty.sorted()
        dirty.removeAll(keepingCapacity: true)
        for page in taken { pages[Int(page)].isDirty = false }
        return taken
    }

    mutating func setReference(_ page: UInt32, _ reference: BlockReference) {
        pages[Int(page)].reference = reference
    }

    /// A page as it was read from the store.
    mutating func load(_ reference: BlockReference) -> UInt32 {
        pages.append(Page(reference: reference))
        return UInt32(pages.count - 1)
    }

    mutating func loadMember(_ owner: RecordOwner, bytes: Int, on page: UInt32) {
        pages[Int(page)].members.append(owner)
        pages[Int(page)].used += bytes
    }

    mutating func finishLoad() {
        for page in pages.indices.reversed() { offer(UInt32(page)) }
    }

    /// Index blocks above `pages`.
    var indexCount: Int { (pages.count + radixFanout - 1) / radixFanout }

    /// Upper bound of the blocks that a checkpoint of what is dirty writes, with `more` pages
    /// becoming dirty until then.
    func checkpointBlocks(more: Int) -> Int {
        let dirtyPages = dirty.count + more
        return dirtyPages + min(dirtyPages, indexCount + more / radixFanout + 1)
    }
}
