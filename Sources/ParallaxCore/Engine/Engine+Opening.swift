// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

extension Engine {
    /// Opens one stream: loads its newest checkpoint and replays the log behind it. Blocks.
    package static func open(
        store: OpenedStore, configuration: EngineConfiguration, medium: some StoreMedium
    ) throws(StoreError) -> Engine {
        let root = try newestRoot(store.superblock, stream: configuration.stream, medium: medium)
        return try withEnoughFrames(for: root, configuration, store.superblock) {
            frames throws(StoreError) in
            var engine = Engine(
                configuration: configuration, superblock: store.superblock, root: root,
                frameCount: frames)
            try engine.loadTables(root, medium: medium)
            try engine.replayLog(root, medium: medium)
            return engine
        }
    }

    /// What is dirty in a replay has to be in memory. A root says how many frames were enough for the log
    /// behind it, but not when a larger cache was in use since then and a crash came before its first
    /// checkpoint, nor for a log that goes on behind the next root. Nothing is written before the replay
    /// has come to its end, so it can be begun again.
    static func withEnoughFrames(
        for root: CheckpointRoot, _ configuration: EngineConfiguration, _ superblock: Superblock,
        _ open: (_ frames: Int) throws(StoreError) -> Engine
    ) throws(StoreError) -> Engine {
        var frames = max(configuration.nodeFrames, root.replayFrames(superblock))
        while true {
            do throws(StoreError) {
                return try open(frames)
            } catch {
                guard error.kind == .tooFewFrames, frames < CheckpointRoot.mostFrames(superblock)
                else { throw error }
                frames *= 2
            }
        }
    }

    private static func newestRoot(
        _ superblock: Superblock, stream: Int, medium: some StoreMedium
    ) throws(StoreError) -> CheckpointRoot {
        guard stream < superblock.streamCount else {
            throw StoreError(.invalidOptions, "The store has no stream \(stream).")
        }
        var newest: CheckpointRoot?
        for copy in 0..<2 {
            let places = CheckpointRoot.places(
                superblock, stream: stream, copy: copy, medium: medium)
            // What cannot be read may be the newest, and read the next time.
            let root = CheckpointRoot.newest(of: places)
            if root == nil, places.contains(.unreadable) {
                throw damaged("a checkpoint root of shard \(stream) cannot be read")
            }
            if let root, root.sequence > newest?.sequence ?? 0 || newest == nil { newest = root }
        }
        guard let newest, newest.replayBlock <= superblock.extentBlocks else {
            throw damaged("no checkpoint of shard \(stream) can be read")
        }
        return newest
    }

    static func damaged(_ what: String) -> StoreError {
        StoreError(
            .damaged,
            "The store is damaged: \(what); stop the daemon and run `parallax-ctl store check`.")
    }
}
