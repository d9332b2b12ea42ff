# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The Parallax authors
"""Latency of a snapshot, snapshots a second, and what they cost the guest."""

import multiprocessing
import threading
import time

from benchlib.parallax import (GIB, Connection, Parallax, RetentionPacer, SnapshotPacer,
                               take_snapshot)
from benchlib.qemu import Qemu
from benchlib.tools import (DeviceProbe, Failure, ThreadTimes, fill, median, paced, run, say,
                             summary)

READY = Connection.encode("GET", "/v1/ready")
# Workload of parallax-bench and depth; mixed is 70 % reads.
LOADS = {"heavy": ("randwrite", 32), "mixed": ("mixed", 4), "light": ("mixed", 1)}


# --- latency -------------------------------------------------------------------------------------

def prepare_latency(context):
    server = Parallax(context, "latency", context.scaled("12G", "3G"))
    server.start()
    server.make_filled("disk", context.scaled(2 * GIB, GIB // 4))


def measure_latency(context):
    """Idle and with 4 KiB random writes at depth 32: a snapshot, the answer of a request that
    does nothing, and one durable write of the file system."""
    server = Parallax(context, "latency")
    server.start()
    count = context.scaled(1000, 50)
    connection = server.connect()
    rows = {"idle": {
        "device": DeviceProbe(server.folder / "probe").sample(count),
        "ready": repeated(server, connection, READY, count),
        "snapshot": repeated(server, connection, take_snapshot("disk"), count),
        "snapshot, 100/s": paced_snapshots(server, context.scaled(6, 1)),
    }}
    rows["loaded"] = {
        "device": loaded(server, lambda: DeviceProbe(server.folder / "probe").sample(count)),
        "ready": loaded(server, lambda: summary([connection.timed(READY) for _ in range(count)])),
        "snapshot": loaded(server, lambda: summary(
            [connection.timed(take_snapshot("disk")) for _ in range(count)])),
        "snapshot, 100/s": loaded(
            server, lambda: paced_snapshots(server, context.scaled(6, 1))),
    }
    server.discard()
    return rows


def repeated(server, connection, request, count):
    """Latency, and the daemon's processor time for each."""
    times = ThreadTimes(server.pid)
    durations = [connection.timed(request) for _ in range(count)]
    return summary(durations) | times.microseconds(count)


def loaded(server, measure):
    load = server.load("disk", "randwrite", 32, runtime=600)
    time.sleep(0.5)
    result = measure()
    if not load.is_running:
        raise Failure("the load ended while it was needed")
    load.stop()
    return result


def paced_snapshots(server, seconds):
    connection = server.connect()
    request = take_snapshot("disk")
    return summary(list(paced(0.01, seconds, lambda: connection.timed(request))))


# --- rate ----------------------------------------------------------------------------------------

def prepare_rate(context):
    server = Parallax(context, "rate", "4G")
    server.start()
    for number in range(256):
        server.create(f"disk-{number}", GIB // 4)


def measure_rate(context):
    server = Parallax(context, "rate")
    server.start()
    seconds = context.scaled(3, 0.5)
    rows = {
        "1 client": rate_of_clients(server, ["disk-0"], seconds),
        "8 clients, a disk each": rate_of_clients(
            server, [f"disk-{number}" for number in range(8)], seconds),
        "8 clients, one disk": rate_of_clients(server, ["disk-0"] * 8, seconds),
    }
    for members in (2, 16, 256):
        rows[f"groups of {members}"] = rate_of_groups(server, members, seconds)
    server.discard()
    return rows


def rate_of_clients(server, disks, seconds):
    """Each client is a process, so that the clients do not wait for each other."""
    barrier = multiprocessing.Barrier(len(disks))
    results = multiprocessing.Queue()

    def client(disk):
        connection = server.connect()
        request = take_snapshot(disk)
        barrier.wait()
        results.put(list(paced(0, seconds, lambda: connection.timed(request))))

    clients = [multiprocessing.Process(target=client, args=(disk,)) for disk in disks]
    for process in clients:
        process.start()
    durations = [duration for _ in clients for duration in results.get(timeout=120)]
    for process in clients:
        process.join()
    return {"per_second": len(durations) / seconds} | summary(durations)


def rate_of_groups(server, members, seconds):
    connection = server.connect()
    request = Connection.encode(
        "POST", "/v1/snapshots", {"vdis": [f"disk-{number}" for number in range(members)]})
    durations = list(paced(0, seconds, lambda: connection.timed(request)))
    return {"per_second": members * len(durations) / sum(durations)} | summary(durations)


# --- throughput ----------------------------------------------------------------------------------

KEPT = 100


def prepare_throughput(context, load):
    Parallax(context, f"throughput-{load}", context.scaled("20G", "14G"))


def measure_throughput(context, load):
    """One load without a pause, and short windows of 0 and of some snapshots a second in turn: each
    window is compared with the zeros before and after it, so that a machine that becomes slower or
    faster by the minute changes little."""
    server = Parallax(context, f"throughput-{load}")
    server.start()
    rounds = []
    for number in range(context.scaled(8, 1)):
        say(f"throughput, {load}: round {number + 1}")
        rounds.append(throughput_round(context, server, LOADS[load], number))
    server.discard()
    return compare_windows(rounds)


def throughput_round(context, server, load, number):
    """A new disk each time, since nothing gives the space of old data back while it is in use."""
    server.make_filled("disk", context.scaled(GIB, GIB // 4))
    phases = [("1/s", 1, None), ("10/s", 10, None), ("100/s", 100, None),
              (f"100/s, keep-last {KEPT}", 100, KEPT)]
    first = number % len(phases)
    workload, depth = load
    running = server.load("disk", workload, depth, runtime=600, seed=number + 1)
    time.sleep(1)
    windows = [("0/s", throughput_window(server, 0, None))]
    for label, rate, keep_last in phases[first:] + phases[:first]:
        windows.append((label, throughput_window(server, rate, keep_last)))
        windows.append(("0/s", throughput_window(server, 0, None)))
    if not running.is_running:
        running.result()
        raise Failure("the load ended while it was needed")
    running.stop()
    server.detach("disk")
    server.call("DELETE", "/v1/vdis/disk")
    wait_for_space(server)
    return windows


def throughput_window(server, rate, keep_last):
    settle, length = 0.4, 1.2
    beside = []
    if rate:
        beside.append(SnapshotPacer(server, "disk", rate, settle + length))
    if keep_last:
        beside.append(RetentionPacer(server, "disk", keep_last, settle + length))
    for thread in beside:
        thread.start()
    time.sleep(settle)
    begin, times = (time.perf_counter(), requests_done(server)), ThreadTimes(server.pid)
    time.sleep(length)
    count = requests_done(server) - begin[1]
    result = {"iops": count / (time.perf_counter() - begin[0])} | times.microseconds(count)
    taken = [thread.result() for thread in beside]
    return result | {"per_second": len(taken[0]) / (settle + length) if taken else 0}


def requests_done(server):
    return sum(shard["reads"] + shard["writes"] for shard in server.status["shards"])


def wait_for_space(server):
    """Until the space of what was deleted has come back."""
    free, unchanged = server.free_bytes, 0
    while unchanged < 5:
        time.sleep(0.2)
        before, free = free, server.free_bytes
        unchanged = unchanged + 1 if free == before else 0


def compare_windows(rounds):
    """Each window against the mean of its neighbours, which are zeros."""
    found = {}
    for windows in rounds:
        for place in range(1, len(windows) - 1):
            label, window = windows[place]
            # A zero between two zeros of the same round shows the noise.
            step = 2 if label == "0/s" else 1
            if not step <= place < len(windows) - step:
                continue
            reference = (windows[place - step][1]["iops"] + windows[place + step][1]["iops"]) / 2
            found.setdefault(label, []).append((window, window["iops"] / reference))
    rows = {}
    for label in sorted(found, key=lambda text: (len(text), text)):
        ratios = sorted(share for _, share in found[label])
        rows[label] = {
            "iops": median([window["iops"] for window, _ in found[label]]),
            "ratio": median(ratios), "spread": quartiles(ratios), "windows": len(ratios),
            "shard_us": median([window["shard_us"] for window, _ in found[label]]),
            "other_us": median([window["other_us"] for window, _ in found[label]]),
            "snapshots_per_second": median([window["per_second"] for window, _ in found[label]])}
    return rows


def quartiles(ordered):
    return [ordered[len(ordered) // 4], ordered[min(len(ordered) - 1, 3 * len(ordered) // 4)]]


def compare_to_zero(rounds):
    """Phases of a round against the mean of the zeros at its begin and its end."""
    zeros = [(r["0 before"]["iops"] + r["0 after"]["iops"]) / 2 for r in rounds]
    rows = {}
    for label in rounds[0]:
        ratios = [r[label]["iops"] / zero for r, zero in zip(rounds, zeros)]
        rows[label] = {
            "iops": median([r[label]["iops"] for r in rounds]), "ratio": median(ratios),
            "spread": [min(ratios), max(ratios)],
            "p99": median([r[label]["p99"] for r in rounds]),
            "snapshots_per_second": median([r[label]["snapshots_per_second"] for r in rounds])}
    return rows


# --- qcow2 ---------------------------------------------------------------------------------------

def prepare_qcow2(context):
    server = Qemu(context, "qcow2")
    server.make_base(context.scaled(GIB, GIB // 4))
    server.start()
    fill(context, server.socket)


class QcowSnapshots:
    """Snapshots by QMP: internal ones, or overlays, of which each makes the chain longer."""

    def __init__(self, server, kind):
        self.control = server.connect()
        self.folder = server.folder
        self.kind = kind
        self.count = 0
        self.top = "disk"

    def take(self):
        self.count += 1
        if self.kind == "internal":
            return self.control.timed("blockdev-snapshot-internal-sync", device="disk",
                                      name=f"s{self.count}")
        overlay = f"overlay-{self.count}"
        duration = self.control.timed("blockdev-snapshot-sync", **{
            "node-name": self.top, "snapshot-node-name": overlay, "format": "qcow2",
            "snapshot-file": str(self.folder / f"{overlay}.qcow2")})
        self.top = overlay
        return duration


def measure_qcow2(context):
    """The same with qemu-storage-daemon; a fresh copy of the image for each phase."""
    rows = {"latency": {}, "throughput": {}}
    seconds = context.scaled(4, 1)
    for kind in ("internal", "overlay"):
        for state in ("idle", "loaded"):
            rows["latency"][f"{kind}, {state}"] = qcow2_latency(context, kind, state, seconds)
    rounds = []
    for number in range(context.scaled(2, 1)):
        say(f"qcow2 throughput: round {number + 1}")
        phases = [("0 before", "internal", 0), ("internal, 1/s", "internal", 1),
                  ("internal, 10/s", "internal", 10), ("internal, 100/s", "internal", 100),
                  ("overlay, 1/s", "overlay", 1), ("overlay, 10/s", "overlay", 10),
                  ("0 after", "internal", 0)]
        rounds.append({label: qcow2_phase(context, kind, rate) for label, kind, rate in phases})
    rows["throughput"]["heavy"] = compare_to_zero(rounds)
    return rows


def fresh_qcow2(context):
    server = Qemu(context, "qcow2-run")
    source = Qemu(context, "qcow2").image(0)
    # A copy that shares nothing, and is on the device before it is used.
    run(["cp", "--sparse=never", str(source), str(server.image(0))], "cp")
    run(["sync", str(server.image(0))], "sync")
    server.start()
    return server


def qcow2_latency(context, kind, state, seconds):
    server = fresh_qcow2(context)
    snapshots = QcowSnapshots(server, kind)
    load = server.load("randwrite", 32, runtime=600) if state == "loaded" else None
    time.sleep(0.5)
    result = summary(list(paced(0.1, seconds, snapshots.take)))
    if load is not None:
        load.stop()
    server.discard()
    return result


def qcow2_phase(context, kind, rate):
    server = fresh_qcow2(context)
    snapshots = QcowSnapshots(server, kind)
    warmup, runtime = 0.5, context.scaled(2.5, 0.5)
    load = server.load("randwrite", 32, runtime=runtime, warmup=warmup)
    durations = []
    if rate:
        pacer = threading.Thread(target=lambda: durations.extend(
            paced(1 / rate, warmup + runtime, snapshots.take)))
        pacer.start()
        pacer.join()
    result = load.result()
    server.discard()
    return {"iops": result["iops"], "p99": result["latency_us"]["p99"],
            "snapshots_per_second": len(durations) / (warmup + runtime)}
