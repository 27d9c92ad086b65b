"""How much memory and how many processes a run may have, as limits that the kernel holds it to (Linux's control groups).

Where version 2 of control groups has the controllers, the limits belong to the run's own group (:mod:`.cgroup`). Where
version 1 has them still, as on older systems, the run gets a group of its own with each of them.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .cgroup import PREFIX, Cgroup, own_folder, unescape

OLD_S = 3600.0
"""An empty group that is so old was left behind: a new one has its process within milliseconds."""

# Controller: of version 2 and of version 1, the files and what is written to them.
NEW = {
    "memory": (("memory.max", "{memory}"), ("memory.oom.group", "1")),
    "pids": (("pids.max", "{processes}"),),
}
OLD = {"memory": (("memory.limit_in_bytes", "{memory}"),), "pids": (("pids.max", "{processes}"),)}


@dataclass(frozen=True)
class Limits:
    """The limits of one run.

    Args:
        memory: whether its memory is limited.
        processes: whether the number of its processes and threads is.
        groups: folders of control groups that were made for this; its processes have to join them.
    """

    memory: bool = False
    processes: bool = False
    groups: tuple[Path, ...] = ()

    def remove(self) -> None:
        """Remove the groups; quiet where processes are in one still."""
        for group in self.groups:
            with contextlib.suppress(OSError):
                group.rmdir()


def limit(name: str, group: Cgroup | None, memory_bytes: int, processes: int) -> Limits:
    """Limit what a run may have.

    Args:
        name: as of its control group, without the prefix.
        group: that group, or None where there is none.
        memory_bytes: the most memory. Whoever wants more is killed, by version 2 with all of its group.
        processes: the most processes and threads.

    Returns:
        What could be limited.
    """
    if not sys.platform.startswith("linux"):
        return Limits()
    values = {"memory": str(memory_bytes), "processes": str(processes)}
    limited: dict[str, bool] = {}
    groups: list[Path] = []
    if group is not None:
        with contextlib.suppress(OSError):
            # Processes in the parent are in the way of this, unless it is the topmost group.
            (group.folder.parent / "cgroup.subtree_control").write_text("+memory")
        with contextlib.suppress(OSError):
            (group.folder.parent / "cgroup.subtree_control").write_text("+pids")
    if group is not None:
        # Else whoever is at its limit goes on in swap, and the machine with it. Kernels without swap lack the file.
        _write(group.folder, (("memory.swap.max", "0"),), {})
    for controller in ("memory", "pids"):
        limited[controller] = group is not None and _write(group.folder, NEW[controller], values)
        if not limited[controller] and (folder := _old_group(controller, PREFIX + name)) is not None:
            limited[controller] = _write(folder, OLD[controller], values)
            groups.append(folder)
    return Limits(limited["memory"], limited["pids"], tuple(groups))


def _write(folder: Path, files: tuple[tuple[str, str], ...], values: dict[str, str]) -> bool:
    try:
        for name, text in files:
            # Opened for writing, not made: a group without the controller doesn't have the file.
            handle = os.open(folder / name, os.O_WRONLY)
            try:
                os.write(handle, text.format(**values).encode())
            finally:
                os.close(handle)
    except OSError:
        return False
    return True


def _old_group(controller: str, name: str) -> Path | None:
    """A group of our own with a controller of version 1, inside of the one that we are in; None where it can't be made."""
    try:
        parent = own_old_folder(
            controller, Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text()
        )
        if parent is None or not os.access(parent, os.W_OK):
            return None
        (parent / name).mkdir(exist_ok=True)
    except OSError:
        return None
    return parent / name


def own_old_folder(controller: str, mountinfo: str, own: str) -> Path | None:
    """The folder of the group of version 1 that this process is in.

    Args:
        controller: ``memory``, ``pids`` …
        mountinfo: the text of ``/proc/self/mountinfo`` (proc_pid_mountinfo(5)).
        own: the text of ``/proc/self/cgroup`` (cgroups(7)), with lines such as ``4:memory:/path``.
    """
    path = None
    for line in own.splitlines():
        _, _, rest = line.partition(":")
        names, _, where = rest.partition(":")
        if controller in names.split(","):
            path = PurePosixPath(where)
    if path is None:
        return None
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup" and controller in options.split(","):
            root, mount = (unescape(field) for field in before.split(" ")[3:5])
            if ".." not in path.parts and path.is_relative_to(root):
                return Path(mount) / path.relative_to(root)
    return None


def sweep() -> None:
    """Remove the empty groups that killed supervisors left behind long ago."""
    if not sys.platform.startswith("linux"):
        return
    parents: list[Path | None] = []
    with contextlib.suppress(OSError):
        mountinfo, own = Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text()
        parents = [own_folder(mountinfo, own), *(own_old_folder(name, mountinfo, own) for name in OLD)]
    for parent in parents:
        for folder in parent.glob(PREFIX + "*") if parent is not None else ():
            with contextlib.suppress(OSError):
                if time.time() - folder.stat().st_mtime > OLD_S:
                    folder.rmdir()
