// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ParallaxCore

/// What all queues of a device share: the disk's properties, the guest's memory, scratch space.
struct DeviceState: ~Copyable {
    let session: UInt32
    let vdi: UInt32
    let isReadOnly: Bool
    let serial: DiskSerial
    var sectors: UInt64

    var memory = GuestMemory()
    var chain = ChainBuffer()
    var lists = DataSegmentLists()
    /// The ranges of the discard or write-zeroes request that is being admitted.
    let ranges: UnsafeMutablePointer<BlockRange>

    /// Ranges that have been admitted and found no room: others may keep the engine's queue so full
    /// that there is never room for all at once. Nothing else is taken before they are in.
    var leftRanges = RequestQueue(minimumCapacity: VhostLimits.rangesMax)

    var features: VirtioFeatures = []
    /// The guest's choice: false makes each write durable before it is answered. It is on for a
    /// new front end (`getConfig`); for one that connects again, and whose guest may have turned
    /// it off, it is off until somebody knows better.
    var isWriteback = false
    /// Guest requests that the engine has.
    var inFlight = 0
    /// Requests of ours that the engine has: one for each range of those.
    var engineRequests = 0
    /// No queue takes requests until a message that changes memory has been served.
    var isPaused = false
    var requestsTaken: UInt64 = 0

    /// The front end made the shard wait, as none does by accident.
    var hasHeldUp = false
    /// Files that it sent and that could have made the shard wait.
    var strangeFileCount = 0

    init(session: UInt32, vdi: UInt32, export: borrowing VhostExport) {
        self.session = session
        self.vdi = vdi
        isReadOnly = export.readOnly
        serial = DiskSerial(name: export.name)
        sectors = export.sectors
        ranges = .allocate(capacity: VhostLimits.rangesMax)
    }

    deinit { ranges.deallocate() }

    /// No more requests of this guest for now, so that others get theirs.
    var isAtItsShare: Bool { engineRequests >= VhostLimits.engineRequestsMax }

    /// Passes on what is left of a discard or write-zeroes, as far as there is room.
    mutating func submitLeftRanges(_ requests: inout RequestQueue) {
        while !requests.isFull, let request = leftRanges.popFirst() { requests.append(request) }
    }

    /// Nobody is served at this socket any more.
    var isBarred: Bool { hasHeldUp || strangeFileCount >= VhostLimits.strangeFilesMax }

    /// virtio 1.2, 5.2.6.2: a completed write is stable by itself when the guest turned writeback
    /// off, and when it cannot send flushes at all.
    var writesAreDurable: Bool {
        !features.contains(.flush)
            || (features.contains(.configWriteback) && !isWriteback)
    }
}

/// What GET_ID answers: the VDI's name, cut to 20 bytes without splitting a character.
struct DiskSerial: BitwiseCopyable, Sendable {
    static let byteCountMax = 20
    private(set) var bytes: InlineArray<20, UInt8>

    init(name: String) {
        bytes = InlineArray(repeating: 0)
        var count = 0
        for character in name {
            let utf8 = character.utf8
            guard count + utf8.count <= Self.byteCountMax else { return }
            for byte in utf8 {
                bytes[count] = byte
                count += 1
            }
        }
    }
}
