"""What the parts of ``benchmarks/turns.py`` share: a bench in a temporary folder, runs that a process of its own works on,
and how fast the disk and the hash are.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from turntable import control
from turntable.bench import Bench
from turntable.captures.build import CaptureOptions
from turntable.captures.capture import Capture
from turntable.jobs import Handling, RunRequest, add, plan, work
from turntable.record import Record, Terms
from turntable.run import Budget, RunFolder
from turntable.turns import rota
from turntable.turns.supervisor import Patience
from turntable.turns.watcher import Watcher
from turntable.worker.ply import encode_points
from turntable.worker.png import write_png

MB = 1_000_000
BLOCK = 16 * MB
PATIENCE_S = 300.0
"""Longer than anything here should take: who waits for longer has met a fault."""
LONG = Budget(device_seconds=36_000)
"""A budget that is never reached, nor its first mark."""
SPAWN = multiprocessing.get_context("spawn")

METHOD_TOML = """
name = "rest"
task = "views"
title = "A method that is paused"
[environment]
kind = "host"
[run]
kind = "python"
entry = "method:Method"
[settings.megabytes]
default = 10
help = "size of its state"
[settings.step_ms]
default = 5.0
help = "how long a step takes"
"""


@dataclass(frozen=True)
class Plan:
    """What was asked for.

    Args:
        folder: where benches and files are made.
        repeats: how often a thing is measured that varies.
        quick: whether it is only to be tried out.
        source: photos for the round robin of ``splat``.
        swap: whether a swap file may be made.
    """

    folder: Path
    repeats: int
    quick: bool
    source: Path
    swap: bool


@contextlib.contextmanager
def temporary_bench(plan: Plan) -> Iterator[Bench]:
    """A bench with the small capture and the method ``rest``; it is gone afterwards."""
    with tempfile.TemporaryDirectory(dir=plan.folder) as folder:
        place = Path(folder) / "bench"
        Bench(place).make()
        bench = Bench(place, Record(place / "record.sqlite"))
        method = bench.methods_folder / "rest"
        method.mkdir()
        (method / "method.toml").write_text(METHOD_TOML)
        shutil.copy(Path(__file__).with_name("_turns_method.py"), method / "method.py")
        yield bench
        bench.record.close()


def small_capture(bench: Bench, folder: Path, views: int = 12, size: tuple[int, int] = (64, 48)) -> Capture:
    """A capture of grey ramps, seen from a circle of cameras."""
    folder.mkdir()
    width, height = size
    frames = []
    for index in range(views):
        angle = 2 * np.pi * index / views
        cosine, sine = np.cos(angle), np.sin(angle)
        pose = np.array(
            [[-sine, 0, cosine, 3 * cosine], [cosine, 0, sine, 3 * sine], [0, 1, 0, 0], [0, 0, 0, 1]]
        )
        ramp = np.linspace(0, 255 * (index + 1) / views, width)[None, :, None] * np.ones((height, 1, 3))
        write_png(folder / f"{index:02d}.png", ramp.astype(np.uint8))
        frames.append({"file_path": f"{index:02d}.png", "transform_matrix": pose.tolist()})
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (50, 3))
    (folder / "points.ply").write_bytes(encode_points(points, np.full((50, 3), 128, np.uint8)))
    document = {
        "camera_angle_x": 1.0,
        "w": width,
        "h": height,
        "ply_file_path": "points.ply",
        "frames": frames,
    }
    (folder / "transforms.json").write_text(json.dumps(document))
    return add(bench, folder, CaptureOptions(name="small", accept_poses=True), Watcher())


def ask(
    bench: Bench,
    capture: Capture,
    method: str,
    seeds: int,
    budget: Budget,
    quantum_s: float | None,
    **settings: Any,
) -> list[RunFolder]:
    """Queue new runs of a method: as many as there are seeds, round robin by ``quantum_s`` or first come."""
    asked = RunRequest(
        (method,),
        budget,
        seeds=seeds,
        settings=tuple(f"{name}={value}" for name, value in settings.items()),
        fresh=True,
        terms=Terms(quantum_s=quantum_s),
    )
    return plan(bench, capture, asked)


def work_through(bench: Path, runs: list[str], keep: bool, save_every_s: float) -> None:
    """What :func:`supervised` does in a process of its own."""
    if not keep:
        rota.SPARE_MEMORY = 2.0  # as if memory were always short: more must be free than there is
    handling = Handling(Patience(save_every_s=save_every_s))
    place = Bench(bench)
    work(place, [place.run_folder(run) for run in runs], handling, Watcher())


@contextlib.contextmanager
def supervised(
    bench: Bench, folders: Sequence[RunFolder], keep: bool = True, save_every_s: float = 30.0
) -> Iterator[Callable[[], bool]]:
    """A process works on runs, and ends with them: those that have not ended when this is left are cancelled.

    Args:
        bench: theirs.
        folders: the runs.
        keep: whether they may stay parked in memory between their turns.
        save_every_s: device seconds between checkpoints.

    Yields:
        Whether it lives still.
    """
    runs = [folder.id for folder in folders]
    process = SPAWN.Process(target=work_through, args=(bench.folder, runs, keep, save_every_s))
    process.start()
    try:
        yield process.is_alive
    finally:
        for run in runs:
            if process.is_alive() and not bench.row(run).state.ended:
                control.cancel(bench, run)
        process.join(PATIENCE_S)
        process.kill()
        process.join()


def await_(what: str, holds: Callable[[], Any], alive: Callable[[], bool], every_s: float = 0.02) -> Any:
    """What ``holds`` answers, as soon as that is something.

    Raises:
        RuntimeError: it takes too long, or the process that should see to it has ended.
    """
    deadline = time.monotonic() + PATIENCE_S
    while not (answer := holds()):
        if not alive():
            raise RuntimeError(f"waited for {what}, but the supervisor has ended")
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited for {what} in vain for {PATIENCE_S:g} s")
        time.sleep(every_s)
    return answer


def clock(folder: RunFolder) -> list[tuple[str, float]]:
    """What the method ``rest`` has written down: what, and when, in seconds since the epoch."""
    path = folder.path / "curve/clock.txt"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [(what, float(when)) for what, when in (line.split() for line in lines)]


def when(marks: Iterable[tuple[str, float]], what: str, since: float) -> float | None:
    """When ``what`` was first written down at or after ``since``."""
    return next((at for name, at in marks if name == what and at >= since), None)


def marks_of(folder: RunFolder) -> list[tuple[str, float]]:
    """The same of a run's events; a change of state is called by the state that it led to. Rounded to a millisecond."""
    return [
        (event["state"] if event["type"] == "state" else event["type"], event["time"])
        for event in folder.events()
    ]


@dataclass(frozen=True)
class Bandwidths:
    """Bytes a second: of one file of the size in question, in the folder in question."""

    write: float
    """Written and fsynced."""
    read: float
    """Read back from the disk: the kernel was asked to forget it before."""
    cached: float
    """Read back from the kernel's memory."""
    hash: float
    """Sha256 alone."""


def median_of(seen: Sequence[Bandwidths]) -> Bandwidths:
    """The median of each."""
    return Bandwidths(*(statistics.median(column) for column in zip(*map(astuple, seen), strict=True)))


def bandwidths(folder: Path, size: int) -> Bandwidths:
    """How fast the disk and the hash are, measured on the spot, with ``size`` bytes of noise."""
    path = folder / "bandwidth.bin"
    block = np.random.default_rng(0).bytes(min(BLOCK, size))
    chunks = [block] * (size // len(block))
    start = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for chunk in chunks:
            file.write(chunk)
        os.fsync(file.fileno())
    written = time.perf_counter() - start
    drop(path)
    times = []
    for _ in range(2):
        start = time.perf_counter()
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 20):
                pass
        times.append(time.perf_counter() - start)
    path.unlink()
    start = time.perf_counter()
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    hashed = time.perf_counter() - start
    size = len(block) * len(chunks)
    return Bandwidths(size / written, size / times[0], size / times[1], size / hashed)


def drop(path: Path) -> None:
    """Have the kernel forget what it keeps of a file in memory; what isn't on the disk yet stays."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def middle(values: Sequence[float], form: str = ".3f") -> str:
    """Median (least – most), or the value alone."""
    value = format(statistics.median(values), form)
    return f"{value} ({min(values):{form}} – {max(values):{form}})" if len(values) > 1 else value
