// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux
internal import Glibc
internal import ParallaxCore

/// Replies that wait for the socket, in the order in which they go out: each a header of at most
/// 32 bytes and perhaps a body, in a piece of the pool or in constant memory.
///
/// I1 `count <= capacity`. I2 A piece belongs to exactly one entry, until that has been sent.
///
/// SAFETY: owns headers and entries. Indices are masked.
struct ReplyQueue: ~Copyable {
    private struct Entry {
        var headerBytes: Int
        var body: UnsafeMutableRawPointer?
        var bodyBytes: Int
        /// Given back to the pool when the entry has been sent; -1: none.
        var piece: Int32
    }

    private let entries: UnsafeMutablePointer<Entry>
    private let headers: UnsafeMutableRawPointer
    private let gathered: UnsafeMutablePointer<DataSegment>
    private let mask: UInt32
    private var head: UInt32 = 0
    private var tail: UInt32 = 0
    /// Bytes of the first entry that have been sent.
    private var headSent = 0

    init() {
        let capacity = NBDLimits.repliesQueued
        precondition(capacity & (capacity - 1) == 0, "ReplyQueue: capacity is a power of two")
        entries = .allocate(capacity: capacity)
        headers = .allocate(byteCount: capacity * NBDReplyWriter.bytesMax, alignment: 8)
        gathered = .allocate(capacity: NBDLimits.buffersPerSend)
        mask = UInt32(capacity - 1)
    }

    deinit {
        entries.deallocate()
        headers.deallocate()
        gathered.deallocate()
    }

    var count: Int { Int(tail &- head) }
    var isEmpty: Bool { head == tail }
    var freeCapacity: Int { Int(mask) + 1 - count }

    /// Where the next entry's header is to be written, before `append`.
    var nextHeader: NBDReplyWriter { NBDReplyWriter(header(tail)) }

    mutating func append(
        headerBytes: Int, body: UnsafeMutableRawPointer? = nil, bodyBytes: Int = 0,
        piece: Int32 = -1
    ) {
        precondition(freeCapacity > 0, "ReplyQueue I1: append to a full queue")
        entries[Int(tail & mask)] = Entry(
            headerBytes: headerBytes, body: body, bodyBytes: bodyBytes, piece: piece)
        tail &+= 1
    }

    /// Sends as much as the socket takes in one call. Returns the bytes sent, 0 when the socket
    /// is full, a negated errno when it is broken.
    mutating func send(to socketFD: Int32, pool: inout BufferPool) -> Int {
        let bufferCount = gather()
        guard bufferCount > 0 else { return 0 }
        let count = parallax_send_vector(socketFD, gathered, bufferCount)
        guard count > 0 else { return count == -Int(EAGAIN) ? 0 : count }
        advance(by: count, pool: &pool)
        return count
    }

    mutating func removeAll(pool: inout BufferPool) {
        while !isEmpty { removeFirst(pool: &pool) }
    }

    private func header(_ index: UInt32) -> UnsafeMutableRawPointer {
        headers + Int(index & mask) * NBDReplyWriter.bytesMax
    }

    private func gather() -> Int {
        var count = 0
        var skip = headSent
        var index = head
        while index != tail, count + 2 <= NBDLimits.buffersPerSend {
            let entry = entries[Int(index & mask)]
            if skip < entry.headerBytes {
                gathered[count] = DataSegment(
                    base: header(index) + skip, count: entry.headerBytes - skip)
                count += 1
            }
            let bodySkip = max(0, skip - entry.headerBytes)
            if let body = entry.body, entry.bodyBytes > bodySkip {
                gathered[count] = DataSegment(
                    base: body + bodySkip, count: entry.bodyBytes - bodySkip)
                count += 1
            }
            skip = 0
            index &+= 1
        }
        return count
    }

    private mutating func advance(by count: Int, pool: inout BufferPool) {
        headSent += count
        while !isEmpty {
            let entry = entries[Int(head & mask)]
            let total = entry.headerBytes + entry.bodyBytes
            guard headSent >= total else { return }
            headSent -= total
            let rest = headSent
            removeFirst(pool: &pool)
            headSent = rest
        }
        precondition(headSent == 0, "ReplyQueue: more was sent than there was")
    }

    private mutating func removeFirst(pool: inout BufferPool) {
        let entry = entries[Int(head & mask)]
        if entry.piece >= 0 { pool.giveBack(entry.piece) }
        head &+= 1
        headSent = 0
    }
}
