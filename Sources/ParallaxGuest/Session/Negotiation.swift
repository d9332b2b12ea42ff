// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// What the two sides agreed on, and the two conversations around it: `run` before the guest's
/// memory is laid out, `start` after. The order is QEMU's (docs/subsystems/guest.md).
struct Negotiation {
    var features: VirtioFeatures
    var protocolFeatures: VhostUserProtocolFeatures
    var config: BlockDeviceConfig
    var queueCountMax: Int

    static func run(
        _ connection: inout VhostUserConnection, _ options: BlockDriverOptions
    ) throws(GuestError) -> Negotiation {
        let offered = VirtioFeatures(rawValue: try connection.askNumber(.getFeatures))
        guard offered.contains(.version1) else {
            throw GuestError(
                .unsupported,
                "the device at \(connection.path) does not offer VIRTIO_F_VERSION_1 "
                    + "(it offers \(offered))")
        }
        var protocolFeatures: VhostUserProtocolFeatures = []
        if offered.contains(.protocolFeatures), options.features.contains(.protocolFeatures) {
            protocolFeatures = try agreeOnProtocol(&connection, options)
        }
        var queueCountMax = 1
        if protocolFeatures.contains(.multiQueue) {
            queueCountMax = Int(clamping: try connection.askNumber(.getQueueCount))
        }
        guard options.queueCount >= 1, options.queueCount <= queueCountMax else {
            throw GuestError(
                .unsupported,
                "the device at \(connection.path) has \(queueCountMax) queues, not "
                    + "\(options.queueCount)")
        }
        try connection.command(.setOwner)
        var config = BlockDeviceConfig(decoding: [])
        if protocolFeatures.contains(.config) {
            config = BlockDeviceConfig(
                decoding: try connection.readConfig(byteCount: BlockDeviceConfig.byteCount))
        }
        let features = offered.intersection(options.features)
        try connection.commandNumber(.setFeatures, features.rawValue)
        return Negotiation(
            features: features, protocolFeatures: protocolFeatures, config: config,
            queueCountMax: queueCountMax)
    }

    private static func agreeOnProtocol(
        _ connection: inout VhostUserConnection, _ options: BlockDriverOptions
    ) throws(GuestError) -> VhostUserProtocolFeatures {
        let offered = VhostUserProtocolFeatures(
            rawValue: try connection.askNumber(.getProtocolFeatures))
        let agreed = offered.intersection(options.protocolFeatures)
        try connection.commandNumber(.setProtocolFeatures, agreed.rawValue)
        connection.wantsAcknowledgements = agreed.contains(.replyAcknowledge)
        return agreed
    }

    /// The layout of each queue under what the device allows.
    func queueLayout(_ options: BlockDriverOptions) throws(GuestError) -> QueueLayout {
        var dataSegmentBytes = options.dataSegmentBytes
        if features.contains(.sizeMax), config.dataSegmentBytesMax > 0 {
            dataSegmentBytes = min(dataSegmentBytes, Int(config.dataSegmentBytesMax))
        }
        let layout = try QueueLayout(
            size: options.queueSize, slotCount: options.requestsPerQueue,
            bufferBytes: options.bufferBytes, dataSegmentBytes: dataSegmentBytes,
            usesIndirect: features.contains(.indirectDescriptors))
        let countMax = Int(config.dataSegmentCountMax)
        if features.contains(.segmentMax), countMax > 0, layout.dataSegmentCount > countMax {
            throw GuestError(
                .unsupported,
                "requests of \(layout.bufferBytes) bytes need \(layout.dataSegmentCount) data "
                    + "descriptors, the device allows \(countMax): use smaller requests")
        }
        return layout
    }

    /// Shares the memory and starts all rings.
    static func start(
        _ connection: borrowing VhostUserConnection, _ agreed: Negotiation,
        _ memory: borrowing GuestMemory, _ queues: borrowing QueueTable
    ) throws(GuestError) {
        // Without acknowledgements nobody could tell when a region is there: one table then.
        if agreed.protocolFeatures.isSuperset(of: [.configureMemorySlots, .replyAcknowledge]) {
            let slots = try connection.askNumber(.getMemorySlotsMax)
            guard slots >= memory.regions.count else {
                throw GuestError(
                    .unsupported,
                    "the device at \(connection.path) takes only \(slots) memory regions")
            }
            try connection.addMemoryRegions(memory)
        } else {
            try connection.setMemoryTable(memory)
        }
        for index in 0..<queues.count { try startRing(connection, queues.pointer(index).pointee) }
        // Without protocol features a ring starts enabled, and the message does not exist.
        guard agreed.features.contains(.protocolFeatures) else { return }
        for index in 0..<queues.count {
            try connection.setVring(.setVringEnable, queue: index, value: 1)
        }
    }

    private static func startRing(
        _ connection: borrowing VhostUserConnection, _ queue: borrowing DriverQueue
    ) throws(GuestError) {
        let index = queue.index
        try connection.setVring(.setVringSize, queue: index, value: queue.layout.size)
        try connection.setVring(.setVringBase, queue: index, value: 0)
        try connection.setVringAddresses(
            queue: index, descriptors: queue.descriptors.userAddress,
            available: queue.available.userAddress, used: queue.used.userAddress)
        try connection.commandNumber(
            .setVringCall, UInt64(index), fileDescriptors: [queue.callFD])
        try connection.commandNumber(
            .setVringKick, UInt64(index), fileDescriptors: [queue.kickFD])
    }
}
