// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import FoundationEssentials

/// The form in which a store keeps a policy: one JSON object, compact, keys sorted, what is not set
/// left out. An unknown key is refused: it may be a rule of a newer version that keeps something.
extension RetentionPolicy: Codable {
    // LIMIT: the store's record holds no more.
    package static let encodedBytesMax = 1_024

    package static func decode(json: String) throws(RetentionError) -> Self {
        guard json.utf8.count <= encodedBytesMax else {
            throw RetentionError(
                .invalid,
                "the stored policy has \(json.utf8.count) bytes, which is more than "
                    + "\(encodedBytesMax); set it anew")
        }
        do {
            return try JSONDecoder().decode(Self.self, from: Data(json.utf8))
        } catch let error as RetentionError {
            throw error
        } catch {
            throw RetentionError(.invalid, "the policy is not a JSON object of its known fields")
        }
    }

    package var json: String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        // Strings, integers and one array of strings, none of which can fail to encode.
        guard let data = try? encoder.encode(self) else { return "{}" }
        return String(decoding: data, as: UTF8.self)
    }

    var encodedBytes: Int { json.utf8.count }

    package init(from decoder: any Decoder) throws {
        let fields = try PolicyFields(decoder)
        var policy = Self()
        policy.keepLast = try fields.count("keep_last")
        policy.keepWithin = try fields.duration("keep_within")
        for period in RetentionPeriod.allCases {
            let key = "keep_\(period.rawValue)"
            policy.keepPeriods[period] = try fields.count(key)
            let within = "keep_within_\(period.rawValue)"
            policy.keepPeriodsWithin[period] = try fields.duration(within)
        }
        policy.keepLabelled = try (fields.strings("keep_labelled") ?? []).map(LabelSelector.parse)
        policy.minimumCount = try fields.count("min_count")
        let window = try fields.duration("window")
        if let name = try fields.string("mode") {
            policy.mode = try RetentionMode(name: name, window: window)
        } else if window != nil {
            throw RetentionError(.invalid, "the field \"window\" needs the field \"mode\"")
        }
        policy.label = try fields.string("label").map(LabelSelector.parse)
        policy.includesManual = try fields.flag("include_manual") ?? false
        policy.timeZone = try fields.string("time_zone") ?? Self.defaultTimeZone
        try policy.validate()
        self = policy
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: PolicyKey.self)
        try container.encodeIfPresent(keepLast, forKey: "keep_last")
        try container.encodeIfPresent(keepWithin?.text, forKey: "keep_within")
        for period in RetentionPeriod.allCases {
            try container.encodeIfPresent(
                keepPeriods[period], forKey: PolicyKey("keep_\(period.rawValue)"))
            try container.encodeIfPresent(
                keepPeriodsWithin[period]?.text, forKey: PolicyKey("keep_within_\(period.rawValue)")
            )
        }
        if !keepLabelled.isEmpty {
            try container.encode(keepLabelled.map(\.text), forKey: "keep_labelled")
        }
        try container.encodeIfPresent(minimumCount, forKey: "min_count")
        try container.encodeIfPresent(mode?.name, forKey: "mode")
        try container.encodeIfPresent(mode?.window?.text, forKey: "window")
        try container.encodeIfPresent(label?.text, forKey: "label")
        if includesManual { try container.encode(true, forKey: "include_manual") }
        if timeZone != Self.defaultTimeZone { try container.encode(timeZone, forKey: "time_zone") }
    }
}

private struct PolicyKey: CodingKey, ExpressibleByStringLiteral {
    let stringValue: String
    var intValue: Int? { nil }

    init(_ text: String) { stringValue = text }
    init(stringLiteral text: String) { stringValue = text }
    init?(stringValue: String) { self.stringValue = stringValue }
    init?(intValue: Int) { nil }
}

/// The object that is being decoded, with a sentence for each way in which it can be wrong.
private struct PolicyFields {
    private let container: KeyedDecodingContainer<PolicyKey>

    private static let known: Set<String> = {
        var known: Set = [
            "keep_last", "keep_within", "keep_labelled", "min_count", "mode", "window", "label",
            "include_manual", "time_zone",
        ]
        for period in RetentionPeriod.allCases {
            known.insert("keep_\(period.rawValue)")
            known.insert("keep_within_\(period.rawValue)")
        }
        return known
    }()

    init(_ decoder: any Decoder) throws {
        container = try decoder.container(keyedBy: PolicyKey.self)
        let unknown = container.allKeys.map(\.stringValue).filter { !Self.known.contains($0) }
        if let first = unknown.min() {
            throw RetentionError(
                .invalid,
                "the policy has the field \(RetentionError.quoted(first)), which this version does "
                    + "not know; set the policy anew or use the version that wrote it")
        }
    }

    func count(_ key: String) throws -> Int? {
        guard let value = try value(Int.self, key, "a whole number") else { return nil }
        guard (1...RetentionPolicy.countMax).contains(value) else {
            throw RetentionError(
                .invalid,
                "the field \"\(key)\" is \(value), which is not from 1 to \(RetentionPolicy.countMax)"
            )
        }
        return value
    }

    func duration(_ key: String) throws -> RetentionDuration? {
        try string(key).map(RetentionDuration.parse)
    }

    func string(_ key: String) throws -> String? { try value(String.self, key, "a string") }

    func strings(_ key: String) throws -> [String]? {
        try value([String].self, key, "an array of strings")
    }

    func flag(_ key: String) throws -> Bool? { try value(Bool.self, key, "true or false") }

    private func value<Value: Decodable>(
        _ type: Value.Type, _ key: String, _ noun: String
    ) throws -> Value? {
        guard container.contains(PolicyKey(key)) else { return nil }
        guard let value = try? container.decode(type, forKey: PolicyKey(key)) else {
            throw RetentionError(.invalid, "the field \"\(key)\" must be \(noun)")
        }
        return value
    }
}
