# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The Parallax authors
"""The image of a small Debian with systemd, for the programs that boot one.

mmdebstrap makes its root file system from the archive that apt is configured for, which needs root;
the image is kept in .build/debian for the next time. It is used as a copy or by clones, never
itself. Each of TASKS is a target to boot: `--append systemd.unit=mark.target`.
"""

import hashlib
import inspect
import os

from stage import REPOSITORY, require, run

CACHE = REPOSITORY / ".build/debian"
IMAGE_SIZE = "1G"
# What a task waits for; its script is scripts/guest/tasks/NAME.sh.
TASKS = {"mark": "basic.target", "second-disk": "multi-user.target"}

# The rest of what a minimal Debian lacks to boot, and the libraries that the daemon needs. Without
# documentation it is made faster.
MMDEBSTRAP = [
    "mmdebstrap", "--variant=minbase", "--include=systemd-sysv,libaio1,liburing2", "--quiet",
    "--aptopt=Acquire::Languages none", "--dpkgopt=force-unsafe-io",
    "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
]
SERVICE = """[Unit]
Description=Runs the task {name} and switches the machine off
After={after}

[Service]
Type=oneshot
TimeoutStartSec=infinity
ExecStart=/usr/local/sbin/{name}
"""
TARGET = """[Unit]
Requires={name}.service {after}
After={after}
"""


def script(name):
    return REPOSITORY / f"scripts/guest/tasks/{name}.sh"


def apt_sources():
    """Where apt gets Debian from, as lines of a sources.list, and the release's code name."""
    release = dict(line.split("=", 1) for line in open("/etc/os-release", encoding="utf-8")
                   if "=" in line)["VERSION_CODENAME"].strip().strip('"')
    known = run("apt-get", "indextargets", "--format",
                "$(ORIGIN)|$(CODENAME)|$(COMPONENT)|deb $(REPO_URI) $(CODENAME) $(COMPONENT)",
                "Created-By: Packages")
    lines = {line.split("|")[3] for line in known.splitlines()
             if line.startswith(f"Debian|{release}|main|")}
    require(lines, f"apt knows no Debian archive of {release}: run 'apt-get update' as root")
    return release, "".join(line + "\n" for line in sorted(lines))


def make_root(folder):
    """A Debian root file system with the tasks."""
    release, sources = apt_sources()
    listing = folder.parent / "sources.list"
    listing.write_text(sources)
    run(*MMDEBSTRAP, release, folder, listing)
    units = folder / "etc/systemd/system"
    for name, after in TASKS.items():
        program = folder / "usr/local/sbin" / name
        program.write_bytes(script(name).read_bytes())
        program.chmod(0o755)
        (units / f"{name}.service").write_text(SERVICE.format(name=name, after=after))
        (units / f"{name}.target").write_text(TARGET.format(name=name, after=after))
    (folder / "etc/hostname").write_text("gold\n")
    (folder / "etc/fstab").write_text("/dev/vda / ext4 defaults 0 1\n")


def image(stage):
    """The image of the root file system, made when there is none of this recipe."""
    recipe = repr([MMDEBSTRAP, SERVICE, TARGET, TASKS, IMAGE_SIZE, inspect.getsource(make_root),
                   [script(name).read_text() for name in TASKS]])
    path = CACHE / f"root-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}.img"
    if path.exists():
        stage.say(f"{path.relative_to(REPOSITORY)} is there already")
        return path
    require(os.geteuid() == 0, "mmdebstrap needs root to make the root file system")
    CACHE.mkdir(parents=True, exist_ok=True)
    for old in CACHE.glob("root-*.img"):
        old.unlink()
    work = stage.file("image")
    work.mkdir()
    make_root(work / "root")
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    run("mke2fs", "-q", "-t", "ext4", "-L", "gold", "-d", work / "root", part, IMAGE_SIZE)
    part.rename(path)
    run("rm", "-rf", "--one-file-system", work)
    stage.say(f"made {path.relative_to(REPOSITORY)}, "
              f"{path.stat().st_blocks // 2048} MiB in {IMAGE_SIZE}")
    return path
