// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

#define _GNU_SOURCE
#include "parallax_peerfiles.h"

#include "parallax_sockets.h"
#include "parallax_threads.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>

static const char event_name[] = "anon_inode:[eventfd]";

// The kernel's own name for it, which no path can be: paths begin with a slash.
static int is_event(int fd) {
    char link[32], name[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t count = readlink(link, name, sizeof name);
    return count == sizeof event_name - 1 && memcmp(name, event_name, (size_t)count) == 0;
}

static int option_of(int fd, int name) {
    int value = -1;
    socklen_t length = sizeof value;
    return getsockopt(fd, SOL_SOCKET, name, &value, &length) < 0 ? -1 : value;
}

// One that listens, or is not connected yet, cannot be kept empty.
static int is_connected(int fd) {
    struct sockaddr_un address;
    socklen_t length = sizeof address;
    return option_of(fd, SO_DOMAIN) == AF_UNIX && option_of(fd, SO_TYPE) == SOCK_STREAM
        && getpeername(fd, (struct sockaddr *)&address, &length) == 0;
}

int parallax_peer_file_kind(int fd) {
    // Only files that live in memory can be sealed, and so say how they are.
    if (fcntl(fd, F_GET_SEALS) >= 0) return PARALLAX_PEER_FILE_MEMORY;
    if (is_event(fd)) return PARALLAX_PEER_FILE_EVENT;
    return is_connected(fd) ? PARALLAX_PEER_FILE_SOCKET : PARALLAX_PEER_FILE_STRANGE;
}

long parallax_peer_file_map_unit(int fd) {
    struct statfs place;
    return fstatfs(fd, &place) < 0 ? -errno : (long)place.f_bsize;
}

// LIMIT: files that wait to be closed. More of them stay open: better that than to wait.
#define WAITING_MAX 4096

static int waiting[WAITING_MAX];
static int first, count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t is_filled = PTHREAD_COND_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void close_all(void) {
    for (;;) {
        pthread_mutex_lock(&lock);
        while (count == 0) pthread_cond_wait(&is_filled, &lock);
        int fd = waiting[first];
        first = (first + 1) % WAITING_MAX;
        count--;
        pthread_mutex_unlock(&lock);
        close(fd);
    }
}

// Without the thread the files stay open.
static void start(void) { parallax_thread_start_helper("closer", close_all); }

static void close_elsewhere(int fd) {
    pthread_once(&once, start);
    pthread_mutex_lock(&lock);
    if (count < WAITING_MAX) {
        waiting[(first + count) % WAITING_MAX] = fd;
        count++;
        pthread_cond_signal(&is_filled);
    }
    pthread_mutex_unlock(&lock);
}

// LIMIT: sockets in the queues of sockets, each of which is a call in a call here.
#define DEPTH_MAX 4

int parallax_peer_file_close(int fd) {
    static __thread int depth;
    int kind = parallax_peer_file_kind(fd), strange_count = 0;
    if (kind == PARALLAX_PEER_FILE_STRANGE || depth == DEPTH_MAX) {
        close_elsewhere(fd);
        return 1;
    }
    depth++;
    if (kind == PARALLAX_PEER_FILE_SOCKET) strange_count = parallax_socket_close(fd);
    else close(fd);
    depth--;
    return strange_count;
}
