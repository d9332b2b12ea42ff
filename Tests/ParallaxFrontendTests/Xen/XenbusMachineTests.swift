// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxXen
import Testing

@Suite("xenbus state machine")
struct XenbusMachineTests {
    private typealias View = XenbusMachine.View
    private static let ours: [XenbusState] = [
        .initialising, .initWait, .connected, .closing, .closed,
    ]

    /// Rows: the front end's state, 0 to 8. Columns: ours: Initialising, InitWait, Connected,
    /// Closing, Closed. - nothing, O offer, C connect, B begin closing, F finish closing, L leave,
    /// R refuse.
    private static let wanted = [
        "LLLLL", "O-FFO", "O-FF-", "OC--C", "OC---", "BBB--", "-FFF-", "RRRR-", "RRRR-",
    ]
    private static let offline = [
        "LLLLL", "LFFFL", "LFFFL", "OC--L", "OC--L", "BBB-L", "LFFFL", "RRRRL", "RRRRL",
    ]
    private static let detaching = [
        "LLLLL", "LFFFL", "LFFFL", "LFB-L", "LFB-L", "BBB-L", "LFFFL", "RRRRL", "RRRRL",
    ]
    private static let failed = [
        "LLLLL", "O-FFO", "O-FF-", "OC---", "OC---", "BBB--", "-FFF-", "RRRR-", "RRRR-",
    ]

    private func letter(_ step: XenbusStep) -> Character {
        switch step {
        case .nothing: "-"
        case .offer: "O"
        case .connect: "C"
        case .beginClosing: "B"
        case .finishClosing: "F"
        case .leave: "L"
        case .refuse: "R"
        }
    }

    private func expect(_ table: [String], _ change: (inout View) -> Void) {
        for theirs in XenbusState.allCases {
            let row = String(
                Self.ours.map { ours in
                    var view = View(ours: ours, theirs: theirs)
                    change(&view)
                    return letter(XenbusMachine.next(view))
                })
            #expect(row == table[Int(theirs.rawValue)], "front end in \(theirs)")
        }
    }

    @Test("each pair of states has its step")
    func usual() { expect(Self.wanted) { _ in } }

    @Test("a device that the tool stack takes away goes when the front end lets go")
    func goingOffline() { expect(Self.offline) { $0.isOnline = false } }

    @Test("a detached VDI goes as soon as the front end lets go")
    func detaching() { expect(Self.detaching) { $0.isWanted = false } }

    @Test("a front end that failed is served again only when it begins anew")
    func failed() { expect(Self.failed) { $0.hasFailed = true } }

    /// Takes steps until nothing is to be done, as the device does; a step that ends in a state
    /// leads there.
    private func run(_ view: inout View) -> String {
        var trace = ""
        while trace.count < 20 {
            let step = XenbusMachine.next(view)
            if step == .nothing { return trace }
            trace.append(letter(step))
            switch step {
            case .nothing: break
            case .offer: view.ours = .initWait
            case .connect: view.ours = .connected
            case .beginClosing: view.ours = .closing
            case .finishClosing, .refuse: view.ours = .closed
            case .leave: return trace
            }
        }
        return trace + "..."
    }

    @Test("no combination of states runs in circles")
    func terminates() {
        for ours in Self.ours {
            for theirs in XenbusState.allCases {
                for flags in 0..<8 {
                    var view = View(
                        ours: ours, theirs: theirs, isOnline: flags & 1 == 0,
                        isWanted: flags & 2 == 0, hasFailed: flags & 4 == 0)
                    let trace = run(&view)
                    #expect(trace.count <= 4, "\(ours) \(theirs) \(flags): \(trace)")
                }
            }
        }
    }

    @Test("the handshake of Linux, the one that skips a state, and the return after a reload")
    func handshakes() {
        func trace(_ states: [XenbusState]) -> [String] {
            var view = View(ours: .initialising, theirs: .initialising)
            return states.map { theirs in
                view.theirs = theirs
                return run(&view)
            }
        }
        #expect(trace([.initialising, .initialised, .connected]) == ["O", "C", ""])
        #expect(trace([.initialised, .connected]) == ["OC", ""])
        #expect(trace([.connected]) == ["OC"])
        #expect(
            trace([.initialising, .connected, .closing, .closed, .initialising, .initialised])
                == ["O", "C", "B", "F", "O", "C"])
        // kexec: the new kernel's driver begins while we are connected to the old one's.
        #expect(trace([.connected, .initialising, .initialised]) == ["OC", "FO", "C"])
    }

    @Test(
        "a back end begins where the one before it ended",
        arguments: [
            (XenbusState.unknown, XenbusState.initialising, XenbusState.initialising),
            (.initialising, .initialising, .initialising), (.initWait, .initialised, .initialising),
            (.connected, .connected, .initWait), (.connected, .initialised, .initWait),
            (.connected, .initialising, .initialising), (.connected, .closing, .connected),
            (.connected, .closed, .connected), (.closing, .connected, .closing),
            (.closed, .closed, .closed), (.reconfigured, .connected, .initialising),
        ])
    func initial(stored: XenbusState, theirs: XenbusState, ours: XenbusState) {
        let initial = XenbusMachine.initial(stored: stored, theirs: theirs, isSameDisk: true)
        #expect(initial == ours)
        // Only a ring that is alive makes a difference.
        let other = XenbusMachine.initial(stored: stored, theirs: theirs, isSameDisk: false)
        #expect(other == (ours == .initWait ? .closing : ours))
    }
}
