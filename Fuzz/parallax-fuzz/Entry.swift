// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc

/// What libFuzzer calls first: what takes long is made here, where no time limit runs.
@_cdecl("LLVMFuzzerInitialize")
public func initializeFuzzer(
    _ count: UnsafeMutablePointer<Int32>?, _ words: UnsafeMutableRawPointer?
) -> Int32 {
    if Targets.name == "image" { StoreImages.prepare() }
    return 0
}

/// What libFuzzer calls. The target is chosen by PARALLAX_FUZZ_TARGET, once.
///
/// A target takes any bytes and returns; a trap, a hang, a leak or a broken promise (a failed
/// `precondition`) is a finding.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> Int32 {
    Targets.chosen(Input(UnsafeBufferPointer(start: bytes, count: count)))
    return 0
}

enum Targets {
    typealias Target = @Sendable (Input) -> Void

    private static let all: [String: Target] = [
        "vhost-messages": { VhostMessages.run($0) },
        "virtqueue": { VirtqueueContents.run($0) },
        "inflight": { InflightContents.run($0) },
        "nbd-negotiation": { NBDStreams.negotiate($0) },
        "nbd-transmission": { NBDStreams.transmit($0) },
        "http": { ControlRequests.run($0) },
        "format": { FormatBlocks.run($0) },
        "image": { StoreImages.run($0) },
        "routes": { ControlAPI.run($0) },
        // Fails on purpose: shows that a finding is found.
        "canary": { canary($0) },
    ]

    static let name = getenv("PARALLAX_FUZZ_TARGET").map { String(cString: $0) } ?? ""

    static let chosen: Target = {
        guard let target = all[name] else {
            let names = all.keys.sorted().joined(separator: ", ")
            let text = Array("set PARALLAX_FUZZ_TARGET to one of: \(names)\n".utf8)
            _ = write(STDERR_FILENO, text, text.count)
            exit(64)
        }
        return target
    }()

    private static func canary(_ input: Input) {
        var input = input
        let isFound = input.byte() == 0x50 && input.byte() == 0x4c && input.byte() == 0x58
        guard isFound else { return }
        // A precondition alone says nothing in an optimised build.
        let text = Array("the canary was found\n".utf8)
        _ = write(STDERR_FILENO, text, text.count)
        preconditionFailure("the canary")
    }
}

/// The input, taken from the front; zeros behind its end.
struct Input {
    private let bytes: [UInt8]
    private var next = 0

    init(_ bytes: UnsafeBufferPointer<UInt8>) { self.bytes = [UInt8](bytes) }

    var isAtEnd: Bool { next >= bytes.count }
    var left: Int { max(0, bytes.count - next) }

    mutating func byte() -> UInt8 {
        defer { next += 1 }
        return next < bytes.count ? bytes[next] : 0
    }

    mutating func below(_ limit: Int) -> Int { Int(byte()) % limit }

    mutating func word() -> UInt64 { (0..<8).reduce(0) { word, _ in word << 8 | UInt64(byte()) } }

    mutating func take(_ count: Int) -> [UInt8] {
        let taken = Array(bytes[min(next, bytes.count)..<min(next + count, bytes.count)])
        next += count
        return taken
    }

    mutating func rest() -> [UInt8] { take(left) }
}
