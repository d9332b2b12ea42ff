// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxControl

/// How snapshots look to people.
extension Descriptions {
    static func list(_ snapshots: [SnapshotDescription]) -> String {
        let header = ["NAME", "TIME", "EXCLUSIVE", "PARENT", "HOLDS", "LABELS", "COMMENT"]
        var table = Table(header: header, rightAligned: [2, 4])
        for snapshot in snapshots {
            table.add([
                snapshot.name, snapshot.createdAt, exclusive(snapshot), parent(snapshot),
                snapshot.holds.isEmpty ? "-" : String(snapshot.holds.count),
                orDash(labels(snapshot)), orDash(snapshot.comment),
            ])
        }
        return table.text
    }

    static func details(_ snapshot: SnapshotDescription) -> String {
        var table = Table(header: [])
        table.add(["snapshot", snapshot.version])
        table.add(["id", snapshot.identifier])
        table.add(["time", snapshot.createdAt])
        table.add(["made", origin(snapshot.origin)])
        table.add(["size", ByteSize.formatExact(snapshot.sizeBytes)])
        table.add(["used", ByteSize.formatExact(snapshot.allocatedBytes)])
        table.add(["written", ByteSize.formatExact(snapshot.bornBytes)])
        table.add([
            "exclusive", snapshot.exclusiveBytes.map(ByteSize.formatExact) ?? "being counted",
        ])
        table.add([
            "shared",
            snapshot.exclusiveBytes.map { shared(snapshot.allocatedBytes, exclusive: $0) }
                ?? "being counted",
        ])
        table.add(["parent", snapshot.parent ?? "-"])
        table.add(["children", String(snapshot.childCount)])
        if !snapshot.comment.isEmpty { table.add(["comment", snapshot.comment]) }
        for (key, value) in snapshot.labels.sorted(by: { $0.key < $1.key }) {
            table.add(["label", "\(key)=\(value)"])
        }
        for hold in snapshot.holds { table.add(["held", "\(hold.reason) (\(hold.createdAt))"]) }
        table.add(["attached", attachment(snapshot.attachment)])
        return table.text
    }

    private static func origin(_ origin: SnapshotDescription.Origin) -> String {
        switch origin {
        case .manual: "by hand"
        case .scheduled: "by the schedule"
        case .automatic: "by Parallax"
        }
    }

    static func exclusive(_ snapshot: SnapshotDescription) -> String {
        snapshot.exclusiveBytes.map(ByteSize.format) ?? "..."
    }

    /// Its name alone when it is of the same VDI.
    private static func parent(_ snapshot: SnapshotDescription) -> String {
        guard let parent = snapshot.parent else { return "-" }
        guard let name = try? VersionName(parent), name.vdi == snapshot.vdi else { return parent }
        return name.snapshot ?? parent
    }

    static func labels(_ snapshot: SnapshotDescription) -> String {
        snapshot.labels.filter { !$0.key.hasPrefix(SnapshotText.reservedLabelPrefix) }
            .sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }.joined(separator: ",")
    }

    private static func orDash(_ text: String) -> String { text.isEmpty ? "-" : text }
}

/// Snapshots as a tree: what continues a snapshot stands below it. The newest continuation goes on
/// in the same column, so that a log of a hundred thousand has one; others are indented.
///
/// ```
///  monday
///  |- tuesday          left behind by a rollback to monday
///  wednesday
///  thursday
/// ```
enum SnapshotTree {
    static func text(_ snapshots: [SnapshotDescription]) -> String {
        let names = Set(snapshots.map(\.version))
        var children: [String: [SnapshotDescription]] = [:]
        var roots: [SnapshotDescription] = []
        for snapshot in snapshots {
            if let parent = snapshot.parent, names.contains(parent) {
                children[parent, default: []].append(snapshot)
            } else {
                roots.append(snapshot)
            }
        }
        var table = Table(header: ["NAME", "TIME", "EXCLUSIVE", "COMMENT"], rightAligned: [2])
        var waiting = roots.reversed().map { (snapshot: $0, depth: 0) }
        while let (snapshot, depth) = waiting.popLast() {
            let indent = depth == 0 ? "" : String(repeating: "   ", count: depth - 1) + "|- "
            table.add([
                indent + snapshot.name, snapshot.createdAt, Descriptions.exclusive(snapshot),
                snapshot.comment.isEmpty ? "-" : snapshot.comment,
            ])
            let next = children[snapshot.version] ?? []
            if let main = next.last { waiting.append((main, depth)) }
            waiting += next.dropLast().reversed().map { ($0, depth + 1) }
        }
        return table.text
    }
}
