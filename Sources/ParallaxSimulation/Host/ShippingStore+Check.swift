// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import Glibc
internal import ParallaxCore

/// `store check` on what the device holds.
extension ShippingStore {
    package func check(_ device: SimulatedDevice, isLive: Bool) -> String? {
        var options = StoreCheck.Options()
        options.isLive = isLive
        options.namesAreUnique = false
        options.nodeCacheBytes = shape.nodeCacheBytes
        let report = StoreCheck.run(medium: DeviceImage(device: device), options: options)
        // A root may be torn by a crash, and stays so until the checkpoint after the next.
        return report.findings.first { $0.structure != .root || $0.severity > .repairable }?.message
    }
}

/// What the device would show now, without its faults and without a trace of the looking.
private struct DeviceImage: StoreMedium {
    let device: SimulatedDevice

    var byteCount: UInt64 { device.byteCount }

    func read(
        at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer
    ) throws(MediumError) {
        device.peek(at: offset, into: buffer)
    }

    func write(at offset: UInt64, from buffer: UnsafeRawBufferPointer) throws(MediumError) {
        throw MediumError(errno: EBADF, operation: .write, offset: offset)
    }

    func sync() throws(MediumError) {}
}
