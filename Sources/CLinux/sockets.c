// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

#define _GNU_SOURCE
#include "parallax_sockets.h"

#include "parallax_peerfiles.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#define FDS_MAX 32

static int result_of(long value) { return value < 0 ? -errno : (int)value; }

static int flags_of(int is_nonblocking) {
    return SOCK_CLOEXEC | (is_nonblocking ? SOCK_NONBLOCK : 0);
}

int parallax_socket_pair(int fds[2], int is_nonblocking) {
    return result_of(socketpair(AF_UNIX, SOCK_STREAM | flags_of(is_nonblocking), 0, fds));
}

static int address_of(const char *path, struct sockaddr_un *address) {
    size_t length = strlen(path);
    if (length == 0) return -EINVAL;
    if (length >= sizeof address->sun_path) return -ENAMETOOLONG;
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, path, length);
    return 0;
}

static int close_with(int fd, int code) {
    close(fd);
    return -code;
}

int parallax_unix_listen(const char *path, int backlog, int is_nonblocking) {
    struct sockaddr_un address;
    int result = address_of(path, &address);
    if (result < 0) return result;
    int fd = socket(AF_UNIX, SOCK_STREAM | flags_of(is_nonblocking), 0);
    if (fd < 0) return -errno;
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) return close_with(fd, errno);
    // Before it listens nobody can connect, so there is no moment with the umask's mode.
    if (chmod(path, 0600) < 0) return close_with(fd, errno);
    if (listen(fd, backlog) < 0) return close_with(fd, errno);
    return fd;
}

int parallax_unix_connect(const char *path, int is_nonblocking) {
    struct sockaddr_un address;
    int result = address_of(path, &address);
    if (result < 0) return result;
    int fd = socket(AF_UNIX, SOCK_STREAM | flags_of(is_nonblocking), 0);
    if (fd < 0) return -errno;
    do result = connect(fd, (struct sockaddr *)&address, sizeof address);
    while (result < 0 && errno == EINTR);
    return result < 0 ? close_with(fd, errno) : fd;
}

int parallax_accept(int listener, int is_nonblocking) {
    int fd;
    do fd = accept4(listener, NULL, NULL, flags_of(is_nonblocking));
    while (fd < 0 && errno == EINTR);
    return result_of(fd);
}

int parallax_set_nonblocking(int fd, int is_nonblocking) {
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0) return -errno;
    flags = is_nonblocking ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
    return result_of(fcntl(fd, F_SETFL, flags));
}

int parallax_peer_credentials(int fd, int *pid, unsigned *uid, unsigned *gid) {
    struct ucred credentials = { 0 };
    socklen_t length = sizeof credentials;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) < 0) return -errno;
    *pid = credentials.pid;
    *uid = credentials.uid;
    *gid = credentials.gid;
    return 0;
}

static ssize_t send_message(int fd, const struct msghdr *message) {
    ssize_t count;
    do count = sendmsg(fd, message, MSG_NOSIGNAL); while (count < 0 && errno == EINTR);
    return count < 0 ? -errno : count;
}

static ssize_t receive_message(int fd, struct msghdr *message) {
    ssize_t count;
    do count = recvmsg(fd, message, MSG_CMSG_CLOEXEC); while (count < 0 && errno == EINTR);
    return count < 0 ? -errno : count;
}

ssize_t parallax_receive_vector(int fd, const void *iovecs, size_t iovec_count) {
    struct msghdr message = { .msg_iov = (struct iovec *)iovecs, .msg_iovlen = iovec_count };
    return receive_message(fd, &message);
}

ssize_t parallax_send_vector(int fd, const void *iovecs, size_t iovec_count) {
    struct msghdr message = { .msg_iov = (struct iovec *)iovecs, .msg_iovlen = iovec_count };
    return send_message(fd, &message);
}

ssize_t parallax_receive(int fd, void *bytes, size_t capacity) {
    struct iovec piece = { .iov_base = bytes, .iov_len = capacity };
    return parallax_receive_vector(fd, &piece, 1);
}

ssize_t parallax_send(int fd, const void *bytes, size_t count) {
    struct iovec piece = { .iov_base = (void *)bytes, .iov_len = count };
    return parallax_send_vector(fd, &piece, 1);
}

union fd_passengers {
    struct cmsghdr alignment;
    char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
};

ssize_t parallax_send_with_fds(
    int fd, const void *bytes, size_t count, const int *fds, size_t fd_count) {
    struct iovec piece = { .iov_base = (void *)bytes, .iov_len = count };
    struct msghdr message = { .msg_iov = &piece, .msg_iovlen = 1 };
    union fd_passengers passengers;
    if (fd_count > FDS_MAX) return -EINVAL;
    if (fd_count > 0) {
        memset(&passengers, 0, sizeof passengers);
        message.msg_control = passengers.bytes;
        message.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        memcpy(CMSG_DATA(header), fds, fd_count * sizeof(int));
    }
    return send_message(fd, &message);
}

// CMSG_SPACE rounds up to 8 bytes, so the kernel may install one file descriptor more than
// asked for; it must be closed, not forgotten.
static void take_fds(
    const struct cmsghdr *header, int *fds, size_t fd_capacity, size_t *fd_count,
    int *is_truncated) {
    size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t index = 0; index < count; index++) {
        int passenger;
        memcpy(&passenger, CMSG_DATA(header) + index * sizeof(int), sizeof(int));
        if (*fd_count < fd_capacity) {
            fds[(*fd_count)++] = passenger;
        } else {
            parallax_peer_file_close(passenger);
            *is_truncated = 1;
        }
    }
}

ssize_t parallax_receive_with_fds(
    int fd, void *bytes, size_t capacity, int *fds, size_t fd_capacity, size_t *fd_count,
    int *is_truncated) {
    *fd_count = 0;
    *is_truncated = 0;
    if (fd_capacity > FDS_MAX) return -EINVAL;
    struct iovec piece = { .iov_base = bytes, .iov_len = capacity };
    union fd_passengers passengers;
    struct msghdr message = {
        .msg_iov = &piece,
        .msg_iovlen = 1,
        .msg_control = passengers.bytes,
        .msg_controllen = CMSG_SPACE(fd_capacity * sizeof(int)),
    };
    ssize_t count = receive_message(fd, &message);
    if (count < 0) return count;
    if (message.msg_flags & MSG_CTRUNC) *is_truncated = 1;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header != NULL;
         header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS)
            take_fds(header, fds, fd_capacity, fd_count, is_truncated);
    }
    return count;
}
