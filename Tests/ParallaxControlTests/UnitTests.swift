// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxControl
import ParallaxCore
import Testing

@Suite struct ByteSizeTests {
    @Test(
        "a size is a whole number with at most one binary unit",
        arguments: [
            ("0", 0), ("512", 512), ("64K", 65536), ("1M", 1 << 20), ("20G", 20 << 30),
            ("1t", 1 << 40), ("18446744073709551615", UInt64.max), ("16777215T", 16_777_215 << 40),
        ] as [(String, UInt64)])
    func parses(text: String, bytes: UInt64) throws {
        #expect(try ByteSize.parse(text) == bytes)
    }

    @Test(
        "anything else is no size, and the sentence quotes it",
        arguments: [
            "", "G", "banana", "-1", "+1", "1.5T", " 1G", "1G ", "1 G", "20GB", "20GiB", "0x10",
            "1KK", "١٢", "1G\n", "1\u{0}",
        ])
    func refuses(text: String) throws {
        let error = try #require(failure { _ = try ByteSize.parse(text) })
        #expect(error.kind == .invalid)
        #expect(error.message.contains("is not a size"))
        #expect(!error.message.contains("\n"))
    }

    @Test(
        "a size beyond 64 bits is refused and does not wrap",
        arguments: ["18446744073709551616", "16777216T", "99999999999999999999999T"])
    func overflow(text: String) throws {
        let error = try #require(failure { _ = try ByteSize.parse(text) })
        #expect(error.message.contains("larger than any size"))
    }

    @Test(
        "sizes are shown with one decimal at most, rounded down",
        arguments: [
            (0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (2047, "1.9 KiB"),
            (20 << 30, "20 GiB"), ((1 << 40) - 1, "1023.9 GiB"), (64 << 40, "64 TiB"),
            (UInt64.max, "16383.9 PiB"),
        ] as [(UInt64, String)])
    func formats(bytes: UInt64, text: String) {
        #expect(ByteSize.format(bytes) == text)
    }

    @Test("the control plane and the engine agree on the limits of a VDI")
    func limits() {
        #expect(VDISize.minimumBytes...VDISize.maximumBytes == Limits.vdiBytes)
        #expect(VDISize.alignmentBytes == UInt64(blockBytes))
        #expect(1...VDIName.maximumBytes == Limits.vdiNameBytes)
    }

    @Test("a VDI has from 1 MiB to 64 TiB in whole blocks")
    func vdiSizes() throws {
        for bytes: UInt64 in [1 << 20, (1 << 20) + 4096, 64 << 40] {
            #expect(throws: Never.self) { try VDISize.validate(bytes) }
        }
        let largest: UInt64 = 64 << 40
        let wrong: [(UInt64, String)] = [
            (0, "too small"), ((1 << 20) - 4096, "too small"), (largest + 4096, "too large"),
            (UInt64.max, "too large"), ((1 << 20) + 512, "multiple of 4 KiB"),
            (largest - 1, "multiple of 4 KiB"),
        ]
        for (bytes, part) in wrong {
            let error = try #require(failure { try VDISize.validate(bytes) })
            #expect(error.message.contains(part))
        }
    }
}

@Suite struct VDINameTests {
    @Test(
        "ordinary text is a name",
        arguments: [
            "a", "vm-1.root", "Ünïcødé 磁盘", "a b", "...", "-x", "👩‍🚀", "%2F", "a?b#c", "\"q\"",
            "a\\b",
            String(repeating: "x", count: 100), String(repeating: "é", count: 50),
        ])
    func accepts(name: String) {
        #expect(throws: Never.self) { try VDIName.validate(name) }
    }

    @Test(
        "each thing that is wrong with a name has its sentence",
        arguments: [
            ("", "empty"), (String(repeating: "x", count: 101), "at most 100 bytes"),
            (String(repeating: "é", count: 51), "at most 100 bytes"), ("a@b", "'@'"),
            ("a/b", "'/'"), ("/", "'/'"), ("a\nb", "control"), ("\u{0}", "control"),
            ("a\u{7F}", "control"), ("a\u{85}", "control"), ("a\u{2028}b", "control"),
            ("a\u{202E}b", "control"), (" a", "space"), ("a ", "space"), (" ", "space"),
            ("\u{A0}a", "space"), (".", "called"), ("..", "called"),
        ])
    func refuses(name: String, part: String) throws {
        let error = try #require(failure { try VDIName.validate(name) })
        #expect(error.kind == .invalid)
        #expect(error.message.contains(part), "\(error.message)")
        #expect(!error.message.contains { $0.isNewline })
    }
}

@Suite struct PercentEncodingTests {
    @Test(
        "every name survives encoding and decoding", arguments: ["a b", "%41", "é/ü?#", "~-._", ""])
    func roundTrip(text: String) {
        let encoded = PercentEncoding.encode(text)
        #expect(encoded.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F && $0 != UInt8(ascii: "/") })
        #expect(PercentEncoding.decode(encoded) == text)
    }

    @Test(
        "a stray percent sign or broken UTF-8 is refused",
        arguments: ["%", "%4", "%zz", "%FF", "a%+1"])
    func refuses(text: String) {
        #expect(PercentEncoding.decode(text) == nil)
    }

    @Test("an NBD URI encodes the name and keeps the slashes of the path")
    func uri() {
        #expect(
            nbdURI(export: "my disk?", socketPath: "/run/a b/nbd.sock")
                == "nbd+unix:///my%20disk%3F?socket=/run/a%20b/nbd.sock")
    }
}
