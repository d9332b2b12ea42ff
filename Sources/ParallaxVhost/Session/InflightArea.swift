// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux
internal import Glibc

/// The memory in which the front end keeps, over our death, which requests we had taken.
///
/// The front end can change it at any time, and so can whoever it gave the file to. What is read
/// is read once, when a queue starts, and checked; nothing read from it is used as an address.
///
/// SAFETY: owns its mapping, of which `layout` says how it is divided: at least
/// `layout.queuesByteCount` bytes are mapped, and `layout.byteCount` when `hasSettings`. A file that
/// is cut gives zeroes (`parallax_guards.h`).
struct InflightArea: ~Copyable {
    let layout: InflightLayout
    private let base: UnsafeMutableRawPointer
    private let mapByteCount: Int
    private let guardNumber: Int32
    private let hasSettings: Bool

    /// The file of a new area; the front end gets it and gives it back by SET_INFLIGHT_FD. nil: no
    /// file descriptor or no memory is left.
    static func makeFile(_ layout: InflightLayout) -> OwnedFileDescriptor? {
        let number = parallax_memfd_create("parallax-inflight", Int64(layout.byteCount))
        guard number >= 0 else { return nil }
        // Nobody can cut it then.
        _ = parallax_memfd_add_seals(
            number, PARALLAX_SEAL_SHRINK | PARALLAX_SEAL_GROW | PARALLAX_SEAL_SEAL)
        return OwnedFileDescriptor(adopting: number)
    }

    /// Maps the area that the front end has kept. nil: it cannot be one.
    init?(_ description: InflightDescription, file: borrowing OwnedFileDescriptor) {
        guard
            let layout = InflightLayout(
                queueCount: description.queueCount, queueSize: description.queueSize),
            let length = Self.checkedLength(description, layout, file)
        else { return nil }
        guard
            let address = mmap(
                nil, length, PROT_READ | PROT_WRITE, MAP_SHARED, file.number,
                off_t(description.offset)), address != MAP_FAILED
        else { return nil }
        let guardNumber = parallax_guard_add(address, length, nil)
        guard guardNumber >= 0 else {
            _ = munmap(address, length)
            return nil
        }
        self.layout = layout
        base = address
        mapByteCount = length
        self.guardNumber = guardNumber
        hasSettings = length == layout.byteCount
    }

    deinit {
        _ = parallax_guard_remove(guardNumber)
        _ = munmap(base, mapByteCount)
    }

    /// How much to map: all that we know, or without the settings when another back end made it.
    private static func checkedLength(
        _ description: InflightDescription, _ layout: InflightLayout,
        _ file: borrowing OwnedFileDescriptor
    ) -> Int? {
        var status = stat()
        guard parallax_peer_file_kind(file.number) == PARALLAX_PEER_FILE_MEMORY,
            parallax_peer_file_map_unit(file.number) == 4096,
            fstat(file.number, &status) == 0, status.st_size >= 0, description.offset % 4096 == 0
        else { return nil }
        let (end, wraps) = description.offset.addingReportingOverflow(description.byteCount)
        guard !wraps, end <= UInt64(status.st_size) else { return nil }
        if description.byteCount >= UInt64(layout.byteCount) { return layout.byteCount }
        return description.byteCount >= UInt64(layout.queuesByteCount)
            ? layout.queuesByteCount : nil
    }

    /// Part of its file has gone.
    var hasVanished: Bool { parallax_guard_is_hit(guardNumber) != 0 }

    /// nil: the area has no place for the queue.
    func queue(_ queue: Int) -> InflightQueue? {
        guard queue < layout.queueCount else { return nil }
        return InflightQueue(
            base: base + layout.offset(ofQueue: queue), entryCount: UInt16(layout.queueSize))
    }

    /// nil: another back end made the area, and it ends with the queues.
    var settings: InflightSettings? {
        hasSettings ? InflightSettings(base: base + layout.settingsOffset) : nil
    }
}

/// One queue's part of an in-flight area.
///
/// ORDER: every store is a release, so that the area has at each instant the effect of a prefix of
/// our stores: what a process that was killed in between leaves behind is one of those prefixes.
///
/// SAFETY: `base` leads to a header and `entryCount` entries of a mapped area; heads are checked
/// against `entryCount` where they come from outside.
struct InflightQueue: BitwiseCopyable {
    private let base: UnsafeMutableRawPointer
    let entryCount: UInt16

    init(base: UnsafeMutableRawPointer, entryCount: UInt16) {
        self.base = base
        self.entryCount = entryCount
    }

    private func entry(_ head: UInt16) -> UnsafeMutableRawPointer {
        base + InflightLayout.headerByteCount + InflightLayout.entryByteCount * Int(head)
    }

    /// The request at `head` has been taken from the ring.
    func markTaken(_ head: UInt16, counter: UInt64) {
        parallax_store_release_u64(entry(head) + InflightLayout.counterOffset, counter)
        parallax_store_release_u8(entry(head), 1)
    }

    /// The used entry of `head` is written and not yet shown: it belongs to the batch that the
    /// next change of the used index shows. `previous` is the batch's list so far.
    func link(_ head: UInt16, previous: UInt16) {
        parallax_store_release_u16(entry(head) + InflightLayout.nextOffset, previous)
        parallax_store_release_u16(base + InflightLayout.lastBatchHeadOffset, head)
    }

    /// The guest can see the answer.
    func clear(_ head: UInt16) { parallax_store_release_u8(entry(head), 0) }

    func clearAll() { for head in 0..<entryCount { clear(head) } }

    /// Every head of the batch that this used index shows is clear.
    func storeUsedIndex(_ index: UInt16) {
        parallax_store_release_u16(base + InflightLayout.usedIndexOffset, index)
    }
}

extension InflightQueue {
    /// A request that was taken and never answered.
    struct Left: BitwiseCopyable {
        var head: UInt16
        var counter: UInt64
    }

    /// What the area says of a ring whose used index is `usedIndex`: the requests to make again,
    /// oldest first. nil: it is not the area of this ring.
    func recover(usedIndex: UInt16, ringSize: UInt16) -> [Left]? {
        guard ringSize <= entryCount else { return nil }
        let version = parallax_load_relaxed_u16(base + InflightLayout.versionOffset)
        let entries = parallax_load_relaxed_u16(base + InflightLayout.entryCountOffset)
        switch version {
        case 0: prepare()
        case InflightLayout.version where entries == entryCount: finishBatch(usedIndex)
        default: return nil
        }
        storeUsedIndex(usedIndex)
        var left: [Left] = []
        for head in 0..<entryCount where parallax_load_relaxed_u8(entry(head)) != 0 {
            // A ring may be smaller than the area was made for; but none of ours was larger then.
            guard head < ringSize else { return nil }
            let counter = parallax_load_relaxed_u64(entry(head) + InflightLayout.counterOffset)
            left.append(Left(head: head, counter: counter))
        }
        return left.sorted { ($0.counter, $0.head) < ($1.counter, $1.head) }
    }

    private func prepare() {
        clearAll()
        parallax_store_release_u16(base + InflightLayout.entryCountOffset, entryCount)
        parallax_store_release_u16(base + InflightLayout.versionOffset, InflightLayout.version)
    }

    /// We were killed after the guest saw a batch and before all of it was clear: clears it.
    private func finishBatch(_ usedIndex: UInt16) {
        let stored = parallax_load_relaxed_u16(base + InflightLayout.usedIndexOffset)
        var head = parallax_load_relaxed_u16(base + InflightLayout.lastBatchHeadOffset)
        // LIMIT: a batch is no longer than the queue; the list may lead anywhere, so each head is
        // checked before it is used.
        for _ in 0..<min(usedIndex &- stored, entryCount) {
            guard head < entryCount else { return }
            let next = parallax_load_relaxed_u16(entry(head) + InflightLayout.nextOffset)
            clear(head)
            head = next
        }
    }
}
