// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

// eventfd, timerfd and epoll.

#ifndef PARALLAX_EVENTS_H
#define PARALLAX_EVENTS_H

#include <stdint.h>

// Always close-on-exec. Returns the file descriptor.
int parallax_eventfd_create(uint32_t initial_value, int is_nonblocking);
// Takes the count (and makes it 0). A nonblocking eventfd with count 0 gives -EAGAIN.
int parallax_eventfd_read(int fd, uint64_t *value);
int parallax_eventfd_write(int fd, uint64_t value);
// As read, but never waits, whatever the file's flags: a peer that shares the eventfd can change
// them. -EAGAIN: the count is 0.
int parallax_eventfd_take(int fd, uint64_t *value);

// A descriptor that becomes readable once, after this time (CLOCK_MONOTONIC).
int parallax_timer_create(uint64_t nanoseconds);

static const uint32_t PARALLAX_EPOLLIN = 0x001;
static const uint32_t PARALLAX_EPOLLOUT = 0x004;
static const uint32_t PARALLAX_EPOLLERR = 0x008;
static const uint32_t PARALLAX_EPOLLHUP = 0x010;
static const uint32_t PARALLAX_EPOLLRDHUP = 0x2000;
static const uint32_t PARALLAX_EPOLLET = 1u << 31;

// The kernel's struct is packed on x86-64 only; this one has one layout everywhere.
struct parallax_epoll_event {
    uint64_t data;
    uint32_t events;
    uint32_t padding;
};

int parallax_epoll_create(void);
int parallax_epoll_add(int epoll_fd, int fd, uint32_t events, uint64_t data);
int parallax_epoll_modify(int epoll_fd, int fd, uint32_t events, uint64_t data);
int parallax_epoll_remove(int epoll_fd, int fd);
// Returns the number of events (at most 64 per call), 0 at the timeout. timeout -1: forever.
int parallax_epoll_wait(
    int epoll_fd, struct parallax_epoll_event *events, int capacity, int64_t timeout_nanoseconds);

#endif
