// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

#define _GNU_SOURCE
#include "CLibaio.h"

#include <errno.h>
#include <libaio.h>
#include <stdlib.h>
#include <string.h>

struct parallax_aio {
    io_context_t context;
    uint32_t capacity;
    int file;
    int eventfd;
    struct iocb *blocks;       // one per slot
    struct iocb **submissions; // scratch for io_submit
    struct io_event *events;   // room for every slot: one collect takes all
};

static void release(struct parallax_aio *aio) {
    free(aio->blocks);
    free(aio->submissions);
    free(aio->events);
    free(aio);
}

int parallax_aio_create(
    struct parallax_aio **result_aio, uint32_t capacity, int file, int eventfd) {
    struct parallax_aio *aio = calloc(1, sizeof *aio);
    if (aio == NULL) return -ENOMEM;
    aio->capacity = capacity;
    aio->file = file;
    aio->eventfd = eventfd;
    aio->blocks = calloc(capacity, sizeof *aio->blocks);
    aio->submissions = calloc(capacity, sizeof *aio->submissions);
    aio->events = calloc(capacity, sizeof *aio->events);
    int result = -ENOMEM;
    if (aio->blocks != NULL && aio->submissions != NULL && aio->events != NULL)
        result = io_setup((int)capacity, &aio->context);
    if (result < 0) {
        release(aio);
        return result;
    }
    *result_aio = aio;
    return 0;
}

void parallax_aio_destroy(struct parallax_aio *aio) {
    io_destroy(aio->context);
    release(aio);
}

static void finish_block(struct parallax_aio *aio, struct iocb *block, uint32_t slot) {
    block->data = (void *)(uintptr_t)slot;
    io_set_eventfd(block, aio->eventfd);
}

void parallax_aio_set_transfer(
    struct parallax_aio *aio, uint32_t slot, int is_write, void *base, uint64_t count,
    uint64_t offset) {
    struct iocb *block = &aio->blocks[slot];
    if (is_write) io_prep_pwrite(block, aio->file, base, count, (long long)offset);
    else io_prep_pread(block, aio->file, base, count, (long long)offset);
    finish_block(aio, block, slot);
}

void parallax_aio_set_vector(
    struct parallax_aio *aio, uint32_t slot, int is_write, const void *iovecs,
    uint32_t iovec_count, uint64_t offset) {
    struct iocb *block = &aio->blocks[slot];
    if (is_write) io_prep_pwritev(block, aio->file, iovecs, (int)iovec_count, (long long)offset);
    else io_prep_preadv(block, aio->file, iovecs, (int)iovec_count, (long long)offset);
    finish_block(aio, block, slot);
}

void parallax_aio_set_sync(struct parallax_aio *aio, uint32_t slot) {
    struct iocb *block = &aio->blocks[slot];
    io_prep_fdsync(block, aio->file);
    finish_block(aio, block, slot);
}

int parallax_aio_submit(struct parallax_aio *aio, const uint32_t *slots, uint32_t count) {
    for (uint32_t index = 0; index < count; index++)
        aio->submissions[index] = &aio->blocks[slots[index]];
    return io_submit(aio->context, count, aio->submissions);
}

int parallax_aio_collect(struct parallax_aio *aio) {
    struct timespec none = { 0 };
    int result;
    do result = io_getevents(aio->context, 0, aio->capacity, aio->events, &none);
    while (result == -EINTR);
    return result;
}

void parallax_aio_completion(
    const struct parallax_aio *aio, uint32_t index, uint32_t *slot, int64_t *result) {
    *slot = (uint32_t)(uintptr_t)aio->events[index].data;
    *result = (int64_t)aio->events[index].res;
}
