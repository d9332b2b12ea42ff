// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

#define _GNU_SOURCE
#include "CLiburing.h"

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>

struct parallax_ring {
    struct io_uring ring;
    int file;            // a file descriptor, or 0: the index of the registered file
    unsigned file_flags; // IOSQE_FIXED_FILE, or 0
};

// From the cheapest mode down; kernels refuse flags they do not know with EINVAL.
static const unsigned modes[] = {
    IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN, // 6.1
    IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN,                               // 5.19
    0,
};

static int initialise(
    struct parallax_ring *ring, unsigned submission_capacity, unsigned completion_capacity) {
    int result = -EINVAL;
    for (unsigned index = 0; index < sizeof modes / sizeof modes[0]; index++) {
        struct io_uring_params parameters = { 0 };
        parameters.flags = modes[index] | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
        parameters.cq_entries = completion_capacity;
        result = io_uring_queue_init_params(submission_capacity, &ring->ring, &parameters);
        if (result != -EINVAL) break;
    }
    if (result < 0) return result;
    if (ring->ring.features & IORING_FEAT_EXT_ARG) return 0;
    io_uring_queue_exit(&ring->ring);
    return -EOPNOTSUPP;
}

int parallax_ring_create(
    struct parallax_ring **result_ring, unsigned submission_capacity,
    unsigned completion_capacity, int file) {
    struct parallax_ring *ring = calloc(1, sizeof *ring);
    if (ring == NULL) return -ENOMEM;
    int result = initialise(ring, submission_capacity, completion_capacity);
    if (result < 0) {
        free(ring);
        return result;
    }
    // Both only save the kernel a lookup per call; without them the ring works as well.
    io_uring_register_ring_fd(&ring->ring);
    ring->file = file;
    if (io_uring_register_files(&ring->ring, &file, 1) == 0) {
        ring->file = 0;
        ring->file_flags = IOSQE_FIXED_FILE;
    }
    *result_ring = ring;
    return 0;
}

void parallax_ring_destroy(struct parallax_ring *ring) {
    // The kernel takes a ring apart in the background; by itself the registered file, and with it
    // the store's lock, would be let go of only some milliseconds after this call.
    if (ring->file_flags != 0) io_uring_unregister_files(&ring->ring);
    io_uring_queue_exit(&ring->ring);
    free(ring);
}

int parallax_ring_register_buffers(
    struct parallax_ring *ring, const void *iovecs, unsigned iovec_count) {
    return io_uring_register_buffers(&ring->ring, iovecs, iovec_count);
}

static int push_on_file(
    struct parallax_ring *ring, struct io_uring_sqe *entry, uint64_t user_data) {
    io_uring_sqe_set_flags(entry, ring->file_flags);
    io_uring_sqe_set_data64(entry, user_data);
    return 0;
}

int parallax_ring_push_transfer(
    struct parallax_ring *ring, int is_write, void *base, uint32_t count, uint64_t offset,
    int registered_buffer, uint64_t user_data) {
    struct io_uring_sqe *entry = io_uring_get_sqe(&ring->ring);
    if (entry == NULL) return -EBUSY;
    if (registered_buffer < 0) {
        if (is_write) io_uring_prep_write(entry, ring->file, base, count, offset);
        else io_uring_prep_read(entry, ring->file, base, count, offset);
    } else {
        if (is_write)
            io_uring_prep_write_fixed(entry, ring->file, base, count, offset, registered_buffer);
        else io_uring_prep_read_fixed(entry, ring->file, base, count, offset, registered_buffer);
    }
    return push_on_file(ring, entry, user_data);
}

int parallax_ring_push_vector(
    struct parallax_ring *ring, int is_write, const void *iovecs, uint32_t iovec_count,
    uint64_t offset, uint64_t user_data) {
    struct io_uring_sqe *entry = io_uring_get_sqe(&ring->ring);
    if (entry == NULL) return -EBUSY;
    if (is_write) io_uring_prep_writev(entry, ring->file, iovecs, iovec_count, offset);
    else io_uring_prep_readv(entry, ring->file, iovecs, iovec_count, offset);
    return push_on_file(ring, entry, user_data);
}

int parallax_ring_push_sync(struct parallax_ring *ring, uint64_t user_data) {
    struct io_uring_sqe *entry = io_uring_get_sqe(&ring->ring);
    if (entry == NULL) return -EBUSY;
    io_uring_prep_fsync(entry, ring->file, IORING_FSYNC_DATASYNC);
    return push_on_file(ring, entry, user_data);
}

int parallax_ring_push_poll(
    struct parallax_ring *ring, int fd, uint32_t events, uint64_t user_data) {
    struct io_uring_sqe *entry = io_uring_get_sqe(&ring->ring);
    if (entry == NULL) return -EBUSY;
    io_uring_prep_poll_add(entry, fd, events);
    io_uring_sqe_set_data64(entry, user_data);
    return 0;
}

int parallax_ring_push_poll_cancel(
    struct parallax_ring *ring, uint64_t target_user_data, uint64_t user_data) {
    struct io_uring_sqe *entry = io_uring_get_sqe(&ring->ring);
    if (entry == NULL) return -EBUSY;
    io_uring_prep_poll_remove(entry, target_user_data);
    io_uring_sqe_set_data64(entry, user_data);
    return 0;
}

int parallax_ring_flush(struct parallax_ring *ring) {
    int result = io_uring_submit(&ring->ring);
    return result < 0 ? result : 0;
}

int parallax_ring_submit(struct parallax_ring *ring) {
    int result = io_uring_submit_and_get_events(&ring->ring);
    return result < 0 ? result : 0;
}

int parallax_ring_submit_and_wait(struct parallax_ring *ring, int64_t timeout_nanoseconds) {
    if (timeout_nanoseconds == 0) return parallax_ring_submit(ring);
    struct io_uring_cqe *ignored;
    struct __kernel_timespec timeout = {
        .tv_sec = timeout_nanoseconds / 1000000000,
        .tv_nsec = timeout_nanoseconds % 1000000000,
    };
    int result = timeout_nanoseconds < 0
        ? io_uring_submit_and_wait(&ring->ring, 1)
        : io_uring_submit_and_wait_timeout(&ring->ring, &ignored, 1, &timeout, NULL);
    return result < 0 ? result : 0;
}

unsigned parallax_ring_ready(struct parallax_ring *ring) { return io_uring_cq_ready(&ring->ring); }

int parallax_ring_pop(struct parallax_ring *ring, uint64_t *user_data, int32_t *result) {
    struct io_uring_cqe *entry;
    unsigned head;
    io_uring_for_each_cqe(&ring->ring, head, entry) {
        *user_data = entry->user_data;
        *result = entry->res;
        io_uring_cq_advance(&ring->ring, 1);
        return 1;
    }
    return 0;
}
