// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Names that are in use. Of two things with one name the second gets its number as well.
struct UniqueNames {
    private var names: Set<String> = []

    /// Takes the name, or one like it if it is taken; which.
    mutating func take(_ name: String, number: UInt64) -> String {
        var candidate = name
        var attempt = 1
        while !names.insert(candidate).inserted {
            let suffix = attempt == 1 ? "-\(number)" : "-\(number)-\(attempt)"
            var stem = name
            while stem.utf8.count + suffix.utf8.count > Limits.vdiNameBytes.upperBound {
                stem.removeLast()
            }
            candidate = stem + suffix
            attempt += 1
        }
        return candidate
    }
}

/// Disks and snapshots that nobody could call, or tell from each other.
extension Engine {
    /// The name of the empty disk that snapshots get whose own disk's record is lost.
    static func nameOfLost(_ vdi: VDIIdentifier) -> String { "lost-\(vdi.rawValue)" }

    /// Snapshots without a disk get an empty one: what is in them can be cloned, or the disk be rolled
    /// back to one of them. It was not there for the replay, so nothing of what the log says of the
    /// lost one is in it.
    mutating func giveDisksToSnapshots() {
        let orphans = (0..<catalog.versions.count).filter { row in
            let version = catalog.versions[row]
            return (version.state == .visible || version.state == .pending)
                && catalog.handle(of: version.vdi) == nil
        }
        for row in orphans.sorted(by: {
            catalog.versions[$0].identifier.sequence < catalog.versions[$1].identifier.sequence
        }) {
            let version = catalog.versions[row]
            let known = catalog.handle(of: version.vdi).map { Int($0) }
            guard let handle = known ?? makeEmptyDisk(for: version) else { continue }
            catalog.vdis[handle].sizeBlocks = max(
                catalog.vdis[handle].sizeBlocks, version.sizeBlocks)
            catalog.appendSnapshot(row, to: handle)
            if version.state == .pending { catalog.pendingRows.append(UInt32(row)) }
        }
    }

    private mutating func makeEmptyDisk(for version: Version) -> Int? {
        catalog.insert(
            VDIRecord(
                identifier: version.vdi, name: Self.nameOfLost(version.vdi),
                sizeBytes: version.sizeBlocks * UInt64(blockBytes),
                createdAtNanoseconds: version.createdAtNanoseconds), page: nil)
    }

    mutating func renameVDI(_ handle: Int, _ names: inout UniqueNames) {
        let name = catalog.names[handle]
        let unique = names.take(name, number: catalog.vdis[handle].identifier.rawValue)
        guard unique != name else { return }
        catalog.names[handle] = unique
        catalog.resizeRecord(handle)
    }

    mutating func renameSnapshots(of handle: Int) {
        var names = UniqueNames()
        var row = Int(catalog.vdis[handle].firstSnapshot)
        while row >= 0 {
            var details = catalog.versions.decodedDetails(row)
            let sequence = catalog.versions[row].identifier.sequence
            let unique = names.take(details.name, number: sequence)
            if unique != details.name {
                details.name = unique
                // The longer name may be too much for what there is to say.
                if !details.isValid { details.comment = "" }
                catalog.setDetails(row: row, details.encoded)
            }
            row = Int(catalog.versions[row].nextInVDI)
        }
    }
}
