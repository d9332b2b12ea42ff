// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

#ifndef PARALLAX_THREADS_H
#define PARALLAX_THREADS_H

#include <stdint.h>

// Names the calling thread; longer names are cut to the kernel's 15 bytes.
int parallax_thread_set_name(const char *name);
// Binds the calling thread to one CPU.
int parallax_thread_set_affinity(int cpu);
// The number of CPUs this process may run on.
int parallax_cpu_count(void);
// Starts a thread of that name that belongs to nobody and gets no signals; `name` and `body` stay
// for ever, and so does the thread. Returns 0 or -errno.
int parallax_thread_start_helper(const char *name, void (*body)(void));
// CLOCK_MONOTONIC.
uint64_t parallax_monotonic_nanoseconds(void);
// CPU time used by the calling thread.
uint64_t parallax_thread_cpu_nanoseconds(void);

#endif
