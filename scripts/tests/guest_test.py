#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The Parallax authors
"""Tests of scripts/guest/run-guest: it must tell a good end from every bad one."""

import os
import pathlib
import subprocess
import tempfile
import unittest

RUN_GUEST = pathlib.Path(__file__).resolve().parent.parent / "guest/run-guest"


def guest(script, *arguments, timeout=120):
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "script.sh")
        file.write_text(script)
        return subprocess.run(
            [RUN_GUEST, "--script", file, "--timeout", str(timeout), *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")


class RunGuest(unittest.TestCase):
    def test_it_passes_on_what_the_guest_says_and_its_status(self):
        with tempfile.TemporaryDirectory() as folder:
            extra = pathlib.Path(folder, "extra")
            extra.write_text("from outside\n")
            disk = pathlib.Path(folder, "disk")
            disk.touch()
            os.truncate(disk, 8 << 20)
            log = pathlib.Path(folder, "log")
            ended = guest("cat /guest/extra; cat /sys/block/vda/size; printf open; exit 7",
                          "--add", extra, "--disk", f"file:{disk}", "--log", log, "--prefix", "> ")
            self.assertEqual(ended.stdout, "> from outside\n> 16384\n> open\n", ended.stderr)
            self.assertEqual(ended.returncode, 7)
            self.assertIn("PARALLAX-GUEST-RESULT 7", log.read_text())

    def test_a_guest_that_hangs_is_stopped(self):
        ended = guest("sleep 1000", timeout=1)
        self.assertEqual(ended.returncode, 124)
        self.assertIn("not done after 1 s", ended.stderr)

    def test_a_guest_that_crashes_has_no_result(self):
        ended = guest("echo c >/proc/sysrq-trigger")
        self.assertEqual(ended.returncode, 125)
        self.assertIn("without a result", ended.stderr)

    def test_wrong_use(self):
        for arguments in (["--disk", "vhost:"], ["--disk", "x"], ["--add", "/no/such/file"],
                          ["--boot", "/dev/vda"]):
            ended = guest("", *arguments)
            self.assertEqual(ended.returncode, 2, arguments)


if __name__ == "__main__":
    unittest.main()
