// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Glibc
import ParallaxControl
import ParallaxRetention

/// The snapshots of a simulation.
enum SnapshotTimes {
    // LIMIT: what a simulation holds in memory; ten times what a VDI is meant to have.
    static let countMax = 1_000_000
    static let fileBytesMax = 64 << 20

    /// From `now` back in steps of `every`, as far as `span`, which itself is not in it: a year of
    /// quarters of an hour is 35,040 snapshots.
    static func row(
        every: RetentionDuration, for span: RetentionDuration, upTo now: RetentionTime,
        calendarOf policy: RetentionPolicy
    ) throws(RetentionError) -> [RetentionTime] {
        let end = try policy.time(span, before: now)
        guard (now.seconds - end.seconds) / every.seconds < countMax else {
            throw RetentionError(
                .invalid,
                "a snapshot every \(every.text) for \(span.text) is more than \(countMax); "
                    + "make the one longer or the other shorter")
        }
        var times: [RetentionTime] = []
        var time = now
        while time > end {
            times.append(time)
            // Each from `now`, so that a row of months does not stay at the 28th after a February.
            guard let back = try? RetentionDuration(every.count * times.count, every.unit) else {
                break
            }
            time = try policy.time(back, before: now)
        }
        return times
    }

    static func read(path: String) throws(ControlError) -> [RetentionTime] {
        let text = String(decoding: try bytes(path: path), as: UTF8.self)
        let name = path == "-" ? "standard input" : path
        var times: [RetentionTime] = []
        var number = 0
        for line in text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline) {
            number += 1
            let entry = trimmed(line.prefix { $0 != "#" })
            if entry.isEmpty { continue }
            do throws(RetentionError) {
                times.append(try RetentionTime.parse(entry))
            } catch {
                throw ControlError(.invalid, "line \(number) of \(name): \(error.message)")
            }
        }
        guard times.count <= countMax else {
            throw ControlError(
                .invalid, "\(name) has \(times.count) times; a simulation takes \(countMax)")
        }
        return times
    }

    private static func trimmed(_ text: Substring) -> String {
        var text = text.drop { $0.isWhitespace }
        while text.last?.isWhitespace == true { text.removeLast() }
        return String(text)
    }

    private static func bytes(path: String) throws(ControlError) -> [UInt8] {
        let file = path == "-" ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else {
            throw ControlError(.notFound, "cannot open \(path): \(errnoText(errno))")
        }
        defer { if file != STDIN_FILENO { close(file) } }
        var all: [UInt8] = []
        var piece = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = Glibc.read(file, &piece, piece.count)
            if count < 0 && errno == EINTR { continue }
            guard count >= 0 else {
                throw ControlError(.ioError, "cannot read \(path): \(errnoText(errno))")
            }
            if count == 0 { return all }
            all += piece[..<count]
            guard all.count <= fileBytesMax else {
                throw ControlError(
                    .invalid,
                    "\(path) has more than \(ByteSize.format(UInt64(fileBytesMax))), "
                        + "which is no list of times; give one time on each line")
            }
        }
    }
}
