// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxRetention
import ParallaxSimulation
import Testing

@Suite("A policy written down")
struct PolicyTextTests {
    private static let full =
        "--keep-last 1 --keep-hourly 2 --keep-daily 3 --keep-weekly 4 --keep-monthly 5 "
        + "--keep-yearly 6 --keep-within 7s --keep-within-hourly 8m --keep-within-daily 9h "
        + "--keep-within-weekly 10d --keep-within-monthly 11w --keep-within-yearly 12mo "
        + "--keep-labelled a --keep-labelled b=c=d --min-count 13 --mode keep-landmarks "
        + "--window 14y --label e=f --include-manual --time-zone Europe/Berlin"

    @Test("the default is what the documents say")
    func standard() {
        let words = RetentionPolicy.standard.options.joined(separator: " ")
        #expect(
            words == "--keep-last 10 --keep-hourly 24 --keep-daily 7 --keep-weekly 4 "
                + "--keep-monthly 12")
    }

    @Test("options are printed as they are read")
    func options() throws {
        let words = try policy(Self.full).options.joined(separator: " ")
        #expect(words == Self.full)
    }

    @Test("the JSON has every field, sorted and compact, and is read back")
    func json() throws {
        let rule = try policy(Self.full)
        let expected =
            #"{"include_manual":true,"keep_daily":3,"keep_hourly":2,"keep_labelled":["a","b=c=d"],"#
            + #""keep_last":1,"keep_monthly":5,"keep_weekly":4,"keep_within":"7s","#
            + #""keep_within_daily":"9h","keep_within_hourly":"8m","keep_within_monthly":"11w","#
            + #""keep_within_weekly":"10d","keep_within_yearly":"12mo","keep_yearly":6,"#
            + #""label":"e=f","min_count":13,"mode":"keep-landmarks","time_zone":"Europe/Berlin","#
            + #""window":"14y"}"#
        #expect(rule.json == expected)
        let back = try RetentionPolicy.decode(json: expected)
        #expect(back == rule)
    }

    @Test(
        "a line has quotes where a shell needs them, and is read back",
        arguments: [
            ("a b", "'a b'"), ("it's", "'it'\\''s'"), ("a=$HOME `x`", "'a=$HOME `x`'"),
            ("é=1", "é=1"),
            ("a=", "a="), ("\"", "'\"'"), ("a\\b", "'a\\b'"),
            // With a combining mark the quote is one character, of which a shell sees two.
            ("a'\u{301};b", "'a'\\''\u{301};b'"), ("a\u{301}'", "'a\u{301}'\\'''"),
            ("a\\\u{301} \u{301}b", "'a\\\u{301} \u{301}b'"), ("\u{301}a", "'\u{301}a'"),
            (String(repeating: "k", count: 100), nil),
        ] as [(String, String?)])
    func line(label: String, written: String?) throws {
        var rule = RetentionPolicy()
        rule.keepLabelled = [try LabelSelector.parse(label)]
        #expect(rule.line == "--keep-labelled \(written ?? label)")
        #expect(try RetentionPolicy.parse(line: rule.line) == rule)
    }

    @Test("what begins with a dash is not taken for an option")
    func dashes() throws {
        var rule = RetentionPolicy()
        rule.label = try LabelSelector.parse("--keep-last")
        rule.keepLast = 1
        #expect(rule.line == "--keep-last 1 --label=--keep-last")
        #expect(try RetentionPolicy.parse(line: rule.line) == rule)
        #expect(try RetentionPolicy.parse(options: rule.options) == rule)
    }

    @Test("a line is read with either kind of quotes", arguments: ["'", "\"", "\\"])
    func quotes(end: String) throws {
        let rule = try RetentionPolicy.parse(line: #"--label "a \"b" --keep-labelled a'b c'\ d"#)
        #expect(rule.label?.key == "a \"b" && rule.keepLabelled.first?.key == "ab c d")
        let error = failure { _ = try RetentionPolicy.parse(line: "--label a" + end) }
        #expect(error?.message.contains("close the quotes") == true)
    }

    @Test("what is not set is not written")
    func sparse() throws {
        let rule = try policy("--keep-last 1")
        #expect(rule.json == #"{"keep_last":1}"#)
        let back = try RetentionPolicy.decode(json: "{}")
        #expect(back == RetentionPolicy() && back.isEmpty)
    }

    @Test("random policies survive both forms", arguments: UInt64(0)..<50)
    func roundTrip(seed: UInt64) throws {
        var random = RandomPolicies(seed: seed)
        let rule = try random.anyPolicy()
        let fromOptions = try RetentionPolicy.parse(options: rule.options)
        #expect(fromOptions == rule)
        let fromJSON = try RetentionPolicy.decode(json: rule.json)
        #expect(fromJSON == rule)
    }

    @Test("short forms, equals signs and zeros mean the same")
    func aliases() throws {
        let short = try policy("--hourly 24 --daily=7 --weekly 4 --monthly 12 --yearly 0")
        let long = try policy(
            "--keep-hourly 24 --keep-daily 7 --keep-weekly 4 --keep-monthly 12 --keep-last 0")
        #expect(short == long)
        let repeated = try policy("--keep-labelled a --keep-labelled a")
        #expect(repeated.keepLabelled.count == 1)
    }

    @Test("a mode has a week for its window unless told otherwise")
    func defaultWindow() throws {
        let words = try policy("--mode keep-safe").options
        #expect(words == ["--mode", "keep-safe", "--window", "7d"])
    }

    @Test(
        "options that make no sense are refused, each with a sentence",
        arguments: [
            ("--keep-first 1", "not an option"), ("keep-last 1", "not an option"),
            ("--keep-last", "needs a value"), ("--keep-last --daily 1", "needs a value"),
            ("--keep-last -1", "whole number"), ("--keep-last 1.5", "whole number"),
            ("--keep-last=", "whole number"), ("--keep-last 1000001", "whole number"),
            ("--keep-last 99999999999999999999", "whole number"),
            ("--keep-last 1 --keep-last 2", "given twice"),
            ("--daily 1 --keep-daily 1", "given twice"),
            ("--keep-within 7", "--keep-within:"), ("--keep-within 0d", "from 1s to 1000y"),
            ("--keep-labelled =x", "is not a label"), ("--label =", "is not a label"),
            ("--mode keep-none", "is not a mode"), ("--mode keep-one --window 7d", "no window"),
            ("--window 7d", "needs --mode"), ("--time-zone Mars/Phobos", "not a known time zone"),
            ("--time-zone UTC+3", "not a known time zone"),
            ("--time-zone ../../etc/passwd", "not a known time zone"),
            ("--time-zone=", "not a known time zone"),
            ("--include-manual=yes", "not an option"),
        ])
    func refusesOptions(options: String, part: String) throws {
        let error = try #require(failure { _ = try policy(options) })
        #expect(error.kind == .invalid && error.message.contains(part), "\(error.message)")
    }

    @Test(
        "JSON that makes no sense is refused, each with a sentence",
        arguments: [
            ("", "not a JSON object"), ("[]", "not a JSON object"), ("null", "not a JSON object"),
            ("{", "not a JSON object"), ("7", "not a JSON object"),
            (#"{"keep_last":1}x"#, "not a JSON object"),
            (#"{"keep_first":1}"#, "\"keep_first\", which this version does not know"),
            (#"{"keep_last":"1"}"#, "must be a whole number"),
            (#"{"keep_last":1.5}"#, "must be a whole number"),
            (#"{"keep_last":1e40}"#, "must be a whole number"),
            (#"{"keep_last":true}"#, "must be a whole number"),
            (#"{"keep_last":null}"#, "must be a whole number"),
            (#"{"keep_last":0}"#, "not from 1 to 1000000"),
            (#"{"keep_last":-5}"#, "not from 1 to 1000000"),
            (#"{"keep_within":7}"#, "must be a string"),
            (#"{"keep_within":"7"}"#, "is not a length of time"),
            (#"{"keep_labelled":"a"}"#, "must be an array of strings"),
            (#"{"keep_labelled":[1]}"#, "must be an array of strings"),
            (#"{"label":"a\u0000b"}"#, "is not a label"),
            (#"{"include_manual":1}"#, "must be true or false"),
            (#"{"mode":"keep_one"}"#, "is not a mode"),
            (#"{"window":"7d"}"#, "needs the field \"mode\""),
            (#"{"time_zone":"Nowhere"}"#, "not a known time zone"),
        ])
    func refusesJSON(text: String, part: String) throws {
        let error = try #require(failure { _ = try RetentionPolicy.decode(json: text) })
        #expect(error.kind == .invalid && error.message.contains(part), "\(error.message)")
        #expect(!error.message.contains("\0"))
    }

    @Test("a stored policy has 1 KiB at most, and one that would not fit is not made")
    func size() throws {
        let long = String(repeating: " ", count: 1_025)
        let decoding = failure { _ = try RetentionPolicy.decode(json: long) }
        #expect(decoding?.message.contains("1025 bytes") == true)
        let label = String(repeating: "x", count: 60)
        let labels = (10..<30).map { "--keep-labelled \(label)\($0)" }.joined(separator: " ")
        let parsing = failure { _ = try policy(labels) }
        #expect(parsing?.message.contains("may take 1024") == true)
        let deep = String(repeating: "[", count: 1_000)
        let nested = failure { _ = try RetentionPolicy.decode(json: deep) }
        #expect(nested?.kind == .invalid)
    }

    @Test("random bytes never trap", arguments: UInt64(0)..<20)
    func fuzz(seed: UInt64) throws {
        var random = RandomPolicies(seed: seed)
        for _ in 0..<200 {
            var bytes = Array(try random.anyPolicy().json.utf8)
            for _ in 0..<random.random.integer(in: 1...4) {
                let place = random.random.index(below: bytes.count)
                bytes[place] = UInt8(random.random.integer(in: 0...255))
            }
            let text = String(decoding: bytes, as: UTF8.self)
            guard let rule = try? RetentionPolicy.decode(json: text) else { continue }
            // Whatever is accepted is a policy like any other.
            let back = try RetentionPolicy.decode(json: rule.json)
            #expect(back == rule)
        }
    }
}
