// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Something that the daemon's log should say about a device; see `VhostDevice.takeNotice`.
package enum VhostNotice: BitwiseCopyable, Sendable {
    case connected
    case disconnected(duringMessage: Bool)
    case refusedSecondFrontEnd
    case protocolFault(request: UInt32, MessageFault)
    case unsupportedRequest(UInt32)
    case memoryRejected(MemoryFault)
    case memoryVanished
    /// The front end's guest goes on, and not with this disk.
    case areaOfAnotherDisk(VhostDiskIdentity, attached: VhostDiskIdentity)
    case strangeFile
    case heldUp
    case refusedAsBarred
    case outOfFileDescriptors
    case queueBroken(queue: UInt32, RingFault)
    /// The front end goes on after the death of the process that served it before.
    case tookOver(queue: UInt32, requests: Int)

    /// Ordinary comings and goings are for information.
    package var isProblem: Bool {
        switch self {
        case .connected, .disconnected(duringMessage: false), .tookOver: false
        default: true
        }
    }

    /// One sentence, without the name of the VDI.
    package var text: String {
        switch self {
        case .connected: "a front end connected"
        case .disconnected(let duringMessage):
            duringMessage
                ? "the front end went away in the middle of a message"
                : "the front end disconnected"
        case .refusedSecondFrontEnd:
            "a second front end was turned away; disconnect the first before"
        case .protocolFault(let request, let fault):
            "the front end broke the protocol in request \(request) (\(fault)); disconnected it"
        case .unsupportedRequest(let request):
            "the front end sent request \(request), which is not supported"
        case .memoryRejected(let fault):
            "a region of guest memory was refused (\(fault))"
        case .memoryVanished:
            "the file behind the guest's memory was cut, or the memory is faulty; disconnected "
                + "the front end"
        case .areaOfAnotherDisk(let kept, let attached):
            "the front end's guest is in the middle of its work with disk \(kept), and disk "
                + "\(attached) is attached here; refused it; attach the guest's disk at this "
                + "path, or reset the guest"
        case .strangeFile:
            "the front end sent a file that is neither memory (memfd, tmpfs, hugetlbfs) nor an "
                + "eventfd; disconnected it; give the guest shared memory of such a kind"
        case .heldUp:
            "the front end made the daemon wait in its eventfd; disconnected it for good; "
                + "detach the VDI and attach it again if you trust the front end"
        case .refusedAsBarred:
            "a front end was turned away, because an earlier one tried to hold up the daemon; "
                + "detach the VDI and attach it again if you trust it"
        case .outOfFileDescriptors:
            "a front end was turned away because no file descriptor is left; raise the limit"
        case .queueBroken(let queue, let fault):
            "the guest broke the rules of queue \(queue) (\(fault)); "
                + "the queue is stopped until the guest resets the device"
        case .tookOver(let queue, let requests):
            "queue \(queue) goes on where it was, with \(requests) requests that were in flight"
        }
    }

    /// Distinguishes what is worth a line of its own.
    var kindBit: UInt64 {
        switch self {
        case .connected: 1
        case .disconnected: 2
        case .refusedSecondFrontEnd: 4
        case .protocolFault: 8
        case .unsupportedRequest: 16
        case .memoryRejected: 32
        case .memoryVanished: 64
        case .outOfFileDescriptors: 128
        case .strangeFile: 1 << 24
        case .heldUp: 1 << 25
        case .refusedAsBarred: 1 << 26
        case .areaOfAnotherDisk: 1 << 27
        case .queueBroken(let queue, _): 1 << (8 + UInt64(queue))
        case .tookOver(let queue, _): 1 << (32 + UInt64(queue))
        }
    }
}

/// Counts since the device was made.
package struct VhostCounters: BitwiseCopyable, Sendable {
    package var connections: UInt64 = 0
    package var requests: UInt64 = 0
    package var protocolFaults: UInt64 = 0
    package var brokenQueues: UInt64 = 0
}
