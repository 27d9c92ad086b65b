"""The jobs that a user gives: plan runs, work through them, write the page; the command line's other half."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from . import control
from .bench import Bench
from .captures.build import CaptureOptions, add_capture, add_source, scratch_folder
from .captures.capture import Capture
from .captures.source import Progress
from .environments import KINDS as ENVIRONMENT_KINDS
from .environments import place_of
from .errors import TurntableError, disk_error, unknown_name
from .machine import describe, load_pycolmap, versions
from .methods.spec import Method, Value
from .record import Record, RunRow, State, Terms
from .run import LONGEST_S, Asked, Budget, RunFolder
from .tasks.metrics import Metric, metrics
from .tasks.published import load_published
from .tasks.views import NAME as VIEWS
from .tasks.views import ViewsTask
from .turns.device import LOOK_EVERY_S, check_device, devices, fitting
from .turns.program_run import ProgramRun
from .turns.python_run import PythonRun
from .turns.queue import Queue
from .turns.rota import Rota
from .turns.supervisor import CannotGoOn, Patience, Supervisor, recover_scores
from .turns.watcher import Guarded, Watcher

if TYPE_CHECKING:
    from .report.data import PageOptions

QUANTUM_S = 60.0
"""Long enough that what a change of turns costs (a second, where a process has to start again) is lost in it; short enough
that the curves of a comparison grow together before one's eyes."""


SHORTEST_QUANTUM_S = 0.1


@dataclass(frozen=True)
class Handling:
    """How a process sees runs through; no answer depends on it, but which metrics there are.

    Args:
        patience: how the workers are treated.
        lpips_weights: a file of LPIPS weights, or None to score without.
        places: folders of methods, beside those that the runs themselves remember.
        detached: whether the process has no terminal.
        walls: whether methods are walled in, where that can be done.
    """

    patience: Patience = field(default_factory=Patience)
    lpips_weights: Path | None = None
    places: tuple[str, ...] = ()
    detached: bool = False
    walls: bool = True


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
        command: what the user typed, to be shown on the page; "" where nobody typed anything.
        terms: on what terms they take their turns: round robin by :data:`QUANTUM_S` unless said otherwise.
        walls: whether methods are walled in, where that can be done.
    """

    methods: tuple[str, ...]
    budget: Budget
    seeds: int = 1
    device: str = "cpu"
    settings: tuple[str, ...] = ()
    patience: Patience = field(default_factory=Patience)
    lpips_weights: Path | None = None
    fresh: bool = False
    command: str = ""
    terms: Terms = field(default_factory=lambda: Terms(quantum_s=QUANTUM_S))
    walls: bool = True

    @property
    def handling(self) -> Handling:
        """How whoever asks this sees its runs through."""
        return Handling(self.patience, self.lpips_weights, self.methods, walls=self.walls)


@dataclass(frozen=True)
class Comparison:
    """What came of a comparison on one capture."""

    capture: Capture
    runs: list[RunRow]
    """The runs that were asked for, in the order asked."""
    page: Path
    problems: list[str] = field(default_factory=list)
    """A line for every run that could not be worked on at all."""

    @property
    def failed(self) -> list[RunRow]:
        """The runs that failed."""
        return [row for row in self.runs if row.state is State.FAILED]


def check(bench: Bench, request: RunRequest) -> dict[str, Method]:
    """Everything of a request that can be checked before any work is done; its methods by name.

    Raises:
        TurntableError: an unknown method, setting, device or metric, or a method that can't run here.
    """
    if request.seeds < 1:
        raise TurntableError(f"--seeds is at least 1, not {request.seeds}.")
    device = check_device(request.device)
    chosen: dict[str, Method] = {}
    for wanted in dict.fromkeys(request.methods):
        method = bench.method(wanted)
        if method.name in chosen and chosen[method.name].folder != method.folder:
            raise TurntableError(
                f"Methods need different names; {chosen[method.name].folder} and {method.folder} are both {method.name!r}."
            )
        _check_runnable(method, device, request.budget)
        chosen[method.name] = method
    _check_terms(bench, request.terms, device)
    settings_by_method(list(chosen.values()), request.settings)
    metrics(request.lpips_weights)
    load_published(
        bench.folder / "published"
    )  # a fault in it would be found when the page is written, hours later
    return chosen


def plan(
    bench: Bench, capture: Capture, request: RunRequest, say: Callable[[str], None] = lambda text: None
) -> list[RunFolder]:
    """The runs that answer ``request``: those that there are, unfinished ones among them, and new ones.

    A run that failed is not an answer to wait for: asked again, a new one is made beside it. The environments of the
    methods are built first, so that no run waits for that with a device in its hands.

    Args:
        bench: where they are.
        capture: what they are on.
        request: what is asked.
        say: told what is being done, a line each.

    Raises:
        TurntableError: as :func:`check`, or the capture's files have been changed.
    """
    chosen = list(check(bench, request).values())
    capture.check()
    settings = settings_by_method(chosen, request.settings)
    places = {method.name: place_of(bench, method, request.walls, say) for method in chosen}
    fingerprints = {method.name: method.fingerprint() for method in chosen}
    known_versions, machine = versions(), describe()
    folders = []
    with bench.planning():
        for seed in range(request.seeds):
            for method in chosen:
                asked = Asked(
                    id="",
                    capture=capture.name,
                    capture_hash=capture.hash,
                    task=VIEWS,
                    method=method.name,
                    method_folder=str(method.folder),
                    method_fingerprint=fingerprints[method.name],
                    settings=settings[method.name],
                    seed=seed,
                    budget=request.budget,
                    device=check_device(request.device),
                    created=time.time(),
                    command=request.command,
                    versions={**known_versions, "environment": places[method.name].environment},
                    machine=machine,
                    terms=replace(request.terms, owner=os.getuid(), own_only=method.is_program),
                )
                answer = _find_answer(bench, asked, request.fresh)
                if answer is not None:
                    Queue(bench.record).set_terms(answer.id, asked.terms)  # if it waits still
                folders.append(answer or control.enqueue(bench, asked))
    return folders


def work(
    bench: Bench,
    folders: Sequence[RunFolder],
    handling: Handling,
    watcher: Watcher,
    problems: list[str] | None = None,
) -> list[RunRow]:
    """Work through the queue until these runs have ended; what failed doesn't stop the rest.

    Whatever else waits in the queue takes its turns meanwhile, as the policy has it.

    Args:
        problems: gets a line for every run that could not be worked on at all; None raises the first one at the end.

    Returns:
        The record's row of each run.

    Raises:
        KeyboardInterrupt: interrupted; the run at hand was paused.
        TurntableError: the bench can't be written, or a run could not be worked on and ``problems`` is None.
    """
    chosen_metrics = metrics(handling.lpips_weights)
    watcher = Guarded(watcher)
    _ask_to_go_on(bench, folders)

    def prepare(record: Record, run: str) -> Supervisor:
        own = Bench(bench.folder, record)  # a record isn't for two threads
        folder = own.run_folder(run)
        asked = folder.asked()
        method = method_of(own, asked, handling.places)
        task = _task_of(own, folder, chosen_metrics)
        place = place_of(own, method, handling.walls, watcher.note)
        kind = ProgramRun if method.is_program else PythonRun
        return kind(folder, method, place, task, record, handling.patience, watcher)

    rota = Rota(bench.folder, lambda: Record(bench.record.path), prepare, watcher)
    rota.work([folder.id for folder in folders], handling.detached)
    faults = list(rota.faults.values())
    for folder in folders:
        if bench.row(folder.id).state.ended:  # by whoever: with metrics that may not be all of ours
            try:
                recover_scores(folder, _task_of(bench, folder, chosen_metrics), bench.record)
            except TurntableError as error:
                faults.append(str(error))
    if problems is None and faults:
        raise TurntableError(" ".join(faults))
    if problems is not None:
        problems += faults
    return [bench.row(folder.id) for folder in folders]


def _ask_to_go_on(bench: Bench, folders: Sequence[RunFolder]) -> None:
    """Who asks for a run that is paused wants it to go on, and takes it over from a user who doesn't work on it."""
    queue = Queue(bench.record)
    for folder in folders:
        if bench.row(folder.id).state is State.PAUSED:
            control.resume(bench, folder.id)
        snapshot = queue.snapshot()
        entry = snapshot.entries.get(folder.id)
        owners = {row.owner for row in snapshot.supervisors}
        if entry is not None and entry.owner not in (None, os.getuid()) and entry.owner not in owners:
            queue.adopt(folder.id, os.getuid())


def _task_of(bench: Bench, folder: RunFolder, chosen_metrics: dict[str, Metric]) -> ViewsTask:
    asked = folder.asked()
    capture = bench.capture(asked.capture)
    if capture.hash != asked.capture_hash:
        raise CannotGoOn(
            f"Run {folder.id} was asked on another capture called {capture.name} "
            f"({asked.capture_hash[:12]}, not {capture.hash[:12]}). Move {folder.path} away."
        )
    from .report.kept import keeping  # Pillow and what else pages need, not for every command

    return ViewsTask(capture, chosen_metrics, keeping(capture))


DEMO_VERSION = 1
"""Counts the changes of what the demo renders, so that an older demo's capture isn't taken for it."""


def compare(
    bench: Bench,
    source: Path,
    options: CaptureOptions | None = None,
    request: RunRequest | None = None,
    watcher: Watcher | None = None,
    page: PageOptions | None = None,
) -> Comparison:
    """The main job: capture, runs, scores and page.

    Args:
        bench: where everything is kept; made if it isn't there.
        source: photos, a video, a capture in any known format, or the name of a capture of this bench.
        options: how the capture is made.
        request: which methods, and for how long; ``nearest`` and ``splat`` for two minutes each if None.
        watcher: told how it goes.
        page: how the page is written.

    Raises:
        TurntableError: the request or its input was wrong.
    """
    request = request or RunRequest(("nearest", "splat"), Budget(device_seconds=120))
    watcher = watcher or Watcher()
    check(bench, request)  # before the photos are worked on for minutes
    bench.make()
    capture = add(bench, source, options or CaptureOptions(), watcher)
    return compare_capture(bench, capture, request, watcher, page)


def check_sources(bench: Bench, sources: Sequence[Path], options: CaptureOptions) -> None:
    """Refuse several sources of which one can't be meant, before the first is worked on.

    Raises:
        TurntableError: one isn't there, or one name was given for several.
    """
    known = bench.captures()
    for source in sources:
        if not source.exists() and str(source) not in known:
            raise unknown_source(source, known)
    if options.name is not None and len(sources) > 1:
        raise TurntableError(
            f"--name names one capture, but there are {len(sources)} sources. Add them one by one."
        )


def unknown_source(source: Path, known: dict[str, Capture]) -> TurntableError:
    """The error for a source that isn't there."""
    names = f" Captures of the bench: {', '.join(known)}." if known else ""
    return TurntableError(f"A source is a folder or a file that exists; there is none at {source}.{names}")


def compare_capture(
    bench: Bench, capture: Capture, request: RunRequest, watcher: Watcher, page: PageOptions | None = None
) -> Comparison:
    """Runs, scores and page on a capture that is there."""
    from .report.collect import write_page

    problems: list[str] = []
    rows = work(bench, plan(bench, capture, request, watcher.note), request.handling, watcher, problems)
    written = write_page(bench, capture, watcher, page)
    return Comparison(capture, rows, written, problems)


def go_on(bench: Bench, runs: Sequence[str], handling: Handling, watcher: Watcher) -> list[Comparison]:
    """Work on runs that are there until they have ended, and write the pages of their captures.

    Raises:
        TurntableError: no such run, or the bench can't be written.
    """
    from .report.collect import write_page
    from .report.data import PageOptions

    problems: list[str] = []
    rows = work(bench, [bench.run_folder(run) for run in runs], handling, watcher, problems)
    done = []
    for name in dict.fromkeys(row.capture for row in rows):
        capture = bench.capture(name)
        page = write_page(bench, capture, watcher, PageOptions(walls=handling.walls))
        done.append(Comparison(capture, [row for row in rows if row.capture == name], page, problems))
        problems = []
    return done


def detach(bench: Bench, runs: Sequence[str], handling: Handling) -> tuple[int, Path]:
    """Leave a supervisor in the background that answers for ``runs`` and outlives the terminal.

    Returns:
        Its process id, and the file that it writes to.

    Raises:
        TurntableError: it ended at once; the message has its last words.
    """
    logs = bench.folder / "supervisors"
    logs.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "turntable", "resume", *runs, "--bench", str(bench.folder)]
    command += ["--patience", str(handling.patience.message_s)]
    command += ["--lpips-weights", str(handling.lpips_weights.resolve())] if handling.lpips_weights else []
    command += [] if handling.walls else ["--no-sandbox"]
    path = logs / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    with path.open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    queue = Queue(bench.record)
    while process.poll() is None:
        if process.pid in [who.pid for run in runs for who in queue.answering(run)]:
            return process.pid, path
        time.sleep(LOOK_EVERY_S)
    if all(bench.row(run).state.ended for run in runs):  # so soon
        return process.pid, path
    last = (path.read_text().strip().splitlines() or ["nothing said"])[-1]
    raise TurntableError(f"The supervisor in the background has ended (status {process.returncode}): {last}")


def add(bench: Bench, source: Path, options: CaptureOptions, watcher: Watcher) -> Capture:
    """Add the capture made of ``source``, or find the one that was made of it before.

    Raises:
        TurntableError: the source can't be read, or the bench can't be written.
    """
    known = bench.captures()
    if not source.exists():
        if str(source) not in known:
            raise unknown_source(source, known)
        if options != CaptureOptions():
            raise TurntableError(
                f"{source} is a capture already, and captures never change: options of a capture (--long-side, --hold-out, "
                "--background …) go with its source. Leave them out, or name the source."
            )
        return known[str(source)]
    bench.make()
    load_pycolmap()
    try:
        return add_capture(source, bench.captures_folder, options, _progress(watcher))
    except OSError as error:
        raise disk_error(error, f"a capture in {bench.captures_folder}") from error


def demo_capture(bench: Bench, watcher: Watcher, seed: int = 0) -> Capture:
    """The demo's own capture: rendered on the spot, or found if it was before."""
    from .captures.demo import demo_source

    bench.make()
    progress = _progress(watcher)
    load_pycolmap()
    options = CaptureOptions(format="demo", seed=seed)
    identity = {"demo": DEMO_VERSION, "seed": seed}
    try:
        with scratch_folder(bench.captures_folder) as scratch:
            return add_source(
                lambda: demo_source(scratch, seed, progress),
                identity,
                bench.captures_folder,
                options,
                progress,
                name="demo",
            )
    except OSError as error:
        raise disk_error(error, f"the demo's capture in {bench.folder}") from error


def _progress(watcher: Watcher) -> Progress:
    return Progress(lambda what, done, total: watcher.job_progress(f"capture: {what}", done, total))


def _find_answer(bench: Bench, asked: Asked, fresh: bool) -> RunFolder | None:
    if fresh:
        return None
    for row in reversed(bench.record.runs(question=asked.question())):
        if row.state not in (State.FAILED, State.CANCELLED) and row.capture == asked.capture:
            return bench.run_folder(row.id)
    return None


def method_of(bench: Bench, asked: Asked, wanted: Sequence[str] = ()) -> Method:
    """The method of a run, with the code that it began with: a run has one answer, not half of two.

    It is looked for where it lay then, and where it may have been moved to since: the bench, ``wanted``.

    Raises:
        CannotGoOn: nowhere is one with that code.
    """
    for place in (asked.method_folder, asked.method, *wanted):
        with contextlib.suppress(TurntableError):
            method = bench.method(place)
            if method.name == asked.method and method.fingerprint() == asked.method_fingerprint:
                return method
    raise CannotGoOn(
        f"Method {asked.method} has changed (or gone) since run {asked.id} began, so that run can't go on. "
        "Ask again (turntable compare or run) for a new one."
    )


def _check_runnable(method: Method, device: str, budget: Budget) -> None:
    if device.startswith("cuda"):
        if shown := os.environ.get("CUDA_VISIBLE_DEVICES"):
            raise TurntableError(
                f"--device {device} names cards as the driver counts them, but CUDA_VISIBLE_DEVICES={shown} renames them. "
                "Unset it, and name the card, as in --device cuda:1."
            )
        if "cuda" not in method.devices:
            raise TurntableError(
                f"Method {method.name} runs on {', '.join(method.devices)}, not on {device}."
            )
        if not fitting(device):
            there = ", ".join(found.name for found in devices())
            raise TurntableError(f"--device {device} needs such a card; this machine has: {there}.")
    elif device not in method.devices:
        raise TurntableError(
            f"Method {method.name} runs on {', '.join(method.devices)}, not on {device}: --device cuda takes any card."
        )
    if method.task != VIEWS:
        raise TurntableError(
            f"Method {method.name} is for the task {method.task!r}; this version runs 'views'."
        )
    if method.environment["kind"] not in ENVIRONMENT_KINDS:
        raise TurntableError(
            f"Method {method.name} wants an environment of kind {method.environment['kind']!r}; this version runs "
            f"{', '.join(ENVIRONMENT_KINDS)}."
        )
    if method.is_program and (reason := method.command.takes(budget.kind)) is not None:
        raise TurntableError(f"Method {method.name}: {reason}")


def _check_terms(bench: Bench, terms: Terms, device: str) -> None:
    if terms.quantum_s is not None and not SHORTEST_QUANTUM_S <= terms.quantum_s <= LONGEST_S:
        raise TurntableError(
            f"--quantum is a number of seconds, at least {SHORTEST_QUANTUM_S:g}, not {terms.quantum_s:g}."
        )
    if terms.after is not None:
        bench.row(terms.after)
    largest = max(found.memory_bytes or 0 for found in devices() if found.name in fitting(device))
    if terms.need_bytes > largest:
        raise TurntableError(
            f"--memory is at most what a device has, {largest / 1e9:.1f} GB of {device} here, "
            f"not {terms.need_bytes / 1e9:.1f} GB."
        )


def settings_by_method(chosen: Sequence[Method], given: Sequence[str]) -> dict[str, dict[str, Value]]:
    """All settings of each of the methods ``chosen``, with those ``given`` as ``name=value`` or ``method.name=value``.

    Raises:
        TurntableError: one can't be understood, or isn't of these methods, or doesn't take the value.
    """
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
