// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux
internal import Glibc
internal import ParallaxCore

/// From the socket's bytes to operations: the life of a request up to the engine, in order.
extension NBDConnection {
    mutating func receive(_ requests: inout RequestQueue) {
        var budget = NBDLimits.receiveBytesPerTurn
        while budget > 0 {
            let count = receiveOnce()
            if count == -Int(EAGAIN) { return }
            guard count > 0 else { return peerLeft(count) }
            budget -= count
            advance(&requests)
            guard phase == .serving, pause == .needsBytes, !isBroken else { return }
        }
    }

    /// One system call: the rest of a started piece straight into its place, and whatever follows
    /// into the staging bytes.
    private mutating func receiveOnce() -> Int {
        let room = staging.room()
        guard current.step == .payload, current.operation >= 0 else {
            let count = parallax_receive(socketFD, room.base, room.count)
            if count > 0 { staging.grew(by: count) }
            return count
        }
        let operation = operations[Int(current.operation)]
        let missing = operation.byteCount - current.filled
        let place = pool.address(of: operation.piece) + current.filled
        let count = withUnsafeTemporaryAllocation(of: DataSegment.self, capacity: 2) { buffers in
            buffers[0] = DataSegment(base: place, count: missing)
            buffers[1] = room
            return parallax_receive_vector(socketFD, buffers.baseAddress, 2)
        }
        guard count > 0 else { return count }
        current.filled += min(count, missing)
        staging.grew(by: max(0, count - missing))
        return count
    }

    /// End of file, or an error of the socket. A peer that only closed its sending side still
    /// gets its replies.
    private mutating func peerLeft(_ result: Int) {
        if result < 0 { isBroken = true }
        abandonCurrent()
        phase = .draining
    }

    /// Takes requests from the staged bytes until it has to pause, and says why in `pause`.
    mutating func advance(_ requests: inout RequestQueue) {
        while !isBroken {
            // What is left of the current request is finished even after a goodbye.
            guard phase == .serving || (phase == .draining && current.step != .idle) else { return }
            let reason: Pause?
            switch current.step {
            case .idle: reason = decode()
            case .admission: reason = admit()
            case .issue: reason = issue(&requests)
            case .simpleStream: reason = stream(&requests)
            case .payload: reason = fill(&requests)
            case .discard: reason = discard()
            }
            if let reason {
                pause = reason
                return
            }
        }
    }

    private mutating func decode() -> Pause? {
        guard staging.count >= NBDRequest.byteCount else { return .needsBytes }
        guard let request = NBDRequest(decoding: staging.first) else {
            isBroken = true
            return nil
        }
        staging.take(NBDRequest.byteCount)
        current = Current()
        current.request = request
        current.step = .admission
        return nil
    }

    /// Gives the request a place in the table, or refuses it.
    private mutating func admit() -> Pause? {
        let request = current.request
        let verdict = rules.judge(request)
        switch verdict {
        case .breakOff:
            isBroken = true
            return nil
        case .disconnect:
            current.step = .idle
            phase = .draining
            return nil
        case .perform, .acknowledge, .refuse: break
        }
        guard hasRoomForReply, let command = freeCommands.pop() else { return .needsRoom }
        commands[Int(command)] = Command(
            cookie: request.cookie, offset: request.offset, length: request.length,
            type: NBDCommand(rawValue: request.type) ?? .cache, flags: request.flags)
        current.command = command
        switch verdict {
        case .perform(let type): begin(type)
        case .acknowledge: endCurrent()
        case .refuse(let error):
            commands[Int(command)].error = error
            let hasData = request.type == NBDCommand.write.rawValue && request.length > 0
            if hasData { current.step = .discard } else { endCurrent() }
        case .breakOff, .disconnect: break
        }
        return nil
    }

    private mutating func begin(_ type: NBDCommand) {
        let isLong = current.request.length > NBDLimits.largePieceBytes
        switch type {
        case .write: current.step = .payload
        case .read where isLong && !rules.usesStructuredReplies:
            commands[Int(current.command)].isSimpleStream = true
            current.step = .simpleStream
        default: current.step = .issue
        }
    }

    /// Write data: from the staged bytes into the current piece; the rest comes straight from the
    /// socket. A full piece goes to the engine at once.
    private mutating func fill(_ requests: inout RequestQueue) -> Pause? {
        if current.operation < 0 {
            // An earlier piece failed: the rest has no place to go.
            guard commands[Int(current.command)].error == nil else {
                current.step = .discard
                return nil
            }
            let byteCount = pieceBytes()
            guard let operation = takeOperation(byteCount: byteCount, keepingLarge: 0) else {
                return .needsRoom
            }
            current.operation = operation
            current.filled = 0
        }
        let operation = operations[Int(current.operation)]
        let count = min(staging.count, operation.byteCount - current.filled)
        if count > 0 {
            memcpy(pool.address(of: operation.piece) + current.filled, staging.first, count)
            staging.take(count)
            current.filled += count
        }
        guard current.filled == operation.byteCount else { return .needsBytes }
        guard !requests.isFull else { return .needsQueue }
        submit(current.operation, .write, &requests)
        current.operation = -1
        current.done += operation.byteCount
        if current.done == Int(current.request.length) { endCurrent() }
        return nil
    }

    private mutating func discard() -> Pause? {
        let count = min(staging.count, Int(current.request.length) - current.done)
        staging.take(count)
        current.done += count
        guard current.done == Int(current.request.length) else { return .needsBytes }
        endCurrent()
        return nil
    }
}
