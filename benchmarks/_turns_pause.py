"""The part ``pause`` of ``benchmarks/turns.py``, whose text says what it measures."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from _splat_runs import note, section, table
from _turns_bench import (
    LONG,
    MB,
    PATIENCE_S,
    Bandwidths,
    Plan,
    ask,
    await_,
    bandwidths,
    clock,
    drop,
    marks_of,
    median_of,
    middle,
    small_capture,
    supervised,
    temporary_bench,
    when,
)

from turntable import control
from turntable.bench import Bench
from turntable.run import RunFolder
from turntable.turns.device import DeviceLock

SIZES = (1, 10, 100, 1000)
"""Megabytes of a method's state."""
QUANTUM_S = 2.0
NEVER_S = 1e6
"""No checkpoint is written but for a pause: one that is just being written would be waited for."""
SETTLED_S = 1.0


def pause(plan: Plan) -> None:
    """Leaving a device and coming back, against the size of a method's state."""
    sizes = (1, 20) if plan.quick else SIZES
    exits = {size: _exits(plan, size) for size in sizes}
    disks = {size: median_of(exits[size].disks) for size in sizes}
    section(
        "Pausing: the disk and the hash",
        "MB/s, one file of so many MB in the bench's folder, measured whenever the run was paused; medians.",
    )
    table(
        ("MB", "write and fsync", "read from the disk", "read from memory", "sha256"),
        (
            (size, *(f"{speed / MB:,.0f}" for speed in (disk.write, disk.read, disk.cached, disk.hash)))
            for size, disk in disks.items()
        ),
    )
    section(
        "Saved and exited: `pause`",
        "Seconds from the call, median (least – most). In all: until the run is paused and its device free. Share: of what "
        "writing as many bytes with fsync takes of it.",
    )
    header = (
        "MB",
        "last step ended",
        "method has saved",
        "checkpoint whole",
        "paused",
        "**in all**",
        "MB/s",
        "share",
    )
    table(header, (_pause_row(size, disks[size], exits[size].pauses) for size in sizes))
    section(
        "Saved and exited: `resume`",
        "Seconds from the call until the first new step, median (least – most). Memory: the kernel still has the checkpoint "
        "in memory; disk: it was made to forget it. Share: of what reading as many bytes from there takes of it.",
    )
    header = ("MB", "from", "turn begun", "process there", "state loaded", "**first step**", "MB/s", "share")
    table(header, _resume_rows(disks, exits))
    section(
        "Saved and parked: from one run's quantum to the next run's step",
        f"Two runs with states of so many MB, in turn every {QUANTUM_S:g} s, both in memory. Seconds, median (least – "
        "most). Share: of what writing as many bytes with fsync takes of all.",
    )
    header = (
        "MB",
        "changes",
        "quantum over → last step",
        "→ method has saved",
        "→ turn over",
        "→ next turn",
        "→ its first step",
        "**in all**",
        "MB/s",
        "share",
    )
    table(header, (_parked_row(plan, size, disks[size]) for size in sizes))


@dataclass(frozen=True)
class Times:
    """Seconds from a call (or a quantum's end) until each of several things, in order."""

    seconds: tuple[float, ...]

    @property
    def whole(self) -> float:
        return self.seconds[-1]


@dataclass(frozen=True)
class Exits:
    """What was seen of a run that saves and exits, and comes back: with its checkpoint in memory, and from the disk."""

    pauses: list[Times] = field(default_factory=list)
    warm: list[Times] = field(default_factory=list)
    cold: list[Times] = field(default_factory=list)
    disks: list[Bandwidths] = field(default_factory=list)


def _exits(plan: Plan, size: int) -> Exits:
    note(f"pause, {size} MB, saved and exited")
    seen = Exits()
    with temporary_bench(plan) as bench:
        capture = small_capture(bench, bench.folder.parent / "source")
        [folder] = ask(bench, capture, "rest", 1, LONG, None, megabytes=size)
        with supervised(bench, [folder], save_every_s=NEVER_S) as alive:
            await_("the first step", lambda: when(clock(folder), "first", 0.0), alive)
            # The first pair is not counted: a run that has worked for a while has an older checkpoint, which costs time.
            for number in range(1 + 2 * plan.repeats):
                time.sleep(SETTLED_S)
                paused = _pause_once(bench, folder)
                disk = bandwidths(bench.folder, size * MB)
                if cold := number % 2 == 1:
                    for path in folder.path.glob("checkpoint/*/method/*"):
                        drop(path)
                resumed = _resume_once(bench, folder, alive)
                if number:
                    seen.pauses.append(paused)
                    seen.disks.append(disk)
                    (seen.cold if cold else seen.warm).append(resumed)
    return seen


def _pause_once(bench: Bench, folder: RunFolder) -> Times:
    asked = time.time()
    control.pause(bench, folder.id, PATIENCE_S)
    lock = DeviceLock("cpu")
    try:
        while not lock.take():
            time.sleep(0.001)
    finally:
        lock.close()
    done = time.time()
    marks, events = clock(folder), marks_of(folder)
    return _times(
        asked,
        max(at for what, at in marks if what == "last"),
        when(marks, "saved", asked),
        when(events, "saved", asked),
        when(events, "paused", asked),
        done,
    )


def _resume_once(bench: Bench, folder: RunFolder, alive: Callable[[], bool]) -> Times:
    asked = time.time()
    control.resume(bench, folder.id, PATIENCE_S)
    first = await_("a step after resuming", lambda: when(clock(folder), "first", asked), alive)
    events = marks_of(folder)
    return _times(
        asked, *(when(events, what, asked - 0.001) for what in ("running", "hello", "ready")), first
    )


def _times(since: float, *moments: float | None) -> Times:
    assert all(moments), "a moment wasn't written down"
    return Times(tuple(max(0.0, moment - since) for moment in moments if moment is not None))


def _pause_row(size: int, disk: Bandwidths, pauses: list[Times]) -> tuple[Any, ...]:
    return (size, *_columns(pauses), *_reached(size, disk.write, pauses))


def _resume_rows(disks: dict[int, Bandwidths], exits: dict[int, Exits]) -> Iterator[tuple[Any, ...]]:
    for size, seen in exits.items():
        yield (size, "memory", *_columns(seen.warm), *_reached(size, disks[size].cached, seen.warm))
        yield (size, "disk", *_columns(seen.cold), *_reached(size, disks[size].read, seen.cold))


def _parked_row(plan: Plan, size: int, disk: Bandwidths) -> tuple[Any, ...]:
    note(f"pause, {size} MB, saved and parked")
    with temporary_bench(plan) as bench:
        capture = small_capture(bench, bench.folder.parent / "source")
        folders = ask(bench, capture, "rest", 2, LONG, QUANTUM_S, megabytes=size)
        wanted = 4 + 2 * plan.repeats
        with supervised(bench, folders, save_every_s=NEVER_S) as alive:
            await_("changes of turns", lambda: len(_turns(bench)) > wanted, alive, 0.5)
            turns = _turns(bench)
        clocks = {folder.id: clock(folder) for folder in folders}
    changes = []
    # Of a run's first turn nothing was kept, and its first save had no older checkpoint beside it.
    for turn, following in itertools.pairwise(turns[3:]):
        if turn["how"] != "saved and parked in memory":
            continue
        last = max(at for what, at in clocks[turn["run"]] if what == "last" and at <= turn["ended"])
        moments = (
            last,
            when(clocks[turn["run"]], "saved", last),
            turn["ended"],
            following["started"],
            when(clocks[following["run"]], "first", following["started"]),
        )
        changes.append(_times(turn["started"] + QUANTUM_S, *moments))
    if not changes:
        return (size, f"none: not parked ({turns[-2]['how']})", *[""] * 8)
    parts = [
        Times((change.seconds[0], *(b - a for a, b in itertools.pairwise(change.seconds))))
        for change in changes
    ]
    whole = middle([change.whole for change in changes])
    return (
        size,
        len(changes),
        *_columns(parts, bold=False),
        f"**{whole}**",
        *_reached(size, disk.write, changes),
    )


def _turns(bench: Bench) -> list[Any]:
    return bench.record.read("SELECT run, started, ended, how FROM turns ORDER BY started")


def _columns(times: list[Times], bold: bool = True) -> list[str]:
    columns = [middle(column) for column in zip(*(each.seconds for each in times), strict=True)]
    return [*columns[:-1], f"**{columns[-1]}**"] if bold else columns


def _reached(size: int, bandwidth: float, times: list[Times]) -> tuple[str, str]:
    """Bytes a second of the median, and their share of a bandwidth."""
    speed = size * MB / float(np.median([each.whole for each in times]))
    return f"{speed / MB:,.1f}", f"{speed / bandwidth:.1%}"
