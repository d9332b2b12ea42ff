// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

package import ParallaxCore

/// A shard's one place to wait: store commands go in, and readiness of file descriptors and
/// completions of commands come out.
///
/// Owned by the thread that created it, from `init` to `deinit`; `deinit` waits for the commands
/// in flight, whose memory the kernel still uses.
///
/// ```
///  loop:  wait ── submits all that was enqueued and watched, sleeps for the first event
///           │
///         nextEvent → readiness(token, interest) | completion(tag, result)
///           │  ╲ the code called may enqueue, watch and unwatch
///         nextEvent → ... → nil: the turn is over
/// ```
///
/// Events stay inside the reactor until they are asked for, so `unwatch` can drop those that
/// wait for their turn. Events that come during a turn belong to the next one: a turn ends.
package protocol Reactor: EventRegistrar, ~Copyable {
    /// How many commands `enqueue` accepts now.
    var freeCommandSlots: Int { get }

    /// Hands a command over; it reaches the kernel at the next `wait` at the latest. There must
    /// be a free slot. Commands run in any order. The completion's result is the command's
    /// `byteCount` (0 for a sync) or a negated errno; a read past the end of the file is -ENODATA.
    mutating func enqueue(_ command: StoreCommand)

    /// Submits what is queued and waits for an event, at most `timeoutNanoseconds` (-1: forever,
    /// 0: not at all). May return early and without an event.
    mutating func wait(timeoutNanoseconds: Int64)

    /// The next event of this turn, nil at its end.
    mutating func nextEvent() -> ReactorEvent?

    /// Names memory that `StoreCommand.registeredBuffer` may refer to, by index. Once, before the
    /// first command. False: nothing gained, `registeredBuffer` is ignored.
    mutating func registerBuffers(_ buffers: UnsafeBufferPointer<DataSegment>) -> Bool
}

/// Commands are handed to the kernel when this many are queued, and at the next `wait`. All in one
/// go at the end of the turn would leave the device idle while the turn is worked off: with 32
/// reads in flight that costs a fifth of the throughput. One by one costs a quarter more CPU.
let commandsPerSubmission = 8

/// What `Reactor.nextEvent` reports.
@frozen
package enum ReactorEvent: BitwiseCopyable, Sendable {
    case readiness(EventToken, EventInterest)
    case completion(StoreCompletion)
}

/// A reactor that could not be made.
package struct ReactorError: Error, Equatable, CustomStringConvertible {
    package var engine: IOEngineKind
    package var errno: Int32

    package init(engine: IOEngineKind, errno: Int32) {
        self.engine = engine
        self.errno = errno
    }

    package var description: String {
        "cannot start the I/O engine \(engine.rawValue): \(engine.explanation(of: errno))"
    }
}
