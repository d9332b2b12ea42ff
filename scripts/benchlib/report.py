# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The Parallax authors
"""The results as tables in Markdown."""

GIB = 1 << 30
MIB = 1 << 20


def table(title, columns, rows):
    lines = [f"### {title}", "", "| " + " | ".join(columns) + " |",
             "| --- |" + " ---: |" * (len(columns) - 1)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def milliseconds(microseconds):
    return f"{microseconds / 1000:.2f} ms"


def latency(row):
    return [milliseconds(row["p50"]), milliseconds(row["p99"]), milliseconds(row["max"])]


def processor(row):
    if "shard_us" not in row:
        return ["-", "-"]
    return [f"{row['shard_us']:.0f} µs", f"{row['other_us']:.0f} µs"]


def ratio(row):
    low, high = row["spread"]
    return [f"{row['ratio']:.2f}", f"{low:.2f} to {high:.2f}"]


def seconds(value):
    return f"{value:.2f} s" if value < 100 else f"{value:.0f} s"


# --- one function for each measurement -----------------------------------------------------------

def latency_table(rows):
    return table(
        "Latency", ["", "p50", "p99", "max", "CPU of the shard", "CPU of the others", "count"],
        [[f"{name}, {state}", *latency(row), *processor(row), row["count"]]
         for state in ("idle", "loaded") for name, row in rows[state].items()])


def rate_table(rows):
    return table(
        "Snapshots a second", ["", "snapshots/s", "p50", "p99", "max"],
        [[name, f"{row['per_second']:.0f}", *latency(row)] for name, row in rows.items()])


def throughput_table(rows):
    return table(
        "Guest throughput",
        ["snapshots", "IOPS", "to 0/s", "middle half", "CPU of the shard per I/O",
         "CPU of the others", "made", "windows"],
        [[name, f"{row['iops']:.0f}", *ratio(row), f"{row['shard_us']:.1f} µs",
          f"{row['other_us']:.1f} µs", f"{row['snapshots_per_second']:.1f}/s", row["windows"]]
         for name, row in rows.items()])


def qcow2_table(rows):
    return "\n".join([
        table("Latency of a qcow2 snapshot", ["", "p50", "p99", "max", "count"],
              [[name, *latency(row), row["count"]] for name, row in rows["latency"].items()]),
        table("Guest throughput, qcow2, heavy",
              ["snapshots", "IOPS", "to 0/s", "of the rounds", "p99", "made"],
              [[name, f"{row['iops']:.0f}", *ratio(row), milliseconds(row["p99"]),
                f"{row['snapshots_per_second']:.1f}/s"]
               for name, row in rows["throughput"]["heavy"].items()])])


def clone_table(rows):
    return table(
        "Clone", ["of", "p50", "p99", "max", "CPU of the shard", "CPU of the others"],
        [[name, *latency(row), *processor(row)] for name, row in rows.items()])


def depth_table(rows):
    columns = ["disk", "IOPS", "MB/s", "p99", "to the first", "of the rounds", "CPU per I/O"]
    return "\n".join(
        table(f"Depth, {name}", columns, [depth_row(label, row) for label, row in of.items()])
        for name, of in rows.items())


def depth_row(label, row):
    cpu = f"{row['cpu']:.1f} µs" if "cpu" in row else "-"
    return [label, f"{row['iops']:.0f}", f"{row['mb_per_s']:.0f}", milliseconds(row["p99"]),
            *ratio(row), cpu]


def made_table(title, made):
    rows = [[name, *latency(made[name])] for name in ("all", "first_tenth", "last_tenth", "groups")
            if name in made]
    per_second = made["count"] / made["seconds"]
    return table(f"{title}: {made['count']} in {seconds(made['seconds'])}, {per_second:.0f}/s",
                 ["", "p50", "p99", "max"], rows)


def starts(rows):
    return [[f"start, {name}", seconds(row["seconds"]), f"{row['resident_bytes'] / MIB:.0f} MiB"]
            for name, row in rows.items()]


def pages_table(rows):
    return table("Pages of the list", ["", "p50", "p99", "max"],
                 [[name, *latency(row)] for name, row in rows.items()])


def snapshots_table(rows):
    return "\n".join([
        made_table("Snapshots of one disk", rows["made"]),
        table("Start", ["", "time", "resident"], starts(rows["start"])),
        pages_table(rows["pages"]),
        table("I/O with and without the snapshots",
              ["", "without", "with", "ratio", "of the rounds"],
              [[name, f"{row['none']:.0f}", f"{row['many']:.0f}", *ratio(row)]
               for name, row in rows["io"].items()]),
        table("One more snapshot", ["", "p50", "p99", "max"],
              [["snapshot", *latency(rows["snapshot"])]])])


def million_table(rows):
    return "\n".join([
        made_table("Snapshots in a store", rows["made"]),
        table("Start", ["", "time", "resident"], starts({"after": rows["start"]})),
        pages_table(rows["pages"]),
        table("One more snapshot", ["", "p50", "p99", "max"],
              [["snapshot", *latency(rows["snapshot"])]])])


def clones_table(rows):
    return "\n".join([
        made_table("Clones of one disk", rows["made"]),
        table("Start", ["", "time", "resident"],
              starts({"before": rows["start_before"], "after": rows["start_after"]})),
        table("List of all VDIs", ["", "p50", "p99", "max"], [["list", *latency(rows["list"])]])])


TABLES = {
    "latency": latency_table, "rate": rate_table, "heavy": throughput_table,
    "mixed": throughput_table, "light": throughput_table, "qcow2": qcow2_table,
    "clone": clone_table, "depth": depth_table, "snapshots": snapshots_table,
    "clones": clones_table, "million": million_table,
}


def machine_line(results):
    if "machine" not in results:
        return ""
    machine = results["machine"]
    return (f"{machine['cpus']} CPUs ({machine['model']}), "
            f"{machine['memory_bytes'] / GIB:.0f} GiB, Linux {machine['kernel']}, "
            f"{machine['file_system']}.\n")


def text(results, tables=None):
    parts = [line] if (line := machine_line(results)) else []
    for name, make in (tables or TABLES).items():
        if name in results["results"]:
            rows = dict(results["results"][name])
            at, load = rows.pop("at"), rows.pop("load_average")
            parts.append(f"## {name} ({at}, load average at the end {load:.1f})\n")
            parts.append(make(rows))
    return "\n".join(parts)
