// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

// The dozen io_uring operations that the reactor uses. liburing's own types stay out of this
// header: other Swift modules import the kernel's io_uring structures under the same names.
//
// A ring belongs to the thread that created it. Functions return -errno on failure.

#ifndef PARALLAX_CLIBURING_H
#define PARALLAX_CLIBURING_H

#include <stdint.h>

struct parallax_ring;

// With the cheapest task-work mode that the kernel has. `file` is the one file of all transfers.
// -EOPNOTSUPP: a kernel before 5.11, without wait timeouts.
int parallax_ring_create(
    struct parallax_ring **ring, unsigned submission_capacity, unsigned completion_capacity,
    int file);
void parallax_ring_destroy(struct parallax_ring *ring);
// iovecs: an array of struct iovec. Once per ring.
int parallax_ring_register_buffers(
    struct parallax_ring *ring, const void *iovecs, unsigned iovec_count);

// Each puts one operation into the submission queue: 0, or -EBUSY when the queue is full.
// registered_buffer: -1 for none.
int parallax_ring_push_transfer(
    struct parallax_ring *ring, int is_write, void *base, uint32_t count, uint64_t offset,
    int registered_buffer, uint64_t user_data);
int parallax_ring_push_vector(
    struct parallax_ring *ring, int is_write, const void *iovecs, uint32_t iovec_count,
    uint64_t offset, uint64_t user_data);
int parallax_ring_push_sync(struct parallax_ring *ring, uint64_t user_data);
int parallax_ring_push_poll(
    struct parallax_ring *ring, int fd, uint32_t events, uint64_t user_data);
int parallax_ring_push_poll_cancel(
    struct parallax_ring *ring, uint64_t target_user_data, uint64_t user_data);

// Submits everything.
int parallax_ring_flush(struct parallax_ring *ring);
// Submits everything and collects what is complete, without waiting.
int parallax_ring_submit(struct parallax_ring *ring);
// Submits everything and waits for one completion. timeout -1: forever; 0: not at all.
int parallax_ring_submit_and_wait(struct parallax_ring *ring, int64_t timeout_nanoseconds);

// Completions that parallax_ring_pop can take now.
unsigned parallax_ring_ready(struct parallax_ring *ring);
// 1 and one completion, or 0.
int parallax_ring_pop(struct parallax_ring *ring, uint64_t *user_data, int32_t *result);

#endif
