// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// What the back end does next.
package enum XenbusStep: Equatable, Sendable {
    case nothing
    /// Publish what can be used, then InitWait.
    case offer
    /// Read the front end's keys, map the rings, publish the disk's properties, then Connected.
    case connect
    /// Take no more requests, then Closing.
    case beginClosing
    /// Release the rings and grants when the last reply has come, then Closed.
    case finishClosing
    /// Release everything; the device has ended.
    case leave
    /// The front end is in a state that does not exist for disks: an error, then Closed.
    case refuse
}

/// The back end's half of the xenbus handshake, as a function of what is known.
///
/// ```
///            offer            connect            beginClosing         finishClosing
/// Initialising ----> InitWait -------> Connected ------------> Closing -----------> Closed
///      ^                ^                  |  the front end began anew  ^             |  |
///      |                |                  +--------------------------- | ----------->|  | leave:
///      +- start         +--------- offer: the front end is Initialising again --------+  v offline
/// ```
/// Linux front ends skip states when watches fire close together, so each front end's state has an
/// answer in each of ours.
package enum XenbusMachine {
    package struct View: Equatable, Sendable {
        /// Initialising, InitWait, Connected, Closing or Closed.
        package var ours: XenbusState
        package var theirs: XenbusState
        /// The tool stack wants the device to exist (`online`).
        package var isOnline = true
        /// False: the VDI is being detached.
        package var isWanted = true
        /// This front end's keys, ring or state were bad. Forgiven when it closes or begins anew.
        package var hasFailed = false

        package init(
            ours: XenbusState, theirs: XenbusState, isOnline: Bool = true, isWanted: Bool = true,
            hasFailed: Bool = false
        ) {
            self.ours = ours
            self.theirs = theirs
            self.isOnline = isOnline
            self.isWanted = isWanted
            self.hasFailed = hasFailed
        }

        var isToStay: Bool { isOnline && isWanted }
    }

    /// Where to begin, after what an earlier back end left in xenstore. A ring that both ends call
    /// connected is taken over: its state is in shared memory. But not as another disk: then the
    /// front end has to close first.
    package static func initial(
        stored: XenbusState, theirs: XenbusState, isSameDisk: Bool
    ) -> XenbusState {
        switch stored {
        case .closing, .closed: return stored
        case .connected:
            switch theirs {
            case .initialised, .connected: return isSameDisk ? .initWait : .closing
            case .closing, .closed: return .connected
            default: return .initialising
            }
        default: return .initialising
        }
    }

    package static func next(_ view: View) -> XenbusStep {
        switch view.theirs {
        case .unknown: .leave
        case .initialising, .initWait: frontEndBegins(view)
        case .initialised, .connected: frontEndIsReady(view)
        case .closing: frontEndCloses(view)
        case .closed: frontEndIsClosed(view)
        case .reconfiguring, .reconfigured: frontEndIsLost(view)
        }
    }

    private static func frontEndBegins(_ view: View) -> XenbusStep {
        switch view.ours {
        case .initialising: return view.isToStay ? .offer : .leave
        case .initWait: return view.isToStay ? .nothing : .finishClosing
        case .connected, .closing: return .finishClosing
        default:
            guard view.isToStay else { return .leave }
            return view.theirs == .initialising ? .offer : .nothing
        }
    }

    private static func frontEndIsReady(_ view: View) -> XenbusStep {
        switch view.ours {
        case .initialising: return view.isWanted ? .offer : .leave
        case .initWait: return view.isWanted ? .connect : .finishClosing
        case .connected: return view.isWanted ? .nothing : .beginClosing
        case .closing: return .nothing
        default:
            guard view.isToStay else { return .leave }
            // Connected while we are Closed: it has not noticed yet.
            return view.theirs == .initialised && !view.hasFailed ? .connect : .nothing
        }
    }

    private static func frontEndCloses(_ view: View) -> XenbusStep {
        switch view.ours {
        case .initialising, .initWait, .connected: .beginClosing
        case .closing: .nothing
        default: view.isToStay ? .nothing : .leave
        }
    }

    private static func frontEndIsClosed(_ view: View) -> XenbusStep {
        switch view.ours {
        case .initialising, .closed: view.isToStay ? .nothing : .leave
        default: .finishClosing
        }
    }

    private static func frontEndIsLost(_ view: View) -> XenbusStep {
        guard view.ours == .closed else { return .refuse }
        return view.isToStay ? .nothing : .leave
    }
}
