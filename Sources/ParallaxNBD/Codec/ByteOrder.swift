// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// NBD is big-endian throughout. These are the only places where bytes change their order.
extension UnsafeRawPointer {
    @inline(__always)
    package func loadBigEndian<Value: FixedWidthInteger & BitwiseCopyable>(
        at offset: Int, as type: Value.Type
    ) -> Value {
        Value(bigEndian: loadUnaligned(fromByteOffset: offset, as: type))
    }
}

extension UnsafeMutableRawPointer {
    @inline(__always)
    package func storeBigEndian<Value: FixedWidthInteger & BitwiseCopyable>(
        _ value: Value, at offset: Int
    ) {
        storeBytes(of: value.bigEndian, toByteOffset: offset, as: Value.self)
    }
}

extension [UInt8] {
    package mutating func appendBigEndian<Value: FixedWidthInteger>(_ value: Value) {
        Swift.withUnsafeBytes(of: value.bigEndian) { append(contentsOf: $0) }
    }
}

/// Takes integers and strings off the front of a peer's bytes; nil when there are too few.
package struct ByteReader {
    private var rest: ArraySlice<UInt8>

    package init(_ bytes: [UInt8]) { rest = bytes[...] }

    package var isAtEnd: Bool { rest.isEmpty }

    package mutating func integer<Value: FixedWidthInteger>(_ type: Value.Type) -> Value? {
        guard let bytes = take(MemoryLayout<Value>.size) else { return nil }
        return bytes.reduce(0) { value, byte in value << 8 | Value(truncatingIfNeeded: byte) }
    }

    /// A 32-bit length and that many bytes, at most as many as the protocol allows a string.
    package mutating func string() -> ArraySlice<UInt8>? {
        guard let count = integer(UInt32.self), count <= NBDLimits.stringBytesMax else {
            return nil
        }
        return take(Int(count))
    }

    private mutating func take(_ count: Int) -> ArraySlice<UInt8>? {
        guard count <= rest.count else { return nil }
        defer { rest = rest.dropFirst(count) }
        return rest.prefix(count)
    }
}
