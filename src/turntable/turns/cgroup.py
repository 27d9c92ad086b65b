"""A control group (cgroup v2 of Linux) for one run: the kernel's own list of what the run has started.

Nothing leaves a group by forking, by a session of its own or by losing its parent, and the kernel freezes or kills all
of it at once. Where no group can be made, :mod:`.family` does what it can without.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import time
from pathlib import Path, PurePosixPath

PREFIX = "turntable-"
SAFE = re.compile(r"[A-Za-z0-9._-]+")
NEEDED = ("cgroup.procs", "cgroup.freeze", "cgroup.events")
POLL_S = 0.002
LONGEST_KILL_S = 5.0


class Cgroup:
    """One group, and the groups that its processes may have made inside it."""

    def __init__(self, folder: Path) -> None:
        """A group that exists; see :meth:`create`."""
        self.folder = folder

    @classmethod
    def create(cls, name: str) -> Cgroup | None:
        """Make the group ``turntable-<name>`` inside our own, or take the one that a killed supervisor left there.

        A group that was left may hold processes still, and they may be frozen: they stay as they are.

        Args:
            name: letters, digits, dots, dashes and underscores only.

        Returns:
            The group; None where there's no cgroup v2, or we may make none.

        Raises:
            ValueError: the name isn't safe as a folder's.
        """
        if not SAFE.fullmatch(name):
            raise ValueError(f"a control group's name may have A-Z a-z 0-9 . _ - only, not {name!r}")
        if not sys.platform.startswith("linux"):
            return None
        try:
            parent = own_folder(
                Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text()
            )
            # Whoever moves a process needs both ends: the group that it leaves is ours, or one inside.
            if parent is None or not os.access(parent / "cgroup.procs", os.W_OK):
                return None
            group = cls(parent / (PREFIX + name))
            group.folder.mkdir(exist_ok=True)
        except OSError:
            return None
        if not all(os.access(group.folder / file, os.R_OK | os.W_OK) for file in NEEDED[:2]):
            group.remove()
            return None
        # An empty group can have been left frozen; whatever were added to it would never start.
        if not group.pids():
            group.thaw()
        return group

    def add(self, pid: int) -> None:
        """Move a process, with all its threads, into the group; what it starts from now on is born there.

        Raises:
            OSError: no such process, or it may not be moved.
        """
        (self.folder / "cgroup.procs").write_text(str(pid))

    def pids(self) -> list[int]:
        """The processes in the group and in the groups inside it, zombies too; none if the group is gone."""
        found: list[int] = []
        for folder in self._folders():
            # A threaded group's list can't be read; its processes stand in the group above it.
            with contextlib.suppress(OSError):
                found += map(int, (folder / "cgroup.procs").read_text().split())
        # A process of another pid namespace is listed as 0.
        return [pid for pid in found if pid > 0]

    def freeze(self, timeout_s: float) -> bool:
        """Freeze everything in the group.

        Args:
            timeout_s: how long, in seconds, to wait until the kernel says that all of it is frozen.

        Returns:
            Whether it is; if not, it is thawed again.
        """
        deadline = time.monotonic() + timeout_s
        with contextlib.suppress(OSError):
            (self.folder / "cgroup.freeze").write_text("1")
            while not self._is_frozen():
                if time.monotonic() >= deadline:
                    break
                time.sleep(POLL_S)
            else:
                return True
        self.thaw()
        return False

    def _is_frozen(self) -> bool:
        return "frozen 1" in (self.folder / "cgroup.events").read_text().splitlines()

    def thaw(self) -> None:
        """Let everything in the group go on; quiet if the group is gone."""
        with contextlib.suppress(OSError):
            (self.folder / "cgroup.freeze").write_text("0")

    def kill(self) -> None:
        """Kill everything in the group, frozen or not, and leave the group thawed.

        They may take a while to be gone, but they run nothing of their own any more.
        """
        try:
            # Opened for writing, not made: before Linux 5.14 the file isn't there, and pathlib would try to.
            handle = os.open(self.folder / "cgroup.kill", os.O_WRONLY)
        except OSError:
            self._kill_one_by_one()
        else:
            try:
                with contextlib.suppress(OSError):
                    os.write(handle, b"1")
            finally:
                os.close(handle)
        self.thaw()

    def _kill_one_by_one(self) -> None:
        deadline = time.monotonic() + LONGEST_KILL_S
        # Frozen first: what forks faster than the list is read can't be caught running.
        self.freeze(LONGEST_KILL_S)
        while (pids := self.pids()) and time.monotonic() < deadline:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(POLL_S)

    def remove(self) -> None:
        """Remove the group, and those inside it; quiet if it is gone, or holds processes still."""
        for folder in reversed(self._folders()):
            with contextlib.suppress(OSError):
                folder.rmdir()

    def _folders(self) -> list[Path]:
        """The group's folder and those inside it, outer ones first."""
        return [Path(folder) for folder, _, _ in os.walk(self.folder)]


def own_folder(mountinfo: str, own: str) -> Path | None:
    """The folder of the cgroup v2 that this process is in.

    Args:
        mountinfo: the text of ``/proc/self/mountinfo`` (proc_pid_mountinfo(5)).
        own: the text of ``/proc/self/cgroup`` (cgroups(7)); version 2 has the line ``0::/path``.

    Returns:
        The folder; None if there's no cgroup v2, or the part of it that is mounted here doesn't hold us.
    """
    paths = [line[3:] for line in own.splitlines() if line.startswith("0::")]
    if not paths:
        return None
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        if after.split(" ")[0] != "cgroup2":
            continue
        # In a container the mount may start further down: at the folder that the fourth field names.
        root, mount = (unescape(field) for field in before.split(" ")[3:5])
        path = PurePosixPath(paths[0])
        # A group outside our namespace is shown with dots, and is no place that we could write to.
        if ".." not in path.parts and path.is_relative_to(root):
            return Path(mount) / path.relative_to(root)
    return None


def unescape(field: str) -> str:
    """A field of mountinfo, in which blanks and backslashes stand as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
