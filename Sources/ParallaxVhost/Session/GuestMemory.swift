// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux
internal import Glibc
package import ParallaxCore

/// Why a piece of guest memory was not mapped.
package enum MemoryFault: UInt8, Error, BitwiseCopyable, Sendable, CaseIterable {
    case empty
    case notPageAligned
    case addressOverflow
    case overlap
    case tooManyRegions
    case tooLarge
    case notMemory
    case fileTooShort
    case mappingFailed
    case unknownRegion
}

/// The guest's memory in our address space.
///
/// ```
///   guest physical      front end's own         ours
///   0 ... 0xa0000       user + 0          ->    base of region 0
///   1 MiB ... 3 GiB     user + 1 MiB      ->    base of region 1     (regions need not be
///   4 GiB ...           user + 3 GiB      ->    base of region 2      adjacent in our space)
/// ```
///
/// Owned by the shard. Invariants: I1 guest ranges of the regions do not overlap and do not wrap;
/// I2 each region lay within its file when it was mapped, and that file is nowhere but in memory;
/// I3 an address is handed out only with a length that stays inside one region; I4 touching memory
/// whose file has been cut since gives zeroes, not a signal that ends the daemon, and `loss` has
/// happened before anybody can read one.
package struct GuestMemory: ~Copyable {
    private struct Mapping: BitwiseCopyable {
        var region: MemoryRegion
        /// Our address of the region's first byte.
        var base: UnsafeMutableRawPointer
        var mapStart: UnsafeMutableRawPointer
        var mapByteCount: Int
        var guardNumber: Int32
    }

    private let mappings: UnsafeMutablePointer<Mapping>
    package private(set) var count = 0
    /// Where the last guest address was found; the next one is likely there as well.
    private var lastHit = 0
    /// Of any region since the last `reset`. Goes along in the requests whose data are here, so it stays
    /// as long as we do, which is longer than any of them is in the engine.
    package let loss = MemoryLoss.allocate()

    package init() {
        mappings = .allocate(capacity: VhostLimits.memoryRegionsMax)
    }

    deinit {
        for index in 0..<count { Self.unmap(mappings[index]) }
        mappings.deallocate()
        loss.deallocate()
    }

    /// Maps `region` from the file. The caller may close the file descriptor afterwards.
    package mutating func add(
        _ region: MemoryRegion, fileDescriptor: Int32
    ) throws(MemoryFault) {
        try check(region)
        mappings[count] = try map(region, fileDescriptor)
        count += 1
    }

    /// No address of the region may be in use any more.
    package mutating func remove(_ region: MemoryRegion) throws(MemoryFault) {
        for index in 0..<count {
            let known = mappings[index].region
            guard known.guestAddress == region.guestAddress, known.byteCount == region.byteCount,
                known.userAddress == region.userAddress
            else { continue }
            Self.unmap(mappings[index])
            count -= 1
            mappings[index] = mappings[count]
            lastHit = 0
            return
        }
        throw .unknownRegion
    }

    package mutating func removeAll() {
        for index in 0..<count { Self.unmap(mappings[index]) }
        count = 0
        lastHit = 0
    }

    /// The front end has gone: the next one has lost nothing yet. No request has an address here.
    package mutating func reset() {
        removeAll()
        loss.clear()
    }

    private func check(_ region: MemoryRegion) throws(MemoryFault) {
        let page: UInt64 = 4096
        guard count < VhostLimits.memoryRegionsMax else { throw .tooManyRegions }
        guard region.byteCount > 0 else { throw .empty }
        guard
            (region.guestAddress | region.byteCount | region.userAddress | region.fileOffset)
                % page == 0
        else { throw .notPageAligned }
        guard region.byteCount <= VhostLimits.guestMemoryBytesMax else { throw .tooLarge }
        guard region.guestAddress <= UInt64.max - region.byteCount,
            region.userAddress <= UInt64.max - region.byteCount,
            region.fileOffset <= UInt64(Int64.max) - region.byteCount
        else { throw .addressOverflow }
        var total = region.byteCount
        for index in 0..<count {
            let known = mappings[index].region
            guard
                region.guestAddress >= known.guestAddress + known.byteCount
                    || known.guestAddress >= region.guestAddress + region.byteCount
            else { throw .overlap }
            total += known.byteCount
        }
        guard total <= VhostLimits.guestMemoryBytesMax else { throw .tooLarge }
    }

    /// Maps whole huge pages where the file is made of them, as the kernel demands it.
    private func map(
        _ region: MemoryRegion, _ fileDescriptor: Int32
    ) throws(MemoryFault) -> Mapping {
        // A page of any other file may come from a network, or from the front end itself.
        guard parallax_peer_file_kind(fileDescriptor) == PARALLAX_PEER_FILE_MEMORY else {
            throw .notMemory
        }
        var status = stat()
        guard fstat(fileDescriptor, &status) == 0 else { throw .notMemory }
        let end = region.fileOffset + region.byteCount
        guard status.st_size >= 0, UInt64(status.st_size) >= end else { throw .fileTooShort }
        let unit = UInt64(max(parallax_peer_file_map_unit(fileDescriptor), 4096))
        guard unit.nonzeroBitCount == 1, unit <= 1 << 30 else { throw .notMemory }
        let start = region.fileOffset & ~(unit - 1)
        let length = Int((end - start + unit - 1) & ~(unit - 1))
        guard
            let address = mmap(
                nil, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fileDescriptor,
                off_t(start)), address != MAP_FAILED
        else { throw .mappingFailed }
        let guardNumber = parallax_guard_add(address, length, loss.word)
        guard guardNumber >= 0 else {
            _ = munmap(address, length)
            throw .mappingFailed
        }
        // A core dump of the daemon is not the place for the guest's secrets.
        _ = madvise(address, length, MADV_DONTDUMP)
        return Mapping(
            region: region, base: address + Int(region.fileOffset - start), mapStart: address,
            mapByteCount: length, guardNumber: guardNumber)
    }

    private static func unmap(_ mapping: Mapping) {
        _ = parallax_guard_remove(mapping.guardNumber)
        _ = munmap(mapping.mapStart, mapping.mapByteCount)
    }
}

extension GuestMemory {
    /// As much of the guest range as is in one piece in our address space; nil where nothing is.
    package mutating func piece(at address: UInt64, byteCount: UInt64) -> DataSegment? {
        if lastHit < count, let found = piece(in: lastHit, address, byteCount) { return found }
        for index in 0..<count {
            if let found = piece(in: index, address, byteCount) {
                lastHit = index
                return found
            }
        }
        return nil
    }

    private func piece(in index: Int, _ address: UInt64, _ byteCount: UInt64) -> DataSegment? {
        let mapping = mappings[index]
        guard address >= mapping.region.guestAddress else { return nil }
        let offset = address - mapping.region.guestAddress
        guard offset < mapping.region.byteCount else { return nil }
        let length = min(byteCount, mapping.region.byteCount - offset)
        return DataSegment(base: mapping.base + Int(offset), count: Int(length))
    }

    /// Our address of a range in the front end's own address space, if it is within one region.
    package func pointer(
        userAddress: UInt64, byteCount: UInt64
    ) -> UnsafeMutableRawPointer? {
        for index in 0..<count {
            let region = mappings[index].region
            guard userAddress >= region.userAddress else { continue }
            let offset = userAddress - region.userAddress
            guard offset < region.byteCount, byteCount <= region.byteCount - offset else {
                continue
            }
            return mappings[index].base + Int(offset)
        }
        return nil
    }

    /// Copies 16 bytes that may cross from one region into the next.
    mutating func load16(at address: UInt64) -> (UInt64, UInt64)? {
        var words: (UInt64, UInt64) = (0, 0)
        let isComplete = withUnsafeMutableBytes(of: &words) { bytes in
            var done = 0
            while done < 16 {
                let (next, wraps) = address.addingReportingOverflow(UInt64(done))
                guard !wraps, let piece = piece(at: next, byteCount: UInt64(16 - done)),
                    let to = bytes.baseAddress
                else { return false }
                parallax_copy_once(to + done, piece.base, piece.count)
                done += piece.count
            }
            return true
        }
        return isComplete ? words : nil
    }
}
