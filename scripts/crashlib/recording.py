# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The Parallax authors
"""What a device was told, and the images that a power failure may leave of it.

    events   ---- W1 begun -- W1 ended -- F begun -- W2 begun -- W2 ended -- F ended -- W3 begun --|
                                                                                          the crash
    W1       ended before a flush began that has ended: it is there
    W2       ended, and no flush that began later has: there, not there, or in parts
    W3       under way: the same

Of a write that is there in parts some 512-byte sectors are there. Writes are applied in the order
in which they ended; what was still under way, in any.
"""

import os
import random
import shutil

from crashlib.recorder import (EVENT, FLUSH_BEGUN, FLUSH_ENDED, WRITE_BEGUN, WRITE_ENDED, ZEROS)

NEVER = 1 << 62
SECTOR = 512
RECENT = 8  # Of the writes that are durable, from how many one is left out on purpose.
METADATA_END = 1 << 20  # Superblocks and checkpoint roots are below.


class Write:
    __slots__ = ("offset", "count", "place", "begun", "ended", "durable")

    def __init__(self, offset, count, place, begun):
        self.offset, self.count, self.place, self.begun = offset, count, place, begun
        self.ended = self.durable = NEVER


class Recording:
    def __init__(self, folder):
        self.by_end = []  # Writes in the order in which they ended, then those that never did.
        self.flush_ends = []
        self.metadata = []  # Where in the events the first MiB was written to.
        self.data = open(folder / "data", "rb")
        self._read((folder / "events").read_bytes())

    def _read(self, events):
        under_way, covered, durable = {}, {}, 0
        events = events[:len(events) // EVENT.size * EVENT.size]
        for index, (kind, number, *where) in enumerate(EVENT.iter_unpack(events)):
            if kind == WRITE_BEGUN:
                under_way[number] = Write(*where, index)
                if where[0] < METADATA_END:
                    self.metadata.append(index)
            elif kind == WRITE_ENDED:
                write = under_way.pop(number)
                write.ended = index
                self.by_end.append(write)
            elif kind == FLUSH_BEGUN:
                covered[number] = len(self.by_end)
            elif kind == FLUSH_ENDED:
                self.flush_ends.append(index)
                for write in self.by_end[durable:covered[number]]:
                    write.durable = index
                durable = max(durable, covered[number])
        self.count = len(events) // EVENT.size
        self.by_end += under_way.values()

    def content(self, write):
        if write.place == ZEROS:
            return bytes(write.count)
        return os.pread(self.data.fileno(), write.count, write.place)

    def choose_points(self, count, chooser):
        """Crash points in order: at flushes, around writes of roots, anywhere.

        Just before a flush ends most has been promised since the one before; just after it most
        has become sure that nobody was told of.
        """
        points = set()
        for share, near, after in (2, self.flush_ends, 2), (1, self.metadata, 6):
            for index in chooser.sample(near, min(len(near), count * share // 4)):
                points.add(min(self.count, index + chooser.randrange(after)))
        while len(points) < min(count, self.count):
            points.add(chooser.randrange(self.count + 1))
        return sorted(points)


class Images:
    """Makes the images of crash points that only go forward."""

    def __init__(self, recording, base, scratch, fault=None):
        self.recording, self.fault = recording, fault
        # What is durable, without the last `RECENT` writes.
        self.durable = open(scratch / "durable", "w+b")
        with open(base, "rb") as file:
            shutil.copyfileobj(file, self.durable, 1 << 20)
        self.applied = 0
        self.image = scratch / "store"

    def make(self, point, seed):
        """The image after `point` events; says what was done to the writes that it was free to."""
        chooser = random.Random(seed)
        writes = self.recording.by_end
        safe = self.applied
        while safe < len(writes) and writes[safe].durable < point:
            safe += 1
        recent = max(self.applied, safe - RECENT)
        for write in writes[self.applied:recent]:
            self._apply(self.durable, write)
        self.applied = recent
        self.durable.flush()
        shutil.copyfile(self.durable.name, self.image)
        certain = [write for write in writes[recent:safe]]
        free = [write for write in writes[safe:] if write.ended < point]
        under_way = [write for write in writes[safe:] if write.begun < point <= write.ended]
        chooser.shuffle(under_way)
        free += under_way
        if self.fault == "flush" and certain:
            last = certain[-1].durable
            free = [write for write in certain if write.durable == last] + free
            certain = [write for write in certain if write.durable != last]
        elif self.fault == "write" and certain:
            certain.pop(chooser.randrange(len(certain)))
        with open(self.image, "r+b") as image:
            for write in certain:
                self._apply(image, write)
            return self._disturb(image, free, chooser)

    def _apply(self, file, write):
        file.seek(write.offset)
        file.write(self.recording.content(write))

    def _disturb(self, image, writes, chooser):
        how = chooser.choice(("none", "all", "first", "some", "most", "torn"))
        kept = torn = 0
        first = chooser.randrange(len(writes) + 1)
        for number, write in enumerate(writes):
            there = {"none": False, "all": True, "first": number < first, "torn": True,
                     "some": chooser.random() < 0.5, "most": chooser.random() < 0.9}[how]
            if not there:
                continue
            if how == "torn" and chooser.random() < 0.6:
                self._tear(image, write, chooser)
                torn += 1
            else:
                self._apply(image, write)
            kept += 1
        return f"of {len(writes)} writes that may be lost {kept} are there ({how}), {torn} torn"

    def _tear(self, image, write, chooser):
        data, sectors = self.recording.content(write), write.count // SECTOR
        cut, kind = chooser.randrange(sectors + 1), chooser.randrange(3)
        for sector in range(sectors):
            if (sector < cut, sector >= cut, chooser.random() < 0.5)[kind]:
                image.seek(write.offset + sector * SECTOR)
                image.write(data[sector * SECTOR:(sector + 1) * SECTOR])

