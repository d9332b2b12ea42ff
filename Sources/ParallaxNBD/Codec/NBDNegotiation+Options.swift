// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// What each option does. An option that we do not know is refused and the conversation goes on.
extension NBDNegotiation {
    mutating func perform(_ option: UInt32, payload: [UInt8], exports: NBDExportTable) {
        phase = .optionHeader
        let known = NBDOption(rawValue: option)
        // Without fixed newstyle the client could not read a reply: it may only name an export.
        guard clientFlags.contains(.fixedNewstyle) || known == .exportName else {
            return finish(.closed)
        }
        switch known {
        case .exportName: enter(payload[...], exports: exports)
        case .abort: abort()
        case .list: list(payload, exports: exports)
        case .info, .go: inform(option, payload, exports: exports)
        case .structuredReply: useStructuredReplies(payload)
        case .listMetaContext: listMetaContexts(payload, exports: exports)
        case .setMetaContext: setMetaContexts(payload, exports: exports)
        case .startTLS where !payload.isEmpty:
            reply(to: option, .invalid, "STARTTLS takes no data")
        case .peekExport, .startTLS, .extendedHeaders, nil: refuseUnknown(option)
        }
    }

    mutating func refuseUnknown(_ option: UInt32) {
        reply(to: option, .unsupported, "this server does not know the option")
    }

    mutating func abort() {
        reply(to: NBDOption.abort.rawValue, .acknowledged)
        finish(.closed)
    }

    // MARK: Export name, info, go

    /// EXPORT_NAME has no way to say no other than to hang up.
    private mutating func enter(_ name: ArraySlice<UInt8>, exports: NBDExportTable) {
        guard let export = exports.find(name) else { return finish(.closed) }
        output.appendBigEndian(export.byteCount)
        output.appendBigEndian(flags(of: export).rawValue)
        if !clientFlags.contains(.noZeroes) {
            output.append(contentsOf: repeatElement(0, count: 124))
        }
        finish(.transmission(agreement(on: export)))
    }

    private mutating func inform(_ option: UInt32, _ payload: [UInt8], exports: NBDExportTable) {
        var reader = ByteReader(payload)
        guard let name = reader.string(), let itemCount = reader.integer(UInt16.self) else {
            return reply(to: option, .invalid, "the option's data is cut short")
        }
        var items: Set<NBDInfoItem> = []
        for _ in 0..<itemCount {
            guard let item = reader.integer(UInt16.self) else {
                return reply(to: option, .invalid, "the option's data is cut short")
            }
            if let item = NBDInfoItem(rawValue: item) { items.insert(item) }
        }
        guard reader.isAtEnd else {
            return reply(to: option, .invalid, "the option has data behind its end")
        }
        guard let export = exports.find(name) else { return refuseExport(option, name) }
        replyItems(items, about: export, to: option)
        reply(to: option, .acknowledged)
        if option == NBDOption.go.rawValue { finish(.transmission(agreement(on: export))) }
    }

    private mutating func replyItems(
        _ items: Set<NBDInfoItem>, about export: NBDExport, to option: UInt32
    ) {
        let flags = flags(of: export)
        replyItem(.export, to: option) {
            $0.appendBigEndian(export.byteCount)
            $0.appendBigEndian(flags.rawValue)
        }
        if items.contains(.name) {
            replyItem(.name, to: option) { $0.append(contentsOf: export.name.utf8) }
        }
        if items.contains(.description), !export.description.isEmpty {
            replyItem(.description, to: option) { $0.append(contentsOf: export.description.utf8) }
        }
        // Also when not asked for: a smallest block of more than 1 byte has to be said.
        replyItem(.blockSize, to: option) {
            $0.appendBigEndian(UInt32(NBDLimits.blockBytesMin))
            $0.appendBigEndian(UInt32(NBDLimits.blockBytesPreferred))
            $0.appendBigEndian(UInt32(NBDLimits.payloadBytesMax))
        }
    }

    private func flags(of export: NBDExport) -> NBDTransmissionFlags {
        export.transmissionFlags(usesStructuredReplies: usesStructuredReplies)
    }

    private func agreement(on export: NBDExport) -> NBDAgreement {
        NBDAgreement(
            exportName: export.name, exportIdentity: export.identity,
            usesStructuredReplies: usesStructuredReplies,
            reportsAllocation: allocationExport == export.name)
    }

    mutating func refuseExport(_ option: UInt32, _ name: ArraySlice<UInt8>) {
        let printable = name.prefix(80).allSatisfy { (0x20..<0x7f).contains($0) }
        let shown = printable ? String(decoding: name.prefix(80), as: UTF8.self) : "(unprintable)"
        reply(to: option, .unknown, "there is no export '\(shown)' on this socket")
    }

    // MARK: List

    private mutating func list(_ payload: [UInt8], exports: NBDExportTable) {
        guard payload.isEmpty else {
            return reply(to: NBDOption.list.rawValue, .invalid, "LIST takes no data")
        }
        list(after: nil, exports: exports)
    }

    /// Fills the output with the next piece of a listing; `sent` comes back for the one after.
    mutating func list(after name: String?, exports: NBDExportTable) {
        var last = name
        while output.count < NBDLimits.listingBytes {
            guard let export = exports.next(after: last) else {
                phase = .optionHeader
                return reply(to: NBDOption.list.rawValue, .acknowledged)
            }
            reply(to: NBDOption.list.rawValue, .server) {
                $0.appendBigEndian(UInt32(export.name.utf8.count))
                $0.append(contentsOf: export.name.utf8)
                $0.append(contentsOf: export.description.utf8)
            }
            last = export.name
        }
        phase = .listing(after: last)
    }

    // MARK: Structured replies

    private mutating func useStructuredReplies(_ payload: [UInt8]) {
        let option = NBDOption.structuredReply.rawValue
        guard payload.isEmpty else {
            return reply(to: option, .invalid, "STRUCTURED_REPLY takes no data")
        }
        guard !usesStructuredReplies else {
            return reply(to: option, .invalid, "structured replies are already agreed on")
        }
        usesStructuredReplies = true
        reply(to: option, .acknowledged)
    }
}
