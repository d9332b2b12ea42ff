// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// What may be said about a snapshot beside its name: the one rule of the daemon and of the
/// command line. The numbers are those of the store's format.
package enum SnapshotText {
    package static let maximumLabels = 16
    package static let maximumHolds = 16
    /// Labels that Parallax makes itself begin with this.
    package static let reservedLabelPrefix = "parallax."

    package static func validate(comment: String) throws(ControlError) {
        try TextRule.validate(comment, "a comment", bytes: 0...512)
    }

    package static func validate(holdReason reason: String) throws(ControlError) {
        try TextRule.validate(reason, "the reason of a hold", bytes: 1...200)
    }

    package static func validate(labelKey key: String) throws(ControlError) {
        try TextRule.validate(key, "the key of a label", bytes: 1...100)
        guard !key.unicodeScalars.contains("="), key.first?.isWhitespace == false,
            key.last?.isWhitespace == false
        else {
            throw ControlError(
                .invalid,
                "the key of a label cannot contain '=' or begin or end with a space and "
                    + "\(quoted(key)) does")
        }
        guard !key.hasPrefix(reservedLabelPrefix) else {
            throw ControlError(
                .invalid,
                "the label \(quoted(key)) cannot be set: \(reservedLabelPrefix)* is Parallax's own")
        }
    }

    package static func validate(labelValue value: String) throws(ControlError) {
        try TextRule.validate(value, "the value of a label", bytes: 0...100)
    }

    package static func validate(labels: [String: String]) throws(ControlError) {
        guard labels.count <= maximumLabels else {
            throw ControlError(
                .invalid,
                "a snapshot can have at most \(maximumLabels) labels and this one would have "
                    + "\(labels.count)")
        }
        for (key, value) in labels {
            try validate(labelKey: key)
            try validate(labelValue: value)
        }
    }

    /// Takes `K=V` apart.
    package static func parse(
        label text: String
    ) throws(ControlError) -> (key: String, value: String) {
        // By scalars: a combining mark may follow the `=`.
        guard let equals = text.unicodeScalars.firstIndex(of: "=") else {
            throw ControlError(.invalid, "\(quoted(text)) is no label; write KEY=VALUE")
        }
        let next = text.unicodeScalars.index(after: equals)
        let (key, value) = (String(text[..<equals]), String(text[next...]))
        try validate(labelKey: key)
        try validate(labelValue: value)
        return (key, value)
    }

    /// Takes several `K=V` apart; of a key that comes twice nobody knows which is meant.
    package static func parse(labels texts: [String]) throws(ControlError) -> [String: String] {
        var labels: [String: String] = [:]
        for text in texts {
            let (key, value) = try parse(label: text)
            guard labels.updateValue(value, forKey: key) == nil else {
                throw ControlError(.invalid, "the label \(quoted(key)) is given twice")
            }
        }
        try validate(labels: labels)
        return labels
    }
}
