"""The jobs that a user gives: plan runs, work through them, write the page; the command line's other half."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .bench import Bench
from .captures.build import CaptureOptions, add_capture, add_source
from .captures.capture import Capture
from .captures.source import Progress
from .errors import TurntableError, disk_error, unknown_name
from .machine import versions
from .methods.spec import Method, Value
from .record import RunRow, State
from .run import Asked, Budget, RunFolder
from .tasks.metrics import metrics
from .tasks.views import NAME as VIEWS
from .tasks.views import ViewsTask, answers_folder
from .turns.device import check_device, hold
from .turns.supervisor import Patience, Supervisor
from .turns.watcher import Watcher


@dataclass(frozen=True)
class RunRequest:
    """What a user asks of some methods.

    Args:
        methods: names, or folders with a ``method.toml``.
        budget: for each run.
        seeds: so many runs per method, with the seeds 0, 1, …
        device: where they run.
        settings: ``name=value`` for every method that has it, or ``method.name=value``.
        patience: how the workers are treated.
        lpips_weights: a file of LPIPS weights, or None to score without.
        fresh: make new runs even where the same question has been answered before.
    """

    methods: tuple[str, ...]
    budget: Budget
    seeds: int = 1
    device: str = "cpu"
    settings: tuple[str, ...] = ()
    patience: Patience = field(default_factory=Patience)
    lpips_weights: Path | None = None
    fresh: bool = False


@dataclass(frozen=True)
class Comparison:
    """What came of a comparison on one capture."""

    capture: Capture
    runs: list[RunRow]
    """The runs that were asked for, in the order asked."""
    page: Path

    @property
    def failed(self) -> list[RunRow]:
        """The runs that failed."""
        return [row for row in self.runs if row.state is State.FAILED]


def plan(bench: Bench, capture: Capture, request: RunRequest) -> list[RunFolder]:
    """The runs that answer ``request``: those that there are, unfinished ones among them, and new ones.

    A run that failed is not an answer to wait for: asked again, a new one is made beside it.

    Raises:
        TurntableError: an unknown method or setting, or a method for another task.
    """
    if request.seeds < 1:
        raise TurntableError(f"--seeds is at least 1, not {request.seeds}.")
    device = check_device(request.device)
    chosen = [bench.method(name) for name in dict.fromkeys(request.methods)]
    settings = _settings_by_method(chosen, request.settings)
    for method in chosen:
        _check_runnable(method)
    folders = []
    for seed in range(request.seeds):
        for method in chosen:
            asked = Asked(
                id="",
                capture=capture.name,
                capture_hash=capture.hash,
                task=VIEWS,
                method=method.name,
                method_folder=str(method.folder),
                method_fingerprint=method.fingerprint(),
                settings=settings[method.name],
                seed=seed,
                budget=request.budget,
                device=device,
                created=time.time(),
                command=shlex.join(["turntable", *sys.argv[1:]]),
                versions=versions(),
            )
            folders.append(_find_answer(bench, asked, request.fresh) or bench.queue(asked))
    return folders


def work(bench: Bench, folders: Sequence[RunFolder], request: RunRequest, watcher: Watcher) -> list[RunRow]:
    """Work through runs, one after the other; what failed doesn't stop the rest.

    Returns:
        The record's row of each run.

    Raises:
        KeyboardInterrupt: interrupted; the run at hand was paused.
        TurntableError: the bench can't be written.
    """
    chosen_metrics = metrics(request.lpips_weights)
    for folder in folders:
        asked = folder.asked()
        capture = bench.capture(asked.capture)
        if capture.hash != asked.capture_hash:
            raise TurntableError(
                f"Run {folder.id} was asked on another capture called {capture.name} "
                f"({asked.capture_hash[:12]}, not {capture.hash[:12]}). Move {folder.path} away."
            )
        task = ViewsTask(capture, chosen_metrics)
        if bench.row(folder.id).state.ended:
            _score_what_is_missing(bench, folder, task)
            continue
        method = _method_of(bench, asked)
        with hold(bench.folder, asked.device, lambda: watcher.note(_BUSY)):
            if bench.row(folder.id).state.ended:  # by whoever held the device before
                continue
            Supervisor(folder, method, task, bench.record, request.patience, watcher).run()
    return [bench.row(folder.id) for folder in folders]


DEMO_VERSION = 1
"""Counts the changes of what the demo renders, so that an older demo's capture isn't taken for it."""

_BUSY = "Another turntable holds the device; waiting for it to end …"


def compare(
    bench: Bench, source: Path, options: CaptureOptions, request: RunRequest, watcher: Watcher
) -> Comparison:
    """The main job: capture, runs, scores and page.

    Args:
        source: photos, a video, a capture in any known format, or the name of a capture of this bench.

    Raises:
        TurntableError: the request or its input was wrong.
    """
    for name in request.methods:  # before the photos are worked on for minutes
        _check_runnable(bench.method(name))
    metrics(request.lpips_weights)
    bench.make()
    capture = add(bench, source, options, watcher)
    return compare_capture(bench, capture, request, watcher)


def compare_capture(bench: Bench, capture: Capture, request: RunRequest, watcher: Watcher) -> Comparison:
    """Runs, scores and page on a capture that is there."""
    from .report.collect import write_page

    rows = work(bench, plan(bench, capture, request), request, watcher)
    page = write_page(bench, capture, watcher)
    return Comparison(capture, rows, page)


def add(bench: Bench, source: Path, options: CaptureOptions, watcher: Watcher) -> Capture:
    """Add the capture made of ``source``, or find the one that was made of it before.

    Raises:
        TurntableError: the source can't be read, or the bench can't be written.
    """
    known = bench.captures()
    if not source.exists() and str(source) in known:
        return known[str(source)]
    bench.make()
    try:
        return add_capture(source, bench.captures_folder, options, Progress(watcher.capture_progress))
    except OSError as error:
        raise disk_error(error, f"a capture in {bench.captures_folder}") from error


def demo_capture(bench: Bench, watcher: Watcher, seed: int = 0) -> Capture:
    """The demo's own capture: rendered on the spot, or found if it was before."""
    from .captures.demo import demo_source

    bench.make()
    progress = Progress(watcher.capture_progress)
    options = CaptureOptions(name="demo", format="demo", seed=seed)
    identity = {"demo": DEMO_VERSION, "seed": seed}
    try:
        with TemporaryDirectory(dir=bench.folder, prefix=".demo-") as scratch:
            return add_source(
                lambda: demo_source(Path(scratch), seed, progress),
                identity,
                bench.captures_folder,
                options,
                progress,
            )
    except OSError as error:
        raise disk_error(error, f"the demo's capture in {bench.folder}") from error


def run_states(bench: Bench) -> list[dict[str, Any]]:
    """Every run's row for ``status``: a run that says running while nobody holds its lock was interrupted."""
    states = []
    for row in bench.record.runs():
        shown = row.state.value
        if row.state is State.RUNNING:
            lock = bench.run_folder(row.id).lock()
            if lock is not None:
                lock.close()
                shown = "interrupted"
        fields = (
            "id",
            "capture",
            "method",
            "cause",
            "device",
            "steps",
            "device_seconds",
            "peak_memory_bytes",
        )
        states.append(
            {**{name: getattr(row, name) for name in fields}, "fraction": row.fraction, "state": shown}
        )
    return states


def _find_answer(bench: Bench, asked: Asked, fresh: bool) -> RunFolder | None:
    if fresh:
        return None
    for row in reversed(bench.record.runs(question=asked.question())):
        if row.state is not State.FAILED:
            return bench.run_folder(row.id)
    return None


def _method_of(bench: Bench, asked: Asked) -> Method:
    """The method of a run, unless its code has changed since: a run has one answer, not half of two."""
    method = Method.load(Path(asked.method_folder))
    if method.fingerprint() != asked.method_fingerprint:
        raise TurntableError(
            f"Method {asked.method} has changed since run {asked.id} began, so that run can't go on. "
            "Ask again (turntable compare or run) for a new one."
        )
    return method


def _check_runnable(method: Method) -> None:
    if method.task != VIEWS:
        raise TurntableError(
            f"Method {method.name} is for the task {method.task!r}; this version runs 'views'."
        )
    if method.environment["kind"] != "host" or method.run["kind"] != "python":
        raise TurntableError(
            f"Method {method.name} wants environment {method.environment['kind']!r} and run kind "
            f"{method.run['kind']!r}; this version runs 'host' and 'python' only."
        )


def _settings_by_method(chosen: Sequence[Method], given: Sequence[str]) -> dict[str, dict[str, Value]]:
    wanted: dict[str, dict[str, str]] = {method.name: {} for method in chosen}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals:
            raise TurntableError(f"--set takes name=value or method.name=value, not {text!r}.")
        method_name, dot, setting = key.partition(".")
        if dot:
            if method_name not in wanted:
                raise unknown_name("method in --set", method_name, wanted)
            wanted[method_name][setting] = value
            continue
        having = [method for method in chosen if key in method.settings]
        if not having:
            raise unknown_name("setting", key, {name for method in chosen for name in method.settings})
        for method in having:
            wanted[method.name][key] = value
    return {method.name: method.configure(wanted[method.name]) for method in chosen}


def _score_what_is_missing(bench: Bench, folder: RunFolder, task: ViewsTask) -> None:
    """Score a finished run's stored renderings by metrics that were not asked for when it ran."""
    scores = folder.scores()
    new = []
    for mark in sorted({score.mark for score in scores}):
        at_mark = [score for score in scores if score.mark == mark]
        known = {score.definition for score in at_mark}
        missing = {name: metric for name, metric in task.metrics.items() if metric.definition not in known}
        if missing and answers_folder(folder.path, mark).is_dir():
            partial = ViewsTask(task.capture, missing)
            new += partial.score(folder.path, mark, at_mark[0].steps, at_mark[0].device_seconds)
    if new:
        replaced = {(score.mark, score.metric) for score in new}
        kept = [score for score in scores if (score.mark, score.metric) not in replaced]
        folder.write_scores(kept + new)
        bench.record.add_scores(folder.id, new)
