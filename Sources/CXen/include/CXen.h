// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

// Xen's user-space libraries, found when the program runs: neither the build nor a run without Xen
// needs them. The table below is all that is used of them, under names of our own; a test fills it
// with functions of its own instead. Every wrapper that can fail returns -errno, never -1.

#ifndef PARALLAX_CXEN_H
#define PARALLAX_CXEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// The layout of struct xs_permissions; access is 0 none, 1 read, 2 write, 3 both.
struct parallax_xen_permission {
    unsigned domain;
    unsigned access;
};

// Signatures as in xengnttab.h, xenevtchn.h and xenstore.h, with opaque handles.
struct parallax_xen_functions {
    // What the open functions are given: a logger, and the flags of xs_open. Another Xen finds
    // itself by them.
    void *logger;
    unsigned long store_flags;

    void *(*grants_open)(void *logger, unsigned flags);
    int (*grants_close)(void *grants);
    void *(*grants_map)(
        void *grants, uint32_t count, uint32_t domain, uint32_t *references, int protection);
    int (*grants_unmap)(void *grants, void *start, uint32_t page_count);

    void *(*events_open)(void *logger, unsigned flags);
    int (*events_close)(void *events);
    int (*events_fd)(void *events);
    int (*events_bind)(void *events, uint32_t domain, uint32_t remote_port);
    int (*events_notify)(void *events, uint32_t port);
    int (*events_pending)(void *events);
    int (*events_unmask)(void *events, uint32_t port);

    void *(*store_open)(unsigned long flags);
    void (*store_close)(void *store);
    void *(*store_read)(
        void *store, uint32_t transaction, const char *path, unsigned *byte_count);
    bool (*store_write)(
        void *store, uint32_t transaction, const char *path, const void *bytes,
        unsigned byte_count);
    bool (*store_remove)(void *store, uint32_t transaction, const char *path);
    char **(*store_list)(void *store, uint32_t transaction, const char *path, unsigned *count);
    bool (*store_permit)(
        void *store, uint32_t transaction, const char *path,
        struct parallax_xen_permission *permissions, unsigned count);
    bool (*store_watch)(void *store, const char *path, const char *token);
    int (*store_fd)(void *store);
    char **(*store_check_watch)(void *store);
    uint32_t (*store_begin)(void *store);
    bool (*store_end)(void *store, uint32_t transaction, bool abort);
};

// Fills the table, once for the process. 0, or -ENOENT; then *missing names the library or the
// function that is not there.
int parallax_xen_load(struct parallax_xen_functions *functions, const char **missing);

// --- grants: NULL on failure ---------------------------------------------------------------------

void *parallax_grants_open(const struct parallax_xen_functions *functions);
void parallax_grants_close(const struct parallax_xen_functions *functions, void *grants);
// The pages are mapped one after the other.
void *parallax_grants_map(
    const struct parallax_xen_functions *functions, void *grants, uint32_t domain,
    const uint32_t *references, uint32_t count, bool is_writable);
void parallax_grants_unmap(
    const struct parallax_xen_functions *functions, void *grants, void *start,
    uint32_t page_count);

// --- event channels ------------------------------------------------------------------------------

void *parallax_channel_open(const struct parallax_xen_functions *functions);
void parallax_channel_close(const struct parallax_xen_functions *functions, void *channel);
int parallax_channel_fd(const struct parallax_xen_functions *functions, void *channel);
// Returns the local port.
int parallax_channel_bind(
    const struct parallax_xen_functions *functions, void *channel, uint32_t domain,
    uint32_t remote_port);
void parallax_channel_notify(
    const struct parallax_xen_functions *functions, void *channel, uint32_t port);
// Takes the event, if there is one, and lets the next one come. Never waits.
void parallax_channel_drain(const struct parallax_xen_functions *functions, void *channel);

// --- xenstore ------------------------------------------------------------------------------------

void *parallax_store_open(const struct parallax_xen_functions *functions);
void parallax_store_close(const struct parallax_xen_functions *functions, void *store);
int parallax_store_fd(const struct parallax_xen_functions *functions, void *store);
// Copies at most `capacity` bytes. Returns the length of the value, which may be more; -ENOENT.
int parallax_store_read(
    const struct parallax_xen_functions *functions, void *store, uint32_t transaction,
    const char *path, char *bytes, size_t capacity);
int parallax_store_write(
    const struct parallax_xen_functions *functions, void *store, uint32_t transaction,
    const char *path, const char *value);
int parallax_store_remove(
    const struct parallax_xen_functions *functions, void *store, uint32_t transaction,
    const char *path);
// The names below `path`; free() the result. NULL: there is none, or errno says
// why not.
char **parallax_store_list(
    const struct parallax_xen_functions *functions, void *store, const char *path,
    unsigned *count);
// The owner has all rights; `reader` may read.
int parallax_store_permit(
    const struct parallax_xen_functions *functions, void *store, uint32_t transaction,
    const char *path, unsigned owner, unsigned reader);
int parallax_store_watch(
    const struct parallax_xen_functions *functions, void *store, const char *path,
    const char *token);
// Takes one watch event. 1: there was one, and what has changed is in `path`, cut to its capacity.
// 0: there is none now. -errno: the connection is lost.
int parallax_store_next_watch(
    const struct parallax_xen_functions *functions, void *store, char *path, size_t capacity);
// 0 is no transaction.
uint32_t parallax_store_begin(const struct parallax_xen_functions *functions, void *store);
// -EAGAIN: somebody else changed what was read or written; begin again.
int parallax_store_end(
    const struct parallax_xen_functions *functions, void *store, uint32_t transaction,
    bool is_aborted);

#endif
