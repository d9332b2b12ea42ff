// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

// Memory that is mapped from somebody else's file can vanish: the file is cut, its huge pages run
// out, or the machine finds the memory faulty. The kernel then sends SIGBUS to whoever touches it.
// A guard turns that into memory that forgets, and a mark, so that neither a peer nor a bad page
// under one can end the process.

#ifndef PARALLAX_GUARDS_H
#define PARALLAX_GUARDS_H

#include <stddef.h>

// Guards [start, start + byte_count), a whole mapping that one thread at a time touches. `loss` is
// NULL or an aligned uint32_t that outlives the guard, and that other guards of the same thread may
// have as well: it becomes 1 before anything of the memory is replaced. Who finds it 0 behind a copy
// has copied what the peer wrote. The first call installs the process's SIGBUS handler. Returns a
// number for the calls below, or -errno (-ENOSPC: 32768 guards are in use).
int parallax_guard_add(void *start, size_t byte_count, void *loss);
// Before the memory is unmapped. Whether any page of it had vanished.
int parallax_guard_remove(int guard);
// Whether a page of the memory has vanished. From then on none of it is the peer's: it holds zeroes,
// or the latest of what was written since, and takes 4 MiB and 9 mappings at most.
int parallax_guard_is_hit(int guard);

#endif
