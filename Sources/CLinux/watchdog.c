// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

#define _GNU_SOURCE
#include "parallax_watchdog.h"

#include "parallax_threads.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

// LIMIT: threads that write to peers. Those beyond write unwatched.
#define THREADS_MAX 1024
#define ROUNDS_BEFORE_SLEEP 100

// `turns` is odd while the thread is in a write. A thread that has ended leaves its place for the
// next one, with an even count.
static struct {
    int is_taken;
    int thread;
    uint32_t turns;
    uint32_t seen; // The watchdog's own.
} places[THREADS_MAX];

static __thread int own_place = -1;
static pthread_key_t at_thread_end;

// 1: the watchdog sleeps on it.
static uint32_t is_asleep;
static int start_result;
static pthread_once_t once = PTHREAD_ONCE_INIT;

// There only so that a system call returns.
static void on_signal(int number) { (void)number; }

// True if anybody has written since the last look.
static int look(void) {
    int is_busy = 0;
    for (int index = 0; index < THREADS_MAX; index++) {
        uint32_t turns = __atomic_load_n(&places[index].turns, __ATOMIC_SEQ_CST);
        int is_inside = turns & 1;
        if (is_inside && turns == places[index].seen)
            tgkill(getpid(), __atomic_load_n(&places[index].thread, __ATOMIC_RELAXED), SIGURG);
        if (is_inside || turns != places[index].seen) is_busy = 1;
        places[index].seen = turns;
    }
    return is_busy;
}

// ORDER: a writer counts, then asks whether we sleep; we say that we sleep, then look at the
// counts. Whoever comes second sees the other.
static void sleep_until_a_write(void) {
    __atomic_store_n(&is_asleep, 1, __ATOMIC_SEQ_CST);
    if (look()) __atomic_store_n(&is_asleep, 0, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&is_asleep, __ATOMIC_SEQ_CST))
        syscall(SYS_futex, &is_asleep, FUTEX_WAIT_PRIVATE, 1, NULL, NULL, 0);
}

static void watch(void) {
    struct timespec period = { .tv_nsec = PARALLAX_WATCHDOG_PERIOD_MS * 1000000 };
    for (int idle_rounds = 0;;) {
        nanosleep(&period, NULL);
        idle_rounds = look() ? 0 : idle_rounds + 1;
        if (idle_rounds < ROUNDS_BEFORE_SLEEP) continue;
        sleep_until_a_write();
        idle_rounds = 0;
    }
}

static void leave_place(void *place) {
    __atomic_store_n(&places[(intptr_t)place - 1].is_taken, 0, __ATOMIC_RELEASE);
}

static void start(void) {
    // Without SA_RESTART: the write must return.
    struct sigaction action = { .sa_handler = on_signal };
    sigemptyset(&action.sa_mask);
    start_result = -pthread_key_create(&at_thread_end, leave_place);
    if (start_result < 0) return;
    if (sigaction(SIGURG, &action, NULL) < 0) {
        start_result = -errno;
        return;
    }
    start_result = parallax_thread_start_helper("watchdog", watch);
}

int parallax_watchdog_start(void) {
    pthread_once(&once, start);
    return start_result;
}

static int take_place(void) {
    for (int index = 0; index < THREADS_MAX; index++) {
        if (__atomic_exchange_n(&places[index].is_taken, 1, __ATOMIC_ACQUIRE)) continue;
        sigset_t signals;
        sigemptyset(&signals);
        sigaddset(&signals, SIGURG);
        pthread_sigmask(SIG_UNBLOCK, &signals, NULL);
        pthread_setspecific(at_thread_end, (void *)(intptr_t)(index + 1));
        __atomic_store_n(&places[index].thread, gettid(), __ATOMIC_RELAXED);
        return index;
    }
    return THREADS_MAX;
}

static void enter(void) {
    if (own_place < 0) own_place = take_place();
    if (own_place == THREADS_MAX) return;
    __atomic_fetch_add(&places[own_place].turns, 1, __ATOMIC_SEQ_CST);
    if (!__atomic_load_n(&is_asleep, __ATOMIC_SEQ_CST)) return;
    __atomic_store_n(&is_asleep, 0, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, &is_asleep, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void leave(void) {
    if (own_place == THREADS_MAX) return;
    __atomic_fetch_add(&places[own_place].turns, 1, __ATOMIC_RELEASE);
}

int parallax_watched_signal(int fd) {
    uint64_t one = 1;
    enter();
    ssize_t count = write(fd, &one, sizeof one);
    int result = count < 0 ? -errno : 0;
    leave();
    return result;
}
