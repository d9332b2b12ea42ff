// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The four policies of the Elephant file system (Santry et al., SOSP 1999), by name.
package enum RetentionMode: Sendable, Hashable {
    /// Only the newest.
    case keepOne
    case keepAll
    /// Everything for the window, then nothing but the newest.
    case keepSafe(window: RetentionDuration)
    /// Everything for the window, then ever fewer with age (see `Landmarks`).
    case keepLandmarks(window: RetentionDuration)

    package static let names = ["keep-one", "keep-all", "keep-safe", "keep-landmarks"]
    /// Of `keep-safe` and `keep-landmarks`, where none is given: a week.
    package static let defaultWindow = RetentionDuration.week

    package init(name: String, window: RetentionDuration?) throws(RetentionError) {
        switch name {
        case "keep-safe": self = .keepSafe(window: window ?? Self.defaultWindow)
        case "keep-landmarks": self = .keepLandmarks(window: window ?? Self.defaultWindow)
        case "keep-one" where window == nil: self = .keepOne
        case "keep-all" where window == nil: self = .keepAll
        case "keep-one", "keep-all":
            throw RetentionError(.invalid, "the mode \(name) takes no window; leave it out")
        default:
            throw RetentionError(
                .invalid,
                "\(RetentionError.quoted(name)) is not a mode; write "
                    + Self.names.dropLast().joined(separator: ", ") + " or keep-landmarks")
        }
    }

    package var name: String {
        switch self {
        case .keepOne: "keep-one"
        case .keepAll: "keep-all"
        case .keepSafe: "keep-safe"
        case .keepLandmarks: "keep-landmarks"
        }
    }

    package var window: RetentionDuration? {
        switch self {
        case .keepOne, .keepAll: nil
        case .keepSafe(let window), .keepLandmarks(let window): window
        }
    }
}
