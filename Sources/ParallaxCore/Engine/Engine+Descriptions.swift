// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// What lists say of VDIs and snapshots.
extension Engine {
    /// All VDIs of this stream, those being deleted included; for the start, when nobody is served.
    package mutating func vdis() -> [VDISummary] {
        var summaries: [VDISummary] = []
        for handle in 0..<catalog.count where catalog.vdis[handle].kind == .head {
            findAncestor(catalog.vdis[handle].version)
            summaries.append(catalog.summary(handle))
        }
        return summaries
    }

    /// LIMIT: rows that one page of the list looks at.
    private static let rowsPerPage = 16384

    /// The snapshots of this stream by place in the table, from `cursor` on: at most `limit`, and
    /// perhaps fewer though there are more. Deleted ones are left out; members of unfinished groups
    /// are in it. For the start, too.
    package mutating func snapshots(from cursor: Int, limit: Int) -> SnapshotPage {
        var page = SnapshotPage(snapshots: [], next: nil)
        var row = max(0, cursor)
        let end = min(catalog.versions.count, row + Self.rowsPerPage)
        while row < end, page.snapshots.count < limit {
            if catalog.isVisible(row) {
                findAncestor(catalog.versions[row].parent)
                page.snapshots.append(catalog.summary(row: row))
            }
            row += 1
        }
        if row < catalog.versions.count { page.next = row }
        return page
    }

    private mutating func findAncestor(_ row: Int32) {
        var hops = Int.max
        _ = catalog.findVisibleAncestor(row, hops: &hops)
    }

    package func summary(of identifier: VDIIdentifier) -> VDISummary? {
        catalog.handle(of: identifier).map { catalog.summary(Int($0)) }
    }

    /// nil when there is no such snapshot, or it is deleted.
    package func summary(of identifier: SnapshotIdentifier) -> SnapshotSummary? {
        visibleRow(of: identifier).map { catalog.summary(row: $0) }
    }
}

/// Lists beside guests. Between a disk and the snapshot that it continues there may be a million that are
/// deleted, each with a clone of its own: so one step passes over a bounded number of them, and the next
/// goes on from there.
extension Engine {
    /// LIMIT: hops over deleted versions in one step of a list.
    static let hopsPerStep = 4096

    package mutating func describe(_ list: inout DescriptionList<VDIIdentifier, VDISummary>) {
        var hops = Self.hopsPerStep
        while let identifier = list.next {
            guard let handle = catalog.handle(of: identifier).map(Int.init) else {
                list.answer(nil)
                continue
            }
            guard catalog.findVisibleAncestor(catalog.vdis[handle].version, hops: &hops) else {
                return
            }
            list.answer(catalog.summary(handle))
        }
    }

    package mutating func describe(
        _ list: inout DescriptionList<SnapshotIdentifier, SnapshotSummary>
    ) {
        var hops = Self.hopsPerStep
        while let identifier = list.next {
            guard let row = visibleRow(of: identifier) else {
                list.answer(nil)
                continue
            }
            guard catalog.findVisibleAncestor(catalog.versions[row].parent, hops: &hops) else {
                return
            }
            list.answer(catalog.summary(row: row))
        }
    }
}
