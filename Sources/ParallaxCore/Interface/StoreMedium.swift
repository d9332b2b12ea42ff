// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Blocking access to the store, for formatting, opening and recovery: before the shard's loop
/// runs there is nobody to wait for. Offsets, lengths and addresses are multiples of 4096.
package protocol StoreMedium {
    /// Size of the file or block device, in bytes.
    var byteCount: UInt64 { get }
    func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(MediumError)
    /// Reads all of `commands` (operation `.read`), in any order; returns when all are done.
    func readAll(_ commands: UnsafeBufferPointer<StoreCommand>) throws(MediumError)
    func write(at offset: UInt64, from buffer: UnsafeRawBufferPointer) throws(MediumError)
    func sync() throws(MediumError)
}

extension StoreMedium {
    /// Unless the medium has something faster.
    package func readAll(_ commands: UnsafeBufferPointer<StoreCommand>) throws(MediumError) {
        try readInTurn(commands)
    }

    /// One segment after the other.
    package func readInTurn(_ commands: UnsafeBufferPointer<StoreCommand>) throws(MediumError) {
        for command in commands {
            precondition(command.operation == .read, "StoreMedium.readAll: not a read")
            var offset = command.offset
            for index in 0..<Int(command.bufferCount) {
                guard let segment = command.buffers?[index] else { continue }
                try read(
                    at: offset,
                    into: UnsafeMutableRawBufferPointer(start: segment.base, count: segment.count))
                offset += UInt64(segment.count)
            }
        }
    }
}

/// A blocking access that failed.
package struct MediumError: Error, Equatable {
    package var errno: Int32
    package var operation: StoreCommand.Operation
    package var offset: UInt64

    package init(errno: Int32, operation: StoreCommand.Operation, offset: UInt64) {
        self.errno = errno
        self.operation = operation
        self.offset = offset
    }
}
