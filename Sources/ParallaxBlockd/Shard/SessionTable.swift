// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxCore
import ParallaxNBD
import ParallaxVhost
import ParallaxXen

/// The front-end sessions of one shard, named by small integers.
///
/// Owned by the shard thread. Number 0 is the shard's own mailbox. A number is given out again
/// only when its session has ended and every reply to it has come.
///
/// SAFETY: owns the sessions that its pointers lead to; `remove` destroys them, once.
struct SessionTable: ~Copyable {
    static let mailbox: UInt32 = 0
    /// LIMIT: sessions of one shard.
    static let capacity = 4096

    enum Kind: UInt8, BitwiseCopyable { case free, vhost, nbdConnection, nbdListener, xen }

    struct Slot: BitwiseCopyable {
        var kind = Kind.free
        var isTouched = false
        /// What it serves (`VersionReference.rawValue`); 0 for the shared NBD listener.
        var version: UInt64 = 0
        var notices = NoticeAllowance()
        var memory: UnsafeMutableRawPointer?
    }

    private let slots: UnsafeMutablePointer<Slot>
    private var freeSlots: [UInt32]
    /// Sessions to be called at the end of the turn.
    private var touched: FixedRing<UInt32>
    /// Where the last `touchAll` began.
    private var lastFirst: UInt32 = 0
    private(set) var count = 0
    /// NBD connections of each version that has any.
    private var clientCounts: [UInt64: Int] = [:]

    init() {
        slots = .allocate(capacity: Self.capacity)
        slots.initialize(repeating: Slot(), count: Self.capacity)
        freeSlots = (1..<UInt32(Self.capacity)).reversed()
        touched = FixedRing(minimumCapacity: Self.capacity)
    }

    deinit { slots.deallocate() }

    /// A number for a new session; nil when there are too many.
    mutating func reserve() -> UInt32? { freeSlots.popLast() }

    /// Gives a reserved number back that was not used.
    mutating func cancel(_ session: UInt32) { freeSlots.append(session) }

    mutating func insert(_ session: UInt32, _ device: consuming VhostDevice, version: UInt64) {
        let memory = UnsafeMutablePointer<VhostDevice>.allocate(capacity: 1)
        memory.initialize(to: device)
        fill(session, .vhost, UnsafeMutableRawPointer(memory), version)
    }

    mutating func insert(_ session: UInt32, _ connection: consuming NBDConnection, version: UInt64)
    {
        let memory = UnsafeMutablePointer<NBDConnection>.allocate(capacity: 1)
        memory.initialize(to: connection)
        fill(session, .nbdConnection, UnsafeMutableRawPointer(memory), version)
    }

    mutating func insert(_ session: UInt32, _ listener: consuming NBDListener, version: UInt64) {
        let memory = UnsafeMutablePointer<NBDListener>.allocate(capacity: 1)
        memory.initialize(to: listener)
        fill(session, .nbdListener, UnsafeMutableRawPointer(memory), version)
    }

    mutating func insert(_ session: UInt32, _ device: consuming XenDevice, version: UInt64) {
        let memory = UnsafeMutablePointer<XenDevice>.allocate(capacity: 1)
        memory.initialize(to: device)
        fill(session, .xen, UnsafeMutableRawPointer(memory), version)
    }

    private mutating func fill(
        _ session: UInt32, _ kind: Kind, _ memory: UnsafeMutableRawPointer, _ version: UInt64
    ) {
        slots[Int(session)] = Slot(kind: kind, version: version, memory: memory)
        count += 1
        if kind == .nbdConnection { clientCounts[version, default: 0] += 1 }
    }

    func clientCount(of version: UInt64) -> Int { clientCounts[version] ?? 0 }

    private mutating func forgetClient(of version: UInt64) {
        let left = clientCount(of: version) - 1
        clientCounts[version] = left > 0 ? left : nil
    }

    func kind(_ session: UInt32) -> Kind {
        session < UInt32(Self.capacity) ? slots[Int(session)].kind : .free
    }

    /// As `NoticeAllowance.take`.
    func takeNoticeAllowance(_ session: UInt32, nowNanoseconds: UInt64) -> Int? {
        slots[Int(session)].notices.take(nowNanoseconds: nowNanoseconds)
    }

    func version(_ session: UInt32) -> UInt64 { slots[Int(session)].version }

    func vhost(_ session: UInt32) -> UnsafeMutablePointer<VhostDevice> {
        typed(session, .vhost)
    }

    func nbdConnection(_ session: UInt32) -> UnsafeMutablePointer<NBDConnection> {
        typed(session, .nbdConnection)
    }

    func nbdListener(_ session: UInt32) -> UnsafeMutablePointer<NBDListener> {
        typed(session, .nbdListener)
    }

    func xen(_ session: UInt32) -> UnsafeMutablePointer<XenDevice> { typed(session, .xen) }

    private func typed<T: ~Copyable>(_ session: UInt32, _ kind: Kind) -> UnsafeMutablePointer<T> {
        guard self.kind(session) == kind, let memory = slots[Int(session)].memory else {
            preconditionFailure("SessionTable: not a session of this kind")
        }
        return memory.assumingMemoryBound(to: T.self)
    }

    /// Destroys a session that has ended.
    mutating func remove(_ session: UInt32) {
        switch kind(session) {
        case .free: return
        case .vhost: vhost(session).destroy()
        case .nbdConnection:
            nbdConnection(session).destroy()
            forgetClient(of: version(session))
        case .nbdListener: nbdListener(session).destroy()
        case .xen: xen(session).destroy()
        }
        slots[Int(session)] = Slot()
        freeSlots.append(session)
        count -= 1
    }

    /// The sessions of one version, or of all with `version` nil. For the control plane only.
    func sessions(of version: UInt64?) -> [UInt32] {
        (1..<UInt32(Self.capacity)).filter { session in
            let slot = slots[Int(session)]
            return slot.kind != .free && (version == nil || slot.version == version)
        }
    }

    /// The session is to be called at the end of this turn.
    mutating func touch(_ session: UInt32) {
        guard kind(session) != .free, !slots[Int(session)].isTouched else { return }
        slots[Int(session)].isTouched = true
        touched.append(session)
    }

    /// All of them, beginning behind the one with which the last call began: each is the first to
    /// find room after as many calls as there are sessions.
    mutating func touchAll() {
        while touched.popFirst() != nil {}
        let sessions = UInt32(Self.capacity) - 1
        let last = lastFirst
        for offset in 0..<sessions {
            let session = (last + offset) % sessions + 1
            guard kind(session) != .free else { continue }
            if touched.isEmpty { lastFirst = session }
            slots[Int(session)].isTouched = true
            touched.append(session)
        }
    }

    var touchedCount: Int { touched.count }

    mutating func nextTouched() -> UInt32? {
        while let session = touched.popFirst() {
            slots[Int(session)].isTouched = false
            if slots[Int(session)].kind != .free { return session }
        }
        return nil
    }
}

extension UnsafeMutablePointer where Pointee: ~Copyable {
    fileprivate func destroy() {
        deinitialize(count: 1)
        deallocate()
    }
}
