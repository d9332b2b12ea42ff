# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The Parallax authors
"""qemu-storage-daemon with a qcow2 or raw disk on a vhost-user socket, and its QMP."""

import json
import shutil
import socket
import subprocess
import time

from benchlib.tools import Failure, Load, run, stop_process


class QMP:
    def __init__(self, path):
        self.stream = socket.socket(socket.AF_UNIX)
        self.stream.settimeout(120)
        self.stream.connect(str(path))
        self.file = self.stream.makefile("r")
        self.file.readline()
        self.call("qmp_capabilities")

    def call(self, command, **arguments):
        request = {"execute": command, "arguments": arguments}
        self.stream.sendall(json.dumps(request).encode() + b"\n")
        while True:
            line = self.file.readline()
            if not line:
                raise Failure("qemu-storage-daemon closed its QMP connection")
            answer = json.loads(line)
            if "error" in answer:
                raise Failure(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def timed(self, command, **arguments):
        start = time.perf_counter()
        self.call(command, **arguments)
        return time.perf_counter() - start


class Qemu:
    """The top of a chain of images in `folder`: image-0 is the base."""

    def __init__(self, context, name, driver="qcow2"):
        self.context = context
        self.driver = driver
        self.folder = context.folder(name)
        self.socket = self.folder / "disk.sock"
        self.control = self.folder / "qmp.sock"
        self.process = None
        context.servers.append(self)

    def image(self, level):
        return self.folder / f"image-{level}.{self.driver}"

    def make_base(self, size):
        run(["qemu-img", "create", "-q", "-f", self.driver, "-o", "preallocation=falloc",
             str(self.image(0)), str(size)], "qemu-img create")

    def make_overlay(self, level):
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b",
             str(self.image(level - 1)), str(self.image(level))], "qemu-img create")

    def start(self, level=0):
        for path in (self.socket, self.control):
            path.unlink(missing_ok=True)
        # Below the top the files get their options from the top's: the page cache is bypassed
        # all the way down.
        arguments = [
            "qemu-storage-daemon",
            "--chardev", f"socket,path={self.control},server=on,wait=off,id=qmp",
            "--monitor", "chardev=qmp",
            "--blockdev", self.description(level),
            "--export", "type=vhost-user-blk,id=e,node-name=disk,writable=on,num-queues=1,"
            f"addr.type=unix,addr.path={self.socket}"]
        with open(self.folder / "qemu.log", "ab") as log:
            self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log)
        for _ in range(500):
            if self.socket.exists() and self.control.exists():
                return
            if self.process.poll() is not None:
                raise Failure(f"qemu-storage-daemon ended; see {self.folder / 'qemu.log'}")
            time.sleep(0.01)
        raise Failure("qemu-storage-daemon is not ready after 5 s")

    def description(self, level):
        def node(number):
            result = {"driver": self.driver, "discard": "unmap",
                      "cache": {"direct": True},
                      "file": {"driver": "file", "filename": str(self.image(number)),
                               "aio": "io_uring", "cache": {"direct": True}}}
            if self.driver == "qcow2":
                result["backing"] = node(number - 1) if number > 0 else None
            if number < level:
                result["read-only"] = True
                result["file"]["read-only"] = True
            return result
        return json.dumps(node(level) | {"node-name": "disk"})

    def stop(self):
        if self.process is not None:
            stop_process(self.process)
            self.process = None

    def discard(self):
        self.stop()
        shutil.rmtree(self.folder)

    @property
    def pid(self):
        return self.process.pid

    def load(self, *arguments, **options):
        return Load(self.context, self.socket, *arguments, **options)

    def connect(self):
        return QMP(self.control)
