# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The Parallax authors
"""The results of scripts/bench-space as tables in Markdown."""

from benchlib import report
from benchlib.report import GIB, milliseconds, seconds, table

COLUMNS = ["", "IOPS", "to the first", "p50", "p99", "to the first", "max", "device/guest bytes",
           "CPU", "CPU per I/O"]


def load_row(name, row, first):
    return [name, f"{row['iops']:.0f}", f"{row['iops'] / first['iops']:.2f}",
            milliseconds(row["p50"]), milliseconds(row["p99"]),
            f"{row['p99'] / first['p99']:.1f}", milliseconds(row["max"]),
            f"{row['amplification']:.2f}", f"{row['cpu_percent']:.0f} %",
            f"{row['shard_us'] + row['other_us']:.1f} µs"]


def side_by_side(title, states, depths):
    """Tables of each depth; every state against the first one."""
    first = next(iter(states.values()))
    return "\n".join(
        table(f"{title}, {depth}", COLUMNS,
              [load_row(name, of[depth], first[depth]) for name, of in states.items()])
        for depth in depths)


def overwrite_table(title):
    def text(rows):
        store, way = rows["store"], rows["on the way"]
        size = store["extent_count"] * store["extent_bytes"]
        live = store["live_bytes"] / size * 100
        note = (f"{live:.0f} % of {size / GIB:.1f} GiB live; steady after {way['overwrites']:.1f} "
                f"times the disk (write amplification {', '.join(map(str, way['windows'][-6:]))})"
                ".\n")
        states = {name: rows[name] for name in ("with room", "steady")}
        return note + "\n" + side_by_side(title, states, states["steady"])
    return text


def peers_table(rows):
    return side_by_side("4 KiB random overwrite", rows, rows["raw"])


def deletion_table(rows):
    frees = [name for name in ("free_before", "free_full", "free_after", "free_cleaned")
             if name in rows]
    cleaned = [["cleaning by hand after that", seconds(rows["cleaned_s"])]] if (
        "cleaned_s" in rows) else []
    return table(
        f"{rows['snapshots']} snapshots deleted", ["", ""],
        [["held by them", f"{rows['held_bytes'] / GIB:.2f} GiB"],
         ["answered", seconds(rows["asked_s"])],
         ["their blocks given back", seconds(rows["given_back_s"])],
         ["no more extents became free after", seconds(rows["freed_s"])],
         ["blocks given back", f"{rows['gb_per_s']:.2f} GB/s"],
         *cleaned,
         ["free before, with them, after" + (", cleaned" if cleaned else ""),
          " / ".join(f"{rows[name] / GIB:.2f} GiB" for name in frees)],
         ])


def sequential_table(rows):
    return table("Reading a disk from end to end, 1 MiB at depth 8",
                 ["", "MB/s", "p99", "cleaning took"],
                 [[name, f"{row['mb_per_s']:.0f}", milliseconds(row["p99"]),
                   seconds(row["cleaning_s"]) if "cleaning_s" in row else "-"]
                  for name, row in rows.items()])


TABLES = {
    "uniform": overwrite_table("4 KiB random overwrite"),
    "zipf": overwrite_table("4 KiB overwrite, Zipf 0.99"),
    "peers": peers_table, "deletion": deletion_table, "sequential": sequential_table,
}


def text(results):
    return report.text(results, TABLES)
