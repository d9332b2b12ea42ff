// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

// Files, block devices and anonymous memory files.

#ifndef PARALLAX_FILES_H
#define PARALLAX_FILES_H

#include <fcntl.h>
#include <stdint.h>
#include <sys/types.h>

static const int PARALLAX_O_DIRECT = __O_DIRECT;
static const int PARALLAX_O_CLOEXEC = O_CLOEXEC;
// madvise: use huge pages where possible.
static const int PARALLAX_MADV_HUGEPAGE = 14;

// Anonymous shared memory, close-on-exec, sealing allowed. Returns the file descriptor.
int parallax_memfd_create(const char *name, int64_t byte_count);
static const uint32_t PARALLAX_SEAL_SEAL = 0x1;
static const uint32_t PARALLAX_SEAL_SHRINK = 0x2;
static const uint32_t PARALLAX_SEAL_GROW = 0x4;
int parallax_memfd_add_seals(int fd, uint32_t seals);
// Returns the seals, -EINVAL for a file that cannot be sealed.
int parallax_memfd_get_seals(int fd);

static const int PARALLAX_FALLOC_KEEP_SIZE = 0x01;
static const int PARALLAX_FALLOC_PUNCH_HOLE = 0x02; // only together with KEEP_SIZE
int parallax_fallocate(int fd, int mode, int64_t offset, int64_t byte_count);

// Whether the file system has written blocks for the whole range: no hole in it, and nothing that
// is allocated but unwritten. 1, 0, or -EOPNOTSUPP where the file system cannot tell (FIEMAP).
int parallax_range_is_written(int fd, uint64_t offset, uint64_t byte_count);

// Whether the file system has any block for the range, written or not. 1, 0, or -EOPNOTSUPP.
int parallax_range_has_blocks(int fd, uint64_t offset, uint64_t byte_count);

// BLKGETSIZE64: the size of a block device.
int parallax_block_device_size(int fd, uint64_t *byte_count);
// What memory and length of an O_DIRECT transfer have to be multiples of: BLKSSZGET of a block device,
// STATX_DIOALIGN of a file. -EOPNOTSUPP where the kernel or the file system does not say.
int parallax_direct_io_alignment(int fd, int is_block_device, uint32_t *byte_count);

// Makes the whole file system of the file durable, names and all.
int parallax_syncfs(int fd);

// Locks the whole file against other openers without waiting: flock, which belongs to the open
// file, and an fcntl lock, which tells others our pid. Exclusive, or shared with other sharers.
// 0: taken. -EAGAIN: somebody else holds it; *holder is the pid, 0 when unknown.
int parallax_lock(int fd, int is_exclusive, int *holder);
// The pid of the process with an fcntl lock on the file, 0 when there is none or it is unknown.
int parallax_lock_holder(int fd);

// Both ends close-on-exec.
int parallax_pipe(int fds[2], int is_nonblocking);

#endif
