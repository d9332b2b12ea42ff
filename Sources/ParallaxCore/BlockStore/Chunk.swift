// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// One change that a chunk carries, to be applied to the trees when the chunk is on the device
/// and all chunks before it are applied.
struct ChunkOperation: BitwiseCopyable {
    enum Kind: UInt8, BitwiseCopyable { case data, hole, catalog }

    var kind: Kind
    /// Index in the table of open VDIs. Of a catalogue operation: the disk all of whose blocks it
    /// replaces; `.max`: none.
    var vdi: UInt32
    /// The part that waits for it, or -1.
    var part: Int32
    var firstBlock: UInt64
    var count: Int32
    /// First payload block, for data.
    var payload: Int32
    /// Offset of the checksums in the header block, for data.
    var checksumsOffset: Int32
    var holeKind = HoleKind.discarded
}

/// A chunk buffer: one header block and room for the payload, contiguous, so that a chunk is one
/// device write.
///
/// ```
///  base          base + 4 KiB
///  +------------+---------+---------+-- ... --+
///  | header and | payload | payload |         |
///  | records    | block 0 | block 1 |         |
///  +------------+---------+---------+-- ... --+
/// ```
struct Chunk: BitwiseCopyable {
    enum State: UInt8, BitwiseCopyable { case free, building, writing, complete }

    /// Most operations that fit: each takes at least 16 bytes of the header's records.
    static let operationCapacity = ChunkHeader.recordCapacity / 16 + 1

    var state = State.free
    let base: UnsafeMutableRawPointer
    let operations: UnsafeMutablePointer<ChunkOperation>
    /// For each payload block the frame of the node in it, or -1.
    let nodeFrames: UnsafeMutablePointer<Int32>
    let writeBuffer: UnsafeMutablePointer<DataSegment>
    var operationCount = 0
    /// Operations applied so far.
    var appliedCount = 0
    var payloadBlocks = 0
    var recordBytes = 0
    /// Payload blocks that fit at this place in the extent.
    var payloadLimit = 0
    var extent = ExtentNumber(0)
    var block = 0
    var lsn = LogSequenceNumber(0)
    var writeAttempts = 0

    init() {
        base = Memory.allocatePages(byteCount: (1 + Limits.chunkPayloadBlocks) * blockBytes)
        operations = .allocate(capacity: Self.operationCapacity)
        nodeFrames = .allocate(capacity: Limits.chunkPayloadBlocks)
        nodeFrames.initialize(repeating: -1, count: Limits.chunkPayloadBlocks)
        writeBuffer = .allocate(capacity: 1)
    }

    func deallocate() {
        base.deallocate()
        operations.deallocate()
        nodeFrames.deallocate()
        writeBuffer.deallocate()
    }

    var payloadRoom: Int { payloadLimit - payloadBlocks }
    var recordRoom: Int { ChunkHeader.recordCapacity - recordBytes }

    func payload(_ index: Int) -> UnsafeMutableRawPointer {
        precondition(index >= 0 && index < Limits.chunkPayloadBlocks, "Chunk: no such block")
        return base + (1 + index) * blockBytes
    }

    /// Address in the store of a payload block.
    func address(ofPayload index: Int) -> BlockAddress {
        BlockAddress(extent: extent, block: block + 1 + index)
    }

    /// Whether an operation in this chunk changes the block.
    func touches(_ vdi: UInt32, _ block: UInt64) -> Bool {
        for index in appliedCount..<operationCount {
            let operation = operations[index]
            guard operation.vdi == vdi else { continue }
            if operation.kind == .catalog { return true }
            if operation.firstBlock <= block
                && block - operation.firstBlock < UInt64(operation.count)
            {
                return true
            }
        }
        return false
    }

    mutating func add(_ operation: ChunkOperation) {
        precondition(operationCount < Self.operationCapacity, "Chunk: too many operations")
        (operations + operationCount).initialize(to: operation)
        operationCount += 1
    }

    /// A writer behind the records so far. The caller adds what it wrote to `recordBytes`.
    func recordWriter() -> ByteWriter {
        ByteWriter(base, capacity: blockBytes, at: ChunkHeader.recordsOffset + recordBytes)
    }
}
