// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// What happens in a run: always as a hash, so that two runs can be compared; as text on demand, at
/// once, since a run may be ended by a trap.
package struct Trace {
    package private(set) var hash: UInt64 = 0xCBF2_9CE4_8422_2325
    private let tell: ((String) -> Void)?

    package init(tell: ((String) -> Void)?) { self.tell = tell }

    package enum Event: UInt64 {
        case operation = 1
        case submit
        case reply
        case command
        case completion
        case change
        case changeReply
        case extent
        case release
        case crash
        case observation
        case cut
        case diff
        case census
    }

    /// Notes an event. `text` is evaluated only where somebody listens.
    package mutating func note(
        _ event: Event, _ first: UInt64, _ text: @autoclosure () -> String
    ) {
        note(event, first, 0, 0, text())
    }

    package mutating func note(
        _ event: Event, _ first: UInt64, _ second: UInt64, _ text: @autoclosure () -> String
    ) {
        note(event, first, second, 0, text())
    }

    package mutating func note(
        _ event: Event, _ first: UInt64, _ second: UInt64, _ third: UInt64,
        _ text: @autoclosure () -> String
    ) {
        for value in [event.rawValue, first, second, third] {
            hash = SeededRandom.mix(hash ^ value) &+ 0x9E37_79B9_7F4A_7C15
        }
        if let tell { tell(text()) }
    }
}

/// The engine, or the simulator, did what it must not.
package struct SimulationFailure: Error, CustomStringConvertible {
    package var message: String

    /// The machine was stopped on purpose; nothing is wrong.
    package var isStop = false

    package init(_ message: String) { self.message = message }

    static var stop: SimulationFailure {
        var failure = SimulationFailure("the machine has stopped")
        failure.isStop = true
        return failure
    }

    package var description: String { message }

    /// The same for failures that differ in numbers only, so that a smaller scenario that fails in
    /// another way is not taken for the same.
    package var kind: String { String(message.filter { !$0.isNumber }.prefix(30)) }
}
