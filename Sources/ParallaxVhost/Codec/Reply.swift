// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// An answer to the front end, or a request of ours to it: header and payload in one buffer.
package struct Reply: BitwiseCopyable, Sendable {
    /// Header, the header of a configuration access, and the largest configuration space.
    static let byteCountMax = MessageHeader.byteCount + ConfigAccess.headerByteCount + 256

    package private(set) var byteCount: Int
    private var bytes: InlineArray<280, UInt8>

    private init(request: UInt32, flags: UInt32) {
        byteCount = 0
        bytes = InlineArray(repeating: 0)
        append(request)
        append(flags)
        append(UInt32(0))
    }

    /// An empty answer to `request`.
    private init(to request: UInt32) {
        self.init(request: request, flags: MessageHeader.version | MessageHeader.replyFlag)
    }

    /// GET_FEATURES, GET_QUEUE_NUM and the like; also the acknowledgement of REPLY_ACK, in which
    /// 0 means success.
    package init(to request: UInt32, number: UInt64) {
        self.init(to: request)
        append(number)
        seal()
    }

    /// GET_VRING_BASE.
    package init(to request: UInt32, queue: UInt32, number: UInt32) {
        self.init(to: request)
        append(queue)
        append(number)
        seal()
    }

    /// GET_CONFIG: exactly as many bytes as asked for; zero bytes past the end of `config`.
    package init(to request: UInt32, access: ConfigAccess, config: BlockConfig) {
        self.init(to: request)
        append(access.offset)
        append(access.byteCount)
        append(access.flags)
        for index in 0..<access.byteCount {
            append(config.byte(at: UInt64(access.offset) + UInt64(index)))
        }
        seal()
    }

    /// GET_INFLIGHT_FD; the file descriptor goes beside it.
    package init(to request: UInt32, area: InflightDescription) {
        self.init(to: request)
        append(area.byteCount)
        append(area.offset)
        append(area.queueCount)
        append(area.queueSize)
        // As long as the question was: QEMU's structure ends with four bytes of padding.
        for _ in 0..<(area.payloadByteCount - InflightDescription.byteCountMin) { append(UInt8(0)) }
        seal()
    }

    /// The answer without a payload that tells of an error in GET_CONFIG.
    package init(failing request: UInt32) { self.init(to: request) }

    /// Tells the front end to read the configuration again (VHOST_USER_BACKEND_CONFIG_CHANGE_MSG).
    package static let configChanged = Reply(request: 2, flags: MessageHeader.version)

    private mutating func append<Value: FixedWidthInteger>(_ value: Value) {
        var rest = value
        for _ in 0..<(Value.bitWidth / 8) {
            bytes[byteCount] = UInt8(truncatingIfNeeded: rest)
            byteCount += 1
            if Value.bitWidth > 8 { rest >>= 8 }
        }
    }

    /// Writes the payload's size into the header.
    private mutating func seal() {
        let size = byteCount - MessageHeader.byteCount
        for index in 0..<4 { bytes[8 + index] = UInt8(truncatingIfNeeded: size >> (8 * index)) }
    }

    package func withBytes<Result>(_ body: (RawSpan) -> Result) -> Result {
        body(bytes.span.extracting(first: byteCount).bytes)
    }
}
