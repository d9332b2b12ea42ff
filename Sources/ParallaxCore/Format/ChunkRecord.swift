// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// One record of a chunk header. Records are packed one after the other, little-endian; payload
/// blocks belong to the records in order.
///
/// ```
///  data   type 1 u8 | 0 u8 | count u16 | 0 u32     | vdi u64 | first block u64 | CRC32C u32 x count
///  hole   type 2 u8 | kind u8 | 0 u16  | count u32 | vdi u64 | first block u64
///  node   type 3 u8 | level u8 | 0 u16 | CRC32C u32| vdi u64 | first block u64    (one payload block)
///  table  type 4 u8 | 0 u8 | count u16 | 0 u32     | CRC32C u32 x count
///  lease  type 5 u8 | 0 u8 | 0 u16     | slot u32  | extent u64
///  vdi    type 6 u8 | change u8 | length u16 | 0 u32 | bytes x length
///  moved  type 7 u8 | 0 u8 | count u16 | 0 u32     | vdi u64
///                   | per block: name u64, first block u64, CRC32C u32
///  moves  type 8 u8 | 0 u8 | count u16 | 0 u32     | to u64 | from u64 x count
///  drop   type 9 u8 | 0 u8 | 0 u16     | 0 u32     | extent u64
/// ```
enum ChunkRecord {
    /// `count` blocks of a VDI were written; their payload is in the chunk.
    case data(vdi: VDIIdentifier, firstBlock: UInt64, count: Int, checksumsOffset: Int)
    /// `count` blocks of a VDI read as zeros from now on.
    case hole(vdi: VDIIdentifier, firstBlock: UInt64, count: Int, kind: HoleKind)
    /// A radix node that a checkpoint wrote; replay passes over it.
    case node(vdi: VDIIdentifier, level: Int, firstBlock: UInt64, checksum: UInt32)
    /// Blocks of a checkpoint's tables; replay passes over them.
    case table(count: Int, checksumsOffset: Int)
    /// `extent` will be at `slot`: it comes next after those leased before.
    case lease(extent: ExtentNumber, slot: ExtentSlot)
    /// A change of the catalogue.
    case vdi(CatalogRecord)
    /// Blocks of a VDI that the cleaner has moved here; only in cold extents. `MovedBlock` reads
    /// what is said about each.
    case moved(vdi: VDIIdentifier, count: Int, blocksOffset: Int)
    /// `count` blocks are at `to` and behind it from now on, unless they have died: the places
    /// where they were are at `fromOffset`; 0: none of them.
    case moves(to: BlockAddress, count: Int, fromOffset: Int)
    /// Nothing lives in `extent` any more, and its slot is given back.
    case drop(extent: ExtentNumber)

    enum Kind {
        static let data: UInt8 = 1
        static let hole: UInt8 = 2
        static let node: UInt8 = 3
        static let table: UInt8 = 4
        static let lease: UInt8 = 5
        static let vdi: UInt8 = 6
        static let moved: UInt8 = 7
        static let moves: UInt8 = 8
        static let drop: UInt8 = 9
    }

    static let dataFixedBytes = 24
    static let holeBytes = 24
    static let nodeBytes = 24
    static let tableFixedBytes = 8
    static let leaseBytes = 16
    static let vdiFixedBytes = 8
    static let movedFixedBytes = 16
    static let movesFixedBytes = 16
    static let dropBytes = 16

    /// Payload blocks that belong to this record.
    var payloadBlocks: Int {
        switch self {
        case .data(_, _, let count, _), .table(let count, _), .moved(_, let count, _): count
        case .node: 1
        case .hole, .lease, .vdi, .moves, .drop: 0
        }
    }
}

/// Walks the records of a chunk header. Stops with `isMalformed` at the first record that makes
/// no sense; a valid checksum over nonsense means another program wrote it.
struct ChunkRecordReader {
    private var reader: ByteReader
    private(set) var isMalformed = false

    init(header: UnsafeRawPointer, recordBytes: Int) {
        reader = ByteReader(
            header, count: ChunkHeader.recordsOffset + recordBytes, at: ChunkHeader.recordsOffset)
    }

    mutating func next() -> ChunkRecord? {
        guard reader.remaining > 0 else { return nil }
        guard let record = decode() else {
            isMalformed = true
            return nil
        }
        return record
    }

    private mutating func decode() -> ChunkRecord? {
        guard let type = reader.take(UInt8.self), let detail = reader.take(UInt8.self),
            let short = reader.take(UInt16.self), let long = reader.take(UInt32.self)
        else { return nil }
        switch type {
        case ChunkRecord.Kind.data:
            guard let vdi = reader.take(UInt64.self), let first = reader.take(UInt64.self),
                short > 0
            else { return nil }
            let offset = reader.position
            guard reader.skip(Int(short) * 4) else { return nil }
            return .data(
                vdi: VDIIdentifier(vdi), firstBlock: first, count: Int(short),
                checksumsOffset: offset)
        case ChunkRecord.Kind.hole:
            guard let vdi = reader.take(UInt64.self), let first = reader.take(UInt64.self),
                let kind = HoleKind(rawValue: detail), long > 0
            else { return nil }
            return .hole(
                vdi: VDIIdentifier(vdi), firstBlock: first, count: Int(long), kind: kind)
        case ChunkRecord.Kind.node:
            guard let vdi = reader.take(UInt64.self), let first = reader.take(UInt64.self)
            else { return nil }
            return .node(
                vdi: VDIIdentifier(vdi), level: Int(detail), firstBlock: first, checksum: long)
        case ChunkRecord.Kind.table:
            let offset = reader.position
            guard reader.skip(Int(short) * 4) else { return nil }
            return .table(count: Int(short), checksumsOffset: offset)
        case ChunkRecord.Kind.lease:
            guard let extent = reader.take(UInt64.self) else { return nil }
            return .lease(extent: ExtentNumber(extent), slot: ExtentSlot(long))
        case ChunkRecord.Kind.vdi:
            return decodeCatalog(kind: detail, length: Int(short))
        case ChunkRecord.Kind.moved:
            guard let vdi = reader.take(UInt64.self), short > 0 else { return nil }
            let offset = reader.position
            guard reader.skip(Int(short) * MovedBlock.bytes) else { return nil }
            return .moved(vdi: VDIIdentifier(vdi), count: Int(short), blocksOffset: offset)
        case ChunkRecord.Kind.moves:
            guard let to = reader.take(UInt64.self).map(BlockAddress.init(rawValue:)), short > 0,
                to.extent.isCold, to.flags == 0, to.block + Int(short) <= Limits.extentBlocks
            else { return nil }
            let offset = reader.position
            guard reader.skip(Int(short) * 8) else { return nil }
            return .moves(to: to, count: Int(short), fromOffset: offset)
        case ChunkRecord.Kind.drop:
            guard let extent = reader.take(UInt64.self) else { return nil }
            return .drop(extent: ExtentNumber(extent))
        default:
            return nil
        }
    }

    private mutating func decodeCatalog(kind: UInt8, length: Int) -> ChunkRecord? {
        let start = reader.position
        guard reader.skip(length) else { return nil }
        var body = ByteReader(reader.base, count: start + length, at: start)
        return CatalogRecord.decode(kind: kind, from: &body).map(ChunkRecord.vdi)
    }
}

/// What a cold chunk says about one of its blocks.
///
/// ```
///  name u64: the address by which trees may refer to it; in its lowest four bits what it is:
///            0 a data block, n + 1 a radix node of level n
///  first block u64 | CRC32C u32
/// ```
struct MovedBlock: BitwiseCopyable {
    static let bytes = 20

    var name: BlockAddress
    /// Level of the node; -1 for data.
    var level: Int
    var firstBlock: UInt64
    var checksum: UInt32

    static func read(_ header: UnsafeRawPointer, offset: Int) -> MovedBlock {
        var reader = ByteReader(header, count: blockBytes, at: offset)
        let name = reader.take(UInt64.self) ?? 0
        return MovedBlock(
            name: BlockAddress(rawValue: name & ~15), level: Int(name & 15) - 1,
            firstBlock: reader.take(UInt64.self) ?? 0, checksum: reader.take(UInt32.self) ?? 0)
    }

    func write(to writer: inout ByteWriter) {
        writer.put(name.rawValue | UInt64(level + 1))
        writer.put(firstBlock)
        writer.put(checksum)
    }
}
