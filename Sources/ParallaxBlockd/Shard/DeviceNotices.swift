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

extension Shard where ShardReactor: ~Copyable {
    /// Passes on what the device has to say, whatever its kind.
    func passOnNotices<Device: NoticeSource & ~Copyable>(
        of device: UnsafeMutablePointer<Device>
    ) {
        while let notice = device.pointee.takeNotice() {
            log.log(
                level: notice.isProblem ? .warning : .info,
                "VDI \(device.pointee.name): \(notice.text)")
        }
    }
}
