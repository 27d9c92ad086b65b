"""The part ``program`` of ``benchmarks/turns.py``, whose text says what it measures."""

from __future__ import annotations

import contextlib
import mmap
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from _splat_runs import note, section, table
from _turns_bench import MB, PATIENCE_S, Plan, bandwidths, median_of, middle

from turntable.turns.process import RunProcess
from turntable.turns.swap import page_out, swap_free_bytes

SIZES = (100, 500, 2000)
"""Megabytes that a program holds."""
SWAP_BYTES = 3 * 1024**3
FROZEN_S = 1.0
"""How long it is watched that a frozen program does nothing."""


def program(plan: Plan) -> None:
    """Freezing and thawing a program that knows nothing of it."""
    with contextlib.ExitStack() as stack:
        swapping = stack.enter_context(_swap_file()) if plan.swap else "without --swap"
        section(
            "An unmodified program: frozen and thawed",
            f"A NumPy program that works on an array of so many MB; {len(psutil.pids())} processes on the machine; swap: "
            f"{swap_free_bytes() / MB:,.0f} MB free ({swapping}). Seconds, median (least – most). CPU: used while frozen "
            f"for {FROZEN_S:g} s. All of its memory: from the thaw until it has worked on the whole array once. What "
            "is given up is still on its way to the disk for a while.",
        )
        header = (
            "MB",
            "freeze",
            "give memory up",
            "given up MB",
            "MB/s",
            "share of disk write",
            "resident MB, frozen",
            "CPU s",
            "thaw",
            "all of its memory",
            "MB/s",
            "share of its speed before",
            "share of disk read",
        )
        sizes = SIZES[:1] if plan.quick else SIZES
        table(header, (_program_row(plan, size) for size in sizes))


@dataclass(frozen=True)
class Frozen:
    """One pause of a program: seconds, bytes."""

    freeze: float
    give_up: float
    given_up: int
    resident: int
    cpu: float
    thaw: float
    back: float
    before: float
    """How long one pass over its memory took before."""


def _program_row(plan: Plan, size: int) -> tuple[Any, ...]:
    note(f"program, {size} MB")
    with tempfile.TemporaryDirectory(dir=plan.folder) as name:
        folder = Path(name)
        counter = folder / "counter"
        counter.write_bytes(bytes(8))
        with counter.open("r+b") as file, (folder / "log.txt").open("wb") as log:
            blocks = np.frombuffer(mmap.mmap(file.fileno(), 8), np.int64)
            loop = Path(__file__).with_name("_turns_loop.py")
            process = RunProcess([sys.executable, str(loop), str(size), str(counter)], folder, log, ())
            try:
                _until(blocks, size, process)
                disks, seen = [], []
                for _ in range(plan.repeats):
                    disks.append(bandwidths(folder, size * MB))
                    seen.append(_freeze_once(process, blocks, size))
            finally:
                process.end(0)

    disk = median_of(disks)

    def column(name: str, form: str = ".3f", scale: float = 1.0) -> str:
        return middle([getattr(each, name) / scale for each in seen], form)

    given_up = [each for each in seen if each.given_up > MB]
    speed_up = float(np.median([each.given_up / each.give_up for each in given_up])) if given_up else 0.0
    speed_back = size * MB / float(np.median([each.back for each in seen]))
    speed_before = size * MB / float(np.median([each.before for each in seen]))
    there = swap_free_bytes() > 0
    return (
        size,
        column("freeze"),
        column("give_up") if there else "no swap",
        column("given_up", ",.0f", MB) if there else "",
        f"{speed_up / MB:,.0f}" if there else "",
        f"{speed_up / disk.write:.0%}" if there else "",
        column("resident", ",.0f", MB),
        column("cpu", ".2f"),
        column("thaw"),
        column("back"),
        f"{speed_back / MB:,.0f}",
        f"{speed_back / speed_before:.0%}",
        f"{speed_back / disk.read:.0%}" if there else "",
    )


def _freeze_once(process: RunProcess, blocks: np.ndarray, size: int) -> Frozen:
    """Do what :class:`turntable.turns.pause.Pause` does on the processor, one thing after the other, each timed.

    Args:
        process: the program.
        blocks: ``int64[1]``, how many MB it has worked on.
        size: how many it has.
    """
    family = process.family
    before = _pass_seconds(blocks, size, process)
    times = [time.perf_counter()]
    family.freeze()
    times.append(time.perf_counter())
    given_up = page_out(member.pid for member in family.members())
    times.append(time.perf_counter())
    resident, cpu = family.resident_bytes(), family.cpu_seconds()
    time.sleep(FROZEN_S)
    cpu = family.cpu_seconds() - cpu
    at = int(blocks[0])
    start = time.perf_counter()
    family.thaw()
    thawed = time.perf_counter()
    _until(blocks, at + size, process)
    back = time.perf_counter() - start
    return Frozen(
        times[1] - times[0], times[2] - times[1], given_up, resident, cpu, thawed - start, back, before
    )


def _pass_seconds(blocks: np.ndarray, size: int, process: RunProcess) -> float:
    start = time.perf_counter()
    _until(blocks, int(blocks[0]) + size, process)
    return time.perf_counter() - start


def _until(blocks: np.ndarray, count: int, process: RunProcess) -> None:
    """Wait until so many MB have been worked on."""
    deadline = time.monotonic() + PATIENCE_S
    while blocks[0] < count:
        if process.process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the program has ended, or hangs")
        time.sleep(0.0005)


@contextlib.contextmanager
def _swap_file() -> Iterator[str]:
    """A swap file under /var/tmp while this is open; says how that went."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        path = Path(folder) / "swap"
        try:
            if shutil.disk_usage(folder).free < 2 * SWAP_BYTES:
                raise OSError("too little space in /var/tmp")
            path.touch(0o600)
            subprocess.run(["fallocate", "-l", str(SWAP_BYTES), str(path)], check=True, capture_output=True)
            subprocess.run(["mkswap", str(path)], check=True, capture_output=True)
            subprocess.run(["swapon", str(path)], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", None)
            yield f"none could be made: {said.decode().strip() if said else error}"
            return
        try:
            yield f"a file of {SWAP_BYTES / MB:,.0f} MB in /var/tmp"
        finally:
            subprocess.run(["swapoff", str(path)], check=True)
