// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

#define _GNU_SOURCE
#include "parallax_peerfiles.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char event_name[] = "anon_inode:[eventfd]";

// The kernel's own name for it, which no path can be: paths begin with a slash.
static int is_event(int fd) {
    char link[32], name[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t count = readlink(link, name, sizeof name);
    return count == sizeof event_name - 1 && memcmp(name, event_name, (size_t)count) == 0;
}

static int is_unix_socket(int fd) {
    int domain = 0;
    socklen_t length = sizeof domain;
    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0 && domain == AF_UNIX;
}

int parallax_peer_file_kind(int fd) {
    // Only files that live in memory can be sealed, and so say how they are.
    if (fcntl(fd, F_GET_SEALS) >= 0) return PARALLAX_PEER_FILE_MEMORY;
    if (is_event(fd)) return PARALLAX_PEER_FILE_EVENT;
    return is_unix_socket(fd) ? PARALLAX_PEER_FILE_SOCKET : PARALLAX_PEER_FILE_STRANGE;
}

static int queue[2] = { -1, -1 };
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void *close_all(void *ignored) {
    pthread_setname_np(pthread_self(), "closer");
    for (;;) {
        int fd;
        if (read(queue[0], &fd, sizeof fd) == sizeof fd) close(fd);
    }
    return ignored;
}

static void start(void) {
    sigset_t all, before;
    pthread_t thread;
    if (pipe2(queue, O_CLOEXEC) < 0) return;
    fcntl(queue[1], F_SETFL, O_NONBLOCK);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int result = pthread_create(&thread, NULL, close_all, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (result == 0) {
        pthread_detach(thread);
        return;
    }
    close(queue[0]);
    close(queue[1]);
    queue[1] = -1;
}

int parallax_peer_file_close(int fd) {
    int kind = parallax_peer_file_kind(fd);
    if (kind != PARALLAX_PEER_FILE_STRANGE) {
        close(fd);
        return kind;
    }
    pthread_once(&once, start);
    // No thread, or thousands that wait in it: better to keep this one open than to wait.
    if (queue[1] >= 0) {
        ssize_t ignored = write(queue[1], &fd, sizeof fd);
        (void)ignored;
    }
    return kind;
}
