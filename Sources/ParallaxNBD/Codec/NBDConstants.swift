// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The numbers of the NBD protocol document (`doc/proto.md` of the NBD project), by its names.
package enum NBDMagic {
    package static let newstyle: UInt64 = 0x4e42_444d_4147_4943  // NBDMAGIC
    package static let option: UInt64 = 0x4948_4156_454f_5054  // IHAVEOPT
    package static let optionReply: UInt64 = 0x0003_e889_0455_65a9
    package static let request: UInt32 = 0x2560_9513
    package static let simpleReply: UInt32 = 0x6744_6698
    package static let structuredReply: UInt32 = 0x668e_33ef
}

/// What the server says in its greeting.
package struct NBDHandshakeFlags: OptionSet, Sendable {
    package let rawValue: UInt16
    package init(rawValue: UInt16) { self.rawValue = rawValue }

    package static let fixedNewstyle = NBDHandshakeFlags(rawValue: 1)
    package static let noZeroes = NBDHandshakeFlags(rawValue: 2)
}

/// What the client answers to it.
package struct NBDClientFlags: OptionSet, Sendable {
    package let rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }

    package static let fixedNewstyle = NBDClientFlags(rawValue: 1)
    package static let noZeroes = NBDClientFlags(rawValue: 2)
    package static let known: NBDClientFlags = [.fixedNewstyle, .noZeroes]
}

/// `NBD_OPT_*`.
package enum NBDOption: UInt32, Sendable, CaseIterable {
    case exportName = 1
    case abort = 2
    case list = 3
    case peekExport = 4
    case startTLS = 5
    case info = 6
    case go = 7
    case structuredReply = 8
    case listMetaContext = 9
    case setMetaContext = 10
    case extendedHeaders = 11
}

/// `NBD_REP_*`.
package enum NBDOptionReply: UInt32, Sendable {
    case acknowledged = 1  // NBD_REP_ACK
    case server = 2
    case info = 3
    case metaContext = 4
    case unsupported = 0x8000_0001  // NBD_REP_ERR_UNSUP
    case policy = 0x8000_0002
    case invalid = 0x8000_0003
    case unknown = 0x8000_0006
    case shutdown = 0x8000_0007
    case tooBig = 0x8000_0009
}

/// `NBD_INFO_*`.
package enum NBDInfoItem: UInt16, Sendable {
    case export = 0
    case name = 1
    case description = 2
    case blockSize = 3
}

/// `NBD_FLAG_*` of the transmission phase.
package struct NBDTransmissionFlags: OptionSet, Sendable {
    package let rawValue: UInt16
    package init(rawValue: UInt16) { self.rawValue = rawValue }

    package static let hasFlags = NBDTransmissionFlags(rawValue: 1 << 0)
    package static let readOnly = NBDTransmissionFlags(rawValue: 1 << 1)
    package static let sendFlush = NBDTransmissionFlags(rawValue: 1 << 2)
    package static let sendFUA = NBDTransmissionFlags(rawValue: 1 << 3)
    package static let sendTrim = NBDTransmissionFlags(rawValue: 1 << 5)
    package static let sendWriteZeroes = NBDTransmissionFlags(rawValue: 1 << 6)
    package static let sendDontFragment = NBDTransmissionFlags(rawValue: 1 << 7)  // SEND_DF
    package static let canMultiConnect = NBDTransmissionFlags(rawValue: 1 << 8)
    package static let sendCache = NBDTransmissionFlags(rawValue: 1 << 10)
    package static let sendFastZero = NBDTransmissionFlags(rawValue: 1 << 11)
}

/// `NBD_CMD_*`.
package enum NBDCommand: UInt16, BitwiseCopyable, Sendable, CaseIterable {
    case read = 0
    case write = 1
    case disconnect = 2
    case flush = 3
    case trim = 4
    case cache = 5
    case writeZeroes = 6
    case blockStatus = 7
}

/// `NBD_CMD_FLAG_*`.
package struct NBDCommandFlags: OptionSet, BitwiseCopyable, Sendable {
    package let rawValue: UInt16
    package init(rawValue: UInt16) { self.rawValue = rawValue }

    package static let forceUnitAccess = NBDCommandFlags(rawValue: 1 << 0)  // FUA
    package static let noHole = NBDCommandFlags(rawValue: 1 << 1)
    package static let dontFragment = NBDCommandFlags(rawValue: 1 << 2)  // DF
    package static let requestOne = NBDCommandFlags(rawValue: 1 << 3)  // REQ_ONE
    package static let fastZero = NBDCommandFlags(rawValue: 1 << 4)
}

/// `NBD_REPLY_TYPE_*`.
package enum NBDChunk: UInt16, BitwiseCopyable, Sendable {
    case none = 0
    case offsetData = 1
    case blockStatus = 5
    case error = 0x8001
}

/// Bits of the `base:allocation` metadata context.
package struct NBDAllocationFlags: OptionSet, BitwiseCopyable, Sendable {
    package let rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }

    package static let hole = NBDAllocationFlags(rawValue: 1)
    package static let zero = NBDAllocationFlags(rawValue: 2)
}
