// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux

/// A ring that we share with the guest (Xen's ring.h), 1 to 16 pages in a row.
///
/// ```
///   0          4           8          12          16     20                 64
///   | req_prod | req_event | rsp_prod | rsp_event | pvt  | pad (journal at 24) | entry 0 | ...
/// ```
/// Requests and responses use the same entries: a response takes the entry of a request that has
/// been taken. Indices run freely; entry N is at `N mod size`.
///
/// The pad belongs to nobody in the protocol. Ours is a journal of the response that is being
/// written, so that a daemon that is killed at any instruction, and started again, knows which
/// requests are still to be answered; see `BlkifQueue.answer`.
///
/// SAFETY: `base` leads to `pageCount` mapped pages until the owner unmaps them. The guest may
/// change any byte at any time: each field is read once, by an atomic load or by one copy.
struct SharedRing: BitwiseCopyable {
    private enum Offset {
        static let requestProducer = 0
        static let requestEvent = 4
        static let responseProducer = 8
        static let responseEvent = 12
        static let journal = 24
        static let entries = 64
    }

    let base: UnsafeMutableRawPointer
    let pageCount: Int
    let layout: BlkifLayout
    /// Entries; a power of two.
    let size: UInt32

    init(base: UnsafeMutableRawPointer, pageCount: Int, layout: BlkifLayout) {
        self.base = base
        self.pageCount = pageCount
        self.layout = layout
        let room = (pageCount * XenLimits.pageBytes - Offset.entries) / layout.entryBytes
        var size: UInt32 = 1
        while Int(size) * 2 <= room { size *= 2 }
        self.size = size
    }

    func slot(_ index: UInt32) -> UInt32 { index & (size &- 1) }

    private func entry(_ slot: UInt32) -> UnsafeMutableRawPointer {
        base + Offset.entries + Int(slot) * layout.entryBytes
    }

    /// ring.h: req_prod
    func requestProducer() -> UInt32 {
        // ORDER: pairs with the front end's write barrier before it raises the index, so that the
        // requests below it are visible.
        parallax_load_acquire_u32(base + Offset.requestProducer)
    }

    /// ring.h: req_event: "notify me when the producer passes this".
    func storeRequestEvent(_ index: UInt32) {
        parallax_store_relaxed_u32(base + Offset.requestEvent, index)
    }

    /// ring.h: rsp_prod
    func responseProducer() -> UInt32 {
        parallax_load_acquire_u32(base + Offset.responseProducer)
    }

    func storeResponseProducer(_ index: UInt32) {
        // ORDER: pairs with the front end's read barrier after it reads the index; the data and
        // the response come before.
        parallax_store_release_u32(base + Offset.responseProducer, index)
    }

    /// ring.h: rsp_event: the front end wants to hear when the producer passes this.
    func responseEvent() -> UInt32 { parallax_load_relaxed_u32(base + Offset.responseEvent) }

    /// Copies a request out, once.
    func copyRequest(_ slot: UInt32, to buffer: UnsafeMutableRawPointer) {
        parallax_copy_once(buffer, entry(slot), layout.entryBytes)
    }

    /// Moves a request that has been taken and not answered to another entry.
    func moveRequest(from: UInt32, to: UInt32) {
        parallax_copy_once(entry(to), entry(from), layout.entryBytes)
    }

    func storeResponse(_ slot: UInt32, id: UInt64, operation: UInt8, status: Int16) {
        let entry = entry(slot)
        // 4-byte accesses: entries are aligned to 4 in the 32-bit layout.
        parallax_store_relaxed_u32(entry, UInt32(truncatingIfNeeded: id))
        parallax_store_relaxed_u32(entry + 4, UInt32(truncatingIfNeeded: id >> 32))
        parallax_store_relaxed_u32(
            entry + 8, UInt32(operation) | UInt32(UInt16(bitPattern: status)) << 16)
    }
}

/// The response that is being written: what a successor needs to finish it.
///
/// ```
///   24         28        32       36         40        44       48
///   | phase u8 | index   | vacant | id       | id      | op u8, |
///   | as u32   | u32     | u32    | low u32  | high    | status |
/// ```
struct AnswerJournal: BitwiseCopyable {
    enum Phase: UInt32 {
        case none = 0
        /// The request in the response's entry is being moved to the vacant one.
        case moving = 0x5058_4d31
        /// The response is being written.
        case answering = 0x5058_4131
    }

    /// Of the response.
    var index: UInt32
    /// The entry of the request that is answered.
    var vacant: UInt32
    var id: UInt64
    var operation: UInt8
    var status: Int16
}

extension SharedRing {
    private var journal: UnsafeMutableRawPointer { base + Offset.journal }

    func storeJournal(_ entry: AnswerJournal) {
        parallax_store_relaxed_u32(journal, AnswerJournal.Phase.none.rawValue)
        // ORDER: a reader that finds a phase finds the fields that belong to it.
        parallax_fence_release()
        parallax_store_relaxed_u32(journal + 4, entry.index)
        parallax_store_relaxed_u32(journal + 8, entry.vacant)
        parallax_store_relaxed_u32(journal + 12, UInt32(truncatingIfNeeded: entry.id))
        parallax_store_relaxed_u32(journal + 16, UInt32(truncatingIfNeeded: entry.id >> 32))
        parallax_store_relaxed_u32(
            journal + 20, UInt32(entry.operation) | UInt32(UInt16(bitPattern: entry.status)) << 16)
    }

    func enterJournalPhase(_ phase: AnswerJournal.Phase) {
        // ORDER: what the phase before has written comes before, what the new one writes after. The
        // reader is a successor of this process, so the order of the stores is all that matters.
        parallax_store_release_u32(journal, phase.rawValue)
        parallax_fence_release()
    }

    /// What a back end before us may have left. The guest can have changed it, to its own loss.
    func loadJournal() -> (AnswerJournal.Phase, AnswerJournal)? {
        guard let phase = AnswerJournal.Phase(rawValue: parallax_load_acquire_u32(journal)),
            phase != .none
        else { return nil }
        let last = parallax_load_relaxed_u32(journal + 20)
        return (
            phase,
            AnswerJournal(
                index: parallax_load_relaxed_u32(journal + 4),
                vacant: parallax_load_relaxed_u32(journal + 8),
                id: UInt64(parallax_load_relaxed_u32(journal + 12))
                    | UInt64(parallax_load_relaxed_u32(journal + 16)) << 32,
                operation: UInt8(truncatingIfNeeded: last),
                status: Int16(bitPattern: UInt16(truncatingIfNeeded: last >> 16)))
        )
    }
}
