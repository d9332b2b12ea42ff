# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The Parallax authors
"""Random requests to several disks at once over NBD, and a history of each."""

import itertools
import random
import selectors
import threading

from crashlib import nbd
from crashlib.history import Operation
from crashlib.recording import SECTOR
from stage import Failure, require

# In flight of each disk, for some requests each. The fewer, the less happens on the device between
# an answer and our noticing it, and the more must be there after a crash.
DEPTHS, REQUESTS_OF_A_DEPTH = (1, 1, 2, 4, 12), 100
SECTORS_MAX = 48  # Of one request.
BLOCK = 8  # Sectors; only whole blocks are sure to read as zeros when they were discarded.
NO_SPACE = 28


class Disk:
    """One VDI under load."""

    def __init__(self, history, client):
        self.history, self.client = history, client
        self.flights = {}  # cookie: (command, operation or range, time)
        self.busy = set()
        self.is_leaving = False
        self.gone = threading.Event()


class Load:
    """Runs in a thread of its own until `stop`."""

    def __init__(self, seed, numbers, position):
        self.random = random.Random(seed)
        self.clock, self.numbers, self.position = itertools.count(1), numbers, position
        self.selector = selectors.DefaultSelector()
        self.disks, self.newcomers = [], []
        self.is_stopping = False
        self.depth, self.requests = DEPTHS[0], 0
        self.problem = None
        self.counts = {"write": 0, "zeros": 0, "read": 0, "flush": 0, "refused": 0}
        self.thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self.thread.start()

    def add(self, disk):
        self.newcomers.append(disk)

    def remove(self, disk):
        """Returns when nothing of it is in flight."""
        disk.is_leaving = True
        require(disk.gone.wait(60) and not self.problem, f"the load: {self.problem}")

    def stop(self):
        self.is_stopping = True
        self.thread.join(60)
        require(not self.problem, f"the load: {self.problem}")
        require(not self.thread.is_alive(), "a request is not answered after 60 s")

    def _run(self):
        try:
            while True:
                self._turn()
                if self.is_stopping and not self.disks and not self.newcomers:
                    return
        except (Failure, OSError) as problem:
            self.problem = problem
        for disk in self.disks:
            disk.gone.set()

    def _turn(self):
        while self.newcomers:
            disk = self.newcomers.pop()
            self.disks.append(disk)
            self.selector.register(disk.client.peer, selectors.EVENT_READ, disk)
        for disk in list(self.disks):
            if not disk.is_leaving and not self.is_stopping:
                while len(disk.flights) < self.depth:
                    self._send(disk)
            elif not disk.flights:
                self.selector.unregister(disk.client.peer)
                disk.client.close()
                self.disks.remove(disk)
                disk.gone.set()
        for key, _ in self.selector.select(0.05) if self.disks else ():
            answers, position = key.data.client.receive(), self.position()
            for cookie, error, data in answers:
                self._settle(key.data, cookie, error, data, position)

    def _send(self, disk):
        self.requests += 1
        if self.requests % REQUESTS_OF_A_DEPTH == 0:
            self.depth = self.random.choice(DEPTHS)
        kind = self.random.random()
        cookie = next(self.numbers)
        if kind < 0.06:
            disk.flights[cookie] = (nbd.FLUSH, None, next(self.clock))
            disk.client.send(nbd.FLUSH, cookie)
            return
        first, count = self._choose_range(disk.history.sector_count, whole=kind < 0.14)
        while not disk.busy.isdisjoint(range(first, first + count)):
            first, count = self._choose_range(disk.history.sector_count, whole=kind < 0.14)
        disk.busy.update(range(first, first + count))
        where = {"offset": first * SECTOR, "count": count * SECTOR}
        if kind > 0.85:
            disk.flights[cookie] = (nbd.READ, range(first, first + count), next(self.clock))
            disk.client.send(nbd.READ, cookie, **where)
            return
        operation = Operation(
            cookie, first, count, zeros=kind < 0.14, fua=self.random.random() < 0.02)
        command = nbd.WRITE
        if operation.zeros:
            command = nbd.TRIM if kind < 0.1 else nbd.WRITE_ZEROES
        position, data = self.position(), b"" if operation.zeros else operation.data()
        disk.history.sent(operation, next(self.clock), position)
        disk.flights[cookie] = (command, operation, operation.sent)
        disk.client.send(command, cookie, **where, data=data, flags=nbd.FUA * operation.fua)

    def _choose_range(self, sectors, whole):
        count = self.random.randint(1, SECTORS_MAX)
        first = self.random.randrange(sectors - count)
        if whole or self.random.random() < 0.6:
            first -= first % BLOCK
            count = min(SECTORS_MAX, count + -count % BLOCK)
        return first, count

    def _settle(self, disk, cookie, error, data, position):
        command, what, sent = disk.flights.pop(cookie)
        if error == NO_SPACE and command not in (nbd.READ, nbd.FLUSH):
            self.counts["refused"] += 1
            disk.busy.difference_update(range(what.first, what.first + what.count))
            return
        require(error == 0, f"{disk.history.name}: a request ended with error {error}")
        if command == nbd.FLUSH:
            disk.history.flushed(sent, position)
            self.counts["flush"] += 1
        elif command == nbd.READ:
            self._check_read(disk.history, what, data)
            disk.busy.difference_update(what)
            self.counts["read"] += 1
        else:
            disk.history.answered(what, next(self.clock), position)
            disk.busy.difference_update(range(what.first, what.first + what.count))
            self.counts["zeros" if what.zeros else "write"] += 1

    @staticmethod
    def _check_read(history, sectors, data):
        for index, sector in enumerate(sectors):
            found = data[index * SECTOR:(index + 1) * SECTOR]
            require(found in history.allowed_now(sector),
                    f"{history.name}: a read of sector {sector} returned {found[:16].hex()}...")
