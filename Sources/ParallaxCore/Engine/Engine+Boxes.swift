// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The parts of the engine that stand in memory of their own. Each is used as if it were a stored
/// property; but the compiler looks at every field of a noncopyable value in every function that has
/// it, and with all of them in one value that took it minutes.
extension Engine {
    var cleaner: Cleaner {
        _read { yield cleanerBox.value }
        nonmutating _modify { yield &cleanerBox.value }
    }

    var scrubber: Scrubber {
        _read { yield scrubberBox.value }
        nonmutating _modify { yield &scrubberBox.value }
    }

    var checkpoint: Checkpoint {
        _read { yield checkpointBox.value }
        nonmutating _modify { yield &checkpointBox.value }
    }

    var counters: EngineStatistics {
        _read { yield countersBox.value }
        nonmutating _modify { yield &countersBox.value }
    }
}
