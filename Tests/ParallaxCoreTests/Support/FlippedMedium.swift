// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxSimulation

@testable import ParallaxCore

/// A device of which one byte reads otherwise than it was written.
struct FlippedMedium: StoreMedium {
    let device: SimulatedDevice
    let offset: UInt64

    var byteCount: UInt64 { device.byteCount }

    func read(
        at start: UInt64, into buffer: UnsafeMutableRawBufferPointer
    ) throws(MediumError) {
        try device.read(at: start, into: buffer)
        if offset >= start, offset < start + UInt64(buffer.count) {
            buffer[Int(offset - start)] ^= 0x20
        }
    }

    func write(at offset: UInt64, from buffer: UnsafeRawBufferPointer) throws(MediumError) {
        throw MediumError(errno: 30, operation: .write, offset: offset)
    }

    func sync() throws(MediumError) {}
}
