// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxControl

/// The paths of the API.
enum Route: Equatable {
    case status
    case ready
    case metrics
    case vdis
    case vdi(String)
    case attachments(VersionName)
    case snapshots(String)
    case snapshot(VersionName)
    case holds(VersionName)
    case rollback(String)
    case retention(String)
    case retentionRun(String)
    case groups
    case snapshotDeletions
    case diff
    case storeGrowth
    case storeCleaning
    case storeScrub

    init?(_ segments: [String]) {
        guard segments != ["metrics"] else {
            self = .metrics
            return
        }
        guard segments.first == "v1", !segments.dropFirst().contains("") else { return nil }
        switch segments.count {
        case 2:
            guard let route = Self.plain[segments[1]] else { return nil }
            self = route
        case 3 where segments[1] == "vdis": self = .vdi(segments[2])
        case 3 where segments[1...] == ["snapshots", "delete"]: self = .snapshotDeletions
        case 3 where segments[1...] == ["store", "grow"]: self = .storeGrowth
        case 3 where segments[1...] == ["store", "clean"]: self = .storeCleaning
        case 3 where segments[1...] == ["store", "scrub"]: self = .storeScrub
        case 4... where segments[1] == "vdis":
            guard let route = Self.below(vdi: segments[2], segments[3...]) else { return nil }
            self = route
        default: return nil
        }
    }

    private static var plain: [String: Route] {
        ["status": .status, "ready": .ready, "vdis": .vdis, "snapshots": .groups, "diff": .diff]
    }

    private static func below(vdi: String, _ rest: ArraySlice<String>) -> Route? {
        let words = Array(rest)
        switch (words.count, words[0]) {
        case (1, "attachments"): return .attachments(VersionName(vdi: vdi))
        case (1, "snapshots"): return .snapshots(vdi)
        case (1, "rollback"): return .rollback(vdi)
        case (1, "retention"): return .retention(vdi)
        case (2, "retention"): return words[1] == "apply" ? .retentionRun(vdi) : nil
        case (2, "snapshots"): return .snapshot(VersionName(vdi: vdi, snapshot: words[1]))
        case (3, "snapshots"):
            let version = VersionName(vdi: vdi, snapshot: words[1])
            switch words[2] {
            case "attachments": return .attachments(version)
            case "holds": return .holds(version)
            default: return nil
            }
        default: return nil
        }
    }

    var methods: [String] {
        switch self {
        case .status, .ready, .metrics, .diff: ["GET", "HEAD"]
        case .vdis, .snapshots: ["GET", "HEAD", "POST"]
        case .vdi, .snapshot: ["GET", "HEAD", "PATCH", "DELETE"]
        case .attachments, .holds, .storeScrub: ["POST", "DELETE"]
        case .retention: ["GET", "HEAD", "PUT", "DELETE"]
        case .groups, .snapshotDeletions, .rollback, .retentionRun, .storeGrowth, .storeCleaning:
            ["POST"]
        }
    }

    /// What may stand behind the `?`.
    func queryKeys(method: String) -> Set<String> {
        switch (method, self) {
        case ("GET", .vdi): ["layout"]
        case ("GET", .snapshots): ["after", "limit"]
        case ("DELETE", .holds): ["reason"]
        case ("GET", .diff): ["from", "to", "offset"]
        default: []
        }
    }
}

/// What a request asks for: a path, and what stands behind the `?`.
struct RequestTarget: Equatable {
    var route: Route
    private var query: [String: String]

    init(_ target: String) throws(ControlError) {
        let parts = target.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        let path = parts[0]
        var segments: [String] = []
        for segment in path.split(separator: "/", omittingEmptySubsequences: false).dropFirst() {
            guard let decoded = PercentEncoding.decode(segment) else {
                throw ControlError(.invalid, "the path \(quoted(target)) is not properly encoded")
            }
            segments.append(decoded)
        }
        guard path.hasPrefix("/"), !target.contains("#"), let route = Route(segments) else {
            throw ControlError(.notFound, "there is nothing at the path \(quoted(String(path)))")
        }
        self.route = route
        query = [:]
        for field in parts.count > 1 ? parts[1].split(separator: "&") : [] {
            let pair = field.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard pair.count == 2, let key = PercentEncoding.decode(pair[0]),
                let value = PercentEncoding.decode(pair[1])
            else {
                throw ControlError(
                    .invalid, "the query of \(quoted(target)) is not properly encoded")
            }
            guard query.updateValue(value, forKey: key) == nil else {
                throw ControlError(.invalid, "the query has the field \(quoted(key)) twice")
            }
        }
    }

    /// A misspelt field that is ignored does something else than was asked.
    func checkQuery(method: String) throws(ControlError) {
        let known = route.queryKeys(method: method)
        for key in query.keys.sorted() where !known.contains(key) {
            throw ControlError(.invalid, "the query field \(quoted(key)) is not known here")
        }
    }

    func text(_ key: String) -> String? { query[key] }

    func version(_ key: String) throws(ControlError) -> VersionName {
        guard let text = query[key] else {
            throw ControlError(.invalid, "the query needs the field \"\(key)\"")
        }
        return try VersionName(text)
    }

    func flag(_ key: String) throws(ControlError) -> Bool {
        switch query[key] {
        case nil, "false": false
        case "true": true
        default:
            throw ControlError(.invalid, "the query field \"\(key)\" must be true or false")
        }
    }

    func number(_ key: String) throws(ControlError) -> UInt64? {
        guard let text = query[key] else { return nil }
        guard let number = UInt64(text) else {
            throw ControlError(.invalid, "the query field \"\(key)\" must be a whole number")
        }
        return number
    }
}
