// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

// Linux native asynchronous I/O: a table of control blocks, one per command slot.
// Owned by one thread. Functions return -errno on failure.

#ifndef PARALLAX_CLIBAIO_H
#define PARALLAX_CLIBAIO_H

#include <stdint.h>

struct parallax_aio;

// Completions on `file` are announced on `eventfd`.
int parallax_aio_create(struct parallax_aio **aio, uint32_t capacity, int file, int eventfd);
// Waits for all operations in flight.
void parallax_aio_destroy(struct parallax_aio *aio);

void parallax_aio_set_transfer(
    struct parallax_aio *aio, uint32_t slot, int is_write, void *base, uint64_t count,
    uint64_t offset);
void parallax_aio_set_vector(
    struct parallax_aio *aio, uint32_t slot, int is_write, const void *iovecs,
    uint32_t iovec_count, uint64_t offset);
void parallax_aio_set_sync(struct parallax_aio *aio, uint32_t slot);

// One io_submit. Returns how many of the slots the kernel took, from the first; the error is
// the first one's.
int parallax_aio_submit(struct parallax_aio *aio, const uint32_t *slots, uint32_t count);
// Takes what is complete, without waiting. Returns the number for parallax_aio_completion.
int parallax_aio_collect(struct parallax_aio *aio);
void parallax_aio_completion(
    const struct parallax_aio *aio, uint32_t index, uint32_t *slot, int64_t *result);

#endif
