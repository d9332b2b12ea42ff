// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

package import ParallaxCore

/// A change of the catalogue that was asked for and not answered, with what must be known then.
package struct ChangeInFlight {
    package var change: CatalogChange
    /// The number of mutations acknowledged when it was asked for.
    package var covered: Int
    /// The change is wrong; this is the only right answer.
    package var refusal: CatalogError?
    /// What shrinking zeroes.
    package var shrinkStamp: Stamp?
    /// A snapshot, and a rollback that keeps what was: when it was asked for.
    package var window: SnapshotWindow?
    /// A clone, and a rollback: what the head begins with.
    package var source: ModelSnapshot?
    /// Something that it needs to be left alone was in use when it was asked for, or since.
    package var mayBeInUse = false
}

/// A comparison that was asked for, with what the two versions hold.
package struct DiffInFlight {
    package var query: DiffQuery
    /// nil: an empty disk.
    package var old: ModelSnapshot?
    package var new: ModelSnapshot
    package var ranges: [DiffRange] = []
    /// Where it began; `query` moves on with each answer.
    package let firstAsked: UInt64

    package init(query: DiffQuery, old: ModelSnapshot?, new: ModelSnapshot) {
        self.query = query
        self.old = old
        self.new = new
        firstAsked = query.firstBlock
    }
}

extension CatalogChange {
    /// Gives space back: a full store must carry it out (promise 7).
    var makesRoom: Bool {
        switch self {
        case .delete, .deleteSnapshot, .finishGroup: true
        case .setDetails, .create, .clone, .resize, .rename, .setAttributes, .snapshot, .rollback:
            false
        }
    }

    /// The VDI that it is made to; nil where there is none, or not yet.
    var vdi: UInt64? {
        switch self {
        case .create, .clone, .setDetails, .deleteSnapshot, .finishGroup: nil
        case .resize(let identifier, _), .rename(let identifier, _), .delete(let identifier),
            .setAttributes(let identifier, _), .snapshot(let identifier, _, _, _),
            .rollback(let identifier, _, _, _):
            identifier.rawValue
        }
    }

    /// The snapshot that it is made to or made from.
    var snapshot: UInt64? {
        switch self {
        case .clone(let identifier, _, _, _), .setDetails(let identifier, _),
            .deleteSnapshot(let identifier), .rollback(_, let identifier, _, _):
            identifier.rawValue
        case .create, .resize, .rename, .delete, .setAttributes, .snapshot, .finishGroup: nil
        }
    }
}
