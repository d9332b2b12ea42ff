// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Which device is served.
package enum XenPlace: Equatable, Sendable {
    /// A disk of a domain, whose nodes are ours: made when they are not there, removed at the end.
    /// With `mayMake` false they must be there: a number may be another domain's by now.
    case address(XenAddress, mayMake: Bool)
    /// A back-end directory that a tool stack has made.
    case node(String)
}

/// What is served, and where.
package struct XenExport: Sendable {
    package var name: String
    package var sectors: UInt64
    package var readOnly: Bool
    package var place: XenPlace
    package var identity: XenDiskIdentity
    /// It was served before a restart, so a device that has another disk by now is left alone.
    package var isRestored: Bool

    /// Without an identity it is the only disk there is, as in a benchmark.
    package init(
        name: String, sectors: UInt64, readOnly: Bool, place: XenPlace,
        identity: XenDiskIdentity = XenDiskIdentity(store: "", version: 0),
        isRestored: Bool = false
    ) {
        self.name = name
        self.sectors = sectors
        self.readOnly = readOnly
        self.place = place
        self.identity = identity
        self.isRestored = isRestored
    }
}

/// The two directories of a device in xenstore.
///
/// ```
///   /local/domain/0/backend/vbd/3/51712      the tool stack's   frontend, frontend-id, online, state
///   /local/domain/0/backend/parallax/3/51712 ours               the same
///                                            in both            parallax-version: whose ring it is
///   /local/domain/3/device/vbd/51712         the guest's        backend, backend-id, state, ...
/// ```
/// Ours have a type of their own, so that Linux's xen-blkback does not answer to them as well; a
/// front end follows its key `backend` and does not care.
struct XenNode: Sendable {
    var backend = ""
    var frontend = ""
    var domain: UInt32 = 0
    /// Made by us, and ours to remove.
    var isOurs = false

    static let ownType = "parallax"

    init() {}

    /// Where the place is; nothing is made yet.
    init(_ place: XenPlace, _ store: borrowing StoreConnection) throws(XenError) {
        switch place {
        case .node(let path):
            guard let frontend = store.read(path + "/frontend"),
                let domain = store.read(path + "/frontend-id").flatMap({ UInt32($0) })
            else { throw .nodeIncomplete(path) }
            self.init(backend: path, frontend: frontend, domain: domain, isOurs: false)
        case .address(let address, _):
            let own = Self.ownDomain(store)
            let domain = try Self.domain(address.domain, store)
            let device = address.device.rawValue
            self.init(
                backend: "/local/domain/\(own)/backend/\(Self.ownType)/\(domain)/\(device)",
                frontend: "/local/domain/\(domain)/device/vbd/\(device)", domain: domain,
                isOurs: true)
        }
    }

    private init(backend: String, frontend: String, domain: UInt32, isOurs: Bool) {
        self.backend = backend
        self.frontend = frontend
        self.domain = domain
        self.isOurs = isOurs
    }

    /// The domain that we run in, usually 0.
    static func ownDomain(_ store: borrowing StoreConnection) -> UInt32 {
        store.read("domid").flatMap { UInt32($0) } ?? 0
    }

    private static func domain(
        _ text: String, _ store: borrowing StoreConnection
    ) throws(XenError) -> UInt32 {
        do throws(StoreLost) {
            if let number = UInt32(text) {
                if try store.exists("/local/domain/\(number)") { return number }
            } else {
                for name in try store.list("/local/domain") {
                    guard let number = UInt32(name) else { continue }
                    if try store.value("/local/domain/\(number)/name") == text { return number }
                }
            }
        } catch { throw .noStore }
        throw .noSuchDomain(text)
    }

    /// Whether the nodes are there; throws where the device is not ours. Nothing is touched.
    func isMade(_ place: XenPlace, _ store: borrowing StoreConnection) throws(XenError) -> Bool {
        guard case .address(let address, _) = place else { return true }
        guard let present = store.read(frontend + "/backend") else { return false }
        guard present == backend else { throw .deviceInUse(address) }
        return true
    }

    /// Makes our nodes as a tool stack does, unless a daemon before us has: each side owns its
    /// directory, and the other side may read it.
    func make(_ place: XenPlace, _ store: borrowing StoreConnection) throws(XenError) {
        guard case .address(let address, let mayMake) = place, try !isMade(place, store)
        else { return }
        guard mayMake else { throw .noSuchDomain(address.domain) }
        let own = Self.ownDomain(store)
        let device = address.device.rawValue
        try store.transaction(backend) { store, transaction throws(XenError) in
            store.remove(backend, in: transaction)
            try store.write(backend, "", in: transaction)
            try store.permit(backend, owner: own, reader: domain, in: transaction)
            for (key, value) in [
                ("frontend", frontend), ("frontend-id", "\(domain)"), ("online", "1"),
                ("hotplug-status", "connected"), ("state", "1"),
            ] { try store.write("\(backend)/\(key)", value, in: transaction) }
            try store.write(frontend, "", in: transaction)
            try store.permit(frontend, owner: domain, reader: own, in: transaction)
            for (key, value) in [
                ("backend", backend), ("backend-id", "\(own)"), ("virtual-device", "\(device)"),
                ("device-type", "disk"), ("state", "1"),
            ] { try store.write("\(frontend)/\(key)", value, in: transaction) }
        }
    }

    /// Takes our nodes away. The guest's own keys go with its directory.
    func remove(_ store: borrowing StoreConnection) {
        guard isOurs else { return }
        store.remove(frontend)
        store.remove(backend)
        // The domain's folder goes with its last device.
        guard let slash = backend.lastIndex(of: "/") else { return }
        let folder = String(backend[..<slash])
        if (try? store.list(folder).isEmpty) == true { store.remove(folder) }
    }
}
