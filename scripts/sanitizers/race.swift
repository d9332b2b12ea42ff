// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

// Two threads and one counter: `race` counts without the lock, which ThreadSanitizer must report,
// anything else with it, which it must not, however much they are in each other's way.

import Glibc
import Synchronization

final class Counter: Sendable {
    let guarded = Mutex(0)
    // SAFETY: none; that is the point.
    nonisolated(unsafe) var bare = 0
}

let counter = Counter()
let isRacing = CommandLine.arguments.last == "race"

// Both are there before one counts: of a thread that has ended before, nothing is known any more.
// SAFETY: the threads begin when it is ready, and only call what it is for.
nonisolated(unsafe) var start = pthread_barrier_t()
pthread_barrier_init(&start, nil, 2)

func count(_ ignored: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    pthread_barrier_wait(&start)
    for _ in 0..<200_000 {
        if isRacing { counter.bare += 1 } else { counter.guarded.withLock { $0 += 1 } }
    }
    return nil
}

var threads = [pthread_t](repeating: pthread_t(), count: 2)
for index in 0..<threads.count { pthread_create(&threads[index], nil, count, nil) }
for thread in threads { pthread_join(thread, nil) }
print(isRacing ? counter.bare : counter.guarded.withLock { $0 })
