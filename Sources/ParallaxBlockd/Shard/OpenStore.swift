// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Logging
import ParallaxControl

/// Opens the store, recovers it and starts its shards.
func openStore(
    _ configuration: DaemonConfiguration, log: Logger
) async throws(ControlError) -> StoreRuntime {
    throw ControlError(.internalError, "this build has no storage engine yet")
}
