#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The Parallax authors
"""Tests of scripts/tests/count: a number that CI shows must not be kinder than the run was."""

import pathlib
import subprocess
import tempfile
import unittest

COUNT = pathlib.Path(__file__).resolve().parent / "count"
REPORT = """<?xml version="1.0" encoding="UTF-8"?>
<testsuites><testsuite name="TestResults" tests="2" failures="1" skipped="2">
  <testcase classname="A" name="a()" time="0.1" />
  <testcase classname="A" name="b()"><skipped>no kernel</skipped></testcase>
  <testcase classname="A" name="c()"><skipped /></testcase>
  <testcase classname="A" name="d(_:)" time="0.1"><failure message="1 &#8594; 2" /></testcase>
</testsuite></testsuites>
"""
LOG = """◇ Test run started.
✔ Test "a sentence" passed after 0.001 seconds.
➜ Test e() skipped.
➜ Test "f" skipped: "no kernel"
✔ Test case passing 1 argument i → 1 to p(_:) passed after 0.001 seconds.
✘ Test p(_:) with 3 test cases failed after 0.001 seconds with 1 issue.
✘ Test run with 7 tests in 1 suite failed after 0.003 seconds with 2 issues.
"""


class Count(unittest.TestCase):
    def count(self, report):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder)
            if report is not None:
                (path / "x.xml").write_text(report)
            (path / "log").write_text(LOG)
            return subprocess.run([COUNT, path / "x.xml", path / "log"], encoding="utf-8",
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=True)

    def test_the_report_counts(self):
        ended = self.count(REPORT)
        self.assertEqual(ended.stdout, "1 1 2\n")
        self.assertEqual(ended.stderr.splitlines(), [
            "skipped: A.b(): no kernel", "skipped: A.c(): no reason given", "failed: A.d(_:)"])

    def test_without_a_report_the_log_counts(self):
        self.assertEqual(self.count(None).stdout, "1 1 2\n")
        self.assertEqual(self.count(REPORT[:100]).stdout, "1 1 2\n")


if __name__ == "__main__":
    unittest.main()
