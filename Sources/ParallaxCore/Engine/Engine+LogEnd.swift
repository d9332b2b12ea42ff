// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// What lies where the log goes on.
///
/// ```
///   before    | chunk n-1 | chunk n, of which a crash has left a part
///   after     | chunk n-1 | zeros
/// ```
/// A part of a chunk ends the log. But the next chunk goes to the same place and may be torn by
/// another crash, and what gets through of it may be just what was missing: most of a header is
/// zeros, whatever chunk it is of. Then the old chunk, whose loss guests have seen, would be whole
/// and its generation that of the one before. So it is made impossible before anybody is answered.
///
/// Only this one: chunks behind it are of an older generation than the next.
extension Engine {
    /// Torn itself, this may make the old chunk whole: then it is there, as it might have been.
    func clearLogEnd(medium: some StoreMedium) throws(StoreError) {
        guard inspection == nil else { return }
        if log.head < superblock.extentBlocks, let slot = forest.extents.slot(of: log.extent) {
            try clear(slot, block: log.head, medium: medium)
        }
        // The next chunk may also be at the beginning of the next extent, if it fits nowhere else.
        if let slot = forest.extents.slot(of: log.extent.next) {
            try clear(slot, block: 0, medium: medium)
        }
    }

    private func clear(
        _ slot: ExtentSlot, block: Int, medium: some StoreMedium
    ) throws(StoreError) {
        let content = BlockBuffer()
        let offset = superblock.byteOffset(slot: slot, block: block)
        do throws(MediumError) {
            try medium.read(at: offset, into: content.bytes)
            if Memory.isZero(content.base, count: blockBytes) { return }
        } catch {
            // What cannot be read will be written by the log as well.
        }
        content.zero()
        do throws(MediumError) {
            try medium.write(at: offset, from: UnsafeRawBufferPointer(content.bytes))
        } catch { throw StoreError(error) }
    }
}

extension Engine {
    /// Whether a chunk behind the end of the log says that the missing one was durable when it was
    /// written: then a crash cannot be the reason that it is missing. If the log had gone on, then
    /// in this extent and in those behind it, as far as it is known where they are. One in which
    /// there is nothing does not end the search: a device that lies may have lost it as a whole.
    func isContradicted(
        _ reader: inout LogReader, medium: some StoreMedium
    ) -> Bool {
        let (extent, slot, block) = (reader.extent, reader.slot, reader.block)
        var leases: [ExtentNumber: ExtentSlot] = [:]
        var isContradicted = reader.isContradictedHere(&leases, medium: medium)
        while !isContradicted,
            let next = leases[reader.extent.next] ?? forest.extents.slot(of: reader.extent.next)
        {
            reader.enter(reader.extent.next, slot: next)
            isContradicted = reader.isContradictedHere(&leases, medium: medium)
        }
        reader.enter(extent, slot: slot)
        reader.block = block
        return isContradicted
    }
}
