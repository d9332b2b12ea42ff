// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Through which front end a VDI is attached.
package enum AttachmentKind: String, Codable, Sendable {
    case vhostUser = "vhost-user"
    case nbd
    /// A disk of a Xen domain.
    case xen
}

/// An attachment as the control API shows it.
package struct AttachmentDescription: Codable, Equatable, Sendable {
    package var vdi: String
    /// The snapshot that is attached; nil: the VDI's head.
    package var snapshot: String?
    package var kind: AttachmentKind
    /// The path of the socket; for Xen, the device as DOMAIN:DEVICE or the tool stack's node.
    package var socket: String
    /// Only for NBD.
    package var uri: String?
    package var readOnly: Bool
    /// False after a restart that could not restore it; `problem` says why.
    package var serving: Bool
    package var problem: String?

    package init(
        vdi: String, snapshot: String? = nil, kind: AttachmentKind, socket: String, uri: String?,
        readOnly: Bool, serving: Bool, problem: String?
    ) {
        self.vdi = vdi
        self.snapshot = snapshot
        self.kind = kind
        self.socket = socket
        self.uri = uri
        self.readOnly = readOnly
        self.serving = serving
        self.problem = problem
    }

    /// Where the disk is, in the form its clients take.
    package var location: String { uri ?? socket }

    enum CodingKeys: String, CodingKey {
        case vdi
        case snapshot
        case kind
        case socket
        case uri
        case readOnly = "read_only"
        case serving
        case problem
    }
}

/// The body of `POST /v1/vdis/{name}/attachments`, and of the same below a snapshot, which is
/// always read-only.
package struct AttachRequest: Codable, Sendable {
    package var kind: AttachmentKind
    /// Absolute. Required for vhost-user; without it an NBD export goes on the daemon's NBD socket.
    /// For Xen it is the device, as DOMAIN:DEVICE.
    package var socket: String?
    package var readOnly: Bool?

    package init(kind: AttachmentKind, socket: String? = nil, readOnly: Bool? = nil) {
        self.kind = kind
        self.socket = socket
        self.readOnly = readOnly
    }

    package init(from decoder: any Decoder) throws {
        try decoder.rejectUnknownFields(CodingKeys.self)
        let container = try decoder.container(keyedBy: CodingKeys.self)
        let kindText = try container.decode(String.self, forKey: .kind)
        guard let kind = AttachmentKind(rawValue: kindText) else {
            throw ControlError(
                .invalid,
                "\(quoted(kindText)) is no kind of attachment; "
                    + "it must be \"vhost-user\", \"nbd\" or \"xen\"")
        }
        self.kind = kind
        socket = try container.decodeIfPresent(String.self, forKey: .socket)
        readOnly = try container.decodeIfPresent(Bool.self, forKey: .readOnly)
    }

    enum CodingKeys: String, CodingKey, CaseIterable {
        case kind
        case socket
        case readOnly = "read_only"
    }
}

/// A remembered attachment that does not serve.
package struct MissingAttachment: Codable, Equatable, Sendable {
    package var vdi: String
    package var snapshot: String?
    package var kind: AttachmentKind
    package var socket: String
    package var reason: String

    package init(
        vdi: String, snapshot: String? = nil, kind: AttachmentKind, socket: String, reason: String
    ) {
        self.vdi = vdi
        self.snapshot = snapshot
        self.kind = kind
        self.socket = socket
        self.reason = reason
    }
}
