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

// 1: the peer has hung up, or sends nothing more; what it had sent may still be there.
int parallax_peer_has_left(int fd);

// recv without file descriptors: any that come are closed, and the result is -EPROTO.
ssize_t parallax_receive(int fd, void *bytes, size_t capacity);
ssize_t parallax_send(int fd, const void *bytes, size_t count);
// iovecs: an array of struct iovec (the layout of DataSegment).
ssize_t parallax_send_vector(int fd, const void *iovecs, size_t iovec_count);
ssize_t parallax_receive_vector(int fd, const void *iovecs, size_t iovec_count);

// sendmsg with SCM_RIGHTS; fd_count may be 0. Returns the number of bytes taken; the file
// descriptors go with the first byte.
ssize_t parallax_send_with_fds(
    int fd, const void *bytes, size_t count, const int *fds, size_t fd_count);

// recvmsg with SCM_RIGHTS, MSG_CMSG_CLOEXEC. *fd_count is always set and the caller owns those file
// descriptors, whatever the return value.
// *is_truncated: the peer sent more file descriptors than fit; the others are closed.
ssize_t parallax_receive_with_fds(
    int fd, void *bytes, size_t capacity, int *fds, size_t fd_capacity, size_t *fd_count,
    int *is_truncated);

// From now on whoever sends file descriptors to this socket, or to one that is accepted from it,
// gets an error. -ENOPROTOOPT before Linux 6.16.
int parallax_refuse_fds(int fd);

// The last close(2) of a Unix socket closes the files that its queue still holds, and those may be
// of any kind (parallax_peerfiles.h). So connected sockets of peers end by these two. Both return
// how many files of a kind whose closing could have made us wait were found.
//
// Shuts down the receiving side (how: SHUT_RD, or SHUT_RDWR for both) and takes out what is there.
// Nothing comes after that, so that the socket can be closed by any means.
int parallax_socket_empty(int fd, int how);
int parallax_socket_close(int fd);
// A listening socket of which nobody else has a descriptor; those who wait in its queue go as well.
void parallax_listener_close(int fd);

#endif
