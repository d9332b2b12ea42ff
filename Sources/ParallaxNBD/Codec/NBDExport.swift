// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// One VDI as NBD clients see it.
package struct NBDExport: Sendable, Equatable {
    package let name: String
    /// A whole number of sectors.
    package let byteCount: UInt64
    package let isReadOnly: Bool
    /// For people, in listings; may be empty.
    package let description: String
    /// What the server knows it by. A client that has agreed on an export is taken to this one, though its
    /// name may be another's by then.
    package let identity: UInt64

    package init(
        name: String, byteCount: UInt64, isReadOnly: Bool = false, description: String = "",
        identity: UInt64 = 0
    ) {
        precondition(name.utf8.count <= NBDLimits.stringBytesMax, "NBDExport: name too long")
        precondition(
            description.utf8.count <= NBDLimits.stringBytesMax, "NBDExport: description too long")
        precondition(
            byteCount % UInt64(NBDLimits.blockBytesMin) == 0, "NBDExport: not in whole sectors")
        self.name = name
        self.byteCount = byteCount
        self.isReadOnly = isReadOnly
        self.description = description
        self.identity = identity
    }

    /// CAN_MULTI_CONN: all connections of a VDI end in the same shard, and its flush waits for
    /// everything acknowledged before it, whichever connection that came from.
    package func transmissionFlags(usesStructuredReplies: Bool) -> NBDTransmissionFlags {
        var flags: NBDTransmissionFlags = [
            .hasFlags, .sendFlush, .sendFUA, .canMultiConnect, .sendCache,
        ]
        if isReadOnly {
            flags.insert(.readOnly)
        } else {
            flags.formUnion([.sendTrim, .sendWriteZeroes, .sendFastZero])
        }
        if usesStructuredReplies { flags.insert(.sendDontFragment) }
        return flags
    }
}

/// What a listener serves: exports in the order of their names' bytes.
package struct NBDExportTable: Sendable {
    private let exports: [NBDExport]
    /// What the empty name stands for, if anything.
    private let defaultExport: NBDExport?

    /// A name must occur once. `defaultName` is the export that clients without a name get: on a
    /// private socket its only export, on a shared one nothing, because its meaning would change
    /// with each disk that is attached.
    package init(_ exports: [NBDExport] = [], defaultName: String? = nil) {
        self.exports = exports.sorted { $0.name.utf8.lexicographicallyPrecedes($1.name.utf8) }
        defaultExport = exports.first { $0.name == defaultName }
    }

    package func find(_ name: ArraySlice<UInt8>) -> NBDExport? {
        if name.isEmpty, let defaultExport { return defaultExport }
        let index = firstIndex { $0.name.utf8.lexicographicallyPrecedes(name) }
        guard index < exports.count, exports[index].name.utf8.elementsEqual(name) else {
            return nil
        }
        return exports[index]
    }

    /// The next one of a listing; right even when the table changed since the last.
    package func next(after name: String?) -> NBDExport? {
        guard let name else { return exports.first }
        let index = firstIndex { !name.utf8.lexicographicallyPrecedes($0.name.utf8) }
        return index < exports.count ? exports[index] : nil
    }

    /// Binary search: the first export of which `isBefore` is false.
    private func firstIndex(where isBefore: (NBDExport) -> Bool) -> Int {
        var low = 0
        var high = exports.count
        while low < high {
            let middle = (low + high) / 2
            if isBefore(exports[middle]) { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
