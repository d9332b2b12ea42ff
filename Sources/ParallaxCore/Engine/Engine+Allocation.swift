// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

extension Engine {
    /// Leaves that one query looks at before it answers with what it has: the asker comes again.
    private static let leavesPerQuery = 512

    /// Answers which sectors of the request's range are holes, as `AllocationExtent`s in its one
    /// data segment. Reads nodes, never data.
    mutating func startAllocation(_ part: Int) {
        let request = requests[Int(parts[part].request)].request
        let end = request.firstSector + request.sectorCount
        while parts[part].cursor < end, parts[part].stagedBlocks < Int32(Self.leavesPerQuery) {
            let sector = parts[part].cursor
            let block = sector / UInt64(sectorsPerBlock)
            switch walk(part, to: block) {
            case .hole(let endBlock):
                let (next, overflow) = endBlock.multipliedReportingOverflow(
                    by: UInt64(sectorsPerBlock))
                guard report(part, request, upTo: overflow ? end : min(next, end), isHole: true)
                else { return finishAllocation(part, request) }
            case .leaf(let frame):
                guard reportLeaf(part, request, frame: frame, end: end) else {
                    return finishAllocation(part, request)
                }
            case .loading, .starved: return
            }
            parts[part].stagedBlocks += 1
        }
        finishAllocation(part, request)
    }

    private mutating func reportLeaf(
        _ part: Int, _ request: BlockRequest, frame: Int, end: UInt64
    ) -> Bool {
        let entries = forest.cache.entries(frame)
        let perBlock = UInt64(sectorsPerBlock)
        repeat {
            let block = parts[part].cursor / perBlock
            let isHole = entries[Int(block % UInt64(radixFanout))].isHole
            guard report(part, request, upTo: min((block + 1) * perBlock, end), isHole: isHole)
            else { return false }
        } while parts[part].cursor < end
            && parts[part].cursor % (perBlock * UInt64(radixFanout)) != 0
        return true
    }

    /// Moves the cursor to `sector`, lengthening the last extent or beginning another. False when
    /// there is no room for one.
    private mutating func report(
        _ part: Int, _ request: BlockRequest, upTo sector: UInt64, isHole: Bool
    ) -> Bool {
        guard let answer = extents(of: request) else { return false }
        let count = UInt64(sector - parts[part].cursor)
        let used = Int(parts[part].blockCount)
        if used > 0 && answer[used - 1].isHole == isHole {
            answer[used - 1].sectorCount += count
        } else {
            guard used < answer.count else { return false }
            answer.initializeElement(
                at: used, to: AllocationExtent(sectorCount: count, isHole: isHole))
            parts[part].blockCount += 1
        }
        parts[part].cursor = sector
        return true
    }

    private func extents(of request: BlockRequest) -> UnsafeMutableBufferPointer<AllocationExtent>?
    {
        guard let memory = request.segments?.pointee else { return nil }
        let count = memory.count / MemoryLayout<AllocationExtent>.stride
        return UnsafeMutableBufferPointer(
            start: memory.base.assumingMemoryBound(to: AllocationExtent.self), count: count)
    }

    private mutating func finishAllocation(_ part: Int, _ request: BlockRequest) {
        let used = Int(parts[part].blockCount)
        if let answer = extents(of: request), used < answer.count {
            answer.initializeElement(
                at: used, to: AllocationExtent(sectorCount: 0, isHole: true))
        }
        finishPart(part)
    }
}
