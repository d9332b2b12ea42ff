// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Why a control operation failed: a kind for programs, one sentence for people.
///
/// It crosses the control socket as `{"error":{"kind":"...","message":"..."}}`, and the message is
/// what `parallax-ctl` prints, so it names the object and says what to do.
package struct ControlError: Error, Codable, Equatable, Sendable {
    package var kind: Kind
    package var message: String

    package init(_ kind: Kind, _ message: String) {
        self.kind = kind
        self.message = message
    }

    /// A string and not an enum, so that an older client still understands a newer daemon.
    package struct Kind: RawRepresentable, Codable, Hashable, Sendable {
        package let rawValue: String

        package init(rawValue: String) { self.rawValue = rawValue }

        package init(from decoder: any Decoder) throws {
            rawValue = try decoder.singleValueContainer().decode(String.self)
        }

        package func encode(to encoder: any Encoder) throws {
            var container = encoder.singleValueContainer()
            try container.encode(rawValue)
        }
    }
}

extension ControlError.Kind {
    /// The request makes no sense, whatever the state of the daemon.
    package static let invalid = Self(rawValue: "invalid")
    package static let notFound = Self(rawValue: "not_found")
    package static let methodNotAllowed = Self(rawValue: "method_not_allowed")
    package static let nameTaken = Self(rawValue: "name_taken")
    package static let attached = Self(rawValue: "attached")
    package static let notAttached = Self(rawValue: "not_attached")
    /// The snapshot, or one of the VDI's, is held.
    package static let held = Self(rawValue: "held")
    /// The VDI is a template, whose head takes no writes.
    package static let template = Self(rawValue: "template")
    /// The socket's path is alive, is no socket, or cannot be made.
    package static let socketUnusable = Self(rawValue: "socket_unusable")
    package static let noSpace = Self(rawValue: "no_space")
    package static let tooLarge = Self(rawValue: "too_large")
    package static let notReady = Self(rawValue: "not_ready")
    package static let stopping = Self(rawValue: "stopping")
    /// The client could not reach the daemon; never sent by one.
    package static let unreachable = Self(rawValue: "unreachable")
    package static let ioError = Self(rawValue: "io_error")
    package static let internalError = Self(rawValue: "internal")

    package var httpStatus: Int {
        switch self {
        case .invalid: 400
        case .notFound: 404
        case .methodNotAllowed: 405
        case .nameTaken, .attached, .notAttached, .held, .template, .socketUnusable: 409
        case .tooLarge: 413
        case .notReady, .stopping: 503
        case .noSpace: 507
        default: 500
        }
    }
}

/// The envelope of an error on the wire.
package struct ErrorBody: Codable, Sendable {
    package var error: ControlError
    /// Only in the answer of `GET /v1/ready`: the attachments that do not serve.
    package var missing: [MissingAttachment]?

    package init(_ error: ControlError, missing: [MissingAttachment]? = nil) {
        self.error = error
        self.missing = missing
    }
}
