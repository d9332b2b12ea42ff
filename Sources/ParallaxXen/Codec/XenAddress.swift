// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// A virtual disk of a domain, as in `3:xvda` or `web1:51712`.
package struct XenAddress: Equatable, Sendable, CustomStringConvertible {
    /// A number, or the domain's name.
    package var domain: String
    package var device: XenDeviceNumber

    /// nil: not of the form DOMAIN:DEVICE.
    package init?(_ text: String) {
        guard let colon = text.lastIndex(of: ":") else { return nil }
        domain = String(text[..<colon])
        let isPlain = domain.utf8.allSatisfy { $0 > 0x20 && $0 != 0x7f && $0 != UInt8(ascii: "/") }
        guard !domain.isEmpty, domain.utf8.count <= 64, isPlain,
            let device = XenDeviceNumber(String(text[text.index(after: colon)...]))
        else { return nil }
        self.device = device
    }

    package var description: String { "\(domain):\(device)" }
}

/// The number of a virtual disk (Xen's docs/misc/vbd-interface.txt): `202 << 8 | disk << 4 |
/// partition` for the first 16 disks with up to 15 partitions, else `1 << 28 | disk << 8 |
/// partition`.
package struct XenDeviceNumber: Equatable, Hashable, Sendable, CustomStringConvertible {
    package let rawValue: UInt32

    package init(rawValue: UInt32) { self.rawValue = rawValue }

    /// `xvda`, `xvdb1`, `xvdaa`, or the number in decimal or after `0x`.
    package init?(_ text: String) {
        if text.hasPrefix("0x") {
            guard let number = UInt32(text.dropFirst(2), radix: 16) else { return nil }
            rawValue = number
        } else if let first = text.utf8.first, (UInt8(ascii: "0")...UInt8(ascii: "9")) ~= first {
            guard let number = UInt32(text) else { return nil }
            rawValue = number
        } else {
            guard let number = Self.number(ofName: text) else { return nil }
            rawValue = number
        }
    }

    private static func number(ofName text: String) -> UInt32? {
        guard text.hasPrefix("xvd") else { return nil }
        let rest = text.dropFirst(3)
        let letters = rest.utf8.prefix { (UInt8(ascii: "a")...UInt8(ascii: "z")) ~= $0 }
        guard (1...3).contains(letters.count) else { return nil }
        var disk: UInt32 = 0
        for letter in letters { disk = disk * 26 + UInt32(letter - UInt8(ascii: "a")) + 1 }
        disk -= 1
        let digits = String(rest.dropFirst(letters.count))
        var partition: UInt32 = 0
        if !digits.isEmpty {
            guard let number = UInt32(digits), (1...255).contains(number) else { return nil }
            partition = number
        }
        guard disk < 1 << 20 else { return nil }
        if disk < 16 && partition < 16 { return 202 << 8 | disk << 4 | partition }
        return 1 << 28 | disk << 8 | partition
    }

    package var description: String {
        let disk: UInt32
        let partition: UInt32
        if rawValue >> 28 == 1 {
            disk = rawValue >> 8 & 0xfffff
            partition = rawValue & 0xff
        } else if rawValue >> 8 == 202 {
            disk = rawValue >> 4 & 0xf
            partition = rawValue & 0xf
        } else {
            return String(rawValue)
        }
        var letters = ""
        var rest = disk + 1
        while rest > 0 {
            rest -= 1
            letters = String(UnicodeScalar(UInt8(ascii: "a") + UInt8(rest % 26))) + letters
            rest /= 26
        }
        return "xvd" + letters + (partition > 0 ? String(partition) : "")
    }
}
