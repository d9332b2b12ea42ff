# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The Parallax authors
"""What was asked of a disk, and what it may hold at a crash.

Time is counted twice. The *clock* counts what the clients did: a request that was sent after the
answer of another has the greater time. The *position* counts the device's events (see recorder).

    sector    base -- write 3 -- write 8 -- discard 12          one at a time, so there is an order
                         |
              the last that was flushed when the crash came: this one, or a later one

One sector may hold any of those. All together must be a prefix: if a write is there, every write
that was answered before it was sent is there or has been written over.
"""

import bisect
import struct
from operator import attrgetter

from crashlib.recording import NEVER, SECTOR

STAMP = struct.Struct("<QQ")


def stamped(number, sector):
    """The content of one sector that a write puts there."""
    return STAMP.pack(number, sector) * (SECTOR // STAMP.size)


class Operation:
    """A write, or with `zeros` one that leaves zeros."""
    __slots__ = ("number", "first", "count", "zeros", "fua",
                 "sent", "answered", "sent_at", "safe_at")

    def __init__(self, number, first, count, zeros, fua):
        self.number, self.first, self.count = number, first, count
        self.zeros, self.fua = zeros, fua
        # By the clock; an operation that failed is never answered.
        self.sent = self.answered = NEVER
        # Positions: when it was sent, and when an answer said that it survives a power failure.
        self.sent_at = self.safe_at = NEVER

    def data(self):
        return b"".join(stamped(self.number, sector)
                        for sector in range(self.first, self.first + self.count))

    def content(self, sector):
        return bytes(SECTOR) if self.zeros else stamped(self.number, sector)


class Lifetime:
    """From when something may be there, must be, need not and must not: positions."""

    def __init__(self, asked=0, answered=0):
        self.asked, self.answered = asked, answered
        self.end_asked = self.end_answered = NEVER

    def must_be(self, point):
        return self.answered <= point < self.end_asked

    def may_be(self, point):
        return self.asked <= point < self.end_answered


class Snapshot:
    def __init__(self, name, group=None):
        self.name, self.group = name, group
        self.lifetime = Lifetime(NEVER, NEVER)
        self.content = None  # None: the run ended before it was read.
        self.times = None  # Of the clock: asked for, answered. None: it was there before.


class History:
    """One VDI."""

    def __init__(self, name, base, lifetime=None):
        self.name, self.base = name, base
        self.lifetime = lifetime or Lifetime()
        self.snapshots = []
        self.sectors = {}  # sector: its operations in order
        self.unsafe = []  # Answered, and not yet known to survive.

    @property
    def sector_count(self):
        return len(self.base) // SECTOR

    def sent(self, operation, time, position):
        operation.sent, operation.sent_at = time, position
        for sector in range(operation.first, operation.first + operation.count):
            self.sectors.setdefault(sector, []).append(operation)

    def answered(self, operation, time, position):
        operation.answered = time
        self.unsafe.append(operation)
        if operation.fua:
            operation.safe_at = position
            self.flushed(operation.sent, position)

    def flushed(self, sent, position):
        """A flush that was sent at `sent` is answered: all before it survives."""
        rest = []
        for operation in self.unsafe:
            if operation.answered < sent or operation.safe_at < NEVER:
                operation.safe_at = min(operation.safe_at, position)
            else:
                rest.append(operation)
        self.unsafe = rest

    # What is right.

    def problem_of_crash(self, data, point):
        """Nil, or what is wrong with the disk after a power failure at `point`."""
        return self._problem(
            data, attrgetter("sent_at"), point, lambda operation: operation.safe_at <= point)

    def problem_of_snapshot(self, data, asked, answered):
        """The same of a snapshot that was made between two times of the clock."""
        return self._problem(
            data, attrgetter("sent"), answered, lambda operation: operation.answered < asked)

    def _problem(self, data, key, limit, must):
        if len(data) != len(self.base):
            return f"it has {len(data)} bytes and not {len(self.base)}"
        newest, oldest_missing = None, None
        for sector, operations in self.sectors.items():
            found = data[sector * SECTOR:(sector + 1) * SECTOR]
            end = bisect.bisect_right(operations, limit, key=key)
            matches = self._matches(sector, found, operations, end, must)
            if not matches:
                return self._describe(sector, found, operations, end)
            if len(matches) > 1:
                continue  # Zeros, by one or by the other.
            at = matches[0]
            if at >= 0 and (newest is None or operations[at].sent > newest.sent):
                newest = operations[at]
            if at + 1 < end and (oldest_missing is None
                                 or operations[at + 1].answered < oldest_missing.answered):
                oldest_missing = operations[at + 1]
        if newest and oldest_missing and oldest_missing.answered < newest.sent:
            return (f"write {newest.number} of sector {newest.first} is there, and "
                    f"{oldest_missing.number} of sector {oldest_missing.first}, answered before "
                    f"that was sent, is not")
        return self._problem_of_rest(data)

    def _matches(self, sector, found, operations, end, must):
        """Which operations the content may be of; -1: the base."""
        matches = []
        for at in range(end - 1, -1, -1):
            if operations[at].content(sector) == found:
                matches.append(at)
            if must(operations[at]):
                return matches
        if self.base[sector * SECTOR:(sector + 1) * SECTOR] == found:
            matches.append(-1)
        return matches

    def _problem_of_rest(self, data):
        """Sectors that nobody ever touched."""
        if data == self.base:
            return None
        for sector in range(self.sector_count):
            here = slice(sector * SECTOR, (sector + 1) * SECTOR)
            if sector not in self.sectors and data[here] != self.base[here]:
                return f"sector {sector}, which nobody wrote to, has changed"
        return None

    def _describe(self, sector, found, operations, end):
        number, place = STAMP.unpack_from(found)
        whole = stamped(number, place) == found
        what = f"write {number} of sector {place}" if whole else f"{found[:16].hex()}..."
        if found == bytes(SECTOR):
            what = "zeros"
        right = ", ".join(f"{'zeros' if operation.zeros else 'write'} {operation.number}"
                          for operation in operations[max(0, end - 4):end])
        return f"sector {sector} holds {what}; its last writes are {right or 'none'}"

    def allowed_now(self, sector):
        """What a read may return when nothing is in flight there: the last that was answered, or
        one that failed after it."""
        contents = []
        for operation in reversed(self.sectors.get(sector, [])):
            contents.append(operation.content(sector))
            if operation.answered < NEVER:
                return contents
        return contents + [self.base[sector * SECTOR:(sector + 1) * SECTOR]]
