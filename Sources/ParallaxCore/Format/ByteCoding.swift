// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Writes little-endian values into a bounded piece of memory.
///
/// SAFETY: every write is checked against `capacity`; running over it is our own error and traps.
struct ByteWriter {
    let base: UnsafeMutableRawPointer
    let capacity: Int
    private(set) var count = 0

    init(_ base: UnsafeMutableRawPointer, capacity: Int, at offset: Int = 0) {
        self.base = base
        self.capacity = capacity
        count = offset
    }

    mutating func put<Value: FixedWidthInteger>(_ value: Value) {
        let size = MemoryLayout<Value>.size
        precondition(count + size <= capacity, "ByteWriter: out of space")
        withUnsafeBytes(of: value.littleEndian) { bytes in
            (base + count).copyMemory(from: bytes.baseAddress.unsafelyUnwrapped, byteCount: size)
        }
        count += size
    }

    mutating func put(bytes: some Collection<UInt8>) {
        for byte in bytes { put(byte) }
    }

    mutating func put(reference: BlockReference) {
        put(reference.address.rawValue)
        put(reference.checksum)
        put(reference.birth)
    }

    /// Fills with zeros up to `offset`.
    mutating func pad(to offset: Int) {
        precondition(offset >= count && offset <= capacity, "ByteWriter: bad padding")
        Memory.zero(base + count, count: offset - count)
        count = offset
    }
}

/// Reads little-endian values from untrusted bytes: reading past the end gives nil, never a trap.
struct ByteReader {
    let base: UnsafeRawPointer
    let count: Int
    private(set) var position = 0

    init(_ base: UnsafeRawPointer, count: Int, at offset: Int = 0) {
        self.base = base
        self.count = count
        position = offset
    }

    var remaining: Int { count - position }

    mutating func take<Value: FixedWidthInteger & BitwiseCopyable>(_ type: Value.Type) -> Value? {
        let size = MemoryLayout<Value>.size
        guard remaining >= size else { return nil }
        defer { position += size }
        return Value(littleEndian: base.loadUnaligned(fromByteOffset: position, as: Value.self))
    }

    mutating func takeBytes(_ length: Int) -> [UInt8]? {
        guard length >= 0, remaining >= length else { return nil }
        defer { position += length }
        return Array(UnsafeRawBufferPointer(start: base + position, count: length))
    }

    /// Bytes that are not UTF-8 are no string.
    mutating func takeString(_ length: Int) -> String? {
        takeBytes(length).flatMap { String(validating: $0, as: UTF8.self) }
    }

    mutating func takeReference() -> BlockReference? {
        guard let address = take(UInt64.self), let checksum = take(UInt32.self),
            let birth = take(UInt32.self)
        else { return nil }
        return BlockReference(
            address: BlockAddress(rawValue: address), checksum: checksum, birth: birth)
    }

    mutating func skip(_ length: Int) -> Bool {
        guard length >= 0, remaining >= length else { return false }
        position += length
        return true
    }
}
