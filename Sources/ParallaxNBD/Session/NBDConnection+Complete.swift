// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import Glibc
package import ParallaxCore

/// From the engine's replies to bytes for the peer.
extension NBDConnection {
    /// The engine's reply to the operation `tag`.
    package mutating func complete(tag: UInt32, status: BlockStatus) {
        precondition(
            tag < UInt32(NBDLimits.operationsInFlight) && operations[Int(tag)].isSubmitted,
            "NBDConnection I4: a reply to no request")
        let operation = operations[Int(tag)]
        let index = Int(operation.command)
        operations[Int(tag)].isSubmitted = false
        inFlight -= 1
        commands[index].outstanding -= 1
        let command = commands[index]
        let error = NBDErrorCode(status, to: command.type)
        // The pieces of a simple stream wait for each other, unless nobody waits for them.
        if command.isSimpleStream && !command.isAbandoned {
            if commands[index].error == nil { commands[index].error = error }
            return
        }
        switch command.type {
        case .blockStatus:
            // An engine that cannot tell: all of it is data, which is always a right answer.
            replyDescriptors(tag, isKnown: status == .ok)
            return
        case .read where error == nil && command.error == nil && isAwaited(command):
            if replyData(tag) { return }
        default:
            if command.error == nil { commands[index].error = error }
        }
        giveBack(Int32(tag))
        finishIfDone(operation.command)
    }

    private func isAwaited(_ command: Command) -> Bool {
        !command.isAbandoned && phase != .closed
    }

    /// One piece of a read. True: it was the last, and the command is over.
    private mutating func replyData(_ tag: UInt32) -> Bool {
        let operation = operations[Int(tag)]
        let command = commands[Int(operation.command)]
        let isLast = command.isIssued && command.outstanding == 0
        let writer = replies.nextHeader
        let headerBytes =
            rules.usesStructuredReplies
            ? writer.offsetData(
                cookie: command.cookie, offset: operation.offset, dataBytes: operation.byteCount,
                isLast: isLast)
            : writer.simple(nil, cookie: command.cookie)
        replies.append(
            headerBytes: headerBytes, body: pool.address(of: operation.piece),
            bodyBytes: operation.byteCount, piece: operation.piece)
        // The piece now belongs to the reply queue.
        operations[Int(tag)].piece = -1
        guard isLast else { return false }
        giveBack(Int32(tag))
        freeCommands.push(operation.command)
        return true
    }

    private mutating func replyDescriptors(_ tag: UInt32, isKnown: Bool) {
        let operation = operations[Int(tag)]
        let command = commands[Int(operation.command)]
        let list = pool.address(of: operation.piece)
        guard isAwaited(command) else {
            giveBack(Int32(tag))
            freeCommands.push(operation.command)
            return
        }
        let listBytes =
            isKnown
            ? NBDDescriptors.encode(
                UnsafeMutableRawBufferPointer(start: list, count: NBDLimits.smallPieceBytes),
                rangeBytes: command.length, onlyOne: command.flags.contains(.requestOne))
            : NBDDescriptors.encodeData(list, rangeBytes: command.length)
        let headerBytes = replies.nextHeader.blockStatus(
            cookie: command.cookie, context: NBDNegotiation.allocationContextID,
            descriptorBytes: listBytes)
        replies.append(
            headerBytes: headerBytes, body: list, bodyBytes: listBytes, piece: operation.piece)
        operations[Int(tag)].piece = -1
        giveBack(Int32(tag))
        freeCommands.push(operation.command)
    }

    /// Answers the command if nothing of it is outstanding any more.
    mutating func finishIfDone(_ index: Int32) {
        let command = commands[Int(index)]
        guard command.isIssued, command.outstanding == 0 else { return }
        if isAwaited(command) { replyResult(command) }
        freeCommands.push(index)
    }

    private mutating func replyResult(_ command: Command) {
        let writer = replies.nextHeader
        guard rules.usesStructuredReplies else {
            return replies.append(
                headerBytes: writer.simple(command.error, cookie: command.cookie))
        }
        if let error = command.error {
            let message = error.message
            replies.append(
                headerBytes: writer.error(error, cookie: command.cookie),
                body: UnsafeMutableRawPointer(mutating: message.utf8Start),
                bodyBytes: message.utf8CodeUnitCount)
        } else if command.type == .read {
            replies.append(headerBytes: writer.none(cookie: command.cookie))
        } else {
            replies.append(headerBytes: writer.simple(nil, cookie: command.cookie))
        }
    }

    /// Sends until the socket is full, nothing is left, or the share of the turn is used up.
    mutating func send() {
        var budget = NBDLimits.sendBytesPerTurn
        while budget > 0, !replies.isEmpty, !isBroken {
            let count = replies.send(to: socketFD, pool: &pool)
            if count < 0 { isBroken = true }
            guard count > 0 else { return }
            budget -= count
        }
    }
}
