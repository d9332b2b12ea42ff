// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import ArgumentParser

/// A size on the command line: bytes, or with a binary unit (4K, 64M, 1G, 2T).
struct ByteSize: ExpressibleByArgument, Equatable {
    var bytes: UInt64

    init(bytes: UInt64) { self.bytes = bytes }

    init?(argument: String) {
        guard let last = argument.last else { return nil }
        let shifts: [Character: UInt64] = ["K": 10, "M": 20, "G": 30, "T": 40]
        let shift = shifts[Character(last.uppercased())]
        let digits = shift == nil ? argument[...] : argument.dropLast()
        guard !digits.isEmpty, digits.allSatisfy({ $0.isASCII && $0.isNumber }),
            let number = UInt64(digits), number <= UInt64.max >> (shift ?? 0)
        else { return nil }
        bytes = number << (shift ?? 0)
    }

    /// The shortest exact form: 4096 is 4K, 4097 is 4097.
    var text: String {
        for (unit, shift) in [("T", 40), ("G", 30), ("M", 20), ("K", 10)] as [(String, UInt64)]
        where bytes > 0 && bytes & ((1 << shift) - 1) == 0 {
            return "\(bytes >> shift)\(unit)"
        }
        return "\(bytes)"
    }
}

/// An amount of data: a size, or a percentage of the range that is worked on.
enum DataAmount: ExpressibleByArgument, Equatable {
    case size(ByteSize)
    case percent(UInt64)

    init?(argument: String) {
        if argument.last == "%" {
            guard let percent = UInt64(argument.dropLast()), percent > 0, percent <= 100_000
            else { return nil }
            self = .percent(percent)
        } else {
            guard let size = ByteSize(argument: argument) else { return nil }
            self = .size(size)
        }
    }

    func bytes(ofRange rangeBytes: UInt64) -> UInt64 {
        switch self {
        case .size(let size): size.bytes
        case .percent(let percent): rangeBytes / 100 * percent + rangeBytes % 100 * percent / 100
        }
    }
}
