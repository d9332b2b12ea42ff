// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

extension Engine {
    /// Somebody else writes to the store: nothing more is written to it, not even what waits for room
    /// in the device. Reads go on; what another has written over fails its checksum.
    package mutating func fence(_ reason: String) {
        fail(StoreError(.device, reason))
        // Nobody waits for their completions after a failure.
        commands.removeAll { $0.operation == .write }
    }
}
