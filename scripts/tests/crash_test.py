#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The Parallax authors
"""Tests of scripts/crashlib: what may be there after a power failure, and what must."""

import pathlib
import sys
import tempfile
import unittest

SCRIPTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(SCRIPTS), str(SCRIPTS / "guest")]
from crashlib import recorder  # noqa: E402  (the folders are known only now)
from crashlib.history import History, Operation  # noqa: E402
from crashlib.recording import NEVER, Images, Recording  # noqa: E402

SECTOR, BLOCK = 512, 4096


class Histories(unittest.TestCase):
    """Three writes, one after the other; the clock and the position go by tens."""

    def setUp(self):
        self.history = History("disk", bytes(4 * SECTOR))
        self.first = self.write(1, 0, 10, 20)
        self.second = self.write(2, 1, 30, 40)
        self.third = self.write(3, 0, 50, 60)

    def write(self, number, sector, sent, answered):
        operation = Operation(number, sector, 1, zeros=False, fua=False)
        self.history.sent(operation, sent, sent)
        self.history.answered(operation, answered, answered)
        return operation

    def disk(self, *operations):
        data = bytearray(4 * SECTOR)
        for operation in operations:
            data[operation.first * SECTOR:(operation.first + 1) * SECTOR] = operation.data()
        return bytes(data)

    def problem(self, data, point=100):
        return self.history.problem_of_crash(data, point)

    def test_every_prefix_is_right(self):
        for data in (self.disk(), self.disk(self.first), self.disk(self.first, self.second),
                     self.disk(self.second, self.third)):
            self.assertIsNone(self.problem(data))

    def test_a_gap_is_wrong(self):
        self.assertIn("answered before", self.problem(self.disk(self.third)))

    def test_what_was_flushed_must_be_there(self):
        self.history.flushed(sent=45, position=47)
        self.assertIsNone(self.problem(self.disk(), point=46))
        self.assertIsNotNone(self.problem(self.disk(self.first), point=47))
        self.assertIsNone(self.problem(self.disk(self.first, self.second), point=47))

    def test_a_flush_covers_only_what_was_answered_before_it_was_sent(self):
        self.history.flushed(sent=35, position=99)
        self.assertEqual([self.first.safe_at, self.second.safe_at], [99, NEVER])

    def test_what_was_not_sent_yet_is_not_there(self):
        self.assertIsNotNone(self.problem(self.disk(self.first, self.second), point=29))

    def test_sectors_that_nobody_wrote_to_do_not_change(self):
        self.assertIn("nobody", self.problem(self.disk()[:-1] + b"x"))

    def test_a_snapshot_has_what_was_answered_and_nothing_that_was_sent_later(self):
        inside = self.disk(self.first, self.second)
        self.assertIsNone(self.history.problem_of_snapshot(inside, 45, 48))
        self.assertIsNotNone(self.history.problem_of_snapshot(self.disk(self.first), 45, 48))
        self.assertIsNotNone(
            self.history.problem_of_snapshot(self.disk(self.second, self.third), 45, 48))


class Recordings(unittest.TestCase):
    """W1 ends, a flush covers it, W2 ends, W3 is under way."""

    EVENTS = [
        (recorder.WRITE_BEGUN, 1, 0, BLOCK, 0), (recorder.WRITE_ENDED, 1, 0, 0, 0),
        (recorder.FLUSH_BEGUN, 2, 0, 0, 0), (recorder.WRITE_BEGUN, 3, BLOCK, BLOCK, BLOCK),
        (recorder.WRITE_ENDED, 3, 0, 0, 0), (recorder.FLUSH_ENDED, 2, 0, 0, 0),
        (recorder.WRITE_BEGUN, 4, 2 * BLOCK, BLOCK, 2 * BLOCK),
    ]

    def setUp(self):
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        self.folder = pathlib.Path(place.name)
        (self.folder / "events").write_bytes(
            b"".join(recorder.EVENT.pack(*event) for event in self.EVENTS))
        (self.folder / "data").write_bytes(b"1" * BLOCK + b"2" * BLOCK + b"3" * BLOCK)
        (self.folder / "base").write_bytes(bytes(3 * BLOCK))
        self.recording = Recording(self.folder)
        self.addCleanup(self.recording.data.close)

    def contents(self, point, fault=None):
        """The first bytes of the three blocks in many images of one crash point."""
        found = set()
        for seed in range(60):
            images = Images(self.recording, self.folder / "base", self.folder, fault)
            images.make(point, seed)
            images.durable.close()
            image = images.image.read_bytes()
            found.add(tuple(image[block * BLOCK] for block in range(3)))
        return found

    def test_a_flush_covers_what_had_ended_when_it_began(self):
        self.assertEqual([write.durable for write in self.recording.by_end], [5, NEVER, NEVER])

    def test_what_was_flushed_is_in_every_image_and_the_rest_in_some(self):
        found = self.contents(len(self.EVENTS))
        self.assertEqual({blocks[0] for blocks in found}, {ord("1")})
        self.assertEqual({blocks[1] for blocks in found}, {0, ord("2")})
        self.assertEqual({blocks[2] for blocks in found}, {0, ord("3")})

    def test_before_the_flush_ended_nothing_is_sure(self):
        self.assertEqual({blocks[0] for blocks in self.contents(5)}, {0, ord("1")})

    def test_nothing_comes_from_the_future(self):
        self.assertEqual(self.contents(0), {(0, 0, 0)})

    def test_faults_lose_what_was_flushed(self):
        for fault in ("flush", "write"):
            self.assertIn(0, {blocks[0] for blocks in self.contents(6, fault)})


if __name__ == "__main__":
    unittest.main()
