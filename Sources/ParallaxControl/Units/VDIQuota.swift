// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The quotas a VDI may have: 0 for none, else whole blocks.
package enum VDIQuota {
    /// What JSON numbers hold exactly, and more than any store has.
    package static let maximumBytes: UInt64 = 1 << 53

    /// A size such as `30G`, or `none`, which is 0. A written 0 is refused: it could be meant to
    /// forbid all writes as well as to allow them.
    package static func parse(_ text: String) throws(ControlError) -> UInt64 {
        if text == "none" { return 0 }
        let bytes = try ByteSize.parse(text)
        guard bytes > 0 else {
            throw ControlError(
                .invalid, "a quota cannot be 0; write none to take the limit away")
        }
        try validate(bytes)
        return bytes
    }

    package static func validate(_ bytes: UInt64) throws(ControlError) {
        guard bytes <= maximumBytes else {
            throw ControlError(
                .invalid,
                "\(ByteSize.format(bytes)) is too large for a quota; the largest is 8 PiB")
        }
        guard bytes.isMultiple(of: VDISize.alignmentBytes) else {
            let rounded = (bytes / VDISize.alignmentBytes + 1) * VDISize.alignmentBytes
            throw ControlError(
                .invalid,
                "a quota must be a multiple of 4 KiB and \(bytes) bytes is not; "
                    + "the next that fits is \(rounded)")
        }
    }
}
