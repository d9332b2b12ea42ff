// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

#define _GNU_SOURCE
#include "parallax_files.h"

#include <errno.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(F_SEAL_SEAL == 1 && F_SEAL_SHRINK == 2, "seal bits");
_Static_assert(F_SEAL_GROW == 4 && F_SEAL_WRITE == 8, "seal bits");
_Static_assert(FALLOC_FL_KEEP_SIZE == 1 && FALLOC_FL_PUNCH_HOLE == 2, "fallocate bits");
_Static_assert(FALLOC_FL_ZERO_RANGE == 0x10, "fallocate bits");
_Static_assert(MADV_HUGEPAGE == 14, "madvise advice");

static int result_of(long value) { return value < 0 ? -errno : (int)value; }

int parallax_memfd_create(const char *name, int64_t byte_count) {
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) return -errno;
    if (ftruncate(fd, byte_count) == 0) return fd;
    int code = errno;
    close(fd);
    return -code;
}

int parallax_memfd_add_seals(int fd, uint32_t seals) {
    return result_of(fcntl(fd, F_ADD_SEALS, (int)seals));
}

int parallax_memfd_get_seals(int fd) { return result_of(fcntl(fd, F_GET_SEALS)); }

int parallax_fallocate(int fd, int mode, int64_t offset, int64_t byte_count) {
    int result;
    do result = fallocate(fd, mode, offset, byte_count); while (result < 0 && errno == EINTR);
    return result_of(result);
}

#define MAPPINGS_PER_CALL 32

int parallax_range_is_written(int fd, uint64_t offset, uint64_t byte_count) {
    union {
        struct fiemap header;
        char bytes[sizeof(struct fiemap) + MAPPINGS_PER_CALL * sizeof(struct fiemap_extent)];
    } request;
    const uint32_t unfit =
        FIEMAP_EXTENT_UNWRITTEN | FIEMAP_EXTENT_DELALLOC | FIEMAP_EXTENT_UNKNOWN;
    uint64_t end = offset + byte_count;
    while (offset < end) {
        memset(&request, 0, sizeof request);
        request.header.fm_start = offset;
        request.header.fm_length = end - offset;
        request.header.fm_extent_count = MAPPINGS_PER_CALL;
        if (ioctl(fd, FS_IOC_FIEMAP, &request.header) < 0)
            return errno == ENOTTY || errno == EINVAL ? -EOPNOTSUPP : -errno;
        if (request.header.fm_mapped_extents == 0) return 0;
        for (uint32_t index = 0; index < request.header.fm_mapped_extents; index++) {
            const struct fiemap_extent *mapping = &request.header.fm_extents[index];
            if (mapping->fe_logical > offset || (mapping->fe_flags & unfit)) return 0;
            offset = mapping->fe_logical + mapping->fe_length;
        }
    }
    return 1;
}

int parallax_range_has_blocks(int fd, uint64_t offset, uint64_t byte_count) {
    // Without room for extents the kernel only counts them.
    struct fiemap request = { .fm_start = offset, .fm_length = byte_count };
    if (ioctl(fd, FS_IOC_FIEMAP, &request) < 0)
        return errno == ENOTTY || errno == EINVAL ? -EOPNOTSUPP : -errno;
    return request.fm_mapped_extents > 0;
}

int parallax_block_device_size(int fd, uint64_t *byte_count) {
    return result_of(ioctl(fd, BLKGETSIZE64, byte_count));
}

int parallax_direct_io_alignment(int fd, int is_block_device, uint32_t *byte_count) {
    if (is_block_device) {
        int size = 0;
        int result = result_of(ioctl(fd, BLKSSZGET, &size));
        *byte_count = (uint32_t)size;
        return result;
    }
    struct statx status;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) < 0) return -errno;
    // Since Linux 6.1, where the file system takes part.
    if (!(status.stx_mask & STATX_DIOALIGN) || status.stx_dio_offset_align == 0)
        return -EOPNOTSUPP;
    *byte_count = status.stx_dio_mem_align > status.stx_dio_offset_align
        ? status.stx_dio_mem_align : status.stx_dio_offset_align;
    return 0;
}

int parallax_syncfs(int fd) { return result_of(syncfs(fd)); }

int parallax_lock_holder(int fd) {
    struct flock query = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    if (fcntl(fd, F_GETLK, &query) < 0 || query.l_type == F_UNLCK) return 0;
    return query.l_pid > 0 ? query.l_pid : 0;
}

int parallax_lock(int fd, int is_exclusive, int *holder) {
    *holder = 0;
    if (flock(fd, (is_exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK) return -errno;
        *holder = parallax_lock_holder(fd);
        return -EAGAIN;
    }
    struct flock lock = { .l_type = is_exclusive ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET };
    if (fcntl(fd, F_SETLK, &lock) == 0) return 0;
    // A file system without fcntl locks still has flock; only a conflict counts.
    if (errno != EACCES && errno != EAGAIN) return 0;
    *holder = parallax_lock_holder(fd);
    flock(fd, LOCK_UN);
    return -EAGAIN;
}

int parallax_pipe(int fds[2], int is_nonblocking) {
    return result_of(pipe2(fds, O_CLOEXEC | (is_nonblocking ? O_NONBLOCK : 0)));
}
