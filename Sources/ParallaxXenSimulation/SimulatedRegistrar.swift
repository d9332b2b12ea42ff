// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import Glibc
internal import ParallaxCore

/// A registrar whose descriptors become ready by what this one thread does, and are reported in
/// an order that does not depend on the kernel.
struct SimulatedRegistrar: EventRegistrar, ~Copyable {
    private var watched: [EventToken: Int32] = [:]

    mutating func watch(fileDescriptor: Int32, token: EventToken, interest: EventInterest) {
        watched[token] = fileDescriptor
    }

    mutating func unwatch(token: EventToken) { watched[token] = nil }

    func isWatched(_ token: EventToken) -> Bool { watched[token] != nil }

    /// What is readable now, by its source. `ignored` are sources whose time the seed decides.
    func ready(ignoring ignored: Set<UInt32>) -> [EventToken] {
        let tokens = watched.keys.filter { !ignored.contains($0.source) }
        return tokens.sorted { $0.source < $1.source }.filter { token in
            var state = pollfd(fd: watched[token] ?? -1, events: Int16(POLLIN), revents: 0)
            return poll(&state, 1, 0) == 1
        }
    }

    /// Takes an event that nobody is told of.
    func swallow(_ token: EventToken) {
        var ignored: UInt64 = 0
        _ = read(watched[token] ?? -1, &ignored, MemoryLayout<UInt64>.size)
    }
}
