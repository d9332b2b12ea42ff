// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Logging
package import ParallaxControl
import ParallaxCore

extension ControlPlane {
    /// Every VDI, sorted by name.
    package func list() async throws(ControlError) -> [VDIDescription] {
        let states = try await allVDIs()
        let names = Dictionary(
            directory.values.map { ($0.identifier, $0.name) }, uniquingKeysWith: { $1 })
        return
            states
            .filter { $0.state.phase == .active }
            .map { describe($0.state, name: names[$0.state.identifier], shard: $0.shard) }
            .sorted { $0.name < $1.name }
    }

    package func show(_ name: String) async throws(ControlError) -> VDIDescription {
        let entry = try entry(name)
        return try await description(of: entry)
    }

    package func create(_ request: CreateVDIRequest) async throws(ControlError) -> VDIDescription {
        let name = request.name
        try VDIName.validate(name)
        try VDISize.validate(request.sizeBytes)
        return try await changing([name]) {
            try requireFree(name)
            let position = emptiestShard()
            population[position] += 1
            do {
                let state = try await runtime.shards[position].create(
                    name: name, sizeBytes: request.sizeBytes)
                directory[name] = Entry(
                    identifier: state.identifier, name: name, shard: position,
                    sizeBytes: state.sizeBytes)
                log.info(
                    "VDI created",
                    metadata: ["vdi": "\(name)", "size": "\(ByteSize.format(state.sizeBytes))"])
                return describe(state, name: name, shard: position)
            } catch {
                population[position] -= 1
                throw error
            }
        }
    }

    /// Applies the one change that `request` asks for.
    package func change(
        _ name: String, _ request: ChangeVDIRequest
    ) async throws(ControlError) -> VDIDescription {
        switch (request.name, request.sizeBytes) {
        case (let newName?, nil):
            return try await rename(name, to: newName)
        case (nil, let sizeBytes?):
            return try await resize(name, to: sizeBytes, mayShrink: request.shrink ?? false)
        default:
            throw ControlError(
                .invalid, "a change has either a \"name\" or a \"size_bytes\", and one of them")
        }
    }

    private func rename(
        _ name: String, to newName: String
    ) async throws(ControlError) -> VDIDescription {
        try VDIName.validate(newName)
        return try await changing([name, newName]) {
            var entry = try entry(name)
            // Two spellings of one name are equal to Swift, and such a rename is no conflict.
            if newName != name { try requireFree(newName) }
            try await shard(of: entry).rename(identifier: entry.identifier, name: newName)
            directory[name] = nil
            entry.name = newName
            directory[newName] = entry
            log.info("VDI renamed", metadata: ["vdi": "\(name)", "to": "\(newName)"])
            return try await description(of: entry)
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
            if sizeBytes != entry.sizeBytes {
                try await shard(of: entry).resize(
                    identifier: entry.identifier, sizeBytes: sizeBytes)
                entry.sizeBytes = sizeBytes
                directory[name] = entry
                log.info(
                    "VDI resized",
                    metadata: ["vdi": "\(name)", "size": "\(ByteSize.format(sizeBytes))"])
            }
            return try await description(of: entry)
        }
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
        guard let attachment = attachments[entry.identifier] else { return }
        throw attached(entry, attachment, "cannot be made smaller while it is attached")
    }

    package func delete(_ name: String) async throws(ControlError) {
        try await changing([name]) {
            let entry = try entry(name)
            if let attachment = attachments[entry.identifier] {
                throw attached(entry, attachment, "cannot be deleted while it is attached")
            }
            try await shard(of: entry).delete(identifier: entry.identifier)
            directory[name] = nil
            population[entry.shard] -= 1
            log.info("VDI deleted", metadata: ["vdi": "\(name)"])
        }
    }

    private func requireFree(_ name: String) throws(ControlError) {
        guard directory[name] == nil else {
            throw ControlError(.nameTaken, "there is already a VDI called \(quoted(name))")
        }
    }

    private func emptiestShard() -> Int {
        population.indices.min { population[$0] < population[$1] } ?? 0
    }

    func description(of entry: Entry) async throws(ControlError) -> VDIDescription {
        try requireRunning()
        let shard = shard(of: entry)
        let states = try await translatingErrors { try await shard.vdis() }
        guard let state = states.first(where: { $0.identifier == entry.identifier }) else {
            throw ControlError(.notFound, "there is no VDI called \(quoted(entry.name)) any more")
        }
        return describe(state, name: entry.name, shard: entry.shard)
    }

    private func describe(_ state: VDIState, name: String?, shard: Int) -> VDIDescription {
        let name = name ?? state.name
        let attachment = attachments[state.identifier].map { describe($0, vdi: name) }
        return VDIDescription(
            name: name, identifier: state.identifier.hexadecimal, sizeBytes: state.sizeBytes,
            allocatedBytes: state.allocatedBytes,
            createdAt: UTCTime.format(secondsSince1970: state.createdAtSeconds), shard: shard,
            attachment: attachment)
    }
}
