// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxCore

/// The engine of the smallest kind, for the rigs of the front ends: the bytes of a disk in memory.
extension UnsafeMutableRawBufferPointer {
    func perform(_ request: BlockRequest) -> BlockStatus {
        let start = Int(request.firstSector) * sectorBytes
        let length = Int(request.sectorCount) * sectorBytes
        guard start + length <= count else { return .outOfRange }
        switch request.operation {
        case .flush: return .ok
        case .discard, .writeZeroes:
            if let base = baseAddress { memset(base + start, 0, length) }
            return .ok
        case .read, .write: return transfer(request, start, length)
        case .allocation: return .invalid
        }
    }

    private func transfer(_ request: BlockRequest, _ start: Int, _ length: Int) -> BlockStatus {
        var offset = start
        for index in 0..<Int(request.segmentCount) {
            guard let segment = request.segments?[index], let base = baseAddress else {
                return .invalid
            }
            if request.operation == .read {
                memcpy(segment.base, base + offset, segment.count)
            } else {
                memcpy(base + offset, segment.base, segment.count)
            }
            offset += segment.count
        }
        return offset - start == length ? .ok : .invalid
    }
}
