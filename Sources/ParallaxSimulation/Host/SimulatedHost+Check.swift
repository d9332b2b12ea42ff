// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// `store check` finds nothing wrong with a store of which nothing was damaged.
extension SimulatedHost {
    /// After every crash, before anything of the recovery has been written.
    func checkCrashedStore() throws(SimulationFailure) {
        guard !mayBeDamaged else { return }
        try check(isLive: false)
    }

    /// Beside the engines, whenever the device has done that many commands.
    func checkLiveStore() throws(SimulationFailure) {
        guard device.commandCount % Self.commandsBetweenChecks == 0, !mayBeDamaged else { return }
        try check(isLive: true)
    }

    private static let commandsBetweenChecks = 2000

    private func check(isLive: Bool) throws(SimulationFailure) {
        statistics.storeChecks += 1
        if let problem = store.check(device, isLive: isLive) {
            throw SimulationFailure("store check\(isLive ? " beside the engines" : ""): \(problem)")
        }
    }
}
