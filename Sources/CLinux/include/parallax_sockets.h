// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

// Unix stream sockets, with file descriptors as passengers. All sockets are close-on-exec, and
// no send raises SIGPIPE.

#ifndef PARALLAX_SOCKETS_H
#define PARALLAX_SOCKETS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

// The most file descriptors that one message can carry here (the kernel's own limit is 253).
static const size_t PARALLAX_FDS_PER_MESSAGE = 32;
// The longest path of a Unix socket, without the final zero.
static const size_t PARALLAX_UNIX_PATH_MAX = 107;

int parallax_socket_pair(int fds[2], int is_nonblocking);
// Bound, mode 0600, listening. -ENAMETOOLONG when the path does not fit, -EADDRINUSE when it
// exists.
int parallax_unix_listen(const char *path, int backlog, int is_nonblocking);
// -ECONNREFUSED: the path is a socket that nobody listens on (stale). -EAGAIN, only when
// nonblocking: it has a listener whose backlog is full; a blocking connect would wait for it.
int parallax_unix_connect(const char *path, int is_nonblocking);
int parallax_accept(int listener, int is_nonblocking);
int parallax_set_nonblocking(int fd, int is_nonblocking);
// SO_PEERCRED: who connected. pid is 0 when unknown.
int parallax_peer_credentials(int fd, int *pid, unsigned *uid, unsigned *gid);

// recv without file descriptors: any that come are closed by the kernel.
ssize_t parallax_receive(int fd, void *bytes, size_t capacity);
ssize_t parallax_send(int fd, const void *bytes, size_t count);
// iovecs: an array of struct iovec (the layout of DataSegment).
ssize_t parallax_send_vector(int fd, const void *iovecs, size_t iovec_count);
ssize_t parallax_receive_vector(int fd, const void *iovecs, size_t iovec_count);

// sendmsg with SCM_RIGHTS; fd_count may be 0. Returns the number of bytes taken; the file
// descriptors go with the first byte.
ssize_t parallax_send_with_fds(
    int fd, const void *bytes, size_t count, const int *fds, size_t fd_count);

// recvmsg with SCM_RIGHTS, MSG_CMSG_CLOEXEC. fd_capacity: at most PARALLAX_FDS_PER_MESSAGE.
// *fd_count is always set and the caller owns those file descriptors, whatever the return value.
// *is_truncated: the peer sent more file descriptors than fit, and the kernel closed the rest.
ssize_t parallax_receive_with_fds(
    int fd, void *bytes, size_t capacity, int *fds, size_t fd_capacity, size_t *fd_count,
    int *is_truncated);

#endif
