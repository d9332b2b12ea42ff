// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import Glibc
internal import Synchronization

/// A disk that a tool stack wants us to serve: a node below `backend/vbd` whose `params` are
/// `parallax:NAME`.
package struct XenDiskNode: Hashable, Sendable {
    package static let scheme = "parallax:"

    /// The back-end directory.
    package var path: String
    package var vdi: String
    package var readOnly: Bool
    /// False: its domain has gone, and the tool stack has left the node behind.
    package var hasFrontEnd: Bool
    /// The disk that it was offered, as a `XenDiskIdentity` says it; nil before the first time. What
    /// the name means may have changed since.
    package var identity: String?

    package init(
        path: String, vdi: String, readOnly: Bool, hasFrontEnd: Bool = true,
        identity: String? = nil
    ) {
        self.path = path
        self.vdi = vdi
        self.readOnly = readOnly
        self.hasFrontEnd = hasFrontEnd
        self.identity = identity
    }
}

/// Asks who watches the nodes for one more look in a while, although nothing has changed.
package final class XenSecondLook: Sendable {
    private let isDue = Atomic<Bool>(false)
    let milliseconds: Int32

    package init(milliseconds: Int32 = XenLimits.secondLookMilliseconds) {
        self.milliseconds = milliseconds
    }

    package func ask() { isDue.store(true, ordering: .relaxed) }

    func take() -> Bool { isDue.exchange(false, ordering: .relaxed) }
}

/// What the tool stack's part of xenstore asks for. For the control plane; calls wait.
package enum XenDirectory {
    /// Calls `changed` with all nodes, now, after each change and when a second look is due, until
    /// it returns false or the connection is lost.
    package static func watch(
        _ library: XenLibrary, secondLook: XenSecondLook = XenSecondLook(),
        _ changed: ([XenDiskNode]) -> Bool
    ) throws(XenError) {
        var store = StoreConnection(library)
        try store.open()
        let backend = "/local/domain/\(XenNode.ownDomain(store))/backend"
        try store.watch(backend + "/vbd")
        // Ours go when their domain goes; and a domain that goes is told of as well.
        try store.watch("\(backend)/\(XenNode.ownType)")
        try store.watch("@releaseDomain")
        while store.waitForWatchEvent(milliseconds: secondLook.milliseconds) {
            // LIMIT: as many as there are, at most one turn's worth, share one look.
            var hasEvents = false
            guard store.takeWatchEvents({ _ in hasEvents = true }) else { return }
            guard hasEvents || secondLook.take() else { continue }
            guard let nodes = try? nodes(below: backend + "/vbd", store), changed(nodes)
            else { return }
        }
    }

    /// Whether the node is as it was when it was listed; false also where xenstore does not say.
    package static func isCurrent(_ node: XenDiskNode, _ library: XenLibrary) -> Bool {
        do {
            var store = StoreConnection(library)
            try store.open()
            return try self.node(node.path, store) == node
        } catch {
            return false
        }
    }

    private static func nodes(
        below folder: String, _ store: borrowing StoreConnection
    ) throws(StoreLost) -> [XenDiskNode] {
        var result: [XenDiskNode] = []
        for domain in try store.list(folder) {
            for device in try store.list("\(folder)/\(domain)") {
                if let node = try node("\(folder)/\(domain)/\(device)", store) {
                    result.append(node)
                }
            }
        }
        return result
    }

    /// nil: not one of ours, or not any more.
    private static func node(
        _ path: String, _ store: borrowing StoreConnection
    ) throws(StoreLost) -> XenDiskNode? {
        guard let params = try store.value(path + "/params"),
            params.hasPrefix(XenDiskNode.scheme),
            try store.value(path + "/online") == "1"
        else { return nil }
        let mode = try store.value(path + "/mode") ?? "r"
        let frontend = try store.value(path + "/frontend")
        let hasFrontEnd = try frontend.map { path throws(StoreLost) in
            try store.exists(path + "/state")
        }
        return XenDiskNode(
            path: path, vdi: String(params.dropFirst(XenDiskNode.scheme.count)),
            readOnly: !mode.contains("w"), hasFrontEnd: hasFrontEnd ?? false,
            identity: try store.value("\(path)/\(XenDiskIdentity.key)"))
    }

    /// Says on the node why it is not served, and that it is closed, so that the tool stack gives
    /// up at once.
    package static func refuse(_ library: XenLibrary, path: String, sentence: String) {
        do throws(XenError) {
            var store = StoreConnection(library)
            try store.open()
            try store.close(path, because: sentence)
        } catch {
            // The node or the store has gone meanwhile, and with it whom to tell.
            return
        }
    }
}
