# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The Parallax authors
"""A file system that is one file, by the kernel's FUSE protocol (version 7.31, linux/fuse.h).

    device = OneFile(mount_point, byte_count)    # mount_point is a file; who opens it gets ours
    for request in device.requests(): ...
    device.reply(request, data)

The file is opened with FOPEN_DIRECT_IO: every read, write and sync of a process comes here, nothing
is cached. Writes may come while others wait for their reply, also those of one asynchronous caller.
"""

import ctypes
import errno
import os
import select
import struct
from typing import NamedTuple

GETATTR, OPEN, READ, WRITE, RELEASE, FSYNC = 3, 14, 15, 16, 18, 20
FLUSH, INIT, INTERRUPT, DESTROY, FALLOCATE = 25, 26, 36, 38, 43
FORGET, BATCH_FORGET = 2, 42
UNANSWERED = {FORGET, BATCH_FORGET, INTERRUPT}

PUNCH_HOLE, ZERO_RANGE = 2, 16  # fallocate's modes

ASYNC_READ, BIG_WRITES, ASYNC_DIO, MAX_PAGES = 1 << 0, 1 << 5, 1 << 15, 1 << 22
OPEN_DIRECT_IO, OPEN_PARALLEL_WRITES = 1 << 0, 1 << 6
PIECE_BYTES = 1 << 20  # The longest read or write; the kernel cuts longer ones.
MOUNT_FLAGS = 2 | 4  # MS_NOSUID, MS_NODEV

IN_HEADER, OUT_HEADER = struct.Struct("<IIQQIIIHH"), struct.Struct("<IiQ")


class Request(NamedTuple):
    operation: int
    unique: int
    body: bytes


class Transfer(NamedTuple):
    """Where a read, a write or a fallocate goes."""
    offset: int
    count: int
    data: bytes
    mode: int = 0


class OneFile:
    def __init__(self, mount_point, byte_count):
        self.byte_count = byte_count
        self.descriptor = os.open("/dev/fuse", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        options = (f"fd={self.descriptor},rootmode=100600,user_id={os.getuid()},"
                   f"group_id={os.getgid()}")
        library = ctypes.CDLL(None, use_errno=True)
        if library.mount(b"parallax", os.fsencode(mount_point), b"fuse", MOUNT_FLAGS,
                         options.encode()) != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"cannot mount on {mount_point}: {os.strerror(code)}")
        self.buffer = bytearray(PIECE_BYTES + (64 << 10))

    def requests(self, may_wait):
        """What has come; at least one when it may wait. None: it is unmounted."""
        if may_wait:
            select.select([self.descriptor], [], [])
        found = []
        while True:
            try:
                count = os.readv(self.descriptor, [self.buffer])
            except BlockingIOError:
                return found
            except OSError as problem:
                if problem.errno in (errno.ENOENT, errno.EINTR):
                    continue  # The caller was interrupted.
                if problem.errno == errno.ENODEV:
                    return None
                raise
            _, operation, unique, *_ = IN_HEADER.unpack_from(self.buffer)
            found.append(Request(operation, unique, bytes(self.buffer[IN_HEADER.size:count])))

    def reply(self, request, data=b"", error=0):
        header = OUT_HEADER.pack(OUT_HEADER.size + len(data), -error, request.unique)
        try:
            os.writev(self.descriptor, [header, data])
        except OSError as problem:
            if problem.errno not in (errno.ENOENT, errno.ENODEV):  # Nobody waits for it any more.
                raise

    def answer_simple(self, request):
        """Answers what is no transfer and no sync; False: it is one of those."""
        if request.operation in (READ, WRITE, FSYNC, FALLOCATE):
            return False
        if request.operation in UNANSWERED:
            return True
        if request.operation == INIT:
            flags = ASYNC_READ | BIG_WRITES | ASYNC_DIO | MAX_PAGES
            self.reply(request, struct.pack(
                "<IIIIHHIIHHII24x", 7, 31, 0, flags, 64, 48, PIECE_BYTES, 1,
                PIECE_BYTES // 4096, 0, 0, 0))
        elif request.operation == GETATTR:
            self.reply(request, struct.pack("<QII", 3600, 0, 0) + self.attributes())
        elif request.operation == OPEN:
            self.reply(request, struct.pack("<QII", 1, OPEN_DIRECT_IO | OPEN_PARALLEL_WRITES, 0))
        elif request.operation in (FLUSH, RELEASE, DESTROY):
            self.reply(request)
        else:
            self.reply(request, error=errno.ENOSYS)
        return True

    def attributes(self):
        return struct.pack("<QQQQQQIIIIIIIIII", 1, self.byte_count, self.byte_count // 512, 0, 0,
                           0, 0, 0, 0, 0o100600, 1, os.getuid(), os.getgid(), 0, 4096, 0)


def transfer(request):
    """The fields of a read, a write or a fallocate."""
    if request.operation == FALLOCATE:
        _, offset, count, mode, _ = struct.unpack_from("<QQQII", request.body)
        return Transfer(offset, count, b"", mode)
    _, offset, count = struct.unpack_from("<QQI", request.body)
    return Transfer(offset, count, request.body[40:] if request.operation == WRITE else b"")
