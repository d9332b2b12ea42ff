// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// A read of more than one piece for a peer without structured replies.
///
/// Its data must follow one header without a gap, and after a header that said "no error" there is
/// no way to report one. So it is read in rounds of up to 4 MiB: a round goes out when all of it
/// has been read. An error in the first round is reported; one in a later round ends the
/// connection, as the protocol demands. A read that needs more than one round is alone: it begins
/// when everything before it has been answered, so that no other reply gets between its parts.
///
/// ```
///  header | piece 0 ... piece 15 | piece 16 ... piece 31 | ...
///         '------ round 1 -------'------- round 2 -------'
/// ```
extension NBDConnection {
    /// Issues a round, and answers it when the last of it has been read.
    mutating func stream(_ requests: inout RequestQueue) -> Pause? {
        let length = Int(current.request.length)
        let roundBytes = (NBDLimits.simpleReadPieces - 1) * NBDLimits.largePieceBytes
        let isAlone = freeCommands.count == NBDLimits.commandsInFlight - 1
        if length > roundBytes && !isAlone { return .needsRoom }
        while current.done < length, current.roundCount < NBDLimits.simpleReadPieces,
            commands[Int(current.command)].error == nil
        {
            if requests.isFull { return .needsQueue }
            guard
                let operation = takeOperation(
                    byteCount: pieceBytes(), keepingLarge: NBDLimits.largePiecesForWrites)
            else { return .needsRoom }
            submit(operation, .read, &requests)
            round[current.roundCount] = operation
            current.roundCount += 1
            current.done += operations[Int(operation)].byteCount
        }
        guard commands[Int(current.command)].outstanding == 0 else { return .needsRoom }
        return finishRound()
    }

    private mutating func finishRound() -> Pause? {
        if commands[Int(current.command)].error != nil {
            for index in 0..<current.roundCount { giveBack(round[index]) }
            current.roundCount = 0
            if current.hasHeader { isBroken = true } else { endCurrent() }
            return nil
        }
        let cookie = commands[Int(current.command)].cookie
        for index in 0..<current.roundCount {
            let operation = operations[Int(round[index])]
            let headerBytes =
                current.hasHeader ? 0 : replies.nextHeader.simple(nil, cookie: cookie)
            current.hasHeader = true
            replies.append(
                headerBytes: headerBytes, body: pool.address(of: operation.piece),
                bodyBytes: operation.byteCount, piece: operation.piece)
            operations[Int(round[index])].piece = -1
            giveBack(round[index])
        }
        current.roundCount = 0
        guard current.done == Int(current.request.length) else { return nil }
        freeCommands.push(current.command)
        current = Current()
        return nil
    }

    /// The connection ends: operations that have been answered have no other owner.
    mutating func abandonRound() {
        for index in 0..<current.roundCount where !operations[Int(round[index])].isSubmitted {
            giveBack(round[index])
        }
        current.roundCount = 0
    }
}
