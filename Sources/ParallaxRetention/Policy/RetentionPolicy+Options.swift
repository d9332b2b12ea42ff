// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The form in which people write a policy: the options of `parallax-ctl retention`.
extension RetentionPolicy {
    /// From words as on a command line: `--keep-last 10 --hourly 24` or `--keep-last=10`.
    ///
    /// A count of 0 turns its rule off. An option may come once, `--keep-labelled` many times.
    package static func parse(options words: [String]) throws(RetentionError) -> Self {
        var given = GivenOptions()
        var rest = words[...]
        while let word = rest.popFirst() {
            try given.take(word, from: &rest)
        }
        let policy = try given.policy()
        try policy.validate()
        return policy
    }

    /// Words that `parse(options:)` makes the same policy of, in a fixed order.
    package var options: [String] {
        var words: [String] = []
        func add(_ name: String, _ value: String?) {
            guard let value else { return }
            // What begins with a dash would be taken for an option.
            words += value.hasPrefix("-") ? ["--\(name)=\(value)"] : ["--" + name, value]
        }
        add("keep-last", keepLast.map(String.init))
        for period in RetentionPeriod.allCases {
            add("keep-\(period.rawValue)", keepPeriods[period].map(String.init))
        }
        add("keep-within", keepWithin?.text)
        for period in RetentionPeriod.allCases {
            add("keep-within-\(period.rawValue)", keepPeriodsWithin[period]?.text)
        }
        for selector in keepLabelled { add("keep-labelled", selector.text) }
        add("min-count", minimumCount.map(String.init))
        add("mode", mode?.name)
        add("window", mode?.window?.text)
        add("label", label?.text)
        if includesManual { words.append("--include-manual") }
        if timeZone != Self.defaultTimeZone { add("time-zone", timeZone) }
        return words
    }
}

/// The options of one command line, by their full names.
private struct GivenOptions {
    private static let withValue: Set<String> = {
        var names: Set = [
            "keep-last", "keep-within", "keep-labelled", "min-count", "mode", "window", "label",
            "time-zone",
        ]
        for period in RetentionPeriod.allCases {
            names.insert("keep-\(period.rawValue)")
            names.insert("keep-within-\(period.rawValue)")
        }
        return names
    }()
    private static let includeManual = "include-manual"

    private var values: [String: String] = [:]
    private var labelled: [LabelSelector] = []
    private var includesManual = false

    mutating func take(_ word: String, from rest: inout ArraySlice<String>) throws(RetentionError) {
        let parts = word.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        let name = parts.first.map { Self.fullName($0) } ?? ""
        if name == Self.includeManual, parts.count == 1 {
            includesManual = true
            return
        }
        guard Self.withValue.contains(name) else {
            throw RetentionError(
                .invalid, "\(RetentionError.quoted(word)) is not an option of a retention policy")
        }
        let value = parts.count == 2 ? String(parts[1]) : rest.popFirst()
        guard let value, parts.count == 2 || !value.hasPrefix("--") else {
            throw RetentionError(.invalid, "the option --\(name) needs a value")
        }
        if name == "keep-labelled" {
            let selector = try LabelSelector.parse(value)
            if !labelled.contains(selector) { labelled.append(selector) }
        } else if values.updateValue(value, forKey: name) != nil {
            throw RetentionError(.invalid, "the option --\(name) is given twice; leave one out")
        }
    }

    /// Without the dashes, and with `keep-` for the short forms `--hourly` to `--yearly`.
    private static func fullName(_ word: Substring) -> String {
        guard word.hasPrefix("--") else { return "" }
        let name = String(word.dropFirst(2))
        return RetentionPeriod(rawValue: name) == nil ? name : "keep-" + name
    }

    func policy() throws(RetentionError) -> RetentionPolicy {
        var policy = RetentionPolicy()
        policy.keepLast = try count("keep-last")
        policy.keepWithin = try duration("keep-within")
        for period in RetentionPeriod.allCases {
            policy.keepPeriods[period] = try count("keep-\(period.rawValue)")
            policy.keepPeriodsWithin[period] = try duration("keep-within-\(period.rawValue)")
        }
        policy.keepLabelled = labelled
        policy.minimumCount = try count("min-count")
        let window = try duration("window")
        if let name = values["mode"] {
            policy.mode = try RetentionMode(name: name, window: window)
        } else if window != nil {
            throw RetentionError(
                .invalid, "the option --window needs --mode keep-safe or --mode keep-landmarks")
        }
        if let label = values["label"] { policy.label = try LabelSelector.parse(label) }
        policy.includesManual = includesManual
        policy.timeZone = values["time-zone"] ?? RetentionPolicy.defaultTimeZone
        return policy
    }

    private func count(_ name: String) throws(RetentionError) -> Int? {
        guard let text = values[name] else { return nil }
        let isNumber = !text.isEmpty && text.utf8.allSatisfy { (0x30...0x39).contains($0) }
        guard isNumber, let count = Int(text), count <= RetentionPolicy.countMax else {
            throw RetentionError(
                .invalid,
                "--\(name) \(RetentionError.quoted(text)) is not a whole number from 0 to "
                    + "\(RetentionPolicy.countMax)")
        }
        return count == 0 ? nil : count
    }

    private func duration(_ name: String) throws(RetentionError) -> RetentionDuration? {
        guard let text = values[name] else { return nil }
        do {
            return try RetentionDuration.parse(text)
        } catch {
            throw RetentionError(error.kind, "--\(name): \(error.message)")
        }
    }
}
