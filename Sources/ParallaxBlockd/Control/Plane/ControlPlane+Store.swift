// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Logging
package import ParallaxControl

extension ControlPlane {
    /// The lock of the store as a whole: no VDI's name has a slash.
    private static var storeLock: String { "/" }

    /// Says in the log what has become of the store's space.
    func watchSpace() async {
        guard let status = try? await status() else { return }
        let refused = status.shards.reduce(0) { $0 + $1.space.refusedRequests }
        let overQuota = status.shards.reduce(0) { $0 + $1.space.quotaRefusedRequests }
        for notice in spaceWatch.look(at: status.store, refused: refused, overQuota: overQuota) {
            if notice == .refusingByQuota {
                await reportQuotas()
            } else {
                report(notice, status.store)
            }
        }
    }

    /// Says which VDIs it may have been.
    private func reportQuotas() async {
        let vdis = ((try? await list()) ?? []).filter { vdi in
            guard let quota = vdi.quotaBytes else { return false }
            return vdi.chargedBytes + Self.nearQuota >= quota
        }
        let names = vdis.prefix(Self.namesInLine).map { quoted($0.name) }.joined(separator: ", ")
        let rest = vdis.count - min(vdis.count, Self.namesInLine)
        log.error(
            """
            writes are refused by a quota; at theirs are: \
            \(vdis.isEmpty ? "none any more" : names)\(rest > 0 ? " and \(rest) more" : ""); \
            delete snapshots of the VDI, let its guest trim, or raise it with \
            `parallax-ctl vdi quota`
            """)
    }

    /// The longest request that is refused as a whole is of this order.
    private static var nearQuota: UInt64 { 1 << 20 }
    private static var namesInLine: Int { 8 }

    private func report(_ notice: SpaceWatch.Notice, _ store: StoreStatus) {
        let advice =
            "delete snapshots or VDIs, let guests trim, or make it larger with "
            + "`parallax-ctl store grow`"
        switch notice {
        case .reached(let level):
            let text = "the store \(store.path) is \(level) % full: \(advice)"
            switch level {
            case 95...: log.error("\(text)")
            case 90...: log.warning("\(text)")
            default: log.notice("\(text)")
            }
        case .left(let level):
            log.notice("the store \(store.path) is less than \(level) % full again")
        case .refusing:
            log.error(
                """
                writes are refused: the store \(store.path) (\(store.fullPercent) % full) has no \
                space for them; \(advice)
                """)
        case .refusingByQuota: return
        case .host(let problem?): log.error("\(problem)")
        case .host(nil): log.notice("extents of \(store.path) can be allocated again")
        }
    }

    /// Makes the store larger while it is used.
    package func growStore(_ request: GrowStoreRequest) async throws(ControlError) -> StoreGrowth {
        try await changing([Self.storeLock]) {
            let before = runtime.identity
            let after = try await runtime.grow(request.sizeBytes)
            runtime.identity = after
            log.info(
                "store grown",
                metadata: [
                    "from": "\(ByteSize.format(before.sizeBytes))",
                    "to": "\(ByteSize.format(after.sizeBytes))",
                ])
            return StoreGrowth(
                path: after.path, previousSizeBytes: before.sizeBytes, sizeBytes: after.sizeBytes,
                extentCount: after.extentCount,
                extentsAdded: after.extentCount - before.extentCount)
        }
    }

    /// Sets the cleaner to work; the status says how far it is.
    package func cleanStore(_ request: CleanStoreRequest) async throws(ControlError) {
        if let percent = request.untilPercent, !(1...100).contains(percent) {
            throw ControlError(.invalid, "\(percent) % cannot be free; give 1 to 100 percent")
        }
        try await changing([Self.storeLock]) {
            try await runtime.clean(request.untilPercent)
            let goal = request.untilPercent.map { "\($0) % free" } ?? "all that is worth it"
            log.info("cleaning was asked for", metadata: ["goal": "\(goal)"])
        }
    }
}
