// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import Testing

/// `parallax-sim` as people run it.
@Suite struct SimulatorTests {
    @Test(
        "of a seed that traps the fewest operations are found, and what happens in them is printed")
    func trap() throws {
        let found = try Command.run([
            Programs.simulator, "--seed", "1", "--operations", "40", "--canary", "traps",
        ])
        #expect(found.code == 1, "\(found)")
        #expect(found.errors.contains("stopped by a trap"), "\(found)")
        let prefix = "  minimal: parallax-sim --seed 1 --operations 40 --canary traps --keep "
        let lines = found.output.split(separator: "\n")
        let line = try #require(lines.first { $0.hasPrefix(prefix) }, "\(found)")
        let kept = line.dropFirst(prefix.count).prefix { $0 != " " }.split(separator: ",")
        #expect(kept.count == 1, "\(line)")
        #expect(lines.contains { $0.contains("-- \(kept[0]): ") }, "\(found)")
    }

    @Test("a seed that passes says so, and one with a fault is minimised")
    func seeds() throws {
        let passed = try Command.run([
            Programs.simulator, "--seeds", "1..2", "--operations", "20",
        ])
        #expect(passed.code == 0 && passed.output.contains("2 scenarios"), "\(passed)")
        let found = try Command.run([
            Programs.simulator, "--seed", "1", "--operations", "60", "--canary", "misreads",
        ])
        #expect(found.code == 1 && found.output.contains("  minimal: "), "\(found)")
    }
}
