// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc

@testable import ParallaxCore

/// A whole store, of which some blocks are changed and all checksums are right: it is opened, used and
/// opened again. It may be refused, and blocks of it may be unreadable; nothing may trap or hang.
enum StoreImages {
    static func run(_ start: Input) {
        var input = start
        let model = models[input.below(models.count)]
        let image = StoreImage(byteCount: model.byteCount, base: model.blocks)
        var changed: Set<Int> = []
        for _ in 0..<1 + input.below(6) {
            changed.insert(mutate(image, model.links, &input))
        }
        if input.byte() & 15 != 0 { model.links.repair(image, changed) }
        guard let rig = StoreRig(image) else { return }
        use(rig, &input)
        rig.settle()
        // What an engine has written must be there for the next one, as far as it could be read.
        _ = StoreRig(StoreImage(byteCount: image.byteCount, base: image.blocks))
    }

    /// Changes one block that is not a guest's; which.
    private static func mutate(
        _ image: StoreImage, _ links: ChecksumLinks, _ input: inout Input
    ) -> Int {
        let lists = [links.fixed, links.chunkHeaders, links.others, links.others]
        let list = lists[input.below(lists.count)]
        let number = list[(Int(input.byte()) << 8 | Int(input.byte())) % list.count]
        var block = image[number]
        let offset = (Int(input.byte()) << 8 | Int(input.byte())) % blockBytes
        switch input.below(5) {
        case 0:
            let bytes = input.take(1 + input.below(16)).prefix(blockBytes - offset)
            block.replaceSubrange(offset..<offset + bytes.count, with: bytes)
        case 1: block[offset] &+= 1
        case 2: block[offset] ^= 1 << UInt8(input.below(8))
        case 3:
            // A record or a reference from elsewhere.
            let other = image[list[Int(input.byte()) % list.count]]
            let from = (Int(input.byte()) << 8 | Int(input.byte())) % blockBytes & ~7
            let to = offset & ~7
            let count = min(16 * (1 + input.below(8)), blockBytes - max(from, to))
            block.replaceSubrange(to..<to + count, with: other[from..<from + count])
        default:
            let count = min(blockBytes - offset, 1 << input.below(13))
            let value: UInt8 = input.byte() & 1 == 0 ? 0 : 0xff
            block.replaceSubrange(
                offset..<offset + count, with: [UInt8](repeating: value, count: count))
        }
        image[number] = block
        return number
    }

    /// Reads all and changes some.
    private static func use(_ rig: StoreRig, _ input: inout Input) {
        for stream in rig.streams {
            let vdis = stream.engine.vdis()
            for vdi in vdis.prefix(3) {
                guard let handle = stream.engine.handle(of: vdi.identifier) else { continue }
                readAll(rig, stream, handle)
            }
            for snapshot in stream.engine.snapshots(from: 0, limit: 3).snapshots {
                guard let handle = stream.engine.openSnapshot(snapshot.identifier) else { continue }
                readAll(rig, stream, handle)
                stream.engine.closeSnapshot(handle)
            }
            for _ in 0..<input.below(6) { act(rig, stream, vdis, &input) }
        }
    }

    private static func readAll(_ rig: StoreRig, _ stream: StoreRig.Stream, _ handle: UInt32) {
        for block in stride(from: 0, to: StoreModel.vdiBlocks, by: radixFanout) {
            _ = rig.request(
                stream, .read, handle: handle, block: UInt64(block), count: radixFanout)
        }
    }

    private static func act(
        _ rig: StoreRig, _ stream: StoreRig.Stream, _ vdis: [VDISummary], _ input: inout Input
    ) {
        guard !vdis.isEmpty else { return }
        let vdi = vdis[input.below(vdis.count)].identifier
        let snapshots = stream.engine.snapshots(from: 0, limit: 8).snapshots
        let snapshot = snapshots.isEmpty ? nil : snapshots[input.below(snapshots.count)].identifier
        let kind = input.below(9)
        switch (kind, snapshot) {
        case (0, _), (1, _), (2, _):
            guard let handle = stream.engine.handle(of: vdi) else { return }
            let block = UInt64(input.below(StoreModel.vdiBlocks - 32))
            let operation: BlockRequest.Operation = kind == 2 ? .discard : .write
            _ = rig.request(
                stream, operation, handle: handle, block: block, count: 1 + input.below(32))
        case (3, _): rig.change(stream, .delete(vdi))
        case (4, _):
            rig.change(
                stream,
                .snapshot(vdi, SnapshotDetails(name: "new"), createdAtNanoseconds: 9, group: 0))
        case (5, .some(let snapshot)): rig.change(stream, .deleteSnapshot(snapshot))
        case (6, .some(let snapshot)):
            rig.change(
                stream,
                .clone(of: snapshot, name: "clone", sizeBytes: 1 << 22, createdAtNanoseconds: 9))
        case (7, .some(let snapshot)):
            rig.change(
                stream,
                .rollback(
                    vdi, to: snapshot, keeping: SnapshotDetails(name: "kept"),
                    createdAtNanoseconds: 9))
        default: stream.engine.requestCleaning(untilFreeSlots: 100)
        }
        for _ in 0..<input.below(8) { rig.turn() }
    }

    static func prepare() { precondition(models.count > 1, "there are no models") }

    /// Made once; each takes some seconds.
    private static let models: [StoreModel] = [
        StoreModel(streams: 1, hasEndedWell: true), StoreModel(streams: 2, hasEndedWell: false),
    ]
}

/// A store with disks, snapshots, clones, deletions and blocks that the cleaner has moved.
struct StoreModel {
    static let vdiBlocks = 512
    private static let mark: UInt8 = 0xd7

    let byteCount: UInt64
    let blocks: StoreImage.Blocks
    let links: ChecksumLinks

    /// `hasEndedWell`: its last checkpoint is all; else there is a log to replay.
    init(streams: Int, hasEndedWell: Bool) {
        byteCount = UInt64(1 + 12 * streams) << 20
        let image = StoreImage(byteCount: byteCount)
        let options = FormatOptions(
            sizeBytes: byteCount, extentBytes: 1 << 20, streamCount: streams,
            uuid: StoreUUID(high: 5, low: 7), createdAtNanoseconds: 1)
        guard (try? Store.format(medium: image, options: options)) != nil,
            let rig = StoreRig(image)
        else { preconditionFailure("the model of a store cannot be made") }
        for stream in rig.streams { Self.fill(rig, stream) }
        for stream in rig.streams { stream.engine.requestCheckpoint() }
        rig.settle()
        if !hasEndedWell {
            for stream in rig.streams { Self.addLog(rig, stream) }
        }
        blocks = image.blocks
        links = ChecksumLinks(blocks) { block in
            block.first == Self.mark && block.last == Self.mark
        }
    }

    private static func fill(_ rig: StoreRig, _ stream: StoreRig.Stream) {
        for name in ["one", "two"] {
            rig.change(
                stream,
                .create(
                    name: name, sizeBytes: UInt64(vdiBlocks * blockBytes), createdAtNanoseconds: 2))
        }
        rig.settle()
        for round in 0..<5 {
            for vdi in stream.engine.vdis() {
                guard let handle = stream.engine.handle(of: vdi.identifier) else { continue }
                for block in stride(from: 7 * round, to: vdiBlocks - 32, by: 40) {
                    write(rig, stream, handle, block, 1 + (block + round) % 17)
                }
                rig.change(
                    stream,
                    .snapshot(
                        vdi.identifier, SnapshotDetails(name: "s\(round)"),
                        createdAtNanoseconds: 3, group: 0))
            }
            rig.settle()
        }
        let snapshots = stream.engine.snapshots(from: 0, limit: 100).snapshots
        rig.change(
            stream,
            .clone(
                of: snapshots[2].identifier, name: "three",
                sizeBytes: UInt64(vdiBlocks * blockBytes), createdAtNanoseconds: 4))
        for snapshot in snapshots.prefix(2) + snapshots.suffix(2) {
            rig.change(stream, .deleteSnapshot(snapshot.identifier))
        }
        rig.settle()
        stream.engine.requestCleaning(untilFreeSlots: 100)
        rig.settle()
    }

    /// What a recovery has to replay.
    private static func addLog(_ rig: StoreRig, _ stream: StoreRig.Stream) {
        for vdi in stream.engine.vdis() {
            guard let handle = stream.engine.handle(of: vdi.identifier) else { continue }
            write(rig, stream, handle, 100, 20)
            _ = rig.request(stream, .discard, handle: handle, block: 200, count: 30)
            rig.change(
                stream,
                .snapshot(
                    vdi.identifier, SnapshotDetails(name: "late"), createdAtNanoseconds: 5,
                    group: 0))
            write(rig, stream, handle, 110, 20)
        }
        if let last = stream.engine.snapshots(from: 0, limit: 100).snapshots.last {
            rig.change(stream, .deleteSnapshot(last.identifier))
        }
        if let handle = stream.engine.vdis().first.flatMap({
            stream.engine.handle(of: $0.identifier)
        }) {
            _ = rig.request(stream, .flush, handle: handle, block: 0, count: 1)
        }
    }

    private static func write(
        _ rig: StoreRig, _ stream: StoreRig.Stream, _ handle: UInt32, _ block: Int, _ count: Int
    ) {
        let status = rig.request(
            stream, .write, handle: handle, block: UInt64(block), count: count, fill: mark)
        precondition(status == .ok, "the model of a store refuses a write")
    }
}
