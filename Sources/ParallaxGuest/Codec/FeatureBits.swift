// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Virtio device features, and the two bits that vhost-user adds to the same word.
package struct VirtioFeatures: OptionSet, Sendable, CustomStringConvertible {
    package let rawValue: UInt64

    package init(rawValue: UInt64) { self.rawValue = rawValue }

    private static func bit(_ number: UInt64) -> Self { Self(rawValue: 1 << number) }

    // virtio-blk (virtio 1.2, 5.2.3)
    package static let sizeMax = bit(1)
    package static let segmentMax = bit(2)
    package static let geometry = bit(4)
    package static let readOnly = bit(5)
    package static let blockSize = bit(6)
    package static let flush = bit(9)
    package static let topology = bit(10)
    package static let writebackConfig = bit(11)
    package static let multiQueue = bit(12)
    package static let discard = bit(13)
    package static let writeZeroes = bit(14)

    // vhost and vhost-user
    package static let logAll = bit(26)
    package static let protocolFeatures = bit(30)

    // rings and transport
    package static let indirectDescriptors = bit(28)
    package static let eventIndex = bit(29)
    package static let version1 = bit(32)
    package static let packedRing = bit(34)

    /// Everything of a block device that this driver can use.
    package static let understood: Self = [
        .sizeMax, .segmentMax, .geometry, .readOnly, .blockSize, .flush, .topology,
        .writebackConfig, .multiQueue, .discard, .writeZeroes, .protocolFeatures,
        .indirectDescriptors, .eventIndex, .version1,
    ]

    package var description: String { "0x" + String(rawValue, radix: 16) }
}

/// vhost-user protocol features (GET_PROTOCOL_FEATURES).
package struct VhostUserProtocolFeatures: OptionSet, Sendable, CustomStringConvertible {
    package let rawValue: UInt64

    package init(rawValue: UInt64) { self.rawValue = rawValue }

    package static let multiQueue = Self(rawValue: 1 << 0)
    package static let logSharedMemory = Self(rawValue: 1 << 1)
    package static let replyAcknowledge = Self(rawValue: 1 << 3)
    package static let backendRequests = Self(rawValue: 1 << 5)
    package static let config = Self(rawValue: 1 << 9)
    package static let inflightSharedMemory = Self(rawValue: 1 << 12)
    package static let configureMemorySlots = Self(rawValue: 1 << 15)

    /// What this driver asks for when the device offers it.
    package static let understood: Self = [
        .multiQueue, .replyAcknowledge, .config, .configureMemorySlots,
    ]

    package var description: String { "0x" + String(rawValue, radix: 16) }
}
