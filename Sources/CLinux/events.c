// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

#define _GNU_SOURCE
#include "parallax_events.h"

#include <errno.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_PER_WAIT 64

_Static_assert(EPOLLIN == 0x001 && EPOLLOUT == 0x004 && EPOLLERR == 0x008, "epoll bits");
_Static_assert(EPOLLHUP == 0x010 && EPOLLRDHUP == 0x2000, "epoll bits");
_Static_assert((uint32_t)EPOLLET == 1u << 31, "epoll bits");

static int result_of(long value) { return value < 0 ? -errno : (int)value; }

int parallax_eventfd_create(uint32_t initial_value, int is_nonblocking) {
    return result_of(eventfd(initial_value, EFD_CLOEXEC | (is_nonblocking ? EFD_NONBLOCK : 0)));
}

int parallax_eventfd_read(int fd, uint64_t *value) {
    ssize_t count;
    do count = read(fd, value, sizeof *value); while (count < 0 && errno == EINTR);
    if (count < 0) return -errno;
    return count == sizeof *value ? 0 : -EINVAL;
}

int parallax_eventfd_take(int fd, uint64_t *value) {
    struct iovec piece = { .iov_base = value, .iov_len = sizeof *value };
    ssize_t count;
    do count = preadv2(fd, &piece, 1, -1, RWF_NOWAIT); while (count < 0 && errno == EINTR);
    if (count < 0 && errno == EOPNOTSUPP) return parallax_eventfd_read(fd, value);
    if (count < 0) return -errno;
    return count == sizeof *value ? 0 : -EINVAL;
}

int parallax_eventfd_write(int fd, uint64_t value) {
    ssize_t count;
    do count = write(fd, &value, sizeof value); while (count < 0 && errno == EINTR);
    if (count < 0) return -errno;
    return count == sizeof value ? 0 : -EINVAL;
}

int parallax_epoll_create(void) { return result_of(epoll_create1(EPOLL_CLOEXEC)); }

static int control(int epoll_fd, int operation, int fd, uint32_t events, uint64_t data) {
    struct epoll_event event = { .events = events, .data = { .u64 = data } };
    return result_of(epoll_ctl(epoll_fd, operation, fd, &event));
}

int parallax_epoll_add(int epoll_fd, int fd, uint32_t events, uint64_t data) {
    return control(epoll_fd, EPOLL_CTL_ADD, fd, events, data);
}

int parallax_epoll_modify(int epoll_fd, int fd, uint32_t events, uint64_t data) {
    return control(epoll_fd, EPOLL_CTL_MOD, fd, events, data);
}

int parallax_epoll_remove(int epoll_fd, int fd) {
    return control(epoll_fd, EPOLL_CTL_DEL, fd, 0, 0);
}

// Rounded up: a timer that wakes early would spin until its time has come.
static int milliseconds_of(int64_t nanoseconds) {
    if (nanoseconds < 0) return -1;
    int64_t milliseconds = nanoseconds / 1000000 + (nanoseconds % 1000000 != 0);
    return milliseconds > 0x7fffffff ? 0x7fffffff : (int)milliseconds;
}

// To the nanosecond where the kernel can (5.11), else to the millisecond.
static int wait_for(int epoll_fd, struct epoll_event *events, int capacity, int64_t nanoseconds) {
    if (nanoseconds > 0) {
        struct timespec timeout = {
            .tv_sec = nanoseconds / 1000000000, .tv_nsec = nanoseconds % 1000000000 };
        int count = epoll_pwait2(epoll_fd, events, capacity, &timeout, NULL);
        if (count >= 0 || errno != ENOSYS) return count;
    }
    return epoll_wait(epoll_fd, events, capacity, milliseconds_of(nanoseconds));
}

int parallax_epoll_wait(
    int epoll_fd, struct parallax_epoll_event *events, int capacity, int64_t timeout_nanoseconds) {
    struct epoll_event kernel_events[EVENTS_PER_WAIT];
    if (capacity > EVENTS_PER_WAIT) capacity = EVENTS_PER_WAIT;
    int count = wait_for(epoll_fd, kernel_events, capacity, timeout_nanoseconds);
    if (count < 0) return -errno;
    for (int index = 0; index < count; index++) {
        events[index].data = kernel_events[index].data.u64;
        events[index].events = kernel_events[index].events;
        events[index].padding = 0;
    }
    return count;
}

int parallax_timer_create(uint64_t nanoseconds) {
    int timer = result_of(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
    if (timer < 0) return timer;
    struct itimerspec when = {
        .it_value = { .tv_sec = (time_t)(nanoseconds / 1000000000u),
                      .tv_nsec = (long)(nanoseconds % 1000000000u) } };
    if (timerfd_settime(timer, 0, &when, NULL) < 0) {
        int error = -errno;
        close(timer);
        return error;
    }
    return timer;
}
