// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxCore

/// A disk in memory that answers like the engine: in any order, later, or with errors, as told.
final class NBDTestEngine {
    let byteCount: Int
    let bytes: UnsafeMutableRawPointer
    /// One flag per 4 KiB block: has been written and not discarded.
    var isAllocated: [Bool]
    /// Requests that have not been answered.
    private(set) var pending: [BlockRequest] = []
    /// All requests so far, oldest first.
    private(set) var history: [BlockRequest] = []
    /// Touching one of these sectors ends with that status.
    var failures: [UInt64: BlockStatus] = [:]
    var knowsAllocation = true

    init(byteCount: Int) {
        self.byteCount = byteCount
        let mapping = mmap(
            nil, max(byteCount, 4096), PROT_READ | PROT_WRITE,
            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        guard let mapping, mapping != MAP_FAILED else { preconditionFailure("no memory") }
        bytes = mapping
        isAllocated = Array(repeating: false, count: (byteCount + blockBytes - 1) / blockBytes)
    }

    deinit { munmap(bytes, max(byteCount, 4096)) }

    /// Behind the back of every client.
    func fill(at offset: Int, _ data: [UInt8]) {
        UnsafeMutableRawBufferPointer(start: bytes + offset, count: data.count)
            .copyBytes(from: data)
    }

    func holds(_ data: [UInt8], at offset: Int) -> Bool {
        memcmp(bytes + offset, data, data.count) == 0
    }

    func submit(_ request: BlockRequest) {
        pending.append(request)
        history.append(request)
    }

    /// Answers the `index`-th waiting request.
    func answer(_ index: Int) -> BlockReply {
        let request = pending.remove(at: index)
        return BlockReply(session: request.session, tag: request.tag, status: perform(request))
    }

    private func perform(_ request: BlockRequest) -> BlockStatus {
        let end = request.firstSector + request.sectorCount
        if end * UInt64(sectorBytes) > UInt64(byteCount) { return .outOfRange }
        for (sector, status) in failures where (request.firstSector..<end).contains(sector) {
            return status
        }
        let place = bytes + Int(request.firstSector) * sectorBytes
        let count = Int(request.sectorCount) * sectorBytes
        switch request.operation {
        case .read:
            copy(request) { buffer, offset in memcpy(buffer.base, place + offset, buffer.count) }
        case .write:
            copy(request) { buffer, offset in memcpy(place + offset, buffer.base, buffer.count) }
            mark(request, allocated: true)
        case .discard, .writeZeroes:
            memset(place, 0, count)
            mark(request, allocated: false)
        case .flush: break
        case .allocation: return listExtents(request)
        }
        return .ok
    }

    private func copy(_ request: BlockRequest, move: (DataSegment, Int) -> Void) {
        var offset = 0
        for index in 0..<Int(request.segmentCount) {
            guard let buffer = request.segments?[index] else { return }
            move(buffer, offset)
            offset += buffer.count
        }
        precondition(offset == Int(request.sectorCount) * sectorBytes, "wrong data length")
    }

    /// Zeroing forgets only blocks that are covered wholly.
    private func mark(_ request: BlockRequest, allocated: Bool) {
        let per = UInt64(sectorsPerBlock)
        let end = request.firstSector + request.sectorCount
        let first = allocated ? request.firstSector / per : (request.firstSector + per - 1) / per
        let last = allocated ? (end + per - 1) / per : end / per
        for block in first..<max(first, last) { isAllocated[Int(block)] = allocated }
    }

    private func listExtents(_ request: BlockRequest) -> BlockStatus {
        guard knowsAllocation, let list = request.segments?.pointee else { return .invalid }
        let capacity = list.count / MemoryLayout<AllocationExtent>.stride
        let extents = list.base.bindMemory(to: AllocationExtent.self, capacity: capacity)
        var count = 0
        var sector = request.firstSector
        let end = request.firstSector + request.sectorCount
        while sector < end, count < capacity {
            let block = Int(sector) / sectorsPerBlock
            let next = min(end, UInt64((block + 1) * sectorsPerBlock))
            let isHole = !isAllocated[block]
            if count > 0, extents[count - 1].isHole == isHole {
                extents[count - 1].sectorCount += next - sector
            } else {
                extents[count] = AllocationExtent(sectorCount: next - sector, isHole: isHole)
                count += 1
            }
            sector = next
        }
        return .ok
    }
}
