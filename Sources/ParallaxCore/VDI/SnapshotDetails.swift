// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// What people and programs say about a snapshot. The engine keeps it, and looks only at whether
/// there are holds.
///
/// ```
///  offset size  field
///       0    1  origin: 0 by hand, 1 by the schedule, 2 by Parallax itself
///       1    1  labels
///       2    1  holds
///       3    1  bytes of the name
///       4    2  bytes of the comment
///       6    n  name, comment, UTF-8
///            m  per label: u8 bytes of the key, u8 bytes of the value, key, value
///            k  per hold: u64 seconds since 1970, u8 bytes of the reason, reason
/// ```
package struct SnapshotDetails: Equatable, Sendable {
    package enum Origin: UInt8, Sendable {
        case manual = 0
        case scheduled = 1
        /// Made by a rollback, of what it left behind.
        case automatic = 2
    }

    package struct Label: Equatable, Hashable, Sendable {
        package var key: String
        package var value: String

        package init(key: String, value: String) {
            self.key = key
            self.value = value
        }
    }

    package struct Hold: Equatable, Sendable {
        package var reason: String
        package var createdAtSeconds: UInt64

        package init(reason: String, createdAtSeconds: UInt64) {
            self.reason = reason
            self.createdAtSeconds = createdAtSeconds
        }
    }

    package var name: String
    package var comment: String
    package var labels: [Label]
    package var holds: [Hold]
    package var origin: Origin

    package init(
        name: String, comment: String = "", labels: [Label] = [], holds: [Hold] = [],
        origin: Origin = .manual
    ) {
        self.name = name
        self.comment = comment
        self.labels = labels
        self.holds = holds
        self.origin = origin
    }

    package var isHeld: Bool { !holds.isEmpty }
}

extension SnapshotDetails {
    private static let fixedBytes = 6

    package var encodedBytes: Int {
        Self.fixedBytes + name.utf8.count + comment.utf8.count
            + labels.reduce(0) { $0 + 2 + $1.key.utf8.count + $1.value.utf8.count }
            + holds.reduce(0) { $0 + 9 + $1.reason.utf8.count }
    }

    /// Whether the format has room for it (`Limits`). What a name may contain is the control
    /// plane's business.
    package var isValid: Bool {
        Limits.vdiNameBytes.contains(name.utf8.count)
            && comment.utf8.count <= Limits.snapshotCommentBytes
            && labels.count <= Limits.snapshotLabels && holds.count <= Limits.snapshotHolds
            && labels.allSatisfy {
                1...Limits.snapshotLabelBytes ~= $0.key.utf8.count
                    && $0.value.utf8.count <= Limits.snapshotLabelBytes
            }
            && holds.allSatisfy { $0.reason.utf8.count <= Limits.snapshotHoldBytes }
            && encodedBytes <= Limits.snapshotDetailsBytes
    }

    func encode(to writer: inout ByteWriter) {
        writer.put(origin.rawValue)
        writer.put(UInt8(labels.count))
        writer.put(UInt8(holds.count))
        writer.put(UInt8(name.utf8.count))
        writer.put(UInt16(comment.utf8.count))
        writer.put(bytes: name.utf8)
        writer.put(bytes: comment.utf8)
        for label in labels {
            writer.put(UInt8(label.key.utf8.count))
            writer.put(UInt8(label.value.utf8.count))
            writer.put(bytes: label.key.utf8)
            writer.put(bytes: label.value.utf8)
        }
        for hold in holds {
            writer.put(hold.createdAtSeconds)
            writer.put(UInt8(hold.reason.utf8.count))
            writer.put(bytes: hold.reason.utf8)
        }
    }

    /// nil when the bytes are no valid details.
    static func decode(from reader: inout ByteReader) -> SnapshotDetails? {
        guard let origin = reader.take(UInt8.self).flatMap(Origin.init(rawValue:)),
            let labelCount = reader.take(UInt8.self), let holdCount = reader.take(UInt8.self),
            let nameBytes = reader.take(UInt8.self), let commentBytes = reader.take(UInt16.self),
            let name = reader.takeString(Int(nameBytes)),
            let comment = reader.takeString(Int(commentBytes))
        else { return nil }
        var details = SnapshotDetails(name: name, comment: comment, origin: origin)
        for _ in 0..<labelCount {
            guard let keyBytes = reader.take(UInt8.self), let valueBytes = reader.take(UInt8.self),
                let key = reader.takeString(Int(keyBytes)),
                let value = reader.takeString(Int(valueBytes))
            else { return nil }
            details.labels.append(Label(key: key, value: value))
        }
        for _ in 0..<holdCount {
            guard let seconds = reader.take(UInt64.self),
                let reasonBytes = reader.take(UInt8.self),
                let reason = reader.takeString(Int(reasonBytes))
            else { return nil }
            details.holds.append(Hold(reason: reason, createdAtSeconds: seconds))
        }
        return details.isValid ? details : nil
    }
}
