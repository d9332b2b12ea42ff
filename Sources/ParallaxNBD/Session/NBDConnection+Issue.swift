// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import Glibc
internal import ParallaxCore

/// Splitting a command into operations, and giving these to the engine.
extension NBDConnection {
    /// I2, with one more operation or one more command.
    var hasRoomForReply: Bool {
        let operationCount = NBDLimits.operationsInFlight - freeOperations.count
        let commandCount = NBDLimits.commandsInFlight - freeCommands.count
        return replies.freeCapacity > operationCount + commandCount
    }

    /// How much of the rest of the current request the next operation takes. A request that does
    /// not fit into one piece is cut where blocks begin, so that no block is written in halves.
    func pieceBytes() -> Int {
        let rest = Int(current.request.length) - current.done
        guard rest > NBDLimits.largePieceBytes else { return rest }
        let offset = current.request.offset + UInt64(current.done)
        return NBDLimits.largePieceBytes - Int(offset % UInt64(blockBytes))
    }

    /// An operation of the current command, with a piece for `byteCount` bytes.
    mutating func takeOperation(byteCount: Int, keepingLarge: Int) -> Int32? {
        guard let operation = takeOperation(covering: byteCount) else { return nil }
        guard let piece = pool.take(byteCount: byteCount, keepingLarge: keepingLarge) else {
            freeOperations.push(operation)
            return nil
        }
        operations[Int(operation)].piece = piece
        segments[Int(operation)] = DataSegment(base: pool.address(of: piece), count: byteCount)
        return operation
    }

    /// An operation of the current command, without a piece.
    mutating func takeOperation(covering byteCount: Int) -> Int32? {
        guard hasRoomForReply, let operation = freeOperations.pop() else { return nil }
        operations[Int(operation)] = Operation(
            command: current.command, offset: current.request.offset + UInt64(current.done),
            byteCount: byteCount)
        return operation
    }

    mutating func giveBack(_ operation: Int32) {
        let piece = operations[Int(operation)].piece
        if piece >= 0 { pool.giveBack(piece) }
        operations[Int(operation)] = Operation()
        freeOperations.push(operation)
    }

    /// The queue must not be full.
    mutating func submit(
        _ index: Int32, _ kind: BlockRequest.Operation, _ requests: inout RequestQueue
    ) {
        let operation = operations[Int(index)]
        let command = Int(operation.command)
        let hasSegment = kind == .read || kind == .write || kind == .allocation
        requests.append(
            BlockRequest(
                operation: kind, vdi: vdi, session: session, tag: UInt32(index),
                firstSector: operation.offset / UInt64(sectorBytes),
                sectorCount: UInt64(operation.byteCount / sectorBytes),
                forceUnitAccess: commands[command].flags.contains(.forceUnitAccess),
                segments: hasSegment ? UnsafePointer(segments + Int(index)) : nil,
                segmentCount: hasSegment ? 1 : 0))
        operations[Int(index)].isSubmitted = true
        commands[command].outstanding += 1
        inFlight += 1
    }

    /// Everything but writes and long simple reads.
    mutating func issue(_ requests: inout RequestQueue) -> Pause? {
        repeat {
            // An earlier piece failed: the rest would be for nothing.
            if commands[Int(current.command)].error != nil { break }
            if requests.isFull { return .needsQueue }
            guard let (operation, kind) = nextOperation() else { return .needsRoom }
            submit(operation, kind, &requests)
            current.done += operations[Int(operation)].byteCount
        } while current.done < Int(current.request.length)
        endCurrent()
        return nil
    }

    private mutating func nextOperation() -> (Int32, BlockRequest.Operation)? {
        let request = current.request
        let length = Int(request.length)
        let type = commands[Int(current.command)].type
        switch type {
        case .read:
            return takeOperation(
                byteCount: pieceBytes(), keepingLarge: NBDLimits.largePiecesForWrites
            ).map { ($0, .read) }
        case .writeZeroes where request.flags.contains(.noHole):
            return takeZeroes().map { ($0, .write) }
        case .writeZeroes: return takeOperation(covering: length).map { ($0, .writeZeroes) }
        case .trim: return takeOperation(covering: length).map { ($0, .discard) }
        case .flush: return takeOperation(covering: 0).map { ($0, .flush) }
        case .blockStatus: return takeAllocationQuery().map { ($0, .allocation) }
        case .write, .cache, .disconnect:
            preconditionFailure("NBDConnection: a command that is not issued this way")
        }
    }

    /// The range must stay allocated, so zeroes are written like any data.
    private mutating func takeZeroes() -> Int32? {
        guard commands[Int(current.command)].outstanding < NBDLimits.zeroPieces else { return nil }
        let byteCount = pieceBytes()
        guard let operation = takeOperation(covering: byteCount) else { return nil }
        segments[Int(operation)] = DataSegment(base: pool.zeroes, count: byteCount)
        return operation
    }

    /// The operation covers the range; its segment is one small piece for the engine's extents.
    private mutating func takeAllocationQuery() -> Int32? {
        let listBytes = NBDLimits.smallPieceBytes
        guard
            let operation = takeOperation(
                byteCount: listBytes, keepingLarge: NBDLimits.largePiecesForWrites)
        else { return nil }
        memset(segments[Int(operation)].base, 0, listBytes)
        operations[Int(operation)].byteCount = Int(current.request.length)
        return operation
    }

    // MARK: The end of a command

    /// Nothing of the current request is left in the socket, and all its operations are issued.
    mutating func endCurrent() {
        let command = current.command
        current = Current()
        commands[Int(command)].isIssued = true
        finishIfDone(command)
    }

    /// The connection ends in the middle of the current request.
    mutating func abandonCurrent() {
        let command = current.command
        if current.operation >= 0 { giveBack(current.operation) }
        if current.step == .simpleStream { abandonRound() }
        current = Current()
        guard command >= 0 else { return }
        commands[Int(command)].isAbandoned = true
        commands[Int(command)].isIssued = true
        finishIfDone(command)
    }
}
