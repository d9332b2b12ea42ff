// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

#define _GNU_SOURCE
#include "parallax_guards.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>

#define GUARDS_MAX 32768

// `start` is written last and cleared first; the handler, which any thread may be in, skips a
// guard whose start is 0.
static struct {
    uintptr_t start;
    size_t byte_count;
    size_t page_bytes;
    int is_taken;
    int is_hit;
} guards[GUARDS_MAX];

static struct sigaction previous;
static int install_result;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static int replace_page(uintptr_t address) {
    for (int index = 0; index < GUARDS_MAX; index++) {
        uintptr_t start = __atomic_load_n(&guards[index].start, __ATOMIC_ACQUIRE);
        if (start == 0 || address < start || address - start >= guards[index].byte_count) continue;
        uintptr_t page = address & ~(uintptr_t)(guards[index].page_bytes - 1);
        void *mapped = mmap(
            (void *)page, guards[index].page_bytes, PROT_READ | PROT_WRITE,
            MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
        __atomic_store_n(&guards[index].is_hit, 1, __ATOMIC_RELEASE);
        return mapped != MAP_FAILED;
    }
    return 0;
}

// mmap is no more than a system call, so it may be called here.
static void on_bus_error(int number, siginfo_t *info, void *context) {
    int saved = errno;
    int is_replaced = info->si_code == BUS_ADRERR && replace_page((uintptr_t)info->si_addr);
    errno = saved;
    (void)context;
    // Not ours: the instruction runs again and meets whoever was in charge before.
    if (!is_replaced) sigaction(number, &previous, NULL);
}

static void install(void) {
    struct sigaction action = { .sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO };
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGBUS, &action, &previous) < 0) install_result = -errno;
}

int parallax_guard_add(void *start, size_t byte_count, size_t page_bytes) {
    pthread_once(&once, install);
    if (install_result < 0) return install_result;
    for (int index = 0; index < GUARDS_MAX; index++) {
        if (__atomic_exchange_n(&guards[index].is_taken, 1, __ATOMIC_ACQUIRE)) continue;
        guards[index].byte_count = byte_count;
        guards[index].page_bytes = page_bytes;
        guards[index].is_hit = 0;
        __atomic_store_n(&guards[index].start, (uintptr_t)start, __ATOMIC_RELEASE);
        return index;
    }
    return -ENOSPC;
}

int parallax_guard_is_hit(int guard) {
    return __atomic_load_n(&guards[guard].is_hit, __ATOMIC_ACQUIRE);
}

int parallax_guard_remove(int guard) {
    int is_hit = parallax_guard_is_hit(guard);
    __atomic_store_n(&guards[guard].start, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&guards[guard].is_taken, 0, __ATOMIC_RELEASE);
    return is_hit;
}
