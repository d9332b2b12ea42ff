// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// LIST_META_CONTEXT and SET_META_CONTEXT. There is one context so far, `base:allocation`.
extension NBDNegotiation {
    /// What BLOCK_STATUS replies call `base:allocation`. Listings say 0: there it is reserved.
    package static var allocationContextID: UInt32 { 1 }
    private static var allocationContext: String { "base:allocation" }

    /// The parsed data of either option.
    ///
    /// ```
    ///  0         4        4+n       8+n
    ///  +---------+--------+---------+---------+---------+----
    ///  | n: name | name   | queries | length  | query   | ...
    ///  +---------+--------+---------+---------+---------+----
    /// ```
    private struct Query {
        var export: ArraySlice<UInt8>
        var isEmpty = true
        var namesAllocation = false
        /// `base:`, which stands for everything in the namespace, in a listing only.
        var namesNamespace = false

        init?(_ payload: [UInt8]) {
            var reader = ByteReader(payload)
            guard let export = reader.string(), let count = reader.integer(UInt32.self) else {
                return nil
            }
            self.export = export
            for _ in 0..<count {
                guard let query = reader.string() else { return nil }
                isEmpty = false
                // Other names and other namespaces are ignored, not errors.
                if query.elementsEqual(allocationContext.utf8) { namesAllocation = true }
                if query.elementsEqual("base:".utf8) { namesNamespace = true }
            }
            guard reader.isAtEnd else { return nil }
        }
    }

    mutating func listMetaContexts(_ payload: [UInt8], exports: NBDExportTable) {
        let option = NBDOption.listMetaContext.rawValue
        guard let (query, _) = parse(payload, of: option, exports: exports) else { return }
        if query.isEmpty || query.namesAllocation || query.namesNamespace {
            replyContext(id: 0, to: option)
        }
        reply(to: option, .acknowledged)
    }

    mutating func setMetaContexts(_ payload: [UInt8], exports: NBDExportTable) {
        let option = NBDOption.setMetaContext.rawValue
        // An earlier selection is gone even when this one fails.
        allocationExport = nil
        guard let (query, export) = parse(payload, of: option, exports: exports) else { return }
        if query.namesAllocation {
            allocationExport = export.name
            replyContext(id: Self.allocationContextID, to: option)
        }
        reply(to: option, .acknowledged)
    }

    /// Replies with the error itself when it returns nil.
    private mutating func parse(
        _ payload: [UInt8], of option: UInt32, exports: NBDExportTable
    ) -> (Query, NBDExport)? {
        guard usesStructuredReplies else {
            reply(to: option, .invalid, "ask for structured replies first")
            return nil
        }
        guard let query = Query(payload) else {
            reply(to: option, .invalid, "the option's data is malformed")
            return nil
        }
        guard let export = exports.find(query.export) else {
            refuseExport(option, query.export)
            return nil
        }
        return (query, export)
    }

    private mutating func replyContext(id: UInt32, to option: UInt32) {
        reply(to: option, .metaContext) {
            $0.appendBigEndian(id)
            $0.append(contentsOf: Self.allocationContext.utf8)
        }
    }
}
