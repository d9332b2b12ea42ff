# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The Parallax authors
"""What a store costs that is nearly full: overwriting, deletion, reading what was scattered."""

import subprocess
import time

from benchlib.parallax import GIB, Parallax, SnapshotPacer
from benchlib.qemu import Qemu
from benchlib.tools import Failure, ThreadTimes, fill, say, written_bytes

DEPTHS = (1, 32)
# A steady state: the write amplification of so many windows in a row is within this share.
STEADY_WINDOWS, STEADY_SHARE = 3, 0.1
# Room for what the load writes where nothing has to be cleaned, in stores.
ROOM = 1.5
# What the load between two snapshots may write, and the leaves that it changes.
SNAPSHOT_ROOM = 10 << 20
BLOCK = 4096


class Sizes:
    """What is measured: a store, the share of it that is live, and how long each load runs."""

    def __init__(self, store, fill_percent, runtime, overwrites, snapshots):
        self.store = store
        self.disk = int(store * fill_percent / 100) >> 20 << 20
        self.runtime = runtime
        self.overwrites = overwrites
        self.snapshots = snapshots


def measured(server, load):
    """What a load gets, what the device has to write for it, and the server's processor time. A
    load without warm-up, so that all three are of the same time."""
    times, before = ThreadTimes(server.pid), written_bytes(server.pid)
    result = load().result()
    device = written_bytes(server.pid) - before
    latency = result["latency_us"]
    return {"iops": result["iops"], "mb_per_s": result["mb_per_s"], "p50": latency["p50"],
            "p99": latency["p99"], "max": latency["max"], "operations": result["operations"],
            "amplification": device / max(1, result["bytes"]),
            "cpu_percent": result["server_cpu_percent"],
            } | times.microseconds(max(1, result["operations"]))


def overwrite_at_depths(server, load, runtime):
    return {f"depth {depth}": measured(
        server, lambda: load("randwrite", depth, runtime=runtime))
        for depth in DEPTHS}


# --- overwriting ---------------------------------------------------------------------------------

def overwrite(context, sizes, zipf=None):
    """The same load on a store with room, where nothing is cleaned, and on one that is nearly
    full, once the write amplification is steady."""
    def load_of(server):
        return lambda *arguments, **options: server.load(
            "disk", *arguments, zipf=zipf, seed=time.monotonic_ns() % 1000000, **options)

    roomy = filled_store(context, "roomy", sizes.disk + int(ROOM * sizes.store), sizes.disk)
    rows = {"with room": overwrite_at_depths(roomy, load_of(roomy), sizes.runtime)}
    roomy.discard()

    full = filled_store(context, "full", sizes.store, sizes.disk)
    rows["on the way"] = approach(full, load_of(full), sizes)
    rows["steady"] = overwrite_at_depths(full, load_of(full), sizes.runtime)
    rows["store"] = full.status["store"]
    full.discard()
    return rows


def filled_store(context, name, store_bytes, disk_bytes):
    server = Parallax(context, name, f"{store_bytes >> 20}M", shards=1)
    server.start()
    server.make_filled("disk", disk_bytes)
    return server


def approach(server, load, sizes):
    """Overwrites the disk until the write amplification is steady, and at least so many times."""
    windows, written, deadline = [], 0, time.monotonic() + 20 * sizes.runtime
    while not is_steady(windows) or written < sizes.overwrites * sizes.disk:
        if time.monotonic() > deadline:
            raise Failure(f"no steady state within {20 * sizes.runtime} s: {windows[-8:]}")
        row = measured(server, lambda: load("randwrite", 32, runtime=max(2, sizes.runtime / 4)))
        written += row["operations"] * BLOCK
        windows.append(round(row["amplification"], 2))
        say(f"overwritten {written / sizes.disk:.2f} times, write amplification {windows[-1]}")
    return {"windows": windows, "overwrites": written / sizes.disk}


def is_steady(windows):
    last = windows[-STEADY_WINDOWS:]
    return (len(last) == STEADY_WINDOWS
            and max(last) - min(last) <= STEADY_SHARE * (sum(last) / len(last)))


def measure_peers(context, sizes):
    """A disk of the same size on the same file system, served by qemu-storage-daemon."""
    rows = {}
    for driver in ("raw", "qcow2"):
        server = Qemu(context, driver, driver)
        server.make_base(sizes.disk)
        server.start()
        fill(context, server.socket)
        rows[driver] = overwrite_at_depths(server, server.load, sizes.runtime)
        server.discard()
    return rows


# --- deletion ------------------------------------------------------------------------------------

def measure_deletion(context, sizes):
    """Snapshots under a random load, deleted all at once: when their blocks are given back, and
    when whole extents are free again."""
    disk = min(sizes.disk, 2 * GIB)
    room = int(ROOM * sizes.store) + sizes.snapshots * SNAPSHOT_ROOM
    server = filled_store(context, "deletion", disk + room, disk)
    server.restart()
    before = server.status["store"]
    rate = 50
    pacer = SnapshotPacer(server, "disk", rate, sizes.snapshots / rate)
    load = server.load("disk", "randwrite", 8, runtime=sizes.snapshots / rate)
    pacer.start()
    made = len(pacer.result())
    load.result()
    full = server.status["store"]
    start = time.monotonic()
    server.delete_snapshots("disk")
    asked = time.monotonic() - start
    given_back = wait(lambda: not deletions(server), "the deletions do not end")
    held = full["live_bytes"] - server.status["store"]["live_bytes"]
    freed = wait_for_rest(lambda: server.status["store"]["free_bytes"])
    rows = {"snapshots": made, "held_bytes": held, "asked_s": asked,
            "given_back_s": asked + given_back,
            "gb_per_s": held / 1e9 / (asked + given_back),
            "freed_s": asked + given_back + freed,
            "free_before": before["free_bytes"], "free_full": full["free_bytes"],
            "free_after": server.status["store"]["free_bytes"]}
    if can_clean(context):
        start = time.monotonic()
        clean(server)
        rows |= {"cleaned_s": time.monotonic() - start,
                 "free_cleaned": server.status["store"]["free_bytes"]}
    server.discard()
    return rows


def deletions(server):
    spaces = [shard["space"] for shard in server.status["shards"]]
    return sum(space["reclaims_waiting"] + space["reclaiming"] for space in spaces)


def wait(is_done, complaint, seconds=600):
    start = time.monotonic()
    while not is_done():
        if time.monotonic() - start > seconds:
            raise Failure(complaint)
        time.sleep(0.02)
    return time.monotonic() - start


def wait_for_rest(figure, quiet=10):
    """Waits until a figure has been the same for so many seconds; when it changed last."""
    start = changed = time.monotonic()
    last = figure()
    while time.monotonic() - changed < quiet:
        if (now := figure()) != last:
            last, changed = now, time.monotonic()
        time.sleep(0.1)
    return changed - start


# --- reading in order ----------------------------------------------------------------------------

def measure_sequential(context, sizes):
    """Reading a disk from end to end: as it was written, after random overwriting, cleaned."""
    disk = sizes.disk // 2
    server = filled_store(context, "sequential", sizes.store, disk)
    rows = {"written in order": read_in_order(server)}
    half = f"{disk >> 21}M"
    server.load("disk", "randwrite", 32, total=half, seed=7).result()
    rows["half of it overwritten at random"] = read_in_order(server)
    if can_clean(context):
        start = time.monotonic()
        clean(server)
        rows["cleaned"] = read_in_order(server) | {"cleaning_s": time.monotonic() - start}
    else:
        say("parallax-ctl cannot clean: no row for that")
    server.discard()
    return rows


def read_in_order(server):
    server.restart()  # Nothing is cached.
    result = server.load("disk", "read", 8, total="100%", block="1M").result()
    return {"mb_per_s": result["mb_per_s"], "p99": result["latency_us"]["p99"]}


def can_clean(context):
    shown = subprocess.run([context.program("parallax-ctl"), "store", "--help"],
                           capture_output=True, text=True, check=True).stdout
    return any(line.split()[:1] == ["clean"] for line in shown.splitlines())


def clean(server):
    subprocess.run([server.context.program("parallax-ctl"), "--socket", str(server.control),
                    "store", "clean"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   check=True)
