// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// What is in one of the places of a checkpoint root.
enum RootPlace: Equatable {
    case root(CheckpointRoot)
    /// Nothing was ever written there.
    case zeros
    case damaged
    /// The medium reports an error.
    case unreadable

    var root: CheckpointRoot? {
        if case .root(let root) = self { root } else { nil }
    }

    var isDamaged: Bool { self == .damaged || self == .unreadable }
}

extension CheckpointRoot {
    /// Both places of one of the two roots of a stream. What is bad is looked at twice: a bit may have
    /// got lost on its way in.
    static func places(
        _ superblock: Superblock, stream: Int, copy: Int, medium: some StoreMedium
    ) -> [RootPlace] {
        Superblock.checkpointRootOffsets(stream: stream, copy: copy).map { offset in
            let place = read(superblock, stream: stream, at: offset, medium: medium)
            return place.isDamaged
                ? read(superblock, stream: stream, at: offset, medium: medium) : place
        }
    }

    /// Of two with one sequence the first: only a repair that was cut off leaves those.
    static func newest(of places: [RootPlace]) -> CheckpointRoot? {
        places.compactMap(\.root).reduce(nil) { newest, root in
            guard let newest, newest.sequence >= root.sequence else { return root }
            return newest
        }
    }

    private static func read(
        _ superblock: Superblock, stream: Int, at offset: UInt64, medium: some StoreMedium
    ) -> RootPlace {
        let block = BlockBuffer()
        guard (try? medium.read(at: offset, into: block.bytes)) != nil else { return .unreadable }
        if let root = decode(from: block.base, uuid: superblock.uuid, stream: stream) {
            return .root(root)
        }
        return Memory.isZero(block.base, count: blockBytes) ? .zeros : .damaged
    }
}
