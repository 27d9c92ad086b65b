"""What the parts of ``benchmarks/splat.py`` share: captures, runs in a process of their own, scores, tables.

This module is imported by the processes that are measured, so whatever a worker of Turntable would not import is
imported where it is used.
"""

from __future__ import annotations

import functools
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from turntable.captures.capture import Capture
from turntable.methods.registry import get_method
from turntable.methods.spec import Method
from turntable.methods.splat.splat import Splat
from turntable.worker.contract import Camera, TrainingViews, View
from turntable.worker.session import peak_memory_bytes, to_8_bit

THREADS = (1, 2)
LONG_SIDES = {"fox": 384, "fox-320": 320}
"""Pixels that photos are shrunk to; those of other captures stay as they are."""
Result = TypeVar("Result")


@dataclass(frozen=True)
class Plan:
    """What was asked for: where captures come from and go, how many seeds, whether it is only a trial, and the
    ablation's budgets in device seconds.
    """

    data: Path
    bench: Path
    seeds: int
    quick: bool
    budgets: tuple[float, ...]


def note(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


def section(title: str, text: str = "") -> None:
    """A heading, and a paragraph below it."""
    print(f"\n## {title}\n" + (f"\n{text.strip()}\n" if text else ""), flush=True)


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A Markdown table, each row printed as soon as it is known."""
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header), flush=True)
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |", flush=True)
    print()


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """Mean (least – most), or the value alone."""
    mean = format(float(np.mean(values)), form)
    return f"{mean} ({min(values):{form}} – {max(values):{form}})" if len(values) > 1 else mean


@functools.cache
def splat_method() -> Method:
    """``method.toml`` as it is now."""
    return get_method("splat")


def configured(given: dict[str, str]) -> dict[str, Any]:
    """All settings, with those ``given`` as text in place of their defaults."""
    return splat_method().configure(given)


@functools.cache
def capture(plan: Plan, name: str) -> Capture | None:
    """``demo``, ``fox`` (long side 384), ``fox-320`` or ``temple``; None, and a line that says so, where its photos are
    absent.
    """
    from turntable.bench import Bench
    from turntable.captures.build import CaptureOptions
    from turntable.jobs import add, demo_capture
    from turntable.turns.watcher import Watcher

    note(f"capture {name}")
    bench = Bench(plan.bench)
    if name == "demo":
        return demo_capture(bench, Watcher())
    source = plan.data / name.partition("-")[0]
    if not source.is_dir():
        print(f"{name} is left out: {source} isn't there.\n")
        return None
    return add(bench, source, CaptureOptions(name=name, long_side=LONG_SIDES.get(name)), Watcher())


def training_views(of: Capture) -> TrainingViews:
    """What a method is told of a capture."""
    views = [View(view.name, view.camera, view.image_path, view.mask_path) for view in of.training]
    return TrainingViews(views, of.points_path, of.background, of.has_alpha)


def apart(function: Callable[..., Result], *arguments: Any) -> Result:
    """``function(*arguments)`` in a fresh process, whose memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def train(method: Splat, steps: int) -> None:
    """A run of so many steps, from the beginning of the schedules to their end."""
    for step in range(steps):
        method.progress(step / steps)
        method.step()
    method.progress(1.0)


@dataclass(frozen=True)
class Job:
    """A run: on which capture, for how many device seconds, looked at when, and with which settings (as text)."""

    folder: Path
    budget: float
    seed: int
    settings: dict[str, str] = field(default_factory=dict)
    looks: tuple[float, ...] = ()
    """Device seconds; the end of the budget is always looked at."""


@dataclass(frozen=True)
class Look:
    """A run at some moment: PSNR in dB, mean and worst over the held-out views."""

    seconds: float
    steps: int
    gaussians: int
    psnr: float
    worst: float


@dataclass(frozen=True)
class Outcome:
    """What came of a run."""

    looks: list[Look]
    setup_seconds: float
    memory_bytes: int

    @property
    def last(self) -> Look:
        """At the end of the budget."""
        return self.looks[-1]


def outcome(job: Job) -> Outcome:
    """Do a run in a process of its own, as a worker would, and score it here."""
    moments, setup_seconds, memory = apart(_work, job)
    of = Capture.load(job.folder)
    looks = [Look(*counts, *_scores(of, pictures)) for counts, pictures in moments]
    seconds, last = looks[-1].seconds, looks[-1]
    note(
        f"{of.name} {job.budget:g} s seed {job.seed} {job.settings or ''}: {last.psnr:.2f} dB after {last.steps} steps, "
        f"{seconds:.1f} s + {setup_seconds:.1f} s setup"
    )
    return Outcome(looks, setup_seconds, memory)


Moment = tuple[tuple[float, int, int], list[np.ndarray]]


def _work(job: Job) -> tuple[list[Moment], float, int]:
    """Like the worker's session: only the time in ``step()`` counts."""
    of = Capture.load(job.folder)
    start = time.perf_counter()
    method = Splat(training_views(of), configured(job.settings), job.seed, "cpu")
    setup_seconds = time.perf_counter() - start
    moments: list[Moment] = []
    steps, seconds = 0, 0.0
    for look in [*job.looks, job.budget]:
        while seconds < look:
            method.progress(seconds / job.budget)
            start = time.perf_counter()
            info = method.step()
            seconds += time.perf_counter() - start
            steps += 1
        method.progress(seconds / job.budget)
        pictures = [
            to_8_bit(method.render(view.camera).image, view.camera, view.name) for view in of.held_out
        ]
        moments.append(((seconds, steps, int(info["gaussians"])), pictures))
    return moments, setup_seconds, peak_memory_bytes()


def _scores(of: Capture, pictures: list[np.ndarray]) -> tuple[float, float]:
    from turntable.tasks.metrics.psnr import psnr

    values = [
        psnr(view.image(), picture, view.mask()) for view, picture in zip(of.held_out, pictures, strict=True)
    ]
    return float(np.mean(values)), min(values)


def camera_of(width: int, height: int, focal: float, turn: np.ndarray, centre: np.ndarray) -> Camera:
    """A camera at ``centre`` (world) with the rotation ``turn`` (world to camera), its principal point in the middle."""
    return Camera(width, height, focal, focal, width / 2, height / 2, turn, -turn @ centre)
