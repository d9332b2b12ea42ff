// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxCore

/// For tests and for checks in debug builds.
extension NBDConnection {
    /// Nothing is in use: every command, operation, piece and reply has been given back.
    package var hasNothingTaken: Bool {
        freeCommands.count == NBDLimits.commandsInFlight
            && freeOperations.count == NBDLimits.operationsInFlight
            && pool.isUnused && replies.isEmpty && inFlight == 0
    }
}
