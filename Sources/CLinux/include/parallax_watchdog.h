// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

// An eventfd that came from a peer is still the peer's: it can clear O_NONBLOCK and fill the
// counter at any moment, and whoever writes then waits until the peer reads. The watchdog, one
// thread of the process, looks after the threads that are in such a write and ends, by a signal,
// what has lasted too long. It sleeps while nobody writes.

#ifndef PARALLAX_WATCHDOG_H
#define PARALLAX_WATCHDOG_H

// How often the watchdog looks; a write is ended after one to two of them.
#define PARALLAX_WATCHDOG_PERIOD_MS 10

// Starts the watchdog, once for the process. Takes SIGURG, which nobody else here uses. Returns 0
// or -errno, the same each time.
int parallax_watchdog_start(void);

// Adds 1 to the counter of a peer's eventfd. Returns 0; -EAGAIN where the counter is full, which
// wakes the peer as well; -EINTR where it was full, the peer made us wait and the watchdog ended
// it; or another -errno. Only after parallax_watchdog_start has returned 0: without, it may wait
// for ever.
int parallax_watched_signal(int fd);

#endif
