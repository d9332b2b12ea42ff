// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

#define _GNU_SOURCE
#include "parallax_sockets.h"

#include "parallax_peerfiles.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#define FDS_MAX 32
// SCM_MAX_FD: no message carries more.
#define KERNEL_FDS_MAX 253
// Linux 6.16. Not in the headers of older ones.
#define PARALLAX_SO_PASSRIGHTS 83

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

// File descriptors that come with a message: the first ones for the caller, the others closed.
struct passengers {
    int *fds;
    size_t capacity;
    size_t count;
    size_t surplus_count;
    int strange_count;
};

static void take_fds(const struct cmsghdr *header, struct passengers *passengers) {
    size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t index = 0; index < count; index++) {
        int passenger;
        memcpy(&passenger, CMSG_DATA(header) + index * sizeof(int), sizeof(int));
        if (passengers->count < passengers->capacity) {
            passengers->fds[passengers->count++] = passenger;
        } else {
            passengers->strange_count += parallax_peer_file_close(passenger);
            passengers->surplus_count++;
        }
    }
}

// There is room for all that the kernel can bring, whatever the caller wants: those that find none
// the kernel closes in this thread, however long that takes.
static ssize_t receive_message(
    int fd, const void *iovecs, size_t iovec_count, int flags, struct passengers *passengers) {
    union {
        struct cmsghdr alignment;
        char bytes[CMSG_SPACE(KERNEL_FDS_MAX * sizeof(int))];
    } control;
    struct msghdr message = {
        .msg_iov = (struct iovec *)iovecs,
        .msg_iovlen = iovec_count,
        .msg_control = control.bytes,
        .msg_controllen = sizeof control.bytes,
    };
    ssize_t count;
    do count = recvmsg(fd, &message, flags | MSG_CMSG_CLOEXEC);
    while (count < 0 && errno == EINTR);
    if (count < 0) return -errno;
    // The process has no descriptor left for them.
    if (message.msg_flags & MSG_CTRUNC) passengers->surplus_count++;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header != NULL;
         header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS)
            take_fds(header, passengers);
    }
    return count;
}

ssize_t parallax_receive_vector(int fd, const void *iovecs, size_t iovec_count) {
    struct passengers none = { 0 };
    ssize_t count = receive_message(fd, iovecs, iovec_count, 0, &none);
    return none.surplus_count > 0 ? -EPROTO : count;
}

ssize_t parallax_send_vector(int fd, const void *iovecs, size_t iovec_count) {
    struct msghdr message = { .msg_iov = (struct iovec *)iovecs, .msg_iovlen = iovec_count };
    return send_message(fd, &message);
}

int parallax_peer_has_left(int fd) {
    struct pollfd peer = {.fd = fd, .events = POLLRDHUP};
    return poll(&peer, 1, 0) > 0;
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

ssize_t parallax_receive_with_fds(
    int fd, void *bytes, size_t capacity, int *fds, size_t fd_capacity, size_t *fd_count,
    int *is_truncated) {
    struct passengers passengers = { .fds = fds, .capacity = fd_capacity };
    struct iovec piece = { .iov_base = bytes, .iov_len = capacity };
    ssize_t count = receive_message(fd, &piece, 1, 0, &passengers);
    *fd_count = passengers.count;
    *is_truncated = passengers.surplus_count > 0;
    return count;
}

int parallax_refuse_fds(int fd) {
    int no = 0;
    return result_of(setsockopt(fd, SOL_SOCKET, PARALLAX_SO_PASSRIGHTS, &no, sizeof no));
}

int parallax_socket_empty(int fd, int how) {
    int strange_count = 0;
    if (shutdown(fd, how) < 0) return 0;
    // LIMIT: what a peer's send buffer holds is less, and nothing is added any more.
    for (int round = 0; round < 65536; round++) {
        char bytes[4096];
        struct iovec piece = { .iov_base = bytes, .iov_len = sizeof bytes };
        struct passengers passengers = { 0 };
        ssize_t count = receive_message(fd, &piece, 1, MSG_DONTWAIT, &passengers);
        strange_count += passengers.strange_count;
        if (count <= 0) break;
    }
    return strange_count;
}

int parallax_socket_close(int fd) {
    int strange_count = parallax_socket_empty(fd, SHUT_RDWR);
    close(fd);
    return strange_count;
}

void parallax_listener_close(int fd) {
    // Nobody comes any more, but some may be in the queue, with what they have sent.
    shutdown(fd, SHUT_RDWR);
    for (int peer; (peer = parallax_accept(fd, 1)) >= 0;) parallax_socket_close(peer);
    close(fd);
}
