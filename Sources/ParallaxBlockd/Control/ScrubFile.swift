// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxControl

/// The newest scrub, as it is kept over restarts of the daemon.
struct ScrubRecord: Codable, Equatable {
    static let currentVersion = 1

    var version = Self.currentVersion
    var store: String
    var rateBytesPerSecond: UInt64
    var startedAtNanoseconds: UInt64
    var finishedAtNanoseconds: UInt64?
    var isRunning: Bool
    var shards: [ScrubDescription]

    enum CodingKeys: String, CodingKey {
        case version
        case store
        case rateBytesPerSecond = "rate_bytes_per_second"
        case startedAtNanoseconds = "started_at"
        case finishedAtNanoseconds = "finished_at"
        case isRunning = "running"
        case shards
    }

    var isFinished: Bool { shards.allSatisfy(\.finished) }

    var summary: ScrubSummary {
        ScrubSummary(
            state: isFinished ? .finished : isRunning ? .running : .paused,
            rateBytesPerSecond: rateBytesPerSecond,
            startedAt: TimeText.milliseconds(startedAtNanoseconds),
            finishedAt: finishedAtNanoseconds.map(TimeText.milliseconds),
            verifiedBytes: shards.reduce(0) { $0 + $1.verifiedBytes },
            totalBytes: shards.reduce(0) { $0 + $1.totalBytes },
            damagedBlocks: shards.reduce(0) { $0 + $1.damagedBlocks })
    }
}

/// `scrub-<store uuid>.json` in the state directory. Losing it costs a scrub that begins anew, so a
/// file that cannot be used is passed over.
struct ScrubFile: Sendable {
    let path: String
    private let storeUUID: String

    init(stateDirectory: String, storeUUID: String) {
        path = stateDirectory + "/scrub-\(storeUUID).json"
        self.storeUUID = storeUUID
    }

    func load() -> ScrubRecord? {
        guard let bytes = try? SmallFile.read(path, limitBytes: 1 << 20),
            let record = try? ControlJSON.decode(ScrubRecord.self, from: bytes),
            record.version == ScrubRecord.currentVersion, record.store == storeUUID
        else { return nil }
        return record
    }

    func save(_ record: ScrubRecord) throws(ControlError) {
        do throws(ReplaceError) {
            try SmallFile.replace(path, with: ControlJSON.encode(record, pretty: true))
        } catch {
            throw ControlError(.ioError, "cannot keep the scrub's place in \(path): \(error)")
        }
    }
}
