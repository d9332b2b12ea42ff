# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The Parallax authors
"""A store with its daemon, and the control socket over one connection that stays open."""

import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse

from benchlib.tools import Failure, Load, fill, paced, run, stop_process

GIB = 1 << 30


class Connection:
    """HTTP/1.1 with keep-alive, and nothing between the clock and the socket."""

    def __init__(self, path):
        self.stream = socket.socket(socket.AF_UNIX)
        self.stream.settimeout(120)
        self.stream.connect(str(path))

    @staticmethod
    def encode(method, path, body=None):
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
        if body is not None:
            head += "Content-Type: application/json\r\n"
        return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content

    def exchange(self, request):
        """Sends what `encode` made; (status, body as bytes)."""
        self.stream.sendall(request)
        data = self.stream.recv(1 << 16)
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        wanted = 0
        for line in lines[1:]:
            name, _, value = line.partition(":")
            if name.lower() == "content-length":
                wanted = int(value)
        parts, size = [body], len(body)
        while size < wanted:
            parts.append(self._more())
            size += len(parts[-1])
        return int(lines[0].split()[1]), b"".join(parts)

    def _more(self):
        data = self.stream.recv(1 << 16)
        if not data:
            raise Failure("the daemon closed the control connection")
        return data

    def call(self, method, path, body=None):
        status, content = self.exchange(self.encode(method, path, body))
        if status >= 300:
            raise Failure(f"{method} {path}: {status} {content.decode()}")
        return json.loads(content) if content else None

    def timed(self, request):
        """Seconds from the first byte sent to the last byte received."""
        start = time.perf_counter()
        status, content = self.exchange(request)
        duration = time.perf_counter() - start
        if status >= 300:
            raise Failure(f"the daemon answered {status}: {content.decode()}")
        return duration


def take_snapshot(vdi):
    return Connection.encode("POST", f"/v1/vdis/{vdi}/snapshots")


class Parallax:
    def __init__(self, context, name, store_size="8G", shards=None):
        self.context = context
        self.folder = context.folder(name)
        self.store = self.folder / "store"
        self.control = self.folder / "control.sock"
        self.log = self.folder / "daemon.log"
        self.process = None
        if not self.store.exists():
            command = [context.program("parallax-ctl"), "store", "init", str(self.store),
                       "--size", store_size, "--preallocate"]
            run(command + (["--shards", str(shards)] if shards else []), "store init")
        context.servers.append(self)

    def start(self):
        """Seconds until the daemon says that it is ready."""
        arguments = [self.context.program("parallax-blockd"), "--store", str(self.store),
                     "--control", str(self.control), "--state-dir", str(self.folder)]
        started = time.perf_counter()
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log)
        while time.perf_counter() - started < 300:
            if self.process.poll() is not None:
                raise Failure(f"parallax-blockd ended at its start; see {self.log}")
            try:
                status, _ = self.connect().exchange(Connection.encode("GET", "/v1/ready"))
                if status == 200:
                    return time.perf_counter() - started
            except (OSError, Failure):
                pass
            time.sleep(0.002)
        raise Failure("parallax-blockd is not ready after 300 s")

    def stop(self):
        if self.process is not None:
            stop_process(self.process)
            self.process = None

    def restart(self):
        self.stop()
        return self.start()

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process = None

    def discard(self):
        """Ends the daemon and takes its files away."""
        self.stop()
        shutil.rmtree(self.folder)

    def connect(self):
        return Connection(self.control)

    def call(self, method, path, body=None):
        return self.connect().call(method, path, body)

    @property
    def pid(self):
        return self.process.pid

    def socket(self, vdi):
        return self.folder / f"{vdi}.sock"

    def create(self, vdi, size):
        self.call("POST", "/v1/vdis", {"name": vdi, "size_bytes": size})

    def attach(self, vdi):
        self.call("POST", f"/v1/vdis/{vdi}/attachments",
                  {"kind": "vhost-user", "socket": str(self.socket(vdi))})

    def detach(self, vdi):
        self.call("DELETE", f"/v1/vdis/{vdi}/attachments")

    def make_filled(self, vdi, size):
        self.create(vdi, size)
        self.attach(vdi)
        fill(self.context, self.socket(vdi))

    def load(self, vdi, *arguments, **options):
        return Load(self.context, self.socket(vdi), *arguments, **options)

    def snapshot(self, vdi, name):
        self.call("POST", f"/v1/vdis/{vdi}/snapshots", {"name": name})

    def clone(self, source, name):
        self.call("POST", "/v1/vdis", {"name": name, "from": source})

    def snapshot_names(self, vdi):
        connection, after, names = self.connect(), None, []
        while True:
            query = {"limit": 1000} | ({"after": after} if after else {})
            page = connection.call(
                "GET", f"/v1/vdis/{vdi}/snapshots?{urllib.parse.urlencode(query)}")
            names += [snapshot["name"] for snapshot in page["snapshots"]]
            after = page.get("next")
            if after is None:
                return names

    def delete_snapshots(self, vdi):
        """All of them; their space comes back in the background."""
        connection = self.connect()
        names = [f"{vdi}@{name}" for name in self.snapshot_names(vdi)]
        for start in range(0, len(names), 500):
            connection.call("POST", "/v1/snapshots/delete",
                            {"snapshots": names[start:start + 500]})

    @property
    def status(self):
        return self.call("GET", "/v1/status")

    @property
    def free_bytes(self):
        return self.status["store"]["free_bytes"]


class SnapshotPacer(threading.Thread):
    """Takes snapshots of one VDI at a rate for as long as a load lasts."""

    def __init__(self, server, vdi, per_second, seconds):
        super().__init__()
        self.connection = server.connect()
        self.request = take_snapshot(vdi)
        self.per_second = per_second
        self.seconds = seconds
        self.durations = []
        self.failure = None

    def run(self):
        try:
            for duration in paced(1 / self.per_second, self.seconds,
                                  lambda: self.connection.timed(self.request)):
                self.durations.append(duration)
        except (OSError, Failure) as failure:
            self.failure = failure

    def result(self):
        self.join()
        if self.failure is not None:
            raise Failure(f"snapshots failed: {self.failure}")
        return self.durations


class RetentionPacer(threading.Thread):
    """Applies `keep-last` to one VDI once a second."""

    def __init__(self, server, vdi, keep_last, seconds):
        super().__init__()
        self.connection = server.connect()
        self.vdi = vdi
        self.seconds = seconds
        self.deleted = 0
        self.failure = None
        self.connection.call("PUT", f"/v1/vdis/{vdi}/retention",
                             {"keep_last": keep_last, "include_manual": True})

    def run(self):
        try:
            for report in paced(1, self.seconds, self.apply):
                self.deleted += report["deleted_count"]
        except (OSError, Failure) as failure:
            self.failure = failure

    def apply(self):
        return self.connection.call(
            "POST", f"/v1/vdis/{self.vdi}/retention/apply", {"brief": True})

    def result(self):
        self.join()
        if self.failure is not None:
            raise Failure(f"retention failed: {self.failure}")
        return self.deleted


__all__ = ["Connection", "GIB", "Parallax", "RetentionPacer", "SnapshotPacer", "take_snapshot"]
