"""Which process is meant: a process id alone comes round again, and says nothing after a reboot.

A process is named by its id, when the kernel started it, and the boot (with the space of process ids) that both belong to.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path


@dataclass(frozen=True)
class Who:
    """A process.

    Args:
        pid: its id.
        started: when it was started, in the kernel's own count (only compared, never read).
        boot: the boot of the machine and the space of process ids that it lives in.
    """

    pid: int
    started: int
    boot: str


@lru_cache(maxsize=1)
def this_boot() -> str:
    """A text that differs after every reboot, and between containers that can't see each other's processes."""
    if sys.platform == "darwin":
        import subprocess

        answer = subprocess.run(
            ["sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, text=True, check=False
        )
        return answer.stdout.strip()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"


def started(pid: int) -> int | None:
    """When the process ``pid`` was started, in the kernel's count; None where there is none, or only its remains."""
    if sys.platform == "darwin":
        import psutil

        try:
            process = psutil.Process(pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            return int(process.create_time() * 1e6)
        except psutil.NoSuchProcess:
            return None
    try:
        # The name, in brackets, may hold anything; what follows it doesn't.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def me() -> Who:
    """This process."""
    return Who(os.getpid(), started(os.getpid()) or 0, this_boot())


def alive(who: Who) -> bool | None:
    """Whether a process lives; None where that can't be seen from here (another container on this machine, another user's
    process where /proc hides those)."""
    if who.boot == this_boot():
        try:
            now = started(who.pid)
        except PermissionError:  # hidepid=1
            return None
        return None if now is None and _is_hidden(who.pid) else now == who.started
    same_machine = who.boot.partition(" ")[0] == this_boot().partition(" ")[0]
    return None if same_machine else False


def _is_hidden(pid: int) -> bool:
    """Whether there is a process ``pid`` of which /proc shows nothing, not even its remains (hidepid=2)."""
    if Path(f"/proc/{pid}").exists():
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # the latter of a number that no process has
        return False
    except PermissionError:
        return True
    return False  # ours, and ended or born in this moment
