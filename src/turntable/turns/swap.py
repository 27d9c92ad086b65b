"""Frozen processes' memory, given up to swap: a paused run shall not keep from the next one what it doesn't use.

The kernel brings each page back when it is touched, so nothing has to be undone before the run goes on.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import psutil

# Called by number: older C libraries have no functions for them, and a Python that was built with older headers has no
# os.pidfd_open. The numbers are the same on every processor that Python is distributed for.
PIDFD_OPEN = 434
PROCESS_MADVISE = 440
MADV_PAGEOUT = 21
MOST_RANGES = 1024
"""The kernel takes no more in one call (UIO_MAXIOV)."""
KERNELS_OWN = ("[vvar", "[vdso]", "[vsyscall]")
HOPELESS = (errno.ENOSYS, errno.EPERM, errno.EACCES, errno.ESRCH, errno.EBADF)
"""What the next range would meet as well; anything else (locked memory, a device's) is about one range alone."""

Range = tuple[int, int]
"""Addresses: the first, and the one after the last."""


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def swap_free_bytes() -> int:
    """How many bytes of swap are free; 0 if there's none."""
    return psutil.swap_memory().free


def page_out(pids: Iterable[int]) -> int:
    """Give up the memory of processes that are frozen: what they wrote goes to swap, what they read is dropped.

    Args:
        pids: the processes. Ones that are not frozen come to no harm, but take back at once what they touch.

    Returns:
        By how many bytes their resident memory fell; 0 where there's no swap, where we may not (it takes root, or
        CAP_SYS_NICE and CAP_SYS_PTRACE), and where the system can't (Linux 5.10 or later can).
    """
    if not sys.platform.startswith("linux") or swap_free_bytes() == 0:
        return 0
    return sum(_page_out_one(pid) for pid in pids)


def _page_out_one(pid: int) -> int:
    with contextlib.suppress(OSError, psutil.Error):
        process = psutil.Process(pid)
        before = process.memory_info().rss
        pidfd = _syscall(PIDFD_OPEN, pid, 0)
        try:
            # The pidfd may have been opened a moment too late, on a stranger who came by the number.
            if process.is_running():
                _advise(pidfd, mapped_ranges(Path(f"/proc/{pid}/maps").read_text()))
        finally:
            os.close(pidfd)
        return max(0, before - process.memory_info().rss)
    return 0


def mapped_ranges(maps: str) -> list[Range]:
    """The ranges of a process's memory, without the kernel's own.

    Args:
        maps: the text of ``/proc/<pid>/maps`` (proc_pid_maps(5)).
    """
    ranges: list[Range] = []
    for line in maps.splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5].startswith(KERNELS_OWN):
            continue
        start, _, end = fields[0].partition("-")
        ranges.append((int(start, 16), int(end, 16)))
    return ranges


def _advise(pidfd: int, ranges: list[Range]) -> None:
    """Ask the kernel to page out all ranges but those that it refuses.

    Raises:
        OSError: it refuses the whole process.
    """
    while ranges:
        batch = ranges[:MOST_RANGES]
        vector = (_Iovec * len(batch))(*((start, end - start) for start, end in batch))
        try:
            done = _syscall(PROCESS_MADVISE, pidfd, ctypes.byref(vector), len(batch), MADV_PAGEOUT, 0)
        except InterruptedError:
            continue
        except OSError as error:
            if error.errno in HOPELESS:
                raise
            done = 0
        # Nothing done: the kernel stumbled over the first one.
        ranges = after(ranges, done) if done else ranges[1:]


def after(ranges: list[Range], done: int) -> list[Range]:
    """What is left of ranges whose first ``done`` bytes are dealt with: one call does 2 GB at most, or stops earlier."""
    for index, (start, end) in enumerate(ranges):
        if done < end - start:
            return [(start + done, end), *ranges[index + 1 :]]
        done -= end - start
    return []


def _syscall(number: int, *arguments: object) -> int:
    """Call the kernel.

    Raises:
        OSError: it says no.
    """
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    # Whole registers: ctypes would pass a bare int as 32 bits, and leave the rest to chance.
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    result = call(ctypes.c_long(number), *words)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
