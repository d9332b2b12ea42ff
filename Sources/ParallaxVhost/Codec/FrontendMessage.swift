// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Numbers of the requests that we serve. Comments give the protocol's names (VHOST_USER_...).
package enum FrontendRequest: UInt32, BitwiseCopyable, Sendable, CaseIterable {
    case getFeatures = 1  // GET_FEATURES
    case setFeatures = 2  // SET_FEATURES
    case setOwner = 3  // SET_OWNER
    case resetOwner = 4  // RESET_OWNER
    case setMemoryTable = 5  // SET_MEM_TABLE
    case setLogFileDescriptor = 7  // SET_LOG_FD
    case setQueueSize = 8  // SET_VRING_NUM
    case setQueueAddresses = 9  // SET_VRING_ADDR
    case setQueueBase = 10  // SET_VRING_BASE
    case getQueueBase = 11  // GET_VRING_BASE
    case setQueueKick = 12  // SET_VRING_KICK
    case setQueueCall = 13  // SET_VRING_CALL
    case setQueueError = 14  // SET_VRING_ERR
    case getProtocolFeatures = 15  // GET_PROTOCOL_FEATURES
    case setProtocolFeatures = 16  // SET_PROTOCOL_FEATURES
    case getQueueCount = 17  // GET_QUEUE_NUM
    case setQueueEnable = 18  // SET_VRING_ENABLE
    case setBackendRequestSocket = 21  // SET_SLAVE_REQ_FD, now SET_BACKEND_REQ_FD
    case getConfig = 24  // GET_CONFIG
    case setConfig = 25  // SET_CONFIG
    case getInflightArea = 31  // GET_INFLIGHT_FD
    case setInflightArea = 32  // SET_INFLIGHT_FD
    case getMemorySlots = 36  // GET_MAX_MEM_SLOTS
    case addMemoryRegion = 37  // ADD_MEM_REG
    case removeMemoryRegion = 38  // REM_MEM_REG
}

/// A message of the front end as a value. Decoding needs no file descriptor, only their number.
package enum FrontendMessage: BitwiseCopyable, Sendable {
    case getFeatures
    case setFeatures(VirtioFeatures)
    case setOwner
    case resetOwner
    case setMemoryTable(MemoryTable)
    case setLogFileDescriptor
    case setQueueSize(QueueNumber)
    case setQueueAddresses(QueueAddresses)
    case setQueueBase(QueueNumber)
    case getQueueBase(QueueNumber)
    case setQueueKick(QueueFileDescriptor)
    case setQueueCall(QueueFileDescriptor)
    case setQueueError(QueueFileDescriptor)
    case getProtocolFeatures
    case setProtocolFeatures(ProtocolFeatures)
    case getQueueCount
    case setQueueEnable(QueueNumber)
    case setBackendRequestSocket
    case getConfig(ConfigAccess)
    case setConfig(ConfigAccess)
    case getInflightArea(InflightDescription)
    case setInflightArea(InflightDescription)
    case getMemorySlots
    case addMemoryRegion(MemoryRegion)
    case removeMemoryRegion(MemoryRegion)
    /// Known to nobody, or of a protocol feature that we do not offer.
    case unsupported(UInt32)

    /// `payload` is exactly the message's payload.
    package init(
        decoding header: MessageHeader, payload: RawSpan, fileDescriptorCount: Int
    ) throws(MessageFault) {
        guard let request = FrontendRequest(rawValue: header.request) else {
            self = .unsupported(header.request)
            return
        }
        self = try Self.decode(request, payload)
        guard allowedFileDescriptorCounts.contains(fileDescriptorCount) else {
            throw .wrongFileDescriptorCount
        }
    }

    private static func decode(
        _ request: FrontendRequest, _ payload: RawSpan
    ) throws(MessageFault) -> FrontendMessage {
        switch request {
        case .getFeatures: try none(payload, .getFeatures)
        case .setOwner: try none(payload, .setOwner)
        case .resetOwner: try none(payload, .resetOwner)
        case .getProtocolFeatures: try none(payload, .getProtocolFeatures)
        case .getQueueCount: try none(payload, .getQueueCount)
        case .getMemorySlots: try none(payload, .getMemorySlots)
        case .setBackendRequestSocket: try none(payload, .setBackendRequestSocket)
        case .setLogFileDescriptor: .setLogFileDescriptor
        case .setFeatures: .setFeatures(VirtioFeatures(rawValue: try number(payload)))
        case .setProtocolFeatures:
            .setProtocolFeatures(ProtocolFeatures(rawValue: try number(payload)))
        case .setQueueSize: .setQueueSize(try queueNumber(payload))
        case .setQueueBase: .setQueueBase(try queueNumber(payload))
        case .getQueueBase: .getQueueBase(try queueNumber(payload))
        case .setQueueEnable: .setQueueEnable(try queueNumber(payload))
        case .setQueueAddresses: .setQueueAddresses(try addresses(payload))
        case .setQueueKick: .setQueueKick(try queueFileDescriptor(payload))
        case .setQueueCall: .setQueueCall(try queueFileDescriptor(payload))
        case .setQueueError: .setQueueError(try queueFileDescriptor(payload))
        case .setMemoryTable: .setMemoryTable(try MemoryTable(decoding: payload))
        case .addMemoryRegion: .addMemoryRegion(try memoryRegion(payload))
        case .removeMemoryRegion: .removeMemoryRegion(try memoryRegion(payload))
        case .getConfig: .getConfig(try ConfigAccess(decoding: payload, hasBytes: false))
        case .setConfig: .setConfig(try ConfigAccess(decoding: payload, hasBytes: true))
        case .getInflightArea: .getInflightArea(try InflightDescription(decoding: payload))
        case .setInflightArea: .setInflightArea(try InflightDescription(decoding: payload))
        }
    }

    /// How many file descriptors may come with the message.
    private var allowedFileDescriptorCounts: ClosedRange<Int> {
        switch self {
        case .setMemoryTable(let table): table.count...table.count
        case .setQueueKick(let queue), .setQueueCall(let queue), .setQueueError(let queue):
            queue.hasFileDescriptor ? 1...1 : 0...0
        case .addMemoryRegion, .setBackendRequestSocket, .setInflightArea: 1...1
        // Old front ends sent one; the specification wants it closed and ignored.
        case .removeMemoryRegion, .setLogFileDescriptor: 0...1
        case .unsupported: 0...VhostLimits.fileDescriptorsPerMessageMax
        default: 0...0
        }
    }
}

extension FrontendMessage {
    private static func none(
        _ payload: RawSpan, _ message: FrontendMessage
    ) throws(MessageFault) -> FrontendMessage {
        guard payload.byteCount == 0 else { throw .wrongPayloadSize }
        return message
    }

    private static func number(_ payload: RawSpan) throws(MessageFault) -> UInt64 {
        guard payload.byteCount == 8 else { throw .wrongPayloadSize }
        return payload.load(at: 0)
    }

    private static func queueNumber(_ payload: RawSpan) throws(MessageFault) -> QueueNumber {
        guard payload.byteCount == QueueNumber.byteCount else { throw .wrongPayloadSize }
        let value = QueueNumber(decoding: payload)
        guard value.queue < VhostLimits.queueCountMax else { throw .queueOutOfRange }
        return value
    }

    private static func addresses(_ payload: RawSpan) throws(MessageFault) -> QueueAddresses {
        guard payload.byteCount == QueueAddresses.byteCount else { throw .wrongPayloadSize }
        let value = QueueAddresses(decoding: payload)
        guard value.queue < VhostLimits.queueCountMax else { throw .queueOutOfRange }
        return value
    }

    private static func queueFileDescriptor(
        _ payload: RawSpan
    ) throws(MessageFault) -> QueueFileDescriptor {
        guard payload.byteCount == QueueFileDescriptor.byteCount else { throw .wrongPayloadSize }
        let value = QueueFileDescriptor(decoding: payload)
        guard value.queue < VhostLimits.queueCountMax else { throw .queueOutOfRange }
        return value
    }

    /// Padding u64, then the region.
    private static func memoryRegion(_ payload: RawSpan) throws(MessageFault) -> MemoryRegion {
        guard payload.byteCount == 8 + MemoryRegion.byteCount else { throw .wrongPayloadSize }
        return MemoryRegion(decoding: payload, at: 8)
    }
}
