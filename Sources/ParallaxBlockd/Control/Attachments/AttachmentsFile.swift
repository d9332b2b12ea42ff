// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
package import ParallaxControl
import ParallaxCore

/// The attachments of one store, remembered in `STATE_DIR/attachments-<store uuid>.json`.
///
/// The file is replaced whole and synced before a change is acknowledged. One that cannot be read
/// back stops the daemon's start: to go on without it would take every disk away from its guest
/// without a word.
package struct AttachmentsFile: Sendable {
    package let path: String
    private let storeUUID: String

    package init(stateDirectory: String, storeUUID: String) {
        path = stateDirectory + "/attachments-\(storeUUID).json"
        self.storeUUID = storeUUID
    }

    /// What is remembered; nothing if there is no file yet.
    package func load() throws(ControlError) -> [AttachmentRecord] {
        let bytes: [UInt8]
        do throws(SystemError) {
            bytes = try SmallFile.read(path, limitBytes: 64 << 20)
        } catch {
            if error.number == ENOENT { return [] }
            throw ControlError(.ioError, "cannot read the attachments file \(path): \(error)")
        }
        let contents: Contents
        do throws(ControlError) {
            contents = try ControlJSON.decode(Contents.self, from: bytes)
        } catch {
            throw damaged(error.message)
        }
        guard Contents.readableVersions.contains(contents.version) else {
            throw damaged("it has version \(contents.version)")
        }
        guard contents.store == storeUUID else { throw damaged("it belongs to another store") }
        let records = contents.attachments + (contents.xenNodes ?? [])
        guard Set(records.map(\.version)).count == records.count
        else { throw damaged("it names a VDI or a snapshot twice") }
        return records
    }

    /// Durable when it returns.
    package func save(_ records: [AttachmentRecord]) throws(ControlError) {
        let sorted = records.sorted {
            ($0.identifier.rawValue, $0.version.rawValue)
                < ($1.identifier.rawValue, $1.version.rawValue)
        }
        let contents = Contents(
            version: Contents.currentVersion, store: storeUUID,
            attachments: sorted.filter { !$0.isXenNode }, xenNodes: sorted.filter(\.isXenNode))
        do throws(ReplaceError) {
            try SmallFile.replace(path, with: ControlJSON.encode(contents, pretty: true))
        } catch {
            throw ControlError(.ioError, "cannot remember the change in \(path): \(error)")
        }
    }

    private func damaged(_ detail: String) -> ControlError {
        ControlError(
            .ioError,
            "the attachments file \(path) cannot be used (\(detail)); repair it, or move it away "
                + "to start with nothing attached")
    }

    private struct Contents: Codable {
        /// Version 2 added snapshots.
        static let currentVersion = 2
        static let readableVersions = 1...2

        var version: Int
        var store: String
        var attachments: [AttachmentRecord]
        /// Apart from the others, so that a daemon that does not know of them passes over them: it
        /// would refuse the nodes of what it had restored itself.
        var xenNodes: [AttachmentRecord]?

        enum CodingKeys: String, CodingKey {
            case version
            case store
            case attachments
            case xenNodes = "xen_nodes"
        }
    }
}
