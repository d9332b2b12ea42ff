// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Running an engine on a blocking medium, when there is nobody who could wait: for repairs.
extension Engine {
    /// One turn, and the commands that have come of it. `clock` is moved on by a millisecond. Slots
    /// that come back are given to others only with `reusesSlots`.
    package mutating func step(
        on medium: some StoreMedium, slots: inout SlotAllocator, clock: inout UInt64,
        reusesSlots: Bool = true
    ) {
        clock += 1_000_000
        noteFreeSlots(slots.freeCount)
        turn(nowNanoseconds: clock)
        // What their completions ask for waits for the next turn.
        var commands: [StoreCommand] = []
        while let command = nextCommand() { commands.append(command) }
        for command in commands {
            complete(StoreCompletion(tag: command.tag, result: Self.carryOut(command, on: medium)))
        }
        while let slot = takeReleasedSlot() {
            if reusesSlots { slots.release(slot) }
        }
        while wantedExtents > 0 {
            noteExtentRequested()
            supplyExtent(slots.allocate())
        }
    }

    private static func carryOut(_ command: StoreCommand, on medium: some StoreMedium) -> Int {
        do throws(MediumError) {
            if command.operation == .sync {
                try medium.sync()
                return 0
            }
            var offset = command.offset
            for index in 0..<Int(command.bufferCount) {
                guard let buffer = command.buffers?[index] else { break }
                let bytes = UnsafeMutableRawBufferPointer(start: buffer.base, count: buffer.count)
                if command.operation == .read {
                    try medium.read(at: offset, into: bytes)
                } else {
                    try medium.write(at: offset, from: UnsafeRawBufferPointer(bytes))
                }
                offset += UInt64(buffer.count)
            }
            return command.byteCount
        } catch {
            return -Int(error.errno)
        }
    }
}
