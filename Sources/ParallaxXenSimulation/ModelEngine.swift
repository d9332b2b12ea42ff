// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import Glibc
internal import ParallaxCore

/// What a simulated engine or machine does wrong on purpose: the simulation has to find it.
package enum BlkifCanary: String, CaseIterable, Sendable {
    /// A write is answered and not carried out.
    case lostWrite
    /// A read gives what is in the next sector.
    case shiftedRead
    /// An event of the guest does not reach the back end.
    case lostEvent
    /// The back end's event does not reach the guest.
    case lostAnswerEvent
}

/// An engine that ends its requests in any order: the bytes of a disk in memory.
///
/// SAFETY: owns the disk's memory. A request's segments lead to pages that the device keeps mapped
/// until the reply.
final class ModelEngine {
    let disk: UnsafeMutableRawBufferPointer
    private(set) var sectors: Int
    var pending: [BlockRequest] = []
    private var canary: BlkifCanary?
    private var countdown = 40

    init(capacity: Int, sectors: Int, canary: BlkifCanary?) {
        disk = UnsafeMutableRawBufferPointer(
            start: calloc(capacity, sectorBytes), count: capacity * sectorBytes)
        self.sectors = sectors
        self.canary = canary
    }

    deinit { free(disk.baseAddress) }

    /// The same disk, with nothing of the requests that had been under way.
    func copy() -> ModelEngine {
        let other = ModelEngine(
            capacity: disk.count / sectorBytes, sectors: sectors, canary: canary)
        other.disk.copyMemory(from: UnsafeRawBufferPointer(disk))
        other.countdown = countdown
        return other
    }

    /// What is cut off reads as zeros if it comes back.
    func resize(_ count: Int) {
        if count < sectors {
            let rest = disk[(count * sectorBytes)..<(sectors * sectorBytes)]
            UnsafeMutableRawBufferPointer(rebasing: rest).initializeMemory(
                as: UInt8.self, repeating: 0)
        }
        sectors = count
    }

    func bytes(_ sector: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(
            rebasing: disk[(sector * sectorBytes)..<((sector + 1) * sectorBytes)])
    }

    /// True now and then, with the canary.
    func isCaught(by wanted: BlkifCanary) -> Bool {
        guard canary == wanted else { return false }
        countdown -= 1
        return countdown <= 0 && countdown % 8 == 0
    }

    func perform(_ request: BlockRequest) -> BlockStatus {
        let start = Int(request.firstSector) * sectorBytes
        let length = Int(request.sectorCount) * sectorBytes
        guard Int(request.firstSector) + Int(request.sectorCount) <= sectors else {
            return .outOfRange
        }
        switch request.operation {
        case .flush: return .ok
        case .discard, .writeZeroes:
            UnsafeMutableRawBufferPointer(rebasing: disk[start..<(start + length)])
                .initializeMemory(as: UInt8.self, repeating: 0)
            return .ok
        case .read, .write:
            if request.operation == .write, isCaught(by: .lostWrite) { return .ok }
            return transfer(request, start, length)
        case .allocation: return .invalid
        }
    }

    private func transfer(_ request: BlockRequest, _ start: Int, _ length: Int) -> BlockStatus {
        guard let base = disk.baseAddress else { return .ioError }
        let isShifted = request.operation == .read && isCaught(by: .shiftedRead)
        var offset = start
        for index in 0..<Int(request.segmentCount) {
            guard let segment = request.segments?[index] else { return .invalid }
            if request.operation == .read {
                let source = isShifted ? max(0, offset - sectorBytes) : offset
                memcpy(segment.base, base + source, segment.count)
            } else {
                memcpy(base + offset, segment.base, segment.count)
            }
            offset += segment.count
        }
        return offset - start == length ? .ok : .invalid
    }
}
