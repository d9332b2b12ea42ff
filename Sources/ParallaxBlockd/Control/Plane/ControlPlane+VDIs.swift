// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Logging
package import ParallaxControl
import ParallaxCore

extension ControlPlane {
    /// Every VDI, sorted by name.
    package func list() async throws(ControlError) -> [VDIDescription] {
        try requireRunning()
        let entries = directory.values.sorted { $0.name < $1.name }
        return try await describe(entries)
    }

    /// With `includingLayout` also how its blocks lie in the store, which takes reading its tree.
    package func show(
        _ name: String, includingLayout: Bool = false
    ) async throws(ControlError) -> VDIDescription {
        try requireRunning()
        let entry = try entry(name)
        var description = try await description(of: entry)
        if includingLayout {
            description.layout = try await layout(of: entry, sizeBytes: description.sizeBytes)
        }
        return description
    }

    package func create(_ request: CreateVDIRequest) async throws(ControlError) -> VDIDescription {
        let name = request.name
        try VDIName.validate(name)
        let quotaBytes = request.quotaBytes ?? 0
        try VDIQuota.validate(quotaBytes)
        if let from = request.from {
            return try await clone(
                from, to: name, sizeBytes: request.sizeBytes, quotaBytes: quotaBytes)
        }
        guard let sizeBytes = request.sizeBytes else {
            throw ControlError(.invalid, "a new VDI needs a size, or a snapshot to begin as")
        }
        try VDISize.validate(sizeBytes)
        return try await changing([name]) {
            try requireFree(name)
            let change = CatalogChange.create(
                name: name, sizeBytes: sizeBytes, createdAtNanoseconds: now())
            let entry = try await make(
                change, name: name, quotaBytes: quotaBytes, shard: emptiestShard())
            log.info(
                "VDI created",
                metadata: ["vdi": "\(name)", "size": "\(ByteSize.format(sizeBytes))"])
            return try await description(of: entry)
        }
    }

    /// Makes a VDI, empty or a clone, with what new ones begin with. Call it with the lock of the
    /// name held.
    func make(
        _ change: CatalogChange, name: String, quotaBytes: UInt64, shard position: Int
    ) async throws -> Entry {
        let shard = runtime.shards[position]
        population[position] += 1
        do {
            guard case .vdi(let identifier) = try await shard.change(change) else {
                throw ControlError(.internalError, "the shard answered something else")
            }
            guard let state = try await shard.vdis([identifier]).first else {
                throw ControlError(.internalError, "VDI \(quoted(name)) went away at once")
            }
            let entry = Entry(
                identifier: identifier, name: name, shard: position, sizeBytes: state.sizeBytes,
                attributes: state.attributes)
            try await begin(entry, quotaBytes: quotaBytes)
            return entry
        } catch {
            // Unless it is there all the same.
            if directory[name] == nil { population[position] -= 1 }
            throw error
        }
    }

    /// Gives a new VDI the default policy and its quota. One that cannot have them is not made.
    private func begin(_ entry: Entry, quotaBytes: UInt64) async throws {
        put(entry)
        do {
            try await set(
                VDIAttributes(policy: defaultPolicy, quotaBytes: quotaBytes), of: entry)
        } catch {
            do {
                try await shard(of: entry).change(.delete(entry.identifier))
            } catch let second as ControlError {
                throw keptAfter(error, second, entry)
            }
            forget(entry)
            throw error
        }
    }

    /// The store has it, so it is shown, too.
    private func keptAfter(
        _ error: any Error, _ second: ControlError, _ entry: Entry
    ) -> ControlError {
        let first = error as? ControlError ?? ControlError(.internalError, "\(error)")
        return ControlError(
            first.kind,
            "VDI \(quoted(entry.name)) was made, but could not be given its policy and quota "
                + "(\(first.message)), nor be deleted again (\(second.message)); delete it, or set "
                + "them")
    }

    /// Applies the one change that `request` asks for.
    package func change(
        _ name: String, _ request: ChangeVDIRequest
    ) async throws(ControlError) -> VDIDescription {
        switch (request.name, request.sizeBytes, request.template, request.quotaBytes) {
        case (let newName?, nil, nil, nil):
            return try await rename(name, to: newName)
        case (nil, let sizeBytes?, nil, nil):
            return try await resize(name, to: sizeBytes, mayShrink: request.shrink ?? false)
        case (nil, nil, let isTemplate?, nil):
            return try await setTemplate(name, isTemplate)
        case (nil, nil, nil, let quotaBytes?):
            return try await setQuota(name, quotaBytes)
        default:
            throw ControlError(
                .invalid,
                "a change has either a \"name\", a \"size_bytes\", a \"template\" or a "
                    + "\"quota_bytes\"")
        }
    }

    private func rename(
        _ name: String, to newName: String
    ) async throws(ControlError) -> VDIDescription {
        try VDIName.validate(newName)
        return try await changing([name, newName]) {
            var entry = try entry(name)
            try requireRenamable(entry)
            // Two spellings of one name are equal to Swift, and such a rename is no conflict.
            if newName != name { try requireFree(newName) }
            try await shard(of: entry).change(.rename(entry.identifier, name: newName))
            forget(entry)
            entry.name = newName
            put(entry)
            log.info("VDI renamed", metadata: ["vdi": "\(name)", "to": "\(newName)"])
            return try await description(of: entry)
        }
    }

    /// A client that knows the disk by its name asks for that name again after a restart: it would
    /// be turned away then, or be given whatever disk has the name by that time.
    private func requireRenamable(_ entry: Entry) throws(ControlError) {
        for attachment in attachments.values
        where attachment.record.identifier == entry.identifier && attachment.record.isByName {
            let snapshot = attachment.snapshotName.map {
                "its snapshot \(quoted(VersionName(vdi: entry.name, snapshot: $0).description))"
            }
            throw attached(
                entry, attachment,
                "cannot be renamed while \(snapshot ?? "it") is attached where clients know it by "
                    + "name")
        }
    }

    private func resize(
        _ name: String, to sizeBytes: UInt64, mayShrink: Bool
    ) async throws(ControlError) -> VDIDescription {
        try VDISize.validate(sizeBytes)
        return try await changing([name]) {
            var entry = try entry(name)
            if sizeBytes < entry.sizeBytes {
                try checkShrink(entry, to: sizeBytes, mayShrink: mayShrink)
            }
            // Also to the size that it has: a front end that was away when it changed is told then.
            do {
                try await shard(of: entry).change(
                    .resize(entry.identifier, sizeBytes: sizeBytes))
            } catch let error as ControlError where sizeBytes < entry.sizeBytes {
                throw cutShort(error, entry, sizeBytes)
            }
            if sizeBytes != entry.sizeBytes {
                entry.sizeBytes = sizeBytes
                put(entry)
                log.info(
                    "VDI resized",
                    metadata: ["vdi": "\(name)", "size": "\(ByteSize.format(sizeBytes))"])
            }
            return try await description(of: entry)
        }
    }

    /// What lies behind the new end is discarded before the size is changed.
    private func cutShort(
        _ error: ControlError, _ entry: Entry, _ sizeBytes: UInt64
    ) -> ControlError {
        guard error.kind == .noSpace || error.kind == .ioError else { return error }
        return ControlError(
            error.kind,
            "VDI \(quoted(entry.name)) was not made smaller (\(error.message)); it keeps its size, but "
                + "what lies beyond \(ByteSize.format(sizeBytes)) may be lost already")
    }

    private func checkShrink(
        _ entry: Entry, to sizeBytes: UInt64, mayShrink: Bool
    ) throws(ControlError) {
        guard mayShrink else {
            throw ControlError(
                .invalid,
                "VDI \(quoted(entry.name)) has \(ByteSize.format(entry.sizeBytes)); making it "
                    + "smaller loses what lies beyond \(ByteSize.format(sizeBytes)), "
                    + "so it must be asked for with --shrink")
        }
        guard let attachment = attachments[.head(entry.identifier)] else { return }
        throw attached(entry, attachment, "cannot be made smaller while it is attached")
    }

    private func setTemplate(
        _ name: String, _ isTemplate: Bool
    ) async throws(ControlError) -> VDIDescription {
        try await changing([name]) {
            let entry = try entry(name)
            if isTemplate, let attachment = attachments[.head(entry.identifier)],
                !attachment.record.isReadOnly
            {
                throw attached(
                    entry, attachment, "cannot become a template while it is attached for writing")
            }
            var attributes = entry.attributes
            attributes.isTemplate = isTemplate
            try await set(attributes, of: entry)
            return try await description(of: self.entry(name))
        }
    }

    /// A quota below what is charged already only stops new blocks.
    private func setQuota(
        _ name: String, _ quotaBytes: UInt64
    ) async throws(ControlError) -> VDIDescription {
        try VDIQuota.validate(quotaBytes)
        return try await changing([name]) {
            let entry = try entry(name)
            var attributes = entry.attributes
            attributes.quotaBytes = quotaBytes
            try await set(attributes, of: entry)
            let quota = quotaBytes == 0 ? "none" : ByteSize.format(quotaBytes)
            log.info("VDI quota set", metadata: ["vdi": "\(name)", "quota": "\(quota)"])
            return try await description(of: self.entry(name))
        }
    }

    /// Call it with the lock of the name held.
    func set(_ attributes: VDIAttributes, of entry: Entry) async throws {
        guard attributes != entry.attributes else { return }
        try await shard(of: entry).change(.setAttributes(entry.identifier, attributes))
        var entry = entry
        entry.attributes = attributes
        put(entry)
    }

    package func delete(_ name: String) async throws(ControlError) {
        try await changing([name]) {
            let entry = try entry(name)
            try requireDeletable(entry)
            try await shard(of: entry).change(.delete(entry.identifier))
            counters.snapshotsDeleted += UInt64(logs[entry.identifier]?.count ?? 0)
            logs[entry.identifier] = nil
            forget(entry)
            population[entry.shard] -= 1
            log.info("VDI deleted", metadata: ["vdi": "\(name)"])
        }
    }

    private func requireDeletable(_ entry: Entry) throws(ControlError) {
        if let attachment = attachments[.head(entry.identifier)] {
            throw attached(entry, attachment, "cannot be deleted while it is attached")
        }
        for attachment in attachments.values
        where attachment.record.identifier == entry.identifier {
            let name = VersionName(vdi: entry.name, snapshot: attachment.snapshotName)
            let what =
                "cannot be deleted while its snapshot \(quoted(name.description)) is attached"
            throw attached(entry, attachment, what)
        }
        guard let log = logs[entry.identifier], log.heldCount > 0 else { return }
        let held = log.all.first { $0.isHeld }?.name ?? ""
        throw ControlError(
            .held,
            "VDI \(quoted(entry.name)) cannot be deleted: \(log.heldCount) of its snapshots are "
                + "held, such as \(quoted(held)); release them first")
    }

    func requireFree(_ name: String) throws(ControlError) {
        guard directory[name] == nil else {
            throw ControlError(.nameTaken, "there is already a VDI called \(quoted(name))")
        }
    }

    /// Of those that still write, if there are any.
    private func emptiestShard() -> Int {
        let writable = population.indices.filter { !readOnlyShards.contains($0) }
        let shards = writable.isEmpty ? Array(population.indices) : writable
        return shards.min { population[$0] < population[$1] } ?? 0
    }

    func description(of entry: Entry) async throws(ControlError) -> VDIDescription {
        guard let description = try await describe([entry]).first else {
            throw ControlError(.notFound, "there is no VDI called \(quoted(entry.name)) any more")
        }
        return description
    }

    /// Those that are still there, in that order; as for snapshots, also while stopping.
    private func describe(_ entries: [Entry]) async throws(ControlError) -> [VDIDescription] {
        var states: [VDIIdentifier: VDIState] = [:]
        var parents: [SnapshotIdentifier: String] = [:]
        for (position, ofShard) in Dictionary(grouping: entries, by: \.shard) {
            let found = try await vdis(ofShard.map(\.identifier), shard: position)
            for state in found { states[state.identifier] = state }
            let names = try await snapshotNames(Set(found.compactMap(\.parent)), shard: position)
            parents.merge(names) { $1 }
        }
        return entries.compactMap { entry in
            guard let state = states[entry.identifier], state.phase == .active else { return nil }
            return describe(
                state, name: names[entry.identifier] ?? entry.name, shard: entry.shard,
                parent: state.parent.flatMap { parents[$0] })
        }
    }

    private func vdis(
        _ identifiers: [VDIIdentifier], shard position: Int
    ) async throws(ControlError) -> [VDIState] {
        let shard = runtime.shards[position]
        return try await translatingErrors {
            var states: [VDIState] = []
            for batch in identifiers.batches(of: ShardBatch.descriptions) {
                states += try await shard.vdis(Array(batch))
            }
            return states
        }
    }

    private func describe(
        _ state: VDIState, name: String, shard: Int, parent: String?
    ) -> VDIDescription {
        VDIDescription(
            name: name, identifier: state.identifier.hexadecimal, sizeBytes: state.sizeBytes,
            allocatedBytes: state.allocatedBytes, exclusiveBytes: state.exclusiveBytes,
            chargedBytes: state.chargedBytes,
            quotaBytes: state.attributes.quotaBytes == 0 ? nil : state.attributes.quotaBytes,
            createdAt: UTCTime.format(secondsSince1970: state.createdAtSeconds), shard: shard,
            attachment: attachments[.head(state.identifier)].map { describe($0, vdi: name) },
            isTemplate: state.attributes.isTemplate, parent: parent,
            snapshotCount: logs[state.identifier]?.count ?? 0,
            retention: policyText(state.attributes.policy))
    }
}

extension AttachmentRecord {
    /// Clients ask for an NBD export by its name, on a socket of its own too; and the tool stack's
    /// nodes of a domain name the VDI. What the administrator attached elsewhere is found by its
    /// place.
    fileprivate var isByName: Bool {
        switch kind {
        case .vhostUser: false
        case .nbd: true
        case .xen: isXenNode
        }
    }
}

extension Array {
    /// Pieces of at most `size`, in order.
    func batches(of size: Int) -> [ArraySlice<Element>] {
        stride(from: 0, to: count, by: size).map { self[$0..<Swift.min($0 + size, count)] }
    }
}
