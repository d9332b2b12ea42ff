# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The Parallax authors
"""Starts the daemon on the image of a crash and compares all that is in it with what may be."""

from crashlib import nbd
from crashlib.history import STAMP, stamped
from crashlib.recording import SECTOR
from stage import Failure, require

FINAL_NUMBER = 1 << 62  # Of the write that shows that a disk works again.
BLOCK = 4096
NO_SPACE = 28
# A loss of power may tear one of two copies; what comes next writes it anew.
MAY_BE_TORN = {"superblock", "checkpoint_root"}


class Judge:
    """What is right at one crash point."""

    def __init__(self, daemon, histories, point):
        self.daemon, self.histories, self.point = daemon, histories, point

    def judge(self, twice):
        """Fails by a sentence. `twice`: the daemon dies once more, and all must be the same."""
        self._check("before the daemon opens it", MAY_BE_TORN)
        self.daemon.start()
        found = self._compare()
        if twice:
            self.daemon.kill()
            self.daemon.start()
            require(self._compare() == found, "a second recovery finds something else")
        self._write()
        self.daemon.terminate()
        self._check("after the daemon has closed it", set())
        return len(found)

    def _check(self, when, may_be_torn):
        """The store's own books and checksums, whatever the disks hold."""
        for finding in self.daemon.check():
            is_torn = finding["severity"] == "repairable" and finding["structure"] in may_be_torn
            require(is_torn, f"a check {when} finds: {finding['message']}")

    def _compare(self):
        """All that is there: version: content."""
        histories = {history.name: history for history in self.histories
                     if history.lifetime.may_be(self.point)}
        names = set(self.daemon.vdi_names())
        self._require_right_names("VDIs", names, histories.values())
        found = {}
        for name in sorted(names):
            found[name] = self.daemon.read(name)
            problem = histories[name].problem_of_crash(found[name], self.point)
            require(problem is None, f"{name}: {problem}")
            self._compare_snapshots(histories[name], found)
        self._require_whole_groups(found)
        return found

    def _compare_snapshots(self, history, found):
        possible = [snapshot for snapshot in history.snapshots
                    if snapshot.lifetime.may_be(self.point)]
        names = set(self.daemon.snapshot_names(history.name))
        self._require_right_names(f"snapshots of {history.name}", names, possible)
        for snapshot in possible:
            if snapshot.name not in names:
                continue
            data = self.daemon.read(f"{history.name}/snapshots/{snapshot.name}")
            version = f"{history.name}@{snapshot.name}"
            require(snapshot.content is None or data == snapshot.content,
                    f"{version} has changed: {self._difference(data, snapshot.content)}")
            found[version] = data

    @staticmethod
    def _difference(data, right):
        for at in range(0, len(right), SECTOR):
            if data[at:at + SECTOR] != right[at:at + SECTOR]:
                number, sector = STAMP.unpack_from(data, at)
                whole = data[at:at + SECTOR] == stamped(number, sector)
                return (f"sector {at // SECTOR} holds "
                        f"{f'write {number} of sector {sector}' if whole else 'something else'}, "
                        f"and belongs to write {STAMP.unpack_from(right, at)[0]}")
        return "its size is another"

    def _require_right_names(self, what, names, possible):
        may = {thing.name for thing in possible}
        must = {thing.name for thing in possible if thing.lifetime.must_be(self.point)}
        require(names <= may, f"there are {what} that must not be: {sorted(names - may)}")
        require(must <= names, f"{what} are missing: {sorted(must - names)}")

    def _require_whole_groups(self, found):
        for history in self.histories:
            for snapshot in history.snapshots:
                # Members that were deleted, alone or with their VDI, say nothing.
                if snapshot.group is None or snapshot.lifetime.end_asked <= self.point:
                    continue
                members = {f"{other.name}@{snapshot.name}" in found for other in self.histories
                           for member in other.snapshots if member.name == snapshot.name
                           and member.lifetime.end_asked > self.point}
                require(len(members) == 1, f"of the group {snapshot.name} only a part is there")

    def _write(self):
        """Every disk takes a write and a flush, unless the store is full."""
        data = b"".join(stamped(FINAL_NUMBER, sector) for sector in range(BLOCK // SECTOR))
        for name in self.daemon.vdi_names():
            client = self.daemon.attach(name)
            error, _ = client.call(nbd.WRITE, 0, BLOCK, data)
            require(error in (0, NO_SPACE), f"{name}: a write ended with error {error}")
            flush_error, _ = client.call(nbd.FLUSH)
            require(flush_error == 0, f"{name}: a flush ended with error {flush_error}")
            _, found = client.call(nbd.READ, 0, BLOCK)
            require(error or found == data, f"{name}: what was written is not there")
            client.close()


__all__ = ["Failure", "Judge"]
