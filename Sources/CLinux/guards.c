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
// LIMIT: memory, and mappings, that a range which has vanished takes: pieces of this size, so many
// at a time. One instruction needs four at most, where both its operands cross a border.
#define PIECE_BYTES ((uintptr_t)1 << 20)
#define PIECES_MAX 4

// The handler, which any thread may be in, looks at the guards of all threads while those come and
// go. A range whose `version` is odd, or has another version after it was read, is changing and not
// looked at: the handler's own is not, as no thread touches memory while it adds or removes its guard.
// Where the version stayed, the range was there; and then no other's has the handler's address in it.
static struct {
    uint32_t version;
    uintptr_t start; // 0: no guard
    size_t byte_count;
    // Only of use to who touches the memory.
    uint32_t *loss;
    int piece_count;
    int is_taken;
    int is_hit;
} guards[GUARDS_MAX];

// Whoever touches a mapping of it gets SIGBUS, as it has no page.
static int empty_file;

static struct sigaction previous;
static int install_result;
static pthread_once_t once = PTHREAD_ONCE_INIT;

// ORDER: who has read anything of the new range reads another version behind it; who has read the
// version that comes last reads the whole new range.
static void set_range(int index, uintptr_t start, size_t byte_count) {
    uint32_t version = __atomic_load_n(&guards[index].version, __ATOMIC_RELAXED);
    __atomic_store_n(&guards[index].version, version + 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    __atomic_store_n(&guards[index].start, start, __ATOMIC_RELAXED);
    __atomic_store_n(&guards[index].byte_count, byte_count, __ATOMIC_RELAXED);
    __atomic_store_n(&guards[index].version, version + 2, __ATOMIC_RELEASE);
}

// The range, if the address is in it.
static int has_range(int index, uintptr_t address, uintptr_t *start, uintptr_t *end) {
    uint32_t version = __atomic_load_n(&guards[index].version, __ATOMIC_ACQUIRE);
    if (version & 1) return 0;
    *start = __atomic_load_n(&guards[index].start, __ATOMIC_RELAXED);
    size_t byte_count = __atomic_load_n(&guards[index].byte_count, __ATOMIC_RELAXED);
    // ORDER: pairs with the fence in set_range.
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (__atomic_load_n(&guards[index].version, __ATOMIC_RELAXED) != version) return 0;
    *end = *start + byte_count;
    return *start != 0 && address >= *start && address < *end;
}

static int map_over(uintptr_t start, uintptr_t end, int flags, int fd) {
    return mmap(
        (void *)start, end - start, PROT_READ | PROT_WRITE, flags | MAP_FIXED | MAP_NORESERVE, fd,
        0) != MAP_FAILED;
}

// Page by page, a peer that cuts its file could have the process run out of mappings. So the whole
// range becomes the empty file, a piece of it memory where it is touched, and the empty file again
// after some pieces.
static int replace(int index, uintptr_t start, uintptr_t end, uintptr_t address) {
    // ORDER: none. Who copies the zeroes is the thread that is in this handler now.
    if (guards[index].loss) __atomic_store_n(guards[index].loss, 1, __ATOMIC_RELAXED);
    if (!guards[index].is_hit || guards[index].piece_count == PIECES_MAX) {
        if (!map_over(start, end, MAP_SHARED, empty_file)) return 0;
        guards[index].piece_count = 0;
        __atomic_store_n(&guards[index].is_hit, 1, __ATOMIC_RELEASE);
    }
    guards[index].piece_count++;
    uintptr_t piece = address & ~(PIECE_BYTES - 1);
    return map_over(
        piece > start ? piece : start, end - piece > PIECE_BYTES ? piece + PIECE_BYTES : end,
        MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

static int replace_at(uintptr_t address) {
    for (int index = 0; index < GUARDS_MAX; index++) {
        uintptr_t start, end;
        if (has_range(index, address, &start, &end)) return replace(index, start, end, address);
    }
    return 0;
}

// mmap is no more than a system call, so it may be called here.
static void on_bus_error(int number, siginfo_t *info, void *context) {
    (void)context;
    // Faulty memory that nobody has touched: who does is told by BUS_MCEERR_AR.
    if (info->si_code == BUS_MCEERR_AO) return;
    // The page has gone, or its memory is faulty and this thread was about to use it. The kernel
    // sends the latter only where the instruction can run again, and the address may be that of
    // the huge page: the instruction then meets the empty file next, and tells its own.
    int is_ours = info->si_code == BUS_ADRERR || info->si_code == BUS_MCEERR_AR;
    int saved = errno;
    int is_replaced = is_ours && replace_at((uintptr_t)info->si_addr);
    errno = saved;
    // Not ours: the instruction runs again and meets whoever was in charge before.
    if (!is_replaced) sigaction(number, &previous, NULL);
}

static void install(void) {
    empty_file = memfd_create("parallax-empty", MFD_CLOEXEC);
    if (empty_file < 0) {
        install_result = -errno;
        return;
    }
    struct sigaction action = { .sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO };
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGBUS, &action, &previous) < 0) install_result = -errno;
}

int parallax_guard_add(void *start, size_t byte_count, void *loss) {
    pthread_once(&once, install);
    if (install_result < 0) return install_result;
    for (int index = 0; index < GUARDS_MAX; index++) {
        if (__atomic_exchange_n(&guards[index].is_taken, 1, __ATOMIC_ACQUIRE)) continue;
        guards[index].loss = loss;
        guards[index].is_hit = 0;
        set_range(index, (uintptr_t)start, byte_count);
        return index;
    }
    return -ENOSPC;
}

int parallax_guard_is_hit(int guard) {
    return __atomic_load_n(&guards[guard].is_hit, __ATOMIC_ACQUIRE);
}

int parallax_guard_remove(int guard) {
    int is_hit = parallax_guard_is_hit(guard);
    set_range(guard, 0, 0);
    __atomic_store_n(&guards[guard].is_taken, 0, __ATOMIC_RELEASE);
    return is_hit;
}
