// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Logging
import ParallaxVhost
import ParallaxXen

/// Something that the log should say about a virtual device.
protocol DeviceNotice {
    /// False: an ordinary coming or going.
    var isProblem: Bool { get }
    /// One sentence, without the name of the VDI.
    var text: String { get }
}

/// A virtual device that has things to say.
protocol NoticeSource: ~Copyable {
    associatedtype Notice: DeviceNotice
    /// Of the VDI.
    var name: String { get }
    mutating func takeNotice() -> Notice?
}

extension VhostNotice: DeviceNotice {}
extension XenNotice: DeviceNotice {}
extension VhostDevice: NoticeSource { var name: String { export.name } }
extension XenDevice: NoticeSource { var name: String { export.name } }

/// How much of what a device says is logged: some at once, then one now and then. A front end or a
/// guest can come and go as fast as it likes, and each time there is something to say.
package struct NoticeAllowance: BitwiseCopyable, Sendable {
    /// Twice what the connection of a front end with 16 queues can say.
    package static let burst: UInt64 = 40
    package static let nanosecondsEach: UInt64 = 5_000_000_000

    /// When all that was said will have been paid for.
    private var paidNanoseconds: UInt64 = 0
    private var leftOutCount = 0

    package init() {}

    /// How many were left out before this one; nil: so is this.
    package mutating func take(nowNanoseconds now: UInt64) -> Int? {
        let start = max(paidNanoseconds, now)
        guard start - now < Self.burst * Self.nanosecondsEach else {
            leftOutCount += 1
            return nil
        }
        paidNanoseconds = start + Self.nanosecondsEach
        defer { leftOutCount = 0 }
        return leftOutCount
    }
}

extension Shard where ShardReactor: ~Copyable {
    /// Passes on what the device of the session has to say, whatever its kind.
    mutating func passOnNotices<Device: NoticeSource & ~Copyable>(
        of device: UnsafeMutablePointer<Device>, _ session: UInt32
    ) {
        while let notice = device.pointee.takeNotice() {
            let now = monotonicNanoseconds()
            guard let leftOut = sessions.takeNoticeAllowance(session, nowNanoseconds: now) else {
                continue
            }
            if leftOut > 0 {
                log.warning(
                    "VDI \(device.pointee.name): \(leftOut) notices before the next one were left out"
                )
            }
            log.log(
                level: notice.isProblem ? .warning : .info,
                "VDI \(device.pointee.name): \(notice.text)")
        }
    }
}
