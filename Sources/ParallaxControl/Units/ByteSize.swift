// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Sizes as people write and read them: binary units, K M G T in, KiB MiB GiB TiB out.
package enum ByteSize {
    /// Parses `512`, `64K`, `20G`, `1t`. Nothing else: no fractions, signs, spaces or `GB`, because
    /// a size that two people read differently is worse than an error.
    package static func parse(_ text: String) throws(ControlError) -> UInt64 {
        var digits = Substring(text)
        var shift: UInt64 = 0
        if let suffix = digits.last, let known = shifts[suffix] {
            shift = known
            digits = digits.dropLast()
        }
        guard !digits.isEmpty, digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else {
            throw ControlError(
                .invalid,
                "\(quoted(text)) is not a size; write a whole number of bytes, or one followed by "
                    + "K, M, G or T (powers of 1024), such as 20G")
        }
        let product = UInt64(digits)?.multipliedReportingOverflow(by: 1 << shift)
        guard let product, !product.overflow else {
            throw ControlError(
                .invalid, "\(quoted(text)) is larger than any size Parallax can hold")
        }
        return product.partialValue
    }

    /// `20 GiB`, `1.5 TiB`, `512 B`: at most one decimal, rounded down so that a disk never looks
    /// larger than it is.
    package static func format(_ bytes: UInt64) -> String {
        var unit = 0
        while unit < units.count - 1, bytes >> (10 * (UInt64(unit) + 1)) > 0 { unit += 1 }
        let shift = 10 * UInt64(unit)
        let whole = bytes >> shift
        let remainder = bytes - (whole << shift)
        // The remainder is below 2^50, so ten times it still fits.
        let tenths = unit == 0 ? 0 : (remainder * 10) >> shift
        return tenths == 0 ? "\(whole) \(units[unit])" : "\(whole).\(tenths) \(units[unit])"
    }

    /// The unit form with the exact number beside it, where a human may need either.
    package static func formatExact(_ bytes: UInt64) -> String {
        bytes < 1024 ? format(bytes) : "\(format(bytes)) (\(bytes) bytes)"
    }

    private static let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
    private static let shifts: [Character: UInt64] = [
        "K": 10, "M": 20, "G": 30, "T": 40, "k": 10, "m": 20, "g": 30, "t": 40,
    ]
}

/// The sizes a VDI may have.
package enum VDISize {
    package static let minimumBytes: UInt64 = 1 << 20
    package static let maximumBytes: UInt64 = 64 << 40
    /// The engine maps blocks of this size, so a VDI ends on a block.
    package static let alignmentBytes: UInt64 = 4096

    package static func validate(_ bytes: UInt64) throws(ControlError) {
        guard bytes >= minimumBytes else {
            throw ControlError(
                .invalid, "\(bytes) bytes is too small for a VDI; the smallest is 1 MiB")
        }
        guard bytes <= maximumBytes else {
            throw ControlError(
                .invalid,
                "\(ByteSize.format(bytes)) is too large for a VDI; the largest is 64 TiB")
        }
        guard bytes.isMultiple(of: alignmentBytes) else {
            let rounded = (bytes / alignmentBytes + 1) * alignmentBytes
            throw ControlError(
                .invalid,
                "a VDI's size must be a multiple of 4 KiB and \(bytes) bytes is not; "
                    + "the next that fits is \(rounded)")
        }
    }
}

/// Text from outside inside a message: quoted, cut, and without control characters, so that it
/// can neither break the line nor flood the log.
package func quoted(_ text: String) -> String {
    var clean = ""
    for scalar in text.unicodeScalars.prefix(120) {
        switch scalar.properties.generalCategory {
        case .control, .lineSeparator, .paragraphSeparator, .format:
            clean.unicodeScalars.append("\u{FFFD}")
        default:
            clean.unicodeScalars.append(scalar)
        }
    }
    return text.unicodeScalars.count > 120 ? "\"\(clean)...\"" : "\"\(clean)\""
}
