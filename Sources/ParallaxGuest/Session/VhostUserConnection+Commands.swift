// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import Glibc

// Typed messages. `ask` is for messages that have a reply of their own; `command` for the rest,
// acknowledged when REPLY_ACK is on.
extension VhostUserConnection {
    package func ask(
        _ request: VhostUserRequest, payload: [UInt8] = [], fileDescriptors: [Int32] = []
    ) throws(GuestError) -> VhostUserReply {
        try sendMessage(request, payload, fileDescriptors, flags: VhostUserHeader.version)
        return try receiveReply(to: request)
    }

    package func command(
        _ request: VhostUserRequest, payload: [UInt8] = [], fileDescriptors: [Int32] = []
    ) throws(GuestError) {
        guard wantsAcknowledgements else {
            return try sendMessage(
                request, payload, fileDescriptors, flags: VhostUserHeader.version)
        }
        let flags = VhostUserHeader.version | VhostUserHeader.needReplyFlag
        try sendMessage(request, payload, fileDescriptors, flags: flags)
        let value = try receiveNumber(replyTo: request)
        guard value == 0 else {
            throw GuestError(
                .refused,
                "the device at \(path) refused message \(request.rawValue) with \(value)")
        }
    }

    private func sendMessage(
        _ request: VhostUserRequest, _ payload: [UInt8], _ fds: [Int32], flags: UInt32
    ) throws(GuestError) {
        let header = VhostUserHeader(
            request: request, flags: flags, payloadByteCount: UInt32(payload.count))
        try sendRaw(header.encoded + payload, fileDescriptors: fds)
    }

    private func receiveReply(to request: VhostUserRequest) throws(GuestError) -> VhostUserReply {
        let reply = try receive()
        let isReply = reply.header.flags & VhostUserHeader.replyFlag != 0
        let version = reply.header.flags & VhostUserHeader.versionMask
        guard reply.header.request == request, isReply, version == VhostUserHeader.version else {
            for fd in reply.fileDescriptors { close(fd) }
            throw GuestError(
                .violation,
                "the device at \(path) answered message \(request.rawValue) with message "
                    + "\(reply.header.request.rawValue), flags \(reply.header.flags)")
        }
        return reply
    }

    private func receiveNumber(replyTo request: VhostUserRequest) throws(GuestError) -> UInt64 {
        let reply = try receiveReply(to: request)
        for fd in reply.fileDescriptors { close(fd) }
        guard reply.payload.count == 8 else {
            throw GuestError(
                .violation,
                "the device at \(path) answered message \(request.rawValue) with "
                    + "\(reply.payload.count) bytes where 8 belong")
        }
        return reply.payload.readUInt64(at: 0)
    }

    // MARK: Numbers

    package func askNumber(_ request: VhostUserRequest) throws(GuestError) -> UInt64 {
        try sendMessage(request, [], [], flags: VhostUserHeader.version)
        return try receiveNumber(replyTo: request)
    }

    package func commandNumber(
        _ request: VhostUserRequest, _ value: UInt64, fileDescriptors: [Int32] = []
    ) throws(GuestError) {
        var payload: [UInt8] = []
        payload.append(number: value)
        try command(request, payload: payload, fileDescriptors: fileDescriptors)
    }

    // MARK: Configuration space

    /// The first `byteCount` bytes of the device's configuration space.
    package func readConfig(byteCount: Int) throws(GuestError) -> [UInt8] {
        var payload: [UInt8] = []
        payload.append(number: UInt32(0))  // offset
        payload.append(number: UInt32(byteCount))
        payload.append(number: UInt32(0))  // flags
        payload += [UInt8](repeating: 0, count: byteCount)
        let reply = try ask(.getConfig, payload: payload)
        for fd in reply.fileDescriptors { close(fd) }
        guard reply.payload.count == 12 + byteCount else {
            throw GuestError(
                .violation,
                "the device at \(path) answered a request for \(byteCount) configuration bytes "
                    + "with \(max(0, reply.payload.count - 12))")
        }
        return Array(reply.payload.dropFirst(12))
    }

    // MARK: Memory

    package static func encoded(_ region: GuestMemory.Region) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.append(number: region.guestAddress)
        bytes.append(number: UInt64(region.byteCount))
        bytes.append(number: region.userAddress)
        bytes.append(number: region.fileOffset)
        return bytes
    }

    package func setMemoryTable(_ memory: borrowing GuestMemory) throws(GuestError) {
        var payload: [UInt8] = []
        payload.append(number: UInt32(memory.regions.count))
        payload.append(number: UInt32(0))
        for region in memory.regions { payload += Self.encoded(region) }
        let fds = [Int32](repeating: memory.fileDescriptor, count: memory.regions.count)
        try command(.setMemoryTable, payload: payload, fileDescriptors: fds)
    }

    package func addMemoryRegions(_ memory: borrowing GuestMemory) throws(GuestError) {
        for region in memory.regions {
            var payload: [UInt8] = []
            payload.append(number: UInt64(0))
            payload += Self.encoded(region)
            try command(
                .addMemoryRegion, payload: payload, fileDescriptors: [memory.fileDescriptor])
        }
    }

    // MARK: Rings

    package func setVring(
        _ request: VhostUserRequest, queue: Int, value: Int
    ) throws(GuestError) {
        var payload: [UInt8] = []
        payload.append(number: UInt32(queue))
        payload.append(number: UInt32(value))
        try command(request, payload: payload)
    }

    /// `userAddress`es, not guest physical ones: the protocol wants the front end's own.
    package func setVringAddresses(
        queue: Int, descriptors: UInt64, available: UInt64, used: UInt64
    ) throws(GuestError) {
        var payload: [UInt8] = []
        payload.append(number: UInt32(queue))
        payload.append(number: UInt32(0))  // flags
        payload.append(number: descriptors)
        payload.append(number: used)
        payload.append(number: available)
        payload.append(number: UInt64(0))  // log address
        try command(.setVringAddresses, payload: payload)
    }

    /// Stops the ring; the device answers when nothing is in flight any more.
    package func stopVring(queue: Int) throws(GuestError) -> UInt16 {
        var payload: [UInt8] = []
        payload.append(number: UInt32(queue))
        payload.append(number: UInt32(0))
        let reply = try ask(.getVringBase, payload: payload)
        for fd in reply.fileDescriptors { close(fd) }
        return UInt16(truncatingIfNeeded: reply.payload.readUInt32(at: 4))
    }
}
