// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

package import ParallaxControl
package import ParallaxCore

/// An attachment as it is remembered: enough to make it again after a restart. It names the VDI
/// and the snapshot by identifier, so that it follows a rename.
package struct AttachmentRecord: Codable, Equatable, Sendable {
    package var identifier: VDIIdentifier
    /// nil: the VDI's head.
    package var snapshot: SnapshotIdentifier?
    package var kind: AttachmentKind
    /// Nil is the daemon's shared NBD socket, wherever that is at the time. For Xen it is the
    /// device, as DOMAIN:DEVICE, or the back-end directory that Xen's tool stack has made.
    package var socketPath: String?
    package var isReadOnly: Bool

    package init(
        identifier: VDIIdentifier, snapshot: SnapshotIdentifier? = nil, kind: AttachmentKind,
        socketPath: String?, isReadOnly: Bool
    ) {
        self.identifier = identifier
        self.snapshot = snapshot
        self.kind = kind
        self.socketPath = socketPath
        self.isReadOnly = isReadOnly
    }

    package var version: VersionReference {
        snapshot.map { .snapshot($0) } ?? .head(identifier)
    }

    /// The tool stack asked for it, and may ask for something else there.
    package var isXenNode: Bool { kind == .xen && socketPath?.hasPrefix("/") == true }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        let text = try container.decode(String.self, forKey: .identifier)
        guard let identifier = VDIIdentifier(hexadecimal: text) else {
            throw ControlError(.invalid, "\(quoted(text)) is no VDI identifier")
        }
        self.identifier = identifier
        if let text = try container.decodeIfPresent(String.self, forKey: .snapshot) {
            guard let snapshot = SnapshotIdentifier(hexadecimal: text) else {
                throw ControlError(.invalid, "\(quoted(text)) is no snapshot identifier")
            }
            self.snapshot = snapshot
        }
        kind = try container.decode(AttachmentKind.self, forKey: .kind)
        socketPath = try container.decodeIfPresent(String.self, forKey: .socketPath)
        isReadOnly = try container.decode(Bool.self, forKey: .isReadOnly)
        guard kind == .nbd || socketPath != nil else {
            throw ControlError(.invalid, "a \(kind.rawValue) attachment has no socket")
        }
        guard snapshot == nil || isReadOnly else {
            throw ControlError(.invalid, "the attachment of a snapshot is not read-only")
        }
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(identifier.hexadecimal, forKey: .identifier)
        try container.encodeIfPresent(snapshot?.hexadecimal, forKey: .snapshot)
        try container.encode(kind, forKey: .kind)
        try container.encodeIfPresent(socketPath, forKey: .socketPath)
        try container.encode(isReadOnly, forKey: .isReadOnly)
    }

    enum CodingKeys: String, CodingKey {
        case identifier = "vdi"
        case snapshot
        case kind
        case socketPath = "socket"
        case isReadOnly = "read_only"
    }
}
