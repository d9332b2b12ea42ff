// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

// The negative control of the Xen lab: a libxengnttab.so.1 that passes everything on to the real
// one, and changes one byte of one page that the back end has filled for the guest. A run with it
// must fail.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>

enum { EVERY = 100 };

static void *real(const char *name) {
    static void *library;
    if (library == NULL) library = dlopen("/usr/lib/x86_64-linux-gnu/libxengnttab.so.1", RTLD_NOW);
    return dlsym(library, name);
}

static void *recent;

void *xengnttab_open(void *logger, unsigned flags) {
    return ((void *(*)(void *, unsigned))real("xengnttab_open"))(logger, flags);
}

int xengnttab_close(void *grants) { return ((int (*)(void *))real("xengnttab_close"))(grants); }

void *xengnttab_map_domain_grant_refs(
    void *grants, uint32_t count, uint32_t domain, uint32_t *references, int protection) {
    void *(*map)(void *, uint32_t, uint32_t, uint32_t *, int) =
        real("xengnttab_map_domain_grant_refs");
    void *start = map(grants, count, domain, references, protection);
    if (protection & PROT_WRITE) recent = start;
    return start;
}

int xengnttab_unmap(void *grants, void *start, uint32_t count) {
    static int reads;
    if (start == recent && ++reads == EVERY) ((char *)start)[100] ^= 1;
    return ((int (*)(void *, void *, uint32_t))real("xengnttab_unmap"))(grants, start, count);
}
