# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The Parallax authors
"""What every measurement of the scripts beside it needs: programs, loads, clocks, statistics."""

import json
import mmap
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import time


class Failure(Exception):
    """What went wrong, in one sentence."""


def say(text):
    print(f"{pathlib.Path(sys.argv[0]).name}: {text}", file=sys.stderr, flush=True)


def summary(seconds):
    """Percentiles of a list of durations, in microseconds."""
    ordered = sorted(seconds)
    if not ordered:
        raise Failure("a measurement has no samples")

    def at(share):
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e6, 1)

    return {"count": len(ordered), "p50": at(0.5), "p99": at(0.99),
            "max": round(ordered[-1] * 1e6, 1)}


def median(values):
    return statistics.median(values)


class Context:
    """Where the programs are and where the disks go."""

    def __init__(self, binaries, work, quick):
        self.binaries = pathlib.Path(binaries)
        self.work = pathlib.Path(work)
        # Small numbers, to see that everything works.
        self.quick = quick
        self.servers = []

    def program(self, name):
        return str(self.binaries / name)

    def folder(self, name):
        path = self.work / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def scaled(self, full, quick):
        return quick if self.quick else full

    def stop_servers(self):
        for server in reversed(self.servers):
            server.stop()
        self.servers.clear()


def run(arguments, what):
    result = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                            check=False)
    if result.returncode != 0:
        lines = (result.stderr or result.stdout).strip().splitlines() or ["no message"]
        raise Failure(f"{what} failed: {lines[-1]}")
    return result.stdout


class Load:
    """parallax-bench on one device. It runs from the construction to `result`."""

    def __init__(self, context, socket, workload, depth, runtime=None, total=None, warmup=0.0,
                 block="4K", size=None, seed=1, read_percent=70, zipf=None):
        arguments = [context.program("parallax-bench"), "--json", "--socket", str(socket),
                     "--workload", workload, "--block-size", block, "--depth", str(depth),
                     "--seed", str(seed)]
        if workload == "mixed":
            arguments += ["--read-percent", str(read_percent)]
        if zipf is not None:
            arguments += ["--zipf", str(zipf)]
        if total is not None:
            arguments += ["--total", total]
        else:
            arguments += ["--runtime", str(runtime), "--warmup", str(warmup)]
        if size is not None:
            arguments += ["--range", size]
        self.process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True)

    @property
    def is_running(self):
        return self.process.poll() is None

    def result(self):
        output, errors = self.process.communicate()
        if self.process.returncode != 0:
            raise Failure(f"parallax-bench failed: {errors.strip() or 'no message'}")
        return json.loads(output)

    def stop(self):
        """Ends a load that was made longer than it is needed."""
        self.process.kill()
        self.process.communicate()


def fill(context, socket, size=None):
    Load(context, socket, "write", 8, total="100%", block="1M", size=size).result()


def stop_process(process, seconds=60):
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            say(f"process {process.pid} does not stop; killing it")
            process.kill()
            process.wait()


def resident_bytes(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise Failure(f"process {pid} has no VmRSS")


class ThreadTimes:
    """Processor time of a daemon's threads: of its shards, and of all others."""

    def __init__(self, pid):
        self.pid = pid
        self.begin = self.read()

    def read(self):
        shards = 0
        for task in pathlib.Path(f"/proc/{self.pid}/task").iterdir():
            try:
                name = (task / "comm").read_text()
                if name.startswith("parallax-") and name[9:10].isdigit():
                    shards += int((task / "schedstat").read_text().split()[0])
            except FileNotFoundError:
                pass  # the thread of a connection that has ended
        # That of the process has the ended threads too, in ticks.
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks = int(fields[11]) + int(fields[12])
        total = ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
        return {"shard": shards, "other": total - shards}

    def microseconds(self, count):
        """Of each of `count` operations since the construction."""
        end = self.read()
        return {f"{name}_us": round((end[name] - self.begin[name]) / count / 1000, 1)
                for name in end}


def written_bytes(pid):
    """Bytes that a process has sent to its devices."""
    for line in pathlib.Path(f"/proc/{pid}/io").read_text().splitlines():
        if line.startswith("write_bytes:"):
            return int(line.split()[1])
    raise Failure(f"process {pid} has no write_bytes")


class DeviceProbe:
    """What the file system takes for one durable write: O_DIRECT pwrite of 4 KiB and fdatasync,
    over blocks that were written before. No snapshot that survives power loss can be faster."""

    BLOCKS = 1024

    def __init__(self, path):
        self.buffer = mmap.mmap(-1, 4096)
        self.buffer.write(b"p" * 4096)
        if not path.exists():
            path.write_bytes(b"\0" * (4096 * self.BLOCKS))
        self.descriptor = os.open(path, os.O_RDWR | os.O_DIRECT)
        os.fsync(self.descriptor)

    def once(self, number):
        start = time.perf_counter()
        os.pwrite(self.descriptor, self.buffer, 4096 * (number % self.BLOCKS))
        os.fdatasync(self.descriptor)
        return time.perf_counter() - start

    def sample(self, count):
        durations = [self.once(number) for number in range(count)]
        os.close(self.descriptor)
        return summary(durations)


def paced(interval, seconds, call):
    """Calls `call` every `interval` seconds, or as often as it can; yields what it returns."""
    start = time.perf_counter()
    due = start
    while True:
        now = time.perf_counter()
        if now - start >= seconds:
            return
        if due > now:
            time.sleep(due - now)
        yield call()
        due = max(due + interval, time.perf_counter() - interval)
