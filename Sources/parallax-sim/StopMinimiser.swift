// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import Glibc
internal import ParallaxSimulation

/// Finds the fewest operations with which a seed still stops the program by a trap. Each attempt is a
/// process of its own, since it ends with that.
struct StopMinimiser {
    /// Replays the seed, without the operations to keep.
    var arguments: [String]

    /// Nil: no attempt of this kind stops any more.
    func minimise(_ operations: [Int]) -> [Int]? {
        guard run(Set(operations)) else { return nil }
        var minimiser = Minimiser()
        minimiser.budget = 200
        return minimiser.minimise(operations) { run($0) }
    }

    /// Whether the process was ended by a signal. With `trace` it prints what happens up to there.
    func run(_ kept: Set<Int>, trace: Bool = false) -> Bool {
        let words =
            arguments + ["--keep", OperationList.text(of: kept.sorted()), "--no-minimise"]
            + (trace ? ["--trace"] : [])
        var pointers = words.map { strdup($0) } + [nil]
        defer { for pointer in pointers { free(pointer) } }
        var files = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&files)
        defer { posix_spawn_file_actions_destroy(&files) }
        if !trace {
            for number in [STDOUT_FILENO, STDERR_FILENO] {
                posix_spawn_file_actions_addopen(&files, number, "/dev/null", O_WRONLY, 0)
            }
        }
        var child = pid_t()
        guard posix_spawn(&child, "/proc/self/exe", &files, nil, &pointers, environ) == 0 else {
            return false
        }
        var status: Int32 = 0
        while waitpid(child, &status, 0) < 0 && errno == EINTR {}
        // WIFSIGNALED
        return status & 0x7F != 0
    }
}
