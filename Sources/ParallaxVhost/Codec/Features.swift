// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Feature bits of the virtio-blk device and of its transport, as the guest negotiates them.
package struct VirtioFeatures: OptionSet, BitwiseCopyable, Sendable {
    package let rawValue: UInt64

    package init(rawValue: UInt64) { self.rawValue = rawValue }

    private init(bit: UInt64) { rawValue = 1 << bit }

    package static let sizeMax = VirtioFeatures(bit: 1)  // VIRTIO_BLK_F_SIZE_MAX
    package static let segMax = VirtioFeatures(bit: 2)  // VIRTIO_BLK_F_SEG_MAX
    package static let readOnly = VirtioFeatures(bit: 5)  // VIRTIO_BLK_F_RO
    package static let blockSize = VirtioFeatures(bit: 6)  // VIRTIO_BLK_F_BLK_SIZE
    package static let flush = VirtioFeatures(bit: 9)  // VIRTIO_BLK_F_FLUSH
    package static let topology = VirtioFeatures(bit: 10)  // VIRTIO_BLK_F_TOPOLOGY
    package static let configWriteback = VirtioFeatures(bit: 11)  // VIRTIO_BLK_F_CONFIG_WCE
    package static let multiQueue = VirtioFeatures(bit: 12)  // VIRTIO_BLK_F_MQ
    package static let discard = VirtioFeatures(bit: 13)  // VIRTIO_BLK_F_DISCARD
    package static let writeZeroes = VirtioFeatures(bit: 14)  // VIRTIO_BLK_F_WRITE_ZEROES
    package static let indirectDescriptors = VirtioFeatures(bit: 28)  // VIRTIO_RING_F_INDIRECT_DESC
    package static let eventIndex = VirtioFeatures(bit: 29)  // VIRTIO_RING_F_EVENT_IDX
    /// VHOST_USER_F_PROTOCOL_FEATURES: between front end and back end, never seen by the guest.
    package static let protocolFeatures = VirtioFeatures(bit: 30)
    package static let version1 = VirtioFeatures(bit: 32)  // VIRTIO_F_VERSION_1

    /// What we offer. Only what is implemented: no packed rings, no dirty log, no IOMMU.
    package static func offered(readOnly: Bool) -> VirtioFeatures {
        let always: VirtioFeatures = [
            .sizeMax, .segMax, .blockSize, .flush, .topology, .configWriteback, .multiQueue,
            .indirectDescriptors, .eventIndex, .protocolFeatures, .version1,
        ]
        return readOnly ? always.union(.readOnly) : always.union([.discard, .writeZeroes])
    }
}

/// Extensions of the vhost-user protocol itself.
package struct ProtocolFeatures: OptionSet, BitwiseCopyable, Sendable {
    package let rawValue: UInt64

    package init(rawValue: UInt64) { self.rawValue = rawValue }

    private init(bit: UInt64) { rawValue = 1 << bit }

    package static let multiQueue = ProtocolFeatures(bit: 0)  // MQ
    package static let replyAck = ProtocolFeatures(bit: 3)  // REPLY_ACK
    package static let backendRequests = ProtocolFeatures(bit: 5)  // SLAVE_REQ, now BACKEND_REQ
    package static let config = ProtocolFeatures(bit: 9)  // CONFIG
    package static let inflightArea = ProtocolFeatures(bit: 12)  // INFLIGHT_SHMFD
    package static let configureMemorySlots = ProtocolFeatures(bit: 15)  // CONFIGURE_MEM_SLOTS

    package static let offered: ProtocolFeatures = [
        .multiQueue, .replyAck, .backendRequests, .config, .inflightArea, .configureMemorySlots,
    ]
}
