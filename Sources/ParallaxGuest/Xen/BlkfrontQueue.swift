// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux
internal import Glibc

/// Which request layout the front end uses, with offsets of its own: written apart from the back
/// end's, so that one proves the other.
package enum BlkfrontLayout: String, Sendable, CaseIterable {
    case x86For32 = "x86_32-abi"
    case x86For64 = "x86_64-abi"

    var entryBytes: Int { self == .x86For32 ? 108 : 112 }
    var idOffset: Int { self == .x86For32 ? 4 : 8 }
}

/// A page, or a part of it, that a request is about.
package struct BlkfrontSegment: Sendable {
    package var reference: UInt32
    package var first: UInt8
    package var last: UInt8

    package init(reference: UInt32, first: UInt8 = 0, last: UInt8 = 7) {
        self.reference = reference
        self.first = first
        self.last = last
    }
}

package struct BlkfrontResponse: Equatable, Sendable {
    package var id: UInt64
    package var operation: UInt8
    package var status: Int16

    package init(id: UInt64, operation: UInt8, status: Int16) {
        self.id = id
        self.operation = operation
        self.status = status
    }
}

/// The front end's side of one ring.
///
/// SAFETY: `base` leads to the ring's pages, which lie in a row in the memory of a `PretendedXen`
/// that outlives the queue. The back end may change any byte at any time.
package struct BlkfrontQueue {
    package let base: UnsafeMutableRawPointer
    package let layout: BlkfrontLayout
    package let size: UInt32
    package let references: [UInt32]
    package let port: UInt32
    /// Readable when the back end has sent an event.
    package let event: Int32
    package var produced: UInt32 = 0
    package var consumed: UInt32 = 0
    private let xen: PretendedXen

    init(
        xen: PretendedXen, base: UnsafeMutableRawPointer, references: [UInt32], port: UInt32,
        layout: BlkfrontLayout
    ) {
        self.xen = xen
        self.base = base
        self.layout = layout
        self.references = references
        self.port = port
        let room = (references.count * PretendedXen.pageBytes - 64) / layout.entryBytes
        var size: UInt32 = 1
        while Int(size) * 2 <= room { size *= 2 }
        self.size = size
        event = xen.openPort(port)
        memset(base, 0, references.count * PretendedXen.pageBytes)
        parallax_store_relaxed_u32(base + 4, 1)
        parallax_store_relaxed_u32(base + 12, 1)
    }

    /// The same ring in a copy of the machine.
    init(moving queue: BlkfrontQueue, to other: PretendedXen) {
        xen = other
        base = other.memory + (queue.base - queue.xen.memory)
        layout = queue.layout
        size = queue.size
        references = queue.references
        port = queue.port
        event = other.event(of: queue.port)
        produced = queue.produced
        consumed = queue.consumed
    }

    package var isFull: Bool { produced &- consumed >= size }

    package func entry(_ index: UInt32) -> UnsafeMutableRawPointer {
        base + 64 + Int(index & (size - 1)) * layout.entryBytes
    }

    private func putHead(_ operation: UInt8, _ count: UInt8, id: UInt64, sector: UInt64)
        -> UnsafeMutableRawPointer
    {
        precondition(!isFull, "a request into a full ring")
        let entry = entry(produced)
        entry.storeBytes(of: operation, as: UInt8.self)
        entry.storeBytes(of: count, toByteOffset: 1, as: UInt8.self)
        entry.storeBytes(of: 0, toByteOffset: 2, as: UInt16.self)
        entry.storeBytes(of: id, toByteOffset: layout.idOffset, as: UInt64.self)
        entry.storeBytes(of: sector, toByteOffset: layout.idOffset + 8, as: UInt64.self)
        return entry + layout.idOffset + 16
    }

    package static func store(_ segment: BlkfrontSegment, at target: UnsafeMutableRawPointer) {
        target.storeBytes(of: segment.reference, as: UInt32.self)
        target.storeBytes(of: segment.first, toByteOffset: 4, as: UInt8.self)
        target.storeBytes(of: segment.last, toByteOffset: 5, as: UInt8.self)
        target.storeBytes(of: 0, toByteOffset: 6, as: UInt16.self)
    }

    /// A request with its segments in the ring; the back end sees it after `push`.
    package mutating func put(
        operation: UInt8, id: UInt64, sector: UInt64, segments: [BlkfrontSegment],
        count: UInt8? = nil
    ) {
        let rest = putHead(
            operation, count ?? UInt8(truncatingIfNeeded: segments.count), id: id, sector: sector)
        for (index, segment) in segments.prefix(11).enumerated() {
            Self.store(segment, at: rest + 8 * index)
        }
        produced &+= 1
    }

    /// A read of a whole page, without a list.
    package mutating func putRead(id: UInt64, sector: UInt64, reference: UInt32) {
        let rest = putHead(0, 1, id: id, sector: sector)
        Self.store(BlkfrontSegment(reference: reference), at: rest)
        produced &+= 1
    }

    package mutating func putDiscard(
        id: UInt64, sector: UInt64, sectorCount: UInt64, isSecure: Bool = false
    ) {
        let rest = putHead(5, isSecure ? 1 : 0, id: id, sector: sector)
        rest.storeBytes(of: sectorCount, as: UInt64.self)
        produced &+= 1
    }

    /// A request whose segments are in pages of their own.
    package mutating func putIndirect(
        operation: UInt8, id: UInt64, sector: UInt64, count: UInt16, pages: [UInt32]
    ) {
        let rest = putHead(6, operation, id: id, sector: sector)
        let entry = rest - layout.idOffset - 16
        entry.storeBytes(of: count, toByteOffset: 2, as: UInt16.self)
        rest.storeBytes(of: 0, as: UInt32.self)
        for (index, page) in pages.prefix(8).enumerated() {
            rest.storeBytes(of: page, toByteOffset: 4 + 4 * index, as: UInt32.self)
        }
        produced &+= 1
    }

    /// Shows the back end what has been put, and sends an event if it wants one.
    @discardableResult
    package func push() -> Bool {
        let old = parallax_load_relaxed_u32(base)
        // ORDER: the requests come before the index, the index before the look at the wish.
        parallax_store_release_u32(base, produced)
        parallax_fence_seq_cst()
        let isWanted =
            produced &- parallax_load_relaxed_u32(base + 4) < produced &- old
        if isWanted { xen.sendEvent(port) }
        return isWanted
    }

    /// Takes the responses that are there and asks for an event at the next.
    package mutating func reap(_ body: (BlkfrontResponse) -> Void) {
        while true {
            // ORDER: pairs with the back end's release of the index.
            let end = parallax_load_acquire_u32(base + 8)
            while consumed != end {
                let entry = entry(consumed)
                body(
                    BlkfrontResponse(
                        id: entry.loadUnaligned(as: UInt64.self),
                        operation: entry.load(fromByteOffset: 8, as: UInt8.self),
                        status: entry.loadUnaligned(fromByteOffset: 10, as: Int16.self)))
                consumed &+= 1
            }
            parallax_store_relaxed_u32(base + 12, consumed &+ 1)
            parallax_fence_seq_cst()
            if parallax_load_acquire_u32(base + 8) == consumed { return }
        }
    }

    package mutating func reap() -> [BlkfrontResponse] {
        var result: [BlkfrontResponse] = []
        reap { result.append($0) }
        return result
    }

    /// Takes the back end's event. True: there was one.
    package func takeEvent() -> Bool {
        var count: UInt64 = 0
        return parallax_eventfd_read(event, &count) >= 0
    }

    // Fields that only the back end writes, or that a bad front end writes at the wrong time.
    package var requestProducer: UInt32 {
        get { parallax_load_relaxed_u32(base) }
        nonmutating set { parallax_store_release_u32(base, newValue) }
    }
    package var requestEvent: UInt32 { parallax_load_relaxed_u32(base + 4) }
    package var responseProducer: UInt32 { parallax_load_relaxed_u32(base + 8) }
    package var responseEvent: UInt32 {
        get { parallax_load_relaxed_u32(base + 12) }
        nonmutating set { parallax_store_relaxed_u32(base + 12, newValue) }
    }
}
