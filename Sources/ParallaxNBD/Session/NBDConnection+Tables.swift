// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import Glibc
internal import ParallaxCore

/// The small types of which a connection is made.
extension NBDConnection {
    /// A request of the peer that has no complete reply yet.
    struct Command: BitwiseCopyable {
        var cookie: UInt64 = 0
        var offset: UInt64 = 0
        var length: UInt32 = 0
        var type = NBDCommand.read
        var flags: NBDCommandFlags = []
        /// Operations that the engine has not answered.
        var outstanding: Int32 = 0
        /// No further operation will follow.
        var isIssued = false
        /// Its data must go out behind one simple header: see `+SimpleRead`.
        var isSimpleStream = false
        /// The connection broke in the middle of it: no reply.
        var isAbandoned = false
        var error: NBDErrorCode?
    }

    /// One request to the engine; its index is the tag.
    struct Operation: BitwiseCopyable {
        var command: Int32 = -1
        /// The piece of the pool with the data, or -1.
        var piece: Int32 = -1
        var offset: UInt64 = 0
        var byteCount = 0
        var isSubmitted = false
    }

    /// The request at the head of the socket's bytes.
    struct Current: BitwiseCopyable {
        enum Step: Equatable {
            /// Between requests.
            case idle
            /// Decoded, not yet begun.
            case admission
            /// Being split into operations.
            case issue
            /// A long read for a peer without structured replies.
            case simpleStream
            /// Write data goes into pieces.
            case payload
            /// Write data goes nowhere.
            case discard
        }

        var step = Step.idle
        var request = NBDRequest(type: 0)
        var command: Int32 = -1
        /// Bytes of the request that have been issued, or taken from the socket.
        var done = 0
        /// The operation whose piece is being filled, and how far.
        var operation: Int32 = -1
        var filled = 0
        /// Of a simple stream: this round's operations, and whether the header has gone out.
        var roundCount = 0
        var hasHeader = false
    }

    /// Bytes from the socket that have not been looked at, with room for more.
    ///
    /// ```
    ///  0        start          end             capacity
    ///  +--------+--------------+---------------+
    ///  | taken  | to be parsed | room          |
    ///  +--------+--------------+---------------+
    /// ```
    ///
    /// SAFETY: owns its bytes; `0 <= start <= end <= capacity` is kept by the three methods.
    struct Staging: ~Copyable {
        private let bytes = UnsafeMutableRawPointer.allocate(
            byteCount: NBDLimits.stagingBytes, alignment: 16)
        private var start = 0
        private var end = 0

        deinit { bytes.deallocate() }

        var count: Int { end - start }
        var first: UnsafeRawPointer { UnsafeRawPointer(bytes + start) }

        /// Room at the end, after moving a started header to the front.
        mutating func room() -> DataSegment {
            if start > 0 {
                memmove(bytes, bytes + start, count)
                end -= start
                start = 0
            }
            return DataSegment(base: bytes + end, count: NBDLimits.stagingBytes - end)
        }

        mutating func grew(by count: Int) {
            precondition(count >= 0 && count <= NBDLimits.stagingBytes - end, "Staging: overrun")
            end += count
        }

        mutating func take(_ count: Int) {
            precondition(count >= 0 && count <= self.count, "Staging: underrun")
            start += count
        }
    }
}
