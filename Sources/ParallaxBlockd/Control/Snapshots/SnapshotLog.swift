// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxControl
package import ParallaxCore

/// One snapshot as the directory knows it: what never changes by itself. 32 bytes for most, since
/// a store may have a million.
package struct SnapshotEntry: Sendable {
    /// What most snapshots do not have: a name of their own, a comment, labels, holds.
    final class Extra: Sendable {
        let details: SnapshotDetails

        init(_ details: SnapshotDetails) { self.details = details }
    }

    package let identifier: SnapshotIdentifier
    package let createdAtNanoseconds: UInt64
    fileprivate(set) var extra: Extra?
    package let origin: SnapshotDetails.Origin
    fileprivate var isDeleted = false

    package init(
        identifier: SnapshotIdentifier, createdAtNanoseconds: UInt64, details: SnapshotDetails
    ) {
        self.identifier = identifier
        self.createdAtNanoseconds = createdAtNanoseconds
        origin = details.origin
        extra = Self.extra(details, createdAtNanoseconds)
    }

    fileprivate static func extra(_ details: SnapshotDetails, _ createdAt: UInt64) -> Extra? {
        let isPlain =
            details.comment.isEmpty && details.labels.isEmpty && details.holds.isEmpty
            && details.name == TimeText.milliseconds(createdAt)
        return isPlain ? nil : Extra(details)
    }

    package var details: SnapshotDetails {
        extra?.details
            ?? SnapshotDetails(name: TimeText.milliseconds(createdAtNanoseconds), origin: origin)
    }

    package var name: String {
        extra?.details.name ?? TimeText.milliseconds(createdAtNanoseconds)
    }

    /// Rises with each snapshot of the VDI.
    package var sequence: UInt64 { identifier.sequence }

    package var isHeld: Bool { extra?.details.isHeld ?? false }
}

/// The snapshots of one VDI, oldest first.
///
/// ```
///  entries   [ 3 | 4 | x | 7 | x | 9 ]      by sequence; x is deleted, and squeezed out
///                  ^                        when half of them are
///  byName    "before-upgrade" -> 4          only names that are not the time of their making
/// ```
/// They are in the order in which they were made. Their times usually are too, but the clock may
/// have been put back; then look-ups by time go through all.
package struct SnapshotLog: Sendable {
    private var entries: [SnapshotEntry] = []
    private var deletedCount = 0
    private var byName: [String: UInt64] = [:]
    private var isInTimeOrder = true
    /// Names that snapshots may turn out to have at the next start.
    private var reservedNames: Set<String> = []
    package private(set) var heldCount = 0

    package init() {}

    package var count: Int { entries.count - deletedCount }

    /// The newest. Deleted ones at the end are squeezed out at once.
    package var newest: SnapshotEntry? { entries.last }

    package var oldest: SnapshotEntry? { entries.first { !$0.isDeleted } }

    package mutating func append(_ entry: SnapshotEntry) {
        if let last = entries.last {
            precondition(last.sequence < entry.sequence, "SnapshotLog: not the newest")
            if last.createdAtNanoseconds > entry.createdAtNanoseconds { isInTimeOrder = false }
        }
        if entry.isHeld { heldCount += 1 }
        if let extra = entry.extra { index(extra.details.name, entry) }
        entries.append(entry)
    }

    private mutating func index(_ name: String, _ entry: SnapshotEntry) {
        guard name != TimeText.milliseconds(entry.createdAtNanoseconds) else { return }
        byName[name] = entry.sequence
    }

    package mutating func remove(_ entry: SnapshotEntry) {
        guard let place = place(of: entry.sequence), !entries[place].isDeleted else { return }
        if entries[place].isHeld { heldCount -= 1 }
        if let extra = entry.extra, byName[extra.details.name] == entry.sequence {
            byName[extra.details.name] = nil
        }
        entries[place].isDeleted = true
        entries[place].extra = nil
        deletedCount += 1
        while entries.last?.isDeleted == true {
            entries.removeLast()
            deletedCount -= 1
        }
        guard deletedCount > 32, deletedCount > entries.count / 2 else { return }
        entries.removeAll { $0.isDeleted }
        deletedCount = 0
    }

    /// Other details of the same name.
    package mutating func update(_ entry: SnapshotEntry, _ details: SnapshotDetails) {
        guard let place = place(of: entry.sequence), !entries[place].isDeleted else { return }
        precondition(entry.name == details.name, "SnapshotLog: a snapshot keeps its name")
        heldCount += (details.isHeld ? 1 : 0) - (entries[place].isHeld ? 1 : 0)
        entries[place].extra = SnapshotEntry.extra(details, entry.createdAtNanoseconds)
    }

    /// From now on no new snapshot may have this name.
    package mutating func reserve(_ name: String) { reservedNames.insert(name) }

    /// Whether a new snapshot may not have this name.
    package func isTaken(_ name: String) -> Bool {
        reservedNames.contains(name) || find(name) != nil
    }

    private func place(of sequence: UInt64) -> Int? {
        let place = firstPlace { $0.sequence >= sequence }
        return place < entries.count && entries[place].sequence == sequence ? place : nil
    }

    /// Binary search: the first entry of which `isThere` is true, as it is of all that follow.
    private func firstPlace(where isThere: (SnapshotEntry) -> Bool) -> Int {
        var low = 0
        var high = entries.count
        while low < high {
            let middle = (low + high) / 2
            if isThere(entries[middle]) { high = middle } else { low = middle + 1 }
        }
        return low
    }
}

extension SnapshotLog {
    package func find(_ name: String) -> SnapshotEntry? {
        if let sequence = byName[name] { return place(of: sequence).map { entries[$0] } }
        guard let time = TimeText.parse(name), name.utf8.count == 24 else { return nil }
        let end = time + 1_000_000
        let start = isInTimeOrder ? firstPlace { $0.createdAtNanoseconds >= time } : 0
        for entry in entries[start...] {
            if isInTimeOrder && entry.createdAtNanoseconds >= end { break }
            if !entry.isDeleted && time..<end ~= entry.createdAtNanoseconds && entry.name == name {
                return entry
            }
        }
        return nil
    }

    package func find(_ identifier: SnapshotIdentifier) -> SnapshotEntry? {
        guard let place = place(of: identifier.sequence), !entries[place].isDeleted,
            entries[place].identifier == identifier
        else { return nil }
        return entries[place]
    }

    /// The newest that was made at `time` or before; of several of one time the last.
    package func newest(notAfter time: UInt64) -> SnapshotEntry? {
        var found: SnapshotEntry?
        guard isInTimeOrder else {
            for entry in entries where !entry.isDeleted && entry.createdAtNanoseconds <= time {
                if entry.createdAtNanoseconds >= found?.createdAtNanoseconds ?? 0 { found = entry }
            }
            return found
        }
        let end = firstPlace { $0.createdAtNanoseconds > time }
        return entries[..<end].last { !$0.isDeleted }
    }

    /// What `text` stands for: a name, or else `latest`, a time or an age.
    package func resolve(_ text: String, nowNanoseconds: UInt64) -> SnapshotEntry? {
        if let entry = find(text) { return entry }
        switch SnapshotSelector(text, nowNanoseconds: nowNanoseconds) {
        case .latest: return newest
        case .notAfter(let time): return newest(notAfter: time)
        case nil: return nil
        }
    }

    /// At most `limit`, from the one after `previous` on, which may have been deleted.
    package func page(after previous: SnapshotIdentifier?, limit: Int) -> [SnapshotEntry] {
        let start = previous.map { last in firstPlace { $0.sequence > last.sequence } } ?? 0
        return Array(entries[start...].lazy.filter { !$0.isDeleted }.prefix(limit))
    }

    package var all: [SnapshotEntry] { entries.filter { !$0.isDeleted } }

    /// A name for a snapshot of this time that no other has.
    package static func automaticName(
        _ nanoseconds: UInt64, isTaken: (String) -> Bool
    ) -> String {
        let name = TimeText.milliseconds(nanoseconds)
        guard isTaken(name) else { return name }
        var number = 2
        while isTaken("\(name)-\(number)") { number += 1 }
        return "\(name)-\(number)"
    }
}
