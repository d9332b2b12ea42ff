# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The Parallax authors
"""Makes and deletes snapshots, groups and clones at random while the disks are under load."""

import itertools
import random
import time

from crashlib.history import History, Lifetime, Snapshot
from crashlib.load import Disk
from stage import require

DISKS, DISK_BYTES = 3, 3 << 20
SNAPSHOTS_MAX, CLONES_MAX = 7, 2
PAUSE = 0.1  # Seconds between two changes, at most.
NO_SPACE = 507


class Administrator:
    def __init__(self, daemon, load, seed, round_number):
        self.daemon, self.load = daemon, load
        self.random = random.Random(seed)
        self.names = (f"r{round_number}-{number}" for number in itertools.count())
        self.histories = []  # Of all VDIs that there ever were.
        self.disks = {}  # Of those that there are: name: Disk
        self.counts = {}

    # The beginning.

    def adopt(self):
        """Takes what is in the store for right, and puts its disks under load."""
        for name in self.daemon.vdi_names():
            history = History(name, self.daemon.read(name))
            for snapshot_name in self.daemon.snapshot_names(name):
                snapshot = Snapshot(snapshot_name)
                snapshot.lifetime = Lifetime()
                snapshot.content = self.daemon.read(f"{name}/snapshots/{snapshot_name}")
                history.snapshots.append(snapshot)
            self._put_under_load(history)
        while len(self.disks) < DISKS:
            self._create(f"disk-{next(self.names)}", bytes(DISK_BYTES), {"size_bytes": DISK_BYTES})

    def _create(self, name, base, body):
        history = History(name, base, Lifetime(self.load.position(), 0))
        if not self._ask("create", "POST", "vdis", {"name": name} | body):
            return
        history.lifetime.answered = self.load.position()
        self._put_under_load(history)

    def _put_under_load(self, history):
        self.histories.append(history)
        disk = Disk(history, self.daemon.attach(history.name))
        self.disks[history.name] = disk
        self.load.add(disk)

    def _ask(self, what, method, path, body=None):
        """False: there is no space for it."""
        status, answer = self.daemon.control.ask(method, f"/v1/{path}", body)
        if status == NO_SPACE:
            self.counts["refused"] = self.counts.get("refused", 0) + 1
            return False
        require(status < 300, f"{method} {path}: {status} {answer}")
        self.counts[what] = self.counts.get(what, 0) + 1
        return True

    # The work.

    def work(self, seconds):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self.load.problem:
            action = self.random.choices(
                (self.snapshot, self.delete_snapshot, self.group, self.clone, self.delete_clone,
                 self.clean), (40, 25, 15, 10, 5, 5))[0]
            if len(self._snapshots()) > SNAPSHOTS_MAX:
                action = self.delete_snapshot
            action()
            time.sleep(self.random.random() * PAUSE)

    def _living(self):
        return [disk.history for disk in self.disks.values()]

    def _snapshots(self):
        return [(history, snapshot) for history in self._living()
                for snapshot in history.snapshots if snapshot.lifetime.must_be(1 << 61)]

    def snapshot(self):
        self._snap([self.random.choice(self._living())])

    def group(self):
        self._snap(self.random.sample(self._living(), 2))

    def _snap(self, histories):
        name = next(self.names)
        snapshots = [Snapshot(name, group=name if len(histories) > 1 else None) for _ in histories]
        asked, answered = self.load.position(), None
        times = [next(self.load.clock)]
        if len(histories) == 1:
            done = self._ask(
                "snapshot", "POST", f"vdis/{histories[0].name}/snapshots", {"name": name})
        else:
            vdis = [history.name for history in histories]
            done = self._ask("group", "POST", "snapshots", {"name": name, "vdis": vdis})
        if not done:
            return
        times.append(next(self.load.clock))
        answered = self.load.position()
        for history, snapshot in zip(histories, snapshots):
            snapshot.lifetime = Lifetime(asked, answered)
            snapshot.times = times
            history.snapshots.append(snapshot)
            snapshot.content = self.daemon.read(f"{history.name}/snapshots/{name}")

    def delete_snapshot(self):
        if not self._snapshots():
            return
        history, snapshot = self.random.choice(self._snapshots())
        snapshot.lifetime.end_asked = self.load.position()
        self._ask("delete snapshot", "DELETE", f"vdis/{history.name}/snapshots/{snapshot.name}")
        snapshot.lifetime.end_answered = self.load.position()

    def clone(self):
        if not self._snapshots() or len(self.disks) >= DISKS + CLONES_MAX:
            return
        history, snapshot = self.random.choice(self._snapshots())
        self._create(f"clone-{next(self.names)}", snapshot.content,
                     {"from": f"{history.name}@{snapshot.name}"})

    def delete_clone(self):
        if len(self.disks) <= DISKS:
            return
        disk = self.random.choice(list(self.disks.values()))
        name, history = disk.history.name, disk.history
        self.load.remove(disk)
        self.daemon.detach(name)
        del self.disks[name]
        lifetimes = [history.lifetime, *(snapshot.lifetime for snapshot in history.snapshots
                                         if snapshot.lifetime.end_asked > 1 << 61)]
        for lifetime in lifetimes:
            lifetime.end_asked = self.load.position()
        self._ask("delete VDI", "DELETE", f"vdis/{name}")
        for lifetime in lifetimes:
            lifetime.end_answered = self.load.position()

    def clean(self):
        self._ask("clean", "POST", "store/clean", {})

    # The end.

    def check_snapshots(self):
        """That each snapshot was a prefix of what its disk was told; after the load has ended."""
        checked = 0
        for history in self.histories:
            for snapshot in history.snapshots:
                if snapshot.times is None or snapshot.content is None:
                    continue
                problem = history.problem_of_snapshot(snapshot.content, *snapshot.times)
                require(problem is None, f"{history.name}@{snapshot.name}: {problem}")
                checked += 1
        return checked
