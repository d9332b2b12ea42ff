# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The Parallax authors
"""Many snapshots, many clones: making them, living with them, starting with them."""

import json
import time
import urllib.parse

from benchlib.parallax import GIB, Connection, Parallax, take_snapshot
from benchlib.tools import median, resident_bytes, say, summary


# --- 100,000 snapshots of one disk ---------------------------------------------------------------

def prepare_snapshots(context):
    """Two stores, alike but for the snapshots that will be made in one of them."""
    for name in ("scale-none", "scale-many"):
        server = Parallax(context, name, context.scaled("12G", "3G"))
        server.start()
        server.make_filled("disk", context.scaled(2 * GIB, GIB // 4))
        server.stop()


def make_snapshots(server, count):
    """One client, while the guest writes, so that each snapshot differs from the one before."""
    load = server.load("disk", "mixed", 1, runtime=3600, read_percent=90)
    connection, request = server.connect(), take_snapshot("disk")
    durations = []
    for number in range(count):
        durations.append(connection.timed(request))
        if (number + 1) % 10_000 == 0:
            say(f"{number + 1} snapshots, {sum(durations):.0f} s")
    load.stop()
    tenth = max(1, count // 10)
    return {"count": count, "seconds": sum(durations), "all": summary(durations),
            "first_tenth": summary(durations[:tenth]), "last_tenth": summary(durations[-tenth:])}


def measure_snapshots(context):
    many, none = Parallax(context, "scale-many"), Parallax(context, "scale-none")
    many.start()
    rows = {"made": make_snapshots(many, context.scaled(100_000, 500))}
    many.stop()
    rows["start"] = {"none": start_and_memory(none), "many": start_and_memory(many)}
    rows["pages"] = pages(context, many, "disk")
    rows["io"] = compare_io(context, {"none": none, "many": many})
    connection = many.connect()
    rows["snapshot"] = summary(
        [connection.timed(take_snapshot("disk")) for _ in range(context.scaled(500, 20))])
    many.kill()
    rows["start"]["many, killed"] = start_and_memory(many)
    none.discard()
    many.discard()
    return rows


def start_and_memory(server):
    seconds = server.start()
    return {"seconds": seconds, "resident_bytes": resident_bytes(server.pid)}


def pages(context, server, vdi):
    """The first, one in the middle and the last page, of 100 and of 1000."""
    names = server.snapshot_names(vdi)
    rows = {}
    connection = server.connect()
    for limit in (100, 1000):
        places = {"first": None, "middle": names[len(names) // 2],
                  "last": names[max(0, len(names) - limit - 1)]}
        for place, after in places.items():
            query = {"limit": limit} | ({"after": after} if after else {})
            request = Connection.encode(
                "GET", f"/v1/vdis/{vdi}/snapshots?{urllib.parse.urlencode(query)}")
            rows[f"{place} {limit}"] = summary(
                [connection.timed(request) for _ in range(context.scaled(50, 5))])
    return rows


WORKLOADS = {"randread": ("randread", 32), "randwrite": ("randwrite", 32), "mixed": ("mixed", 4)}


def compare_io(context, servers):
    """The same load on both stores in turn."""
    rows = {}
    for name, (workload, depth) in WORKLOADS.items():
        ratios, values = [], {label: [] for label in servers}
        for number in range(context.scaled(4, 1)):
            say(f"scale, {name}: round {number + 1}")
            order = list(servers) if number % 2 == 0 else list(servers)[::-1]
            for label in order:
                result = servers[label].load(
                    "disk", workload, depth, runtime=context.scaled(2, 0.5), warmup=0.5,
                    seed=number + 1).result()
                values[label].append(result["iops"])
            ratios.append(values["many"][-1] / values["none"][-1])
        rows[name] = {label: median(list_of) for label, list_of in values.items()}
        rows[name] |= {"ratio": median(ratios), "spread": [min(ratios), max(ratios)]}
    return rows


# --- a million snapshots in a store --------------------------------------------------------------

MEMBERS = 250


def prepare_million(context):
    server = Parallax(context, "scale-million", "6G")
    server.start()
    for number in range(MEMBERS):
        server.create(f"disk-{number}", GIB)
    groups = context.scaled(4000, 4)
    connection = server.connect()
    request = Connection.encode(
        "POST", "/v1/snapshots", {"vdis": [f"disk-{number}" for number in range(MEMBERS)]})
    durations = []
    for number in range(groups):
        durations.append(connection.timed(request))
        if (number + 1) % 400 == 0:
            say(f"{(number + 1) * MEMBERS} snapshots, {sum(durations):.0f} s")
    made = {"count": groups * MEMBERS, "seconds": sum(durations), "groups": summary(durations)}
    made["resident_bytes"] = resident_bytes(server.pid)
    server.stop()
    (server.folder / "prepared.json").write_text(json.dumps(made))


def measure_million(context):
    server = Parallax(context, "scale-million")
    rows = {"made": json.loads((server.folder / "prepared.json").read_text())}
    rows["start"] = start_and_memory(server)
    connection = server.connect()
    request = take_snapshot("disk-0")
    rows["snapshot"] = summary([connection.timed(request)
                                for _ in range(context.scaled(500, 20))])
    rows["pages"] = pages(context, server, "disk-0")
    started = time.perf_counter()
    server.stop()
    rows["stop_seconds"] = time.perf_counter() - started
    server.discard()
    return rows


# --- 10,000 clones -------------------------------------------------------------------------------

def prepare_clones(context):
    server = Parallax(context, "scale-clones", context.scaled("6G", "3G"))
    server.start()
    server.make_filled("gold", context.scaled(GIB, GIB // 4))
    server.snapshot("gold", "v1")


def measure_clones(context):
    """10,000 clones of one gold master over one connection."""
    server = Parallax(context, "scale-clones")
    rows = {"start_before": start_and_memory(server)}
    connection = server.connect()
    count = context.scaled(10_000, 100)
    durations = [connection.timed(Connection.encode(
        "POST", "/v1/vdis", {"name": f"vm-{number:05}", "from": "gold@v1"}))
        for number in range(count)]
    tenth = count // 10
    rows["made"] = {"count": count, "seconds": sum(durations), "all": summary(durations),
                    "first_tenth": summary(durations[:tenth]),
                    "last_tenth": summary(durations[-tenth:]),
                    "resident_bytes": resident_bytes(server.pid)}
    rows["list"] = summary([connection.timed(Connection.encode("GET", "/v1/vdis"))
                            for _ in range(context.scaled(10, 2))])
    server.stop()
    rows["start_after"] = start_and_memory(server)
    server.discard()
    return rows
