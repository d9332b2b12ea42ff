// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The twelve bytes before each message, in host byte order.
///
/// ```
///   0        4        8        12
///   +--------+--------+--------+------------------------+
///   | request| flags  | size   | payload, `size` bytes  |    + up to 8 file descriptors
///   +--------+--------+--------+------------------------+
///              bits 0-1: version, 1     bit 2: reply     bit 3: need_reply
/// ```
package struct MessageHeader: BitwiseCopyable, Equatable, Sendable {
    package static let byteCount = 12
    static let version: UInt32 = 1
    static let versionMask: UInt32 = 3
    static let replyFlag: UInt32 = 4
    static let needReplyFlag: UInt32 = 8

    package var request: UInt32
    package var flags: UInt32
    package var payloadByteCount: UInt32

    package init(request: UInt32, flags: UInt32, payloadByteCount: UInt32) {
        self.request = request
        self.flags = flags
        self.payloadByteCount = payloadByteCount
    }

    /// `bytes` holds at least `byteCount` bytes.
    package init(decoding bytes: RawSpan) throws(MessageFault) {
        request = bytes.load(at: 0)
        flags = bytes.load(at: 4)
        payloadByteCount = bytes.load(at: 8)
        guard flags & Self.versionMask == Self.version else { throw .wrongVersion }
        guard flags & Self.replyFlag == 0 else { throw .unexpectedReply }
        guard payloadByteCount <= VhostLimits.payloadBytesMax else { throw .payloadTooLong }
    }

    package var needsReply: Bool { flags & Self.needReplyFlag != 0 }
}

/// Why a message cannot be what the protocol says; the connection ends.
package enum MessageFault: UInt8, Error, BitwiseCopyable, Sendable, CaseIterable {
    case wrongVersion
    case unexpectedReply
    case payloadTooLong
    case wrongPayloadSize
    case wrongFileDescriptorCount
    case tooManyFileDescriptors
    case wrongKindOfFileDescriptor
    case queueOutOfRange
    case wrongQueueSize
    case queueBusy
    case featureNotOffered
    case kickWithoutFileDescriptor
    case memoryRejected
    case configAccess
    case inflightAreaRejected
    case repliesNotRead
}

extension RawSpan {
    /// A value in host byte order at any alignment. The caller has checked the length.
    func load<Value: FixedWidthInteger & BitwiseCopyable>(
        at offset: Int, as type: Value.Type = Value.self
    ) -> Value {
        // SAFETY: checks the range itself, and any bit pattern is an integer.
        unsafeLoadUnaligned(fromByteOffset: offset, as: type)
    }
}
