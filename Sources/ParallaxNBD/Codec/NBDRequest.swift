// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// One request header, as the peer sent it.
///
/// ```
///  0            4       6      8        16       24       28
///  +------------+-------+------+--------+--------+--------+----------------------
///  | 0x25609513 | flags | type | cookie | offset | length | data (WRITE only)
///  +------------+-------+------+--------+--------+--------+----------------------
/// ```
package struct NBDRequest: BitwiseCopyable, Sendable {
    package static var byteCount: Int { 28 }

    package var flags: NBDCommandFlags
    package var type: UInt16
    package var cookie: UInt64
    package var offset: UInt64
    package var length: UInt32

    package init(
        type: UInt16, flags: NBDCommandFlags = [], cookie: UInt64 = 0, offset: UInt64 = 0,
        length: UInt32 = 0
    ) {
        self.flags = flags
        self.type = type
        self.cookie = cookie
        self.offset = offset
        self.length = length
    }

    /// `bytes`: at least `byteCount`. nil: not a request, so we have lost our place.
    package init?(decoding bytes: UnsafeRawPointer) {
        guard bytes.loadBigEndian(at: 0, as: UInt32.self) == NBDMagic.request else { return nil }
        flags = NBDCommandFlags(rawValue: bytes.loadBigEndian(at: 4, as: UInt16.self))
        type = bytes.loadBigEndian(at: 6, as: UInt16.self)
        cookie = bytes.loadBigEndian(at: 8, as: UInt64.self)
        offset = bytes.loadBigEndian(at: 16, as: UInt64.self)
        length = bytes.loadBigEndian(at: 24, as: UInt32.self)
    }
}

/// What is to be done with a request.
package enum NBDVerdict: BitwiseCopyable, Sendable, Equatable {
    /// The engine has to do something.
    case perform(NBDCommand)
    /// Right, and nothing to do.
    case acknowledge(NBDCommand)
    case refuse(NBDErrorCode)
    /// The peer takes its leave.
    case disconnect
    /// Nothing that follows can be trusted.
    case breakOff
}

/// The rules that hold for requests on one connection: the size and kind of the export and what
/// was negotiated.
package struct NBDRules: BitwiseCopyable, Sendable {
    package var exportBytes: UInt64
    package var isReadOnly: Bool
    package var usesStructuredReplies: Bool
    package var reportsAllocation: Bool

    package init(
        exportBytes: UInt64, isReadOnly: Bool, usesStructuredReplies: Bool, reportsAllocation: Bool
    ) {
        self.exportBytes = exportBytes
        self.isReadOnly = isReadOnly
        self.usesStructuredReplies = usesStructuredReplies
        self.reportsAllocation = reportsAllocation
    }

    package func judge(_ request: NBDRequest) -> NBDVerdict {
        guard let command = NBDCommand(rawValue: request.type) else { return .refuse(.invalid) }
        if command == .write, request.length > NBDLimits.payloadBytesConsumed { return .breakOff }
        if command == .disconnect { return .disconnect }
        guard allowedFlags(for: command).isSuperset(of: request.flags) else {
            return .refuse(.invalid)
        }
        if command == .flush {
            let isPlain = request.offset == 0 && request.length == 0
            return isPlain ? .perform(.flush) : .refuse(.invalid)
        }
        if let error = rangeError(request, of: command) ?? sizeError(request, of: command) {
            return .refuse(error)
        }
        if request.length == 0 || command == .cache { return .acknowledge(command) }
        return .perform(command)
    }

    private func allowedFlags(for command: NBDCommand) -> NBDCommandFlags {
        switch command {
        case .read:
            usesStructuredReplies ? [.forceUnitAccess, .dontFragment] : .forceUnitAccess
        case .writeZeroes: [.forceUnitAccess, .noHole, .fastZero]
        case .blockStatus: [.forceUnitAccess, .requestOne]
        // Clients set FUA on all kinds of commands; it has to be accepted.
        case .write, .flush, .trim, .cache, .disconnect: .forceUnitAccess
        }
    }

    private func rangeError(_ request: NBDRequest, of command: NBDCommand) -> NBDErrorCode? {
        let isChange = command == .write || command == .trim || command == .writeZeroes
        if isReadOnly && isChange { return .notPermitted }
        let (end, overflow) = request.offset.addingReportingOverflow(UInt64(request.length))
        if overflow || end > exportBytes { return NBDErrorCode(pastTheEndOf: command) }
        let mask = UInt64(NBDLimits.blockBytesMin) - 1
        return (request.offset | UInt64(request.length)) & mask == 0 ? nil : .invalid
    }

    private func sizeError(_ request: NBDRequest, of command: NBDCommand) -> NBDErrorCode? {
        let length = Int(request.length)
        switch command {
        case .read where length > NBDLimits.payloadBytesMax:
            return usesStructuredReplies ? .overflow : .invalid
        case .read where request.flags.contains(.dontFragment):
            return length > NBDLimits.largePieceBytes ? .overflow : nil
        case .write:
            return length > NBDLimits.payloadBytesMax ? .invalid : nil
        case .writeZeroes where request.flags.contains(.fastZero):
            return isFastZero(request) ? nil : .notSupported
        case .blockStatus:
            return reportsAllocation && length > 0 ? nil : .invalid
        case .read, .writeZeroes, .trim, .cache, .flush, .disconnect:
            return nil
        }
    }

    /// Punching a hole is faster than writing only where whole blocks go; and a range that must
    /// stay allocated is zeroed by writing.
    private func isFastZero(_ request: NBDRequest) -> Bool {
        if request.flags.contains(.noHole) { return false }
        let block = UInt64(NBDLimits.blockBytesPreferred)
        let firstBlock = (request.offset + block - 1) / block
        return (request.offset + UInt64(request.length)) / block > firstBlock
    }
}
