// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The body of `POST /v1/store/grow`.
package struct GrowStoreRequest: Codable, Sendable {
    /// nil: as large as the store's block device is now.
    package var sizeBytes: UInt64?

    package init(sizeBytes: UInt64?) { self.sizeBytes = sizeBytes }

    package init(from decoder: any Decoder) throws {
        try decoder.rejectUnknownFields(CodingKeys.self)
        let container = try decoder.container(keyedBy: CodingKeys.self)
        sizeBytes = try container.decodeIfPresent(UInt64.self, forKey: .sizeBytes)
    }

    enum CodingKeys: String, CodingKey, CaseIterable {
        case sizeBytes = "size_bytes"
    }
}

/// The answer to it. A growth by less than an extent adds none.
package struct StoreGrowth: Codable, Equatable, Sendable {
    package var path: String
    package var previousSizeBytes: UInt64
    package var sizeBytes: UInt64
    package var extentCount: UInt64
    package var extentsAdded: UInt64

    package init(
        path: String, previousSizeBytes: UInt64, sizeBytes: UInt64, extentCount: UInt64,
        extentsAdded: UInt64
    ) {
        self.path = path
        self.previousSizeBytes = previousSizeBytes
        self.sizeBytes = sizeBytes
        self.extentCount = extentCount
        self.extentsAdded = extentsAdded
    }

    enum CodingKeys: String, CodingKey {
        case path
        case previousSizeBytes = "previous_size_bytes"
        case sizeBytes = "size_bytes"
        case extentCount = "extent_count"
        case extentsAdded = "extents_added"
    }
}

/// The body of `POST /v1/store/clean`.
package struct CleanStoreRequest: Codable, Sendable {
    /// Ends when so many percent of the store are free; nil: when nothing is left that is worth it.
    package var untilPercent: UInt64?

    package init(untilPercent: UInt64?) { self.untilPercent = untilPercent }

    package init(from decoder: any Decoder) throws {
        try decoder.rejectUnknownFields(CodingKeys.self)
        let container = try decoder.container(keyedBy: CodingKeys.self)
        untilPercent = try container.decodeIfPresent(UInt64.self, forKey: .untilPercent)
    }

    enum CodingKeys: String, CodingKey, CaseIterable {
        case untilPercent = "until_percent"
    }
}
