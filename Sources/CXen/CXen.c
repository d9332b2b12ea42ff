// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

#define _GNU_SOURCE
#include "CXen.h"

#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef const struct parallax_xen_functions table;

static int failure(void) { return errno > 0 ? -errno : -EIO; }

// --- loading -------------------------------------------------------------------------------------

struct symbol {
    size_t offset;
    const char *name;
};

#define SYMBOL(field, name) { offsetof(struct parallax_xen_functions, field), name }

static const struct symbol grant_symbols[] = {
    SYMBOL(grants_open, "xengnttab_open"),
    SYMBOL(grants_close, "xengnttab_close"),
    SYMBOL(grants_map, "xengnttab_map_domain_grant_refs"),
    SYMBOL(grants_unmap, "xengnttab_unmap"),
    { 0, NULL },
};

static const struct symbol event_symbols[] = {
    SYMBOL(events_open, "xenevtchn_open"),
    SYMBOL(events_close, "xenevtchn_close"),
    SYMBOL(events_fd, "xenevtchn_fd"),
    SYMBOL(events_bind, "xenevtchn_bind_interdomain"),
    SYMBOL(events_notify, "xenevtchn_notify"),
    SYMBOL(events_pending, "xenevtchn_pending"),
    SYMBOL(events_unmask, "xenevtchn_unmask"),
    { 0, NULL },
};

static const struct symbol store_symbols[] = {
    SYMBOL(store_open, "xs_open"),
    SYMBOL(store_close, "xs_close"),
    SYMBOL(store_read, "xs_read"),
    SYMBOL(store_write, "xs_write"),
    SYMBOL(store_remove, "xs_rm"),
    SYMBOL(store_list, "xs_directory"),
    SYMBOL(store_permit, "xs_set_permissions"),
    SYMBOL(store_watch, "xs_watch"),
    SYMBOL(store_fd, "xs_fileno"),
    SYMBOL(store_check_watch, "xs_check_watch"),
    SYMBOL(store_begin, "xs_transaction_start"),
    SYMBOL(store_end, "xs_transaction_end"),
    { 0, NULL },
};

static int load(
    struct parallax_xen_functions *functions, const char *name, const char *older,
    const struct symbol *symbols, const char **missing) {
    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL && older != NULL) library = dlopen(older, RTLD_NOW | RTLD_LOCAL);
    *missing = name;
    if (library == NULL) return -ENOENT;
    for (; symbols->name != NULL; symbols++) {
        void *address = dlsym(library, symbols->name);
        *missing = symbols->name;
        if (address == NULL) return -ENOENT;
        memcpy((char *)functions + symbols->offset, &address, sizeof address);
    }
    *missing = NULL;
    return 0;
}

// The libraries would write to standard error whenever a guest names a bad grant. This is the
// layout of struct xentoollog_logger.
struct logger {
    void (*message)(
        struct logger *, unsigned level, int error, const char *context, const char *format,
        va_list arguments);
    void (*progress)(
        struct logger *, const char *context, const char *what, int percent, unsigned long done,
        unsigned long total);
    void (*destroy)(struct logger *);
};

static void no_message(
    struct logger *logger, unsigned level, int error, const char *context, const char *format,
    va_list arguments) {
    (void)logger, (void)level, (void)error, (void)context, (void)format, (void)arguments;
}

static void no_progress(
    struct logger *logger, const char *context, const char *what, int percent,
    unsigned long done, unsigned long total) {
    (void)logger, (void)context, (void)what, (void)percent, (void)done, (void)total;
}

static void no_destroy(struct logger *logger) { (void)logger; }

static struct logger silent = { no_message, no_progress, no_destroy };

int parallax_xen_load(struct parallax_xen_functions *functions, const char **missing) {
    memset(functions, 0, sizeof *functions);
    functions->logger = &silent;
    int result = load(functions, "libxengnttab.so.1", NULL, grant_symbols, missing);
    if (result == 0)
        result = load(functions, "libxenevtchn.so.1", NULL, event_symbols, missing);
    if (result == 0)
        result = load(
            functions, "libxenstore.so.4", "libxenstore.so.3.0", store_symbols, missing);
    return result;
}

// --- grants --------------------------------------------------------------------------------------

void *parallax_grants_open(table *functions) { return functions->grants_open(functions->logger, 0); }

void parallax_grants_close(table *functions, void *grants) { functions->grants_close(grants); }

void *parallax_grants_map(
    table *functions, void *grants, uint32_t domain, const uint32_t *references, uint32_t count,
    bool is_writable) {
    int protection = is_writable ? PROT_READ | PROT_WRITE : PROT_READ;
    return functions->grants_map(grants, count, domain, (uint32_t *)references, protection);
}

void parallax_grants_unmap(table *functions, void *grants, void *start, uint32_t page_count) {
    functions->grants_unmap(grants, start, page_count);
}

// --- event channels ------------------------------------------------------------------------------

void *parallax_channel_open(table *functions) { return functions->events_open(functions->logger, 0); }

void parallax_channel_close(table *functions, void *channel) { functions->events_close(channel); }

int parallax_channel_fd(table *functions, void *channel) { return functions->events_fd(channel); }

int parallax_channel_bind(
    table *functions, void *channel, uint32_t domain, uint32_t remote_port) {
    errno = 0;
    int port = functions->events_bind(channel, domain, remote_port);
    return port < 0 ? failure() : port;
}

void parallax_channel_notify(table *functions, void *channel, uint32_t port) {
    functions->events_notify(channel, port);
}

void parallax_channel_drain(table *functions, void *channel) {
    // A read may wait even on a nonblocking descriptor (xenevtchn.h), so it is asked first.
    struct pollfd wait = { .fd = functions->events_fd(channel), .events = POLLIN };
    if (poll(&wait, 1, 0) <= 0) return;
    int port = functions->events_pending(channel);
    if (port >= 0) functions->events_unmask(channel, (uint32_t)port);
}

// --- xenstore ------------------------------------------------------------------------------------

void *parallax_store_open(table *functions) { return functions->store_open(functions->store_flags); }

void parallax_store_close(table *functions, void *store) { functions->store_close(store); }

int parallax_store_fd(table *functions, void *store) { return functions->store_fd(store); }

int parallax_store_read(
    table *functions, void *store, uint32_t transaction, const char *path, char *bytes,
    size_t capacity) {
    unsigned count = 0;
    errno = 0;
    void *value = functions->store_read(store, transaction, path, &count);
    if (value == NULL) return failure();
    memcpy(bytes, value, count < capacity ? count : capacity);
    free(value);
    return (int)count;
}

int parallax_store_write(
    table *functions, void *store, uint32_t transaction, const char *path, const char *value) {
    errno = 0;
    bool is_done =
        functions->store_write(store, transaction, path, value, (unsigned)strlen(value));
    return is_done ? 0 : failure();
}

int parallax_store_remove(
    table *functions, void *store, uint32_t transaction, const char *path) {
    errno = 0;
    return functions->store_remove(store, transaction, path) ? 0 : failure();
}

char **parallax_store_list(table *functions, void *store, const char *path, unsigned *count) {
    *count = 0;
    errno = 0;
    return functions->store_list(store, 0, path, count);
}

int parallax_store_permit(
    table *functions, void *store, uint32_t transaction, const char *path, unsigned owner,
    unsigned reader) {
    struct parallax_xen_permission permissions[2] = { { owner, 0 }, { reader, 1 } };
    errno = 0;
    bool is_done = functions->store_permit(store, transaction, path, permissions, 2);
    return is_done ? 0 : failure();
}

int parallax_store_watch(table *functions, void *store, const char *path, const char *token) {
    errno = 0;
    return functions->store_watch(store, path, token) ? 0 : failure();
}

int parallax_store_next_watch(table *functions, void *store, char *path, size_t capacity) {
    errno = 0;
    char **event = functions->store_check_watch(store);
    if (event == NULL) return errno == EAGAIN ? 0 : failure();
    // The first string is the path, the second our own token.
    snprintf(path, capacity, "%s", event[0]);
    free(event);
    return 1;
}

uint32_t parallax_store_begin(table *functions, void *store) {
    return functions->store_begin(store);
}

int parallax_store_end(table *functions, void *store, uint32_t transaction, bool is_aborted) {
    errno = 0;
    return functions->store_end(store, transaction, is_aborted) ? 0 : failure();
}
