// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Why a snapshot stays.
package enum RetentionReason: Sendable, Hashable, CustomStringConvertible {
    // The policy's rules.
    case last(Int, of: Int)
    case period(RetentionPeriod, Int, of: Int, bucket: String)
    case within(RetentionDuration)
    case periodWithin(RetentionPeriod, RetentionDuration, bucket: String)
    case label(LabelSelector)
    case keepOne
    case keepAll
    case keepSafe(RetentionDuration)
    /// Inside of the window of keep-landmarks.
    case recent(RetentionDuration)
    /// The newest of its group, which spans so many seconds.
    case landmark(seconds: Int64)
    case minimumCount(Int)
    // What no policy may touch, even by force.
    case newest
    case held(String)
    case inTheFuture
    // What this policy does not own.
    case madeByHand
    case madeAutomatically

    /// False for what keeps a snapshot whatever the policy says.
    package var isRule: Bool {
        switch self {
        case .newest, .held, .inTheFuture, .madeByHand, .madeAutomatically: false
        default: true
        }
    }

    /// A rule that loses nothing only because the clock has moved on.
    var isRuleOfCount: Bool {
        switch self {
        case .within, .periodWithin, .keepSafe, .recent, .landmark: false
        default: isRule
        }
    }

    package var description: String {
        switch self {
        case .last(let number, let count): "last \(number) of \(count)"
        case .period(let period, let number, let count, let bucket):
            "\(period.rawValue) \(number) of \(count) (\(bucket))"
        case .within(let duration): "within \(duration.text)"
        case .periodWithin(let period, let duration, let bucket):
            "\(period.rawValue) within \(duration.text) (\(bucket))"
        case .label(let selector): "label \(selector.text)"
        case .keepOne: "keep-one"
        case .keepAll: "keep-all"
        case .keepSafe(let window): "keep-safe \(window.text)"
        case .recent(let window): "keep-landmarks \(window.text)"
        case .landmark(let seconds): "landmark of \(Self.length(seconds))"
        case .minimumCount(let count): "minimum count \(count)"
        case .newest: "newest"
        case .held(let reason): reason.isEmpty ? "held" : "held: \(reason)"
        case .inTheFuture: "in the future"
        case .madeByHand: "made by hand"
        case .madeAutomatically: "made by the daemon"
        }
    }

    /// `21h`, `3d12h`, `15m`: at most two units, rounded down.
    private static func length(_ seconds: Int64) -> String {
        let units: [(Int64, String)] = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")]
        var rest = seconds
        var parts: [String] = []
        for (length, name) in units {
            if rest >= length { parts.append("\(rest / length)\(name)") }
            rest %= length
        }
        return parts.prefix(2).joined()
    }
}
