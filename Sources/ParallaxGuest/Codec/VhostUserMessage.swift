// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Message numbers, front end to back end (docs/interop/vhost-user.rst). A struct and not an
/// enum, so that a test can send a number that does not exist.
package struct VhostUserRequest: RawRepresentable, Equatable, Sendable {
    package var rawValue: UInt32

    package init(rawValue: UInt32) { self.rawValue = rawValue }

    package static let getFeatures = Self(rawValue: 1)
    package static let setFeatures = Self(rawValue: 2)
    package static let setOwner = Self(rawValue: 3)
    package static let resetOwner = Self(rawValue: 4)
    package static let setMemoryTable = Self(rawValue: 5)
    package static let setLogBase = Self(rawValue: 6)
    package static let setLogFD = Self(rawValue: 7)
    package static let setVringSize = Self(rawValue: 8)  // vhost-user: SET_VRING_NUM
    package static let setVringAddresses = Self(rawValue: 9)
    package static let setVringBase = Self(rawValue: 10)
    package static let getVringBase = Self(rawValue: 11)
    package static let setVringKick = Self(rawValue: 12)
    package static let setVringCall = Self(rawValue: 13)
    package static let setVringError = Self(rawValue: 14)
    package static let getProtocolFeatures = Self(rawValue: 15)
    package static let setProtocolFeatures = Self(rawValue: 16)
    package static let getQueueCount = Self(rawValue: 17)
    package static let setVringEnable = Self(rawValue: 18)
    package static let setBackendRequestFD = Self(rawValue: 21)
    package static let getConfig = Self(rawValue: 24)
    package static let setConfig = Self(rawValue: 25)
    package static let getInflightFD = Self(rawValue: 31)
    package static let setInflightFD = Self(rawValue: 32)
    package static let getMemorySlotsMax = Self(rawValue: 36)
    package static let addMemoryRegion = Self(rawValue: 37)
    package static let removeMemoryRegion = Self(rawValue: 38)
}

/// The 12 bytes before each payload, in host byte order.
///
///      0        4        8        12
///     +--------+--------+--------+----------------------+
///     | request| flags  | size   | payload (size bytes) |
///     +--------+--------+--------+----------------------+
package struct VhostUserHeader: Equatable, Sendable {
    package static let byteCount = 12
    package static let version: UInt32 = 1
    package static let versionMask: UInt32 = 3
    package static let replyFlag: UInt32 = 1 << 2
    package static let needReplyFlag: UInt32 = 1 << 3

    package var request: VhostUserRequest
    package var flags: UInt32
    package var payloadByteCount: UInt32

    package init(
        request: VhostUserRequest, flags: UInt32 = VhostUserHeader.version,
        payloadByteCount: UInt32
    ) {
        self.request = request
        self.flags = flags
        self.payloadByteCount = payloadByteCount
    }

    /// `bytes` must hold at least `byteCount` bytes.
    package init(decoding bytes: [UInt8]) {
        request = VhostUserRequest(rawValue: bytes.readUInt32(at: 0))
        flags = bytes.readUInt32(at: 4)
        payloadByteCount = bytes.readUInt32(at: 8)
    }

    package var encoded: [UInt8] {
        var bytes: [UInt8] = []
        bytes.append(number: request.rawValue)
        bytes.append(number: flags)
        bytes.append(number: payloadByteCount)
        return bytes
    }
}

/// What came back: header, payload, and the file descriptors that travelled with it (owned by
/// the receiver).
package struct VhostUserReply: Equatable, Sendable {
    package var header: VhostUserHeader
    package var payload: [UInt8]
    package var fileDescriptors: [Int32]
}

// Payloads are in host byte order; both ends are processes of one host.
extension [UInt8] {
    package mutating func append(number: some FixedWidthInteger) {
        Swift.withUnsafeBytes(of: number) { append(contentsOf: $0) }
    }

    /// The bytes at `offset`, or 0 when the array is too short.
    package func readNumber<T: FixedWidthInteger & BitwiseCopyable>(at offset: Int, as: T.Type) -> T
    {
        guard offset >= 0, offset + MemoryLayout<T>.size <= count else { return 0 }
        return withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: T.self) }
    }

    package func readUInt32(at offset: Int) -> UInt32 { readNumber(at: offset, as: UInt32.self) }
    package func readUInt64(at offset: Int) -> UInt64 { readNumber(at: offset, as: UInt64.self) }
}
