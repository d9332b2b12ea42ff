// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// What the engine asks of the device. Offsets and lengths are whole sectors; `bufferCount`
/// buffers are transferred one after the other, from or to `offset`.
@frozen
package struct StoreCommand: BitwiseCopyable {
    @frozen
    package enum Operation: UInt8, BitwiseCopyable, Sendable {
        case read
        case write
        /// `fdatasync`: everything completed before it was submitted is durable when it completes.
        case sync
    }

    package var operation: Operation
    /// Index of a buffer registered at start, or -1. Only with a single buffer.
    package var registeredBuffer: Int16
    package var bufferCount: UInt32
    /// Valid until the completion.
    package var buffers: UnsafePointer<DataSegment>?
    package var offset: UInt64
    /// The sum of the buffers' lengths.
    package var byteCount: Int
    package var tag: UInt64

    @inlinable
    package init(
        operation: Operation, tag: UInt64, offset: UInt64 = 0, byteCount: Int = 0,
        buffers: UnsafePointer<DataSegment>? = nil, bufferCount: UInt32 = 0,
        registeredBuffer: Int16 = -1
    ) {
        self.operation = operation
        self.registeredBuffer = registeredBuffer
        self.bufferCount = bufferCount
        self.buffers = buffers
        self.offset = offset
        self.byteCount = byteCount
        self.tag = tag
    }
}

/// The device's answer: `result` is the number of bytes transferred (0 for a sync), or the
/// negated errno. A short transfer is an error to the engine; devices resubmit the rest.
@frozen
package struct StoreCompletion: BitwiseCopyable {
    package var tag: UInt64
    package var result: Int

    @inlinable
    package init(tag: UInt64, result: Int) {
        self.tag = tag
        self.result = result
    }

    /// The device has failed. Not when the memory is gone that was to be read into (EFAULT): a guest may
    /// have taken it away.
    var isDeviceError: Bool { result < 0 && result != -14 }
}
