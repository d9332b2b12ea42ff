// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux
internal import Glibc
package import ParallaxCore

/// Blocking access, for formatting, opening, recovery and offline checks.
extension StoreFile: StoreMedium {
    package func read(
        at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer
    ) throws(MediumError) {
        try transferAll(.read, offset, buffer.baseAddress, buffer.count)
    }

    package func write(
        at offset: UInt64, from buffer: UnsafeRawBufferPointer
    ) throws(MediumError) {
        let base = UnsafeMutableRawPointer(mutating: buffer.baseAddress)
        try transferAll(.write, offset, base, buffer.count)
    }

    package func sync() throws(MediumError) {
        // Not tried again after an error: the kernel reports a lost write only once.
        var result: Int
        repeat {
            result = fdatasync(fileDescriptor) == 0 ? 0 : -Int(errno)
        } while result
            == -Int(EINTR)
        result = syncs.judge(result)
        if result < 0 { throw MediumError(errno: Int32(-result), operation: .sync, offset: 0) }
    }

    package func readAll(_ commands: UnsafeBufferPointer<StoreCommand>) throws(MediumError) {
        // A ring costs more to set up than two reads.
        if commands.count > 2 {
            if let reactor = try? UringReactor(
                fileDescriptor: fileDescriptor, commandCapacity: Self.readAllDepth,
                watchCapacity: 1)
            {
                return try Self.readAll(commands, on: reactor)
            }
            if let reactor = try? AioReactor(
                fileDescriptor: fileDescriptor, commandCapacity: Self.readAllDepth,
                watchCapacity: 1)
            {
                return try Self.readAll(commands, on: reactor)
            }
        }
        try readInTurn(commands)
    }

    // LIMIT: reads in flight in `readAll`.
    private static var readAllDepth: Int { 64 }

    /// The tag of each read in flight is its index. After an error nothing new is started, but
    /// what is in flight is waited for: it writes to the caller's memory.
    private static func readAll<R: Reactor & ~Copyable>(
        _ commands: UnsafeBufferPointer<StoreCommand>, on owned: consuming R
    ) throws(MediumError) {
        var reactor = owned
        var nextIndex = 0
        var inFlightCount = 0
        var failure: MediumError?
        while inFlightCount > 0 || (nextIndex < commands.count && failure == nil) {
            while nextIndex < commands.count, failure == nil, reactor.freeCommandSlots > 0 {
                var command = commands[nextIndex]
                precondition(command.operation == .read, "StoreFile.readAll: not a read")
                command.tag = UInt64(nextIndex)
                command.registeredBuffer = -1
                reactor.enqueue(command)
                nextIndex += 1
                inFlightCount += 1
            }
            reactor.wait(timeoutNanoseconds: -1)
            while let event = reactor.nextEvent() {
                guard case .completion(let completion) = event else { continue }
                inFlightCount -= 1
                if completion.result < 0 && failure == nil {
                    failure = MediumError(
                        errno: Int32(-completion.result), operation: .read,
                        offset: commands[Int(completion.tag)].offset)
                }
            }
        }
        if let failure { throw failure }
    }

    /// One run of memory, over short transfers and interruptions, under the reactors' rules.
    private func transferAll(
        _ operation: StoreCommand.Operation, _ offset: UInt64, _ base: UnsafeMutableRawPointer?,
        _ byteCount: Int
    ) throws(MediumError) {
        guard let base, byteCount > 0 else { return }
        let segment = DataSegment(base: base, count: byteCount)
        let result = withUnsafePointer(to: segment) { buffers in
            var transfer = StoreTransfer(
                StoreCommand(
                    operation: operation, tag: 0, offset: offset, byteCount: byteCount,
                    buffers: buffers, bufferCount: 1))
            while true {
                let piece = transfer.nextPiece
                let position = Int(piece.offset)
                let count =
                    operation == .read
                    ? pread(fileDescriptor, piece.base, piece.byteCount, position)
                    : pwrite(fileDescriptor, piece.base, piece.byteCount, position)
                let completion = transfer.settle(result: count < 0 ? -Int(errno) : count)
                if let completion { return completion.result }
            }
        }
        if result < 0 {
            throw MediumError(errno: Int32(-result), operation: operation, offset: offset)
        }
    }
}
