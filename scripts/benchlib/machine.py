# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The Parallax authors
"""The machine that is measured on, and the programs that are measured."""

import os
import pathlib
import platform

from benchlib.tools import run, say

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def build():
    run([str(ROOT / "scripts/bootstrap"), "build", "test"], "scripts/bootstrap")
    for product in ("parallax-blockd", "parallax-ctl", "parallax-bench"):
        say(f"building {product}")
        run(["swift", "build", "--package-path", str(ROOT), "-c", "release",
             "--product", product], "swift build")
    return run(["swift", "build", "--package-path", str(ROOT), "-c", "release",
                "--show-bin-path"], "swift build").strip()


def machine(work):
    model = "unknown processor"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    file_system = run(["stat", "-f", "-c", "%T", str(work)], "stat").strip()
    return {"cpus": os.cpu_count(), "model": model, "memory_bytes": memory,
            "kernel": platform.release(), "file_system": file_system}
