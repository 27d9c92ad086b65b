"""How a job shows how far it is: bars with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ..turns.watcher import Watcher


class Lines(Watcher):
    """Plain lines on standard error: what happened, and how far long work is, every few seconds."""

    EVERY_S = 10.0

    def __init__(self) -> None:
        self._told: dict[str, float] = {}
        self._began: dict[str, tuple[float, float]] = {}
        self._what = ""

    def say(self, text: str) -> None:
        """Print a line."""
        print(text, file=sys.stderr, flush=True)

    def job_progress(self, what: str, done: int, total: int) -> None:
        if what != self._what:
            self._what = what
            self.say(what)

    def note(self, text: str) -> None:
        self.say(text)

    def run_started(self, run: str, fraction: float) -> None:
        self._told[run] = time.monotonic()
        self._began[run] = (time.monotonic(), fraction)
        self.say(f"{run}: begins" if fraction == 0 else f"{run}: goes on at {fraction:.0%} of its budget")

    def run_progress(self, run: str, fraction: float, state: dict[str, Any], info: dict[str, Any]) -> None:
        now = time.monotonic()
        if now - self._told.get(run, 0.0) >= self.EVERY_S:
            self._told[run] = now
            began, begin = self._began.get(run, (now, fraction))
            left = time_left(now - began, begin, fraction)
            self.say(f"{run}: {fraction:.0%}, {describe_training(state, info)}{left}")

    def run_scored(self, run: str, mark: float, means: dict[str, float]) -> None:
        self.say(f"{run}: {mark:.1%} of the budget: {describe_means(means)}")

    def run_stopped(self, run: str, why: str, how: str) -> None:
        words = {
            "quantum": "its turn is over",
            "priority": "makes room for a run of higher priority",
            "pause": "paused",
            "interrupt": "interrupted",
        }
        self.say(f"{run}: {words.get(why, why)}; {how}")

    def run_ended(self, run: str, state: str, cause: str | None) -> None:
        self.say(f"{run}: {state}{': ' + cause if cause else ''}")


class Bars(Lines):
    """Rich progress bars on standard error, with what happened as lines above them."""

    def __init__(self) -> None:
        super().__init__()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}", style="dim"),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)

    def _bar(self, name: str, completed: float, total: float | None, detail: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total, detail="")
        self._progress.update(self._tasks[name], completed=completed, total=total, detail=detail)

    def _drop(self, name: str) -> None:
        if name in self._tasks:
            self._progress.remove_task(self._tasks.pop(name))

    def job_progress(self, what: str, done: int, total: int) -> None:
        if what != self._what:
            self._drop(self._what)
            self._what = what
        self._bar(what, done, total or None, "")

    def run_started(self, run: str, fraction: float) -> None:
        self._drop(self._what)
        self._bar(run, fraction, 1.0, "")

    def run_progress(self, run: str, fraction: float, state: dict[str, Any], info: dict[str, Any]) -> None:
        self._bar(run, fraction, 1.0, describe_training(state, info))

    def run_doing(self, run: str, what: str, done: int, total: int) -> None:
        if run in self._tasks:
            count = f" {done} of {total}" if total else ""
            self._progress.update(self._tasks[run], detail=f"{what}{count}")

    def run_stopped(self, run: str, why: str, how: str) -> None:
        # Turns come and go: on a terminal their bars tell it, and a line for each would push all else out of sight.
        self._drop(run)
        if why in ("pause", "interrupt"):
            super().run_stopped(run, why, how)

    def run_ended(self, run: str, state: str, cause: str | None) -> None:
        self._drop(run)
        super().run_ended(run, state, cause)


def time_left(elapsed_s: float, begin: float, fraction: float) -> str:
    """About how long a run that came from ``begin`` to ``fraction`` in ``elapsed_s`` seconds still takes, in words."""
    if fraction <= begin:
        return ""
    seconds = round(elapsed_s * (1 - fraction) / (fraction - begin))
    return (
        f", about {seconds // 60} min {seconds % 60} s left" if seconds >= 60 else f", about {seconds} s left"
    )


def describe_training(state: dict[str, Any], info: dict[str, Any]) -> str:
    """How training goes, in a few words."""
    parts = [f"step {state['steps']}"]
    if "loss" in info:
        parts.append(f"loss {info['loss']:.4f}")
    if "gaussians" in info:
        parts.append(f"{info['gaussians']} Gaussians")
    return ", ".join(parts)


def describe_means(means: dict[str, float]) -> str:
    """The means of the metrics, in a few words."""
    return ", ".join(
        f"{name} {value:.2f}" if name == "psnr" else f"{name} {value:.4f}" for name, value in means.items()
    )


class _Quiet:
    """Gives plain lines the manners of a context."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def __enter__(self) -> Watcher:
        return self._watcher

    def __exit__(self, *exception: Any) -> None:
        return None


def watching() -> Bars | _Quiet:
    """A context that gives the watcher for this terminal."""
    return Bars() if sys.stderr.isatty() else _Quiet(Lines())
