# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The Parallax authors
"""The daemon on a store, with sockets and a state folder of its own."""

import json
import os
import select
import shutil
import socket
import subprocess
import time

from crashlib import nbd
from stage import Control, Failure, die_with_parent, require, run

PATIENCE = 60  # Seconds; only a hang reaches them.


class Daemon:
    def __init__(self, binaries, store, folder, engine="io_uring"):
        self.binaries, self.store, self.folder, self.engine = binaries, store, folder, engine
        self.process = self.control = None
        self.nbd = folder / "nbd.sock"

    def start(self):
        """Returns when it is ready."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        notify = self.folder / "notify.sock"
        log = open(self.folder / "log", "wb")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear, log:
            ear.bind(str(notify))
            control = self.folder / "c.sock"
            self.process = subprocess.Popen(
                [str(self.binaries / "parallax-blockd"), "--store", str(self.store), "--control",
                 str(control), "--nbd", str(self.nbd), "--state-dir", str(self.folder / "state"),
                 "--config", "/dev/null", "--punch-after", "1", "--engine", self.engine],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_parent,
                env=os.environ | {"NOTIFY_SOCKET": str(notify)})
            self._wait_until_ready(ear)
        self.control = Control(control)

    def _wait_until_ready(self, ear):
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if select.select([ear], [], [], 0.05)[0]:
                if ear.recv(4096).startswith(b"READY=1"):
                    return
            elif self.process.poll() is not None:
                raise Failure(f"the daemon ended at its start: {self.last_words()}")
        raise Failure(f"the daemon is not ready after {PATIENCE} s: {self.last_words()}")

    def last_words(self):
        lines = (self.folder / "log").read_text(errors="replace").strip().splitlines()
        return " / ".join(lines[-3:])

    def terminate(self):
        self._forget_control()
        process, self.process = self.process, None
        process.terminate()
        status = process.wait()
        require(status == 0, f"the daemon ended with status {status}: {self.last_words()}")

    def kill(self):
        self._forget_control()
        if self.process is not None:
            process, self.process = self.process, None
            process.kill()
            process.wait()

    def check(self):
        """What `store check` finds in the store, which is not being served."""
        require(self.process is None, "a store that is served is only checked in part")
        report = run(self.binaries / "parallax-ctl", "store", "check", self.store, "--json",
                     statuses=(0, 2, 3, 4))
        return json.loads(report)["findings"]

    def _forget_control(self):
        if self.control is not None:
            self.control.close()
            self.control = None

    def attach(self, path):
        """Attaches a VDI, or as VDI/snapshots/NAME a snapshot, and connects to it."""
        self.control.call("POST", f"/v1/vdis/{path}/attachments", {"kind": "nbd"})
        return nbd.Client(self.nbd, path.replace("/snapshots/", "@"))

    def detach(self, path):
        self.control.call("DELETE", f"/v1/vdis/{path}/attachments")

    def read(self, path):
        """All of a version that is not attached."""
        client = self.attach(path)
        data = client.read_all()
        client.close()
        self.detach(path)
        return data

    def vdi_names(self):
        return [vdi["name"] for vdi in self.control.call("GET", "/v1/vdis")["vdis"]]

    def snapshot_names(self, vdi):
        page = self.control.call("GET", f"/v1/vdis/{vdi}/snapshots?limit=1000")
        return [snapshot["name"] for snapshot in page["snapshots"]]
