// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

#define _GNU_SOURCE
#include "parallax_threads.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int parallax_thread_set_name(const char *name) {
    char short_name[16] = { 0 };
    strncpy(short_name, name, sizeof short_name - 1);
    return -pthread_setname_np(pthread_self(), short_name);
}

int parallax_thread_set_affinity(int cpu) {
    cpu_set_t set;
    if (cpu < 0 || cpu >= CPU_SETSIZE) return -EINVAL;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    return sched_setaffinity(0, sizeof set, &set) < 0 ? -errno : 0;
}

int parallax_cpu_count(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) < 0) return 1;
    int count = CPU_COUNT(&set);
    return count > 0 ? count : 1;
}

struct helper {
    const char *name;
    void (*body)(void);
};

static void *run_helper(void *argument) {
    struct helper helper = *(struct helper *)argument;
    free(argument);
    parallax_thread_set_name(helper.name);
    helper.body();
    return NULL;
}

int parallax_thread_start_helper(const char *name, void (*body)(void)) {
    sigset_t all, before;
    pthread_t thread;
    struct helper *helper = malloc(sizeof *helper);
    if (helper == NULL) return -ENOMEM;
    *helper = (struct helper){ .name = name, .body = body };
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int result = -pthread_create(&thread, NULL, run_helper, helper);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (result == 0) pthread_detach(thread);
    else free(helper);
    return result;
}

static uint64_t nanoseconds_of(clockid_t clock) {
    struct timespec now;
    if (clock_gettime(clock, &now) < 0) return 0;
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t parallax_monotonic_nanoseconds(void) { return nanoseconds_of(CLOCK_MONOTONIC); }

uint64_t parallax_thread_cpu_nanoseconds(void) {
    return nanoseconds_of(CLOCK_THREAD_CPUTIME_ID);
}
