# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The Parallax authors
"""What the programs share that show something with a daemon and its guests.

    with Stage("gold-master", options) as stage:
        stage.make_store("8G")
        stage.start_daemon()
        stage.ctl("vdi", "create", "disk", "--size", "1G")

The store is in a temporary folder. At the end, however it comes, every process is ended by its id
and the folder is removed.
"""

import argparse
import ctypes
import http.client
import json
import os
import pathlib
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent
SUPERUSER_FOLDERS = ":/usr/sbin:/sbin"  # e2fsprogs are there.


class Failure(Exception):
    """What was to be shown is not so; the text says it to the reader."""


def require(condition, text):
    if not condition:
        raise Failure(text)


def quantiles(seconds):
    """What a list of times looks like, for the reader."""
    ordered = sorted(seconds)
    p50, p99 = (ordered[len(ordered) * percent // 100] * 1000 for percent in (50, 99))
    return f"p50 {p50:.2f} ms, p99 {p99:.2f} ms, max {ordered[-1] * 1000:.2f} ms"


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG


def run(*command, statuses=(0,), **more):
    """Runs a program to its end; its output, both streams. It fails by any other status."""
    words = [str(word) for word in command]
    done = subprocess.run(words, stdin=more.pop("stdin", subprocess.DEVNULL),
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8",
                          errors="replace", preexec_fn=die_with_parent, check=False, **more)
    if done.returncode not in statuses:
        raise Failure(f"'{shlex.join(words)}' ended with status {done.returncode}: "
                      f"{done.stdout.strip()[-2000:]}")
    return done.stdout


def check_ext4(path):
    """Replays the journal, and nothing but that; then there must be no fault."""
    run("e2fsck", "-y", "-E", "journal_only", path, statuses=(0, 1))
    run("e2fsck", "-f", "-n", path)


def ext4_names(path, folder):
    """The names in a folder of an ext4 image."""
    # /INODE/MODE/OWNER/GROUP/NAME/SIZE/
    lines = run("debugfs", "-R", f"ls -p {folder}", path).splitlines()
    names = [line.split("/")[5] for line in lines if line.startswith("/")]
    return [name for name in names if name not in (".", "..")]


class Control:
    """The control socket, over one connection that is kept."""

    def __init__(self, path):
        self.connection = http.client.HTTPConnection("localhost", timeout=120)
        self.connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.connection.sock.settimeout(120)
        self.connection.sock.connect(str(path))

    def ask(self, method, path, body=None):
        """The status of the answer, and its body."""
        headers = {"Content-Type": "application/json"} if body is not None else {}
        text = json.dumps(body) if body is not None else None
        self.connection.request(method, path, text, headers)
        answer = self.connection.getresponse()
        data = answer.read()
        return answer.status, json.loads(data) if data else None

    def call(self, method, path, body=None):
        """The body of the answer; any status but success fails us."""
        status, answer = self.ask(method, path, body)
        require(status < 300, f"{method} {path}: {status} {answer}")
        return answer

    def close(self):
        self.connection.close()


class Guest:
    """A run of run-guest in the background; `lines` has what it said, and when we heard it."""

    def __init__(self, arguments, log, shown):
        self.lines, self.shown = [], shown
        self.changed = threading.Condition()
        self.ended = False
        self.log = log
        with open(log, "ab") as errors:
            self.process = subprocess.Popen(
                [str(REPOSITORY / "scripts/guest/run-guest"), "--prefix", "", *arguments],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
                encoding="utf-8", errors="replace", preexec_fn=die_with_parent)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            line = line.rstrip("\n")
            if self.shown(line):
                print("        guest | " + line, flush=True)
            with self.changed:
                self.lines.append((time.monotonic(), line))
                self.changed.notify_all()
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def after(self, word):
        """The rest of each line that begins with a word, and when it was heard."""
        with self.changed:
            return [(when, line[len(word):].strip()) for when, line in self.lines
                    if line.startswith(word)]

    def wait_for(self, word, seconds):
        """Waits for a line that begins with a word; the rest of it."""
        def there():
            return self.ended or any(line.startswith(word) for _, line in self.lines)
        with self.changed:
            self.changed.wait_for(there, seconds)
        found = self.after(word)
        require(found, f"the guest did not say '{word}': {self.last_words()}")
        return found[-1][1]

    def finish(self):
        """Waits for its end, which run-guest bounds; a guest that failed fails us."""
        status = self.process.wait()
        self.reader.join()
        require(status == 0, f"the guest ended with status {status}: {self.last_words()}")

    def last_words(self):
        text = pathlib.Path(self.log).read_text(errors="replace").strip()
        return " / ".join([line for _, line in self.lines[-10:]] + text.splitlines()[-3:])


class Stage:
    def __init__(self, name, options):
        self.name, self.options = name, options
        self.bin = pathlib.Path(options.bin).resolve() if options.bin else None
        self.daemon, self.guests = None, []
        self.started = time.monotonic()
        self.folder = None

    def __enter__(self):
        os.environ["PATH"] += SUPERUSER_FOLDERS
        self.folder = pathlib.Path(
            tempfile.mkdtemp(prefix=f"parallax-{self.name}.", dir=self.options.dir))
        return self

    def __exit__(self, kind, problem, trace):
        for guest in self.guests:
            guest.process.terminate()
        for guest in self.guests:
            guest.process.wait()
        if self.daemon:
            self.daemon.terminate()
            self.daemon.wait()
        if kind and (log := self.file("daemon.log")).exists():
            print(f"{self.name}: the daemon's last lines:", file=sys.stderr)
            sys.stderr.writelines(log.read_text(errors="replace").splitlines(True)[-20:])
        if self.options.keep:
            print(f"{self.name}: kept {self.folder}")
        else:
            shutil.rmtree(self.folder)

    def file(self, name):
        return self.folder / name

    # What the reader sees.

    def step(self, text):
        print(f"\n[{time.monotonic() - self.started:3.0f} s] {text}", flush=True)

    def say(self, text):
        print("        " + text, flush=True)

    # The programs.

    def prepare(self, *groups):
        """Installs what is missing and builds the programs; the guest kit's folder is in `kit`."""
        self.prepare_programs(*groups)
        self.kit = subprocess.run([str(REPOSITORY / "scripts/guest/build-kit")], check=True,
                                  stdout=subprocess.PIPE, encoding="utf-8").stdout.strip()
        self.started = time.monotonic()

    def prepare_programs(self, *groups):
        """The same for what boots no guest."""
        self.step("Installing what is needed and not there yet, and building the programs")
        self.foreground(REPOSITORY / "scripts/bootstrap", *groups)
        if self.bin is None:
            for product in ("parallax-blockd", "parallax-ctl"):
                self.foreground("swift", "build", "-c", "release", "--product", product)
            self.bin = pathlib.Path(run("swift", "build", "-c", "release", "--show-bin-path",
                                        cwd=REPOSITORY).strip())
        self.started = time.monotonic()

    def foreground(self, *command):
        words = [str(word) for word in command]
        status = subprocess.run(words, stdin=subprocess.DEVNULL, cwd=REPOSITORY,
                                preexec_fn=die_with_parent, check=False).returncode
        require(status == 0, f"'{shlex.join(words)}' ended with status {status}")

    def ctl(self, *arguments, quiet=False):
        words = [str(word) for word in arguments]
        if not quiet:
            self.say("$ parallax-ctl " + shlex.join(words))
        output = run(self.bin / "parallax-ctl", "--socket", self.file("c.sock"), *words).strip()
        for line in output.splitlines() if not quiet else []:
            self.say(line)
        return output

    def make_store(self, size):
        """A sparse file; its extents are small, so that what is used is known finely."""
        self.ctl("store", "init", self.file("store"), "--size", size, "--extent-size", "4M")

    def store_bytes(self):
        """What is used in the store."""
        return self.control().call("GET", "/v1/status")["store"]["used_bytes"]

    def start_daemon(self):
        with open(self.file("daemon.log"), "ab") as log:
            self.daemon = subprocess.Popen(
                [str(self.bin / "parallax-blockd"), "--store", str(self.file("store")),
                 "--control", str(self.file("c.sock")), "--nbd", str(self.file("nbd.sock")),
                 "--state-dir", str(self.file("state")), "--config", "/dev/null"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_parent)
        deadline = time.monotonic() + 60
        while not self.is_ready():
            require(self.daemon.poll() is None, "the daemon ended at its start")
            require(time.monotonic() < deadline, "the daemon is not ready after 60 s")
            time.sleep(0.05)

    def is_ready(self):
        try:
            self.control().call("GET", "/v1/ready")
            return True
        except (OSError, Failure):
            return False

    def stop_daemon(self):
        daemon, self.daemon = self.daemon, None
        daemon.terminate()
        require(daemon.wait() == 0, f"the daemon ended with status {daemon.returncode}")

    def control(self):
        return Control(self.file("c.sock"))

    def nbd_uri(self, version):
        return (f"nbd+unix:///{urllib.parse.quote(version, safe='')}"
                f"?socket={self.file('nbd.sock')}")

    def copy(self, version, path):
        """Copies a version that is attached to NBD, read-only, into a sparse file."""
        uri = self.nbd_uri(version)
        run("nbdinfo", "--is", "readonly", uri)
        path.touch()
        run("nbdcopy", uri, path)

    def guest(self, *arguments, timeout, shown=lambda line: True):
        """Boots a guest in the background; `shown` chooses the lines that the reader sees."""
        name = f"guest-{len(self.guests)}"
        words = ["--kit", self.kit, "--timeout", timeout, "--log", self.file(name + ".console"),
                 *arguments]
        guest = Guest([str(word) for word in words], self.file(name + ".log"), shown)
        self.guests.append(guest)
        return guest


def options_parser(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--keep", action="store_true", help="leave the store and the logs")
    parser.add_argument("--bin", metavar="DIR",
                        help="use the programs in DIR instead of building them")
    parser.add_argument("--dir", metavar="DIR", default="/var/tmp",
                        help="make the store below DIR (default: /var/tmp)")
    return parser


def tell(name, options, story):
    """Runs a story on its stage; the exit status."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        with Stage(name, options) as stage:
            story(stage)
        return 0
    except (Failure, OSError, subprocess.CalledProcessError) as problem:
        print(f"{name}: FAILED: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
