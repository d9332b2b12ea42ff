#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The Parallax authors
"""A device that writes down all that happens to it: a FUSE file over a plain one.

    recorder.py PLAIN MOUNT_POINT FOLDER SEED

FOLDER gets three files: `events` (fixed size, below), `data` (what was written, one after the
other) and `position` (how many events there are; others map it). An event is written down before
whoever asked gets the answer, so who has an answer and then reads the position has seen all that
led to it.

Requests wait for their answers in no order: as many as there are, and then some of them at random
are answered. A write that waits is in flight; a flush covers what had its answer before it came.
"""

import errno
import mmap
import os
import pathlib
import random
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from crashlib import fuse  # noqa: E402  (the folder is known only now)

# kind, number of the request, offset, bytes, where its data are (ZEROS: nowhere)
EVENT = struct.Struct("<BQQIQ")
WRITE_BEGUN, WRITE_ENDED, FLUSH_BEGUN, FLUSH_ENDED = range(4)
ZEROS = (1 << 64) - 1


class Recorder:
    def __init__(self, plain, mount_point, folder, seed):
        self.random = random.Random(seed)
        self.plain = os.open(plain, os.O_RDWR)
        self.device = fuse.OneFile(mount_point, os.fstat(self.plain).st_size)
        self.events = open(folder / "events", "wb")
        self.data = open(folder / "data", "wb")
        with open(folder / "position", "r+b") as file:
            self.position = mmap.mmap(file.fileno(), 8)
        self.count = 0
        self.number = 0
        self.waiting = []  # (request, kind of the event of its end, number)

    def note(self, kind, number, offset=0, count=0, place=0):
        self.events.write(EVENT.pack(kind, number, offset, count, place))
        self.count += 1
        struct.pack_into("<Q", self.position, 0, self.count)

    def serve(self):
        while True:
            # What waits is answered when nothing else comes.
            requests = self.device.requests(may_wait=not self.waiting)
            if requests is None:
                break
            for request in requests:
                self.take(request)
            self.answer_some()
        self.events.close()
        self.data.close()

    def answer_some(self):
        self.random.shuffle(self.waiting)
        keep = self.random.randrange(len(self.waiting)) if self.waiting else 0
        while len(self.waiting) > keep:
            request, kind, number, reply = self.waiting.pop()
            self.note(kind, number)
            self.device.reply(request, reply)

    def take(self, request):
        if self.device.answer_simple(request):
            return
        if request.operation == fuse.FSYNC:
            self.begin(request, FLUSH_BEGUN, FLUSH_ENDED)
            return
        where = fuse.transfer(request)
        if request.operation == fuse.READ:
            self.device.reply(request, os.pread(self.plain, where.count, where.offset))
        elif request.operation == fuse.WRITE:
            os.pwrite(self.plain, where.data, where.offset)
            self.write(request, where, where.data, struct.pack("<II", where.count, 0))
        elif where.mode & (fuse.PUNCH_HOLE | fuse.ZERO_RANGE):
            os.pwrite(self.plain, bytes(where.count), where.offset)
            self.write(request, where, b"", b"")
        else:
            # Space is always there, so nothing happens.
            self.device.reply(request, error=0 if where.mode == 0 else errno.EOPNOTSUPP)

    def write(self, request, where, data, reply):
        place = ZEROS
        if data.count(0) != len(data):
            place = self.data.tell()
            self.data.write(data)
        self.begin(request, WRITE_BEGUN, WRITE_ENDED, where.offset, where.count, place, reply)

    def begin(self, request, begun, ended, offset=0, count=0, place=0, reply=b""):
        self.number += 1
        self.note(begun, self.number, offset, count, place)
        self.waiting.append((request, ended, self.number, reply))


def main():
    plain, mount_point, folder, seed = sys.argv[1:]
    recorder = Recorder(plain, mount_point, pathlib.Path(folder), int(seed))
    print("ready", flush=True)
    recorder.serve()


if __name__ == "__main__":
    main()
