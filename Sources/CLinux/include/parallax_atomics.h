// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

// Ordered access to memory that another process maps: Swift's atomics own their storage and
// cannot be laid over a ring. Pointers must be aligned to the size of the access.

#ifndef PARALLAX_ATOMICS_H
#define PARALLAX_ATOMICS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

// Copies bytes that another process may change meanwhile. The barrier makes the compiler use the
// copy from here on: without it a later read of the copy could become a second read of the source.
static inline void parallax_copy_once(void *to, const void *from, size_t count) {
    memcpy(to, from, count);
    __asm__ volatile("" : : "r"(to) : "memory");
}

#define PARALLAX_ATOMICS(bits)                                                                    \
    static inline uint##bits##_t parallax_load_relaxed_u##bits(const void *address) {            \
        return __atomic_load_n((const uint##bits##_t *)address, __ATOMIC_RELAXED);                \
    }                                                                                             \
    static inline uint##bits##_t parallax_load_acquire_u##bits(const void *address) {            \
        return __atomic_load_n((const uint##bits##_t *)address, __ATOMIC_ACQUIRE);                \
    }                                                                                             \
    static inline void parallax_store_relaxed_u##bits(void *address, uint##bits##_t value) {     \
        __atomic_store_n((uint##bits##_t *)address, value, __ATOMIC_RELAXED);                     \
    }                                                                                             \
    static inline void parallax_store_release_u##bits(void *address, uint##bits##_t value) {     \
        __atomic_store_n((uint##bits##_t *)address, value, __ATOMIC_RELEASE);                     \
    }

PARALLAX_ATOMICS(8)
PARALLAX_ATOMICS(16)
PARALLAX_ATOMICS(32)
PARALLAX_ATOMICS(64)
#undef PARALLAX_ATOMICS

static inline void parallax_fence_release(void) { __atomic_thread_fence(__ATOMIC_RELEASE); }
static inline void parallax_fence_seq_cst(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

#endif
