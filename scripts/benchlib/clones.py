# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The Parallax authors
"""Time of a clone, and what the depth of a chain of clones costs its reader."""

import json

from benchlib.parallax import GIB, Connection, Parallax
from benchlib.qemu import Qemu
from benchlib.snapshots import READY
from benchlib.tools import DeviceProbe, ThreadTimes, fill, median, say, summary

TIB = 1 << 40


# --- time of a clone -----------------------------------------------------------------------------

def prepare_clone(context):
    server = Parallax(context, "clone", context.scaled("8G", "3G"))
    server.start()
    server.make_filled("small", context.scaled(GIB, GIB // 4))
    server.create("large", TIB)
    server.attach("large")
    # Written all over: each write has a leaf of the tree of its own.
    server.load("large", "randwrite", 32, total=context.scaled("128M", "8M")).result()
    server.create("empty", GIB)
    for vdi in ("small", "large", "empty"):
        server.snapshot(vdi, "gold")


def measure_clone(context):
    """Clones of the disks in turn, over one connection."""
    server = Parallax(context, "clone")
    server.start()
    connection = server.connect()
    count = context.scaled(500, 20)
    rows = {}
    for turn in range(2):
        for vdi in ("empty", "small", "large"):
            times = ThreadTimes(server.pid)
            durations = [connection.timed(Connection.encode(
                "POST", "/v1/vdis", {"name": f"{vdi}-{turn}-{number}", "from": f"{vdi}@gold"}))
                for number in range(count)]
            # The second turn counts: the first one has brought everything into memory.
            rows[vdi] = summary(durations) | times.microseconds(count)
    rows["ready"] = summary([connection.timed(READY) for _ in range(count)])
    rows["device"] = DeviceProbe(server.folder / "probe").sample(count)
    server.discard()
    return rows


# --- depth of a chain ----------------------------------------------------------------------------

PARALLAX_DEPTH = 100
QCOW2_DEPTHS = (1, 30)
# Written at each level: 4 KiB blocks at random, other ones each time.
LEVEL_BYTES = "4M"


def prepare_depth(context):
    """clone-0 is the first disk; `flat` gets the writes of all levels without being a clone."""
    size = context.scaled(2 * GIB, GIB // 4)
    depth = context.scaled(PARALLAX_DEPTH, 10)
    server = Parallax(context, "depth", context.scaled("8G", "3G"), shards=1)
    server.start()
    server.make_filled("clone-0", size)
    server.make_filled("flat", size)
    for level in range(1, depth + 1):
        server.snapshot(f"clone-{level - 1}", "s")
        server.clone(f"clone-{level - 1}@s", f"clone-{level}")
        server.attach(f"clone-{level}")
        for vdi in (f"clone-{level}", "flat"):
            server.load(vdi, "randwrite", 8, total=LEVEL_BYTES, seed=level).result()
        if level != depth:
            server.detach(f"clone-{level}")
    server.stop()
    prepare_qcow2_depth(context, size)
    (context.work / "depth" / "prepared.json").write_text(json.dumps({"depth": depth}))


def prepare_qcow2_depth(context, size):
    server = Qemu(context, "depth-qcow2")
    server.make_base(size)
    server.start()
    fill(context, server.socket)
    server.stop()
    for level in range(1, max(QCOW2_DEPTHS) + 1):
        server.make_overlay(level)
        server.start(level)
        server.load("randwrite", 8, total=LEVEL_BYTES, seed=level).result()
        server.stop()


def measure_depth(context):
    depth = json.loads((context.work / "depth" / "prepared.json").read_text())["depth"]
    server = Parallax(context, "depth")
    server.start()
    runtime = context.scaled(2, 0.5)
    rounds = context.scaled(4, 1)
    rows = {}
    targets = {"first": "clone-0", f"{depth} deep": f"clone-{depth}", "flat": "flat"}
    for workload, wanted_depth, block in (("randread", 32, "4K"), ("read", 8, "1M")):
        results = []
        for number in range(rounds):
            say(f"depth, {workload}: round {number + 1} of {rounds}")
            order = list(targets)[number % 3:] + list(targets)[:number % 3]
            results.append({label: server.load(
                targets[label], workload, wanted_depth, runtime=runtime, warmup=0.5,
                block=block, seed=number + 1).result() for label in order})
        rows[f"parallax {workload}"] = relative(results, "first")
    server.discard()
    rows |= measure_qcow2_depth(context, rounds, runtime)
    return rows


def measure_qcow2_depth(context, rounds, runtime):
    server = Qemu(context, "depth-qcow2")
    rows = {}
    levels = {"first": 0} | {f"{level} deep": level for level in QCOW2_DEPTHS}
    for workload, depth, block in (("randread", 32, "4K"), ("read", 8, "1M")):
        results = []
        for number in range(rounds):
            say(f"depth, qcow2 {workload}: round {number + 1} of {rounds}")
            result = {}
            for label, level in levels.items():
                server.start(level)
                result[label] = server.load(workload, depth, runtime=runtime, warmup=0.5,
                                            block=block, seed=number + 1).result()
                server.stop()
            results.append(result)
        rows[f"qcow2 {workload}"] = relative(results, "first")
    server.discard()
    return rows


def relative(results, reference):
    rows = {}
    for label in sorted(results[0], key=lambda text: (text != reference, text)):
        ratios = [result[label]["iops"] / result[reference]["iops"] for result in results]
        rows[label] = {
            "iops": median([result[label]["iops"] for result in results]),
            "mb_per_s": median([result[label]["mb_per_s"] for result in results]),
            "p99": median([result[label]["latency_us"]["p99"] for result in results]),
            "cpu": median([result[label]["server_cpu_us_per_io"] for result in results]),
            "ratio": median(ratios), "spread": [min(ratios), max(ratios)]}
    return rows
