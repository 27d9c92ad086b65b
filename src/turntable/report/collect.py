"""Gathering what the page shows of a capture: every run of it, whatever became of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..bench import Bench
from ..captures.capture import Capture
from ..captures.leakage import leakage_of
from ..errors import TurntableError
from ..machine import MACHINE, describe, versions
from ..methods.spec import Method
from ..record import RunRow, State
from ..results import run_document, runs_on
from ..run import Asked
from ..tasks.metrics import metrics
from ..tasks.published import Beside, Ours, beside, load_published
from ..tasks.views import answers_folder
from ..turns.queue import Queue
from ..turns.watcher import Watcher
from .contestants import contestants
from .data import Film, MetricInfo, ReportData, ReportRun
from .page import build_page

LOG_LINES = 30


@dataclass(frozen=True)
class PageOptions:
    """How a page is written.

    Args:
        lang: the language of its texts; the bench's if None.
        single_file: one file for mail, in place of a folder.
        around: with orbit videos and 3D views, which methods have to be started for.
        walls: whether those methods are walled in, where that can be done.
    """

    lang: str | None = None
    single_file: bool = False
    around: bool = True
    walls: bool = True


def write_page(bench: Bench, capture: Capture, watcher: Watcher, options: PageOptions | None = None) -> Path:
    """Write the page of ``capture`` into the bench's ``reports/``; the path of its ``index.html``, or of the one file.

    Raises:
        TurntableError: the bench can't be read or written, or there is no such language.
    """
    options = options or PageOptions()
    return build_page(
        collect(bench, capture, watcher, options),
        bench.reports_folder / capture.name,
        lambda done, total: watcher.job_progress("page", done, total),
        options.single_file,
    )


def collect(
    bench: Bench, capture: Capture, watcher: Watcher | None = None, options: PageOptions | None = None
) -> ReportData:
    """Everything that the page of ``capture`` shows."""
    options = options or PageOptions(around=False)
    rows = runs_on(bench, capture)
    held = {lease.run for lease in Queue(bench.record).snapshot().leases.values()}
    runs = [_run(bench, row, row.id in held) for row in rows]
    return ReportData(
        capture=capture,
        runs=runs,
        metrics=_metrics(bench, rows),
        machine=_machine(runs),
        versions=_versions(runs),
        command=_commands(bench, rows),
        created=time.strftime("%Y-%m-%d %H:%M:%S %z"),
        lang=options.lang or bench.settings().lang,
        leaks=tuple(leakage_of(capture)),
        films=_films(bench, rows, runs, watcher or Watcher(), options.walls) if options.around else {},
        published=_published(bench, capture, rows, runs),
    )


def _machine(runs: Sequence[ReportRun]) -> dict[str, str]:
    """Where the runs ran, as they noted it; several machines by their runs; and the one that wrote the page, if another."""
    noted = {
        run.id: {key: value for key, value in run.versions.items() if key.startswith(MACHINE)} for run in runs
    }
    here = {f"{MACHINE}{key}": value for key, value in describe().items()}
    machines = [machine for machine in dict.fromkeys(map(_frozen, noted.values())) if machine]
    if len(machines) == 1:
        found = {key.removeprefix(MACHINE): value for key, value in machines[0]}
    else:
        found = {
            ", ".join(run for run, of_run in noted.items() if _frozen(of_run) == machine): "; ".join(
                value for _, value in machine
            )
            for machine in machines
        }
    if _frozen(here) not in machines:
        found["page written on"] = "; ".join(here.values())
    return found


def _versions(runs: Sequence[ReportRun]) -> dict[str, str]:
    """What the runs ran with, as they noted it: a package's versions, if several, one after the other."""
    found: dict[str, list[str]] = {}
    for run in runs:
        for name, version in run.versions.items():
            if (
                name != "environment"
                and not name.startswith(MACHINE)
                and version not in found.setdefault(name, [])
            ):
                found[name].append(version)
    ran_with = {name: ", ".join(several) for name, several in found.items()}
    return ran_with or versions()


def _frozen(noted: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(noted.items()))


def _films(
    bench: Bench, rows: Sequence[RunRow], runs: list[ReportRun], watcher: Watcher, walls: bool
) -> dict[str, Film]:
    """Of every contestant that has scores, the film and the 3D view of its run with the lowest mean of the first metric."""
    from ..filming import page_film  # PyAV, viser and workers: only where films are wanted
    from ..scenes import static_scene

    by_id = {row.id: row for row in rows}
    found = {}
    for one in contestants(runs):
        if not one.scored:
            continue
        metric = next(iter(metrics()))
        worst = min(one.scored, key=lambda run: run.scores.get(metric, {}).get("mean", 0.0))
        film = page_film(bench, by_id[worst.id], watcher, walls)
        scene = static_scene(bench, by_id[worst.id], watcher, walls)
        found[one.label] = Film(
            worst.id,
            video=film if isinstance(film, Path) else None,
            scene=scene if isinstance(scene, Path) else None,
            no_video=film if isinstance(film, str) else "",
            no_scene=scene if isinstance(scene, str) else "",
        )
    return found


def _published(
    bench: Bench, capture: Capture, rows: Sequence[RunRow], runs: list[ReportRun]
) -> tuple[Beside, ...]:
    """Published numbers on this capture's scene: of the methods that ours implement beside ours, the rest by themselves."""
    methods = {run.id: _method(bench.run_folder(run.id).asked()) for run in runs}
    known = load_published(
        bench.folder / "published", [fact for method in methods.values() if method for fact in method.facts]
    )
    documents = {row.id: run_document(bench, row) for row in rows}
    found: list[Beside] = []
    for one in contestants(runs):
        if not one.scored:
            continue
        first = one.scored[0]
        method = methods[first.id]
        ours = Ours.of_run(documents[first.id], method.reproduces if method else ())
        means = {metric: mean for metric in ours.values if (mean := one.mean_of(metric)) is not None}
        rows_of = beside(capture, replace(ours, values=means), known)
        found += [replace(row, our_method=one.label) for row in rows_of]

    def key(row: Beside) -> tuple[str, ...]:
        return row.method, row.metric, row.source, row.budget

    ours_too = {key(row) for row in found if row.same_method}
    others = {key(row): replace(row, ours=None) for row in found if not row.same_method}
    rest = [row for one, row in others.items() if one not in ours_too]
    return tuple(
        sorted(
            [*(row for row in found if row.same_method), *rest],
            key=lambda row: (not row.same_method, row.metric, row.method),
        )
    )


def _commands(bench: Bench, rows: list[RunRow]) -> str | None:
    """The different commands that asked for these runs, a line each; None where nobody typed one."""
    commands = dict.fromkeys(bench.run_folder(row.id).asked().command for row in rows)
    return "\n".join(command for command in commands if command) or None


def _method(asked: Asked) -> Method | None:
    """The method as it was asked; None where it has gone or changed since, and nobody can say what it was."""
    with contextlib.suppress(TurntableError):
        method = Method.load(Path(asked.method_folder))
        if method.fingerprint() == asked.method_fingerprint:
            return method
    return None


def _run(bench: Bench, row: RunRow, held: bool) -> ReportRun:
    folder = bench.run_folder(row.id)
    asked = folder.asked()
    document = run_document(bench, row)
    last = document["curve"][-1] if document["curve"] else None
    method = _method(asked)
    return ReportRun(
        id=row.id,
        method=row.method,
        title=method.title if method else row.method,
        license=method.license if method else "",
        paper=method.paper if method else None,
        seed=asked.seed,
        state=row.state.value if held or row.state is not State.RUNNING else "interrupted",
        cause=_cause(row, last),
        settings=asked.settings,
        budget=str(asked.budget),
        device=row.device,
        device_seconds=row.device_seconds,
        setup_seconds=row.setup_seconds,
        steps=row.steps,
        peak_memory_bytes=row.peak_memory_bytes,
        scores=last["scores"] if last else {},
        curve=document["curve"],
        views_folder=answers_folder(folder.path, last["mark"] if last else 1.0),
        log_tail=folder.log_tail(LOG_LINES),
        fingerprint=asked.method_fingerprint,
        wants=asked.device,
        environment=asked.versions.get("environment") or "",
        versions=asked.versions,
    )


def _cause(row: RunRow, last: dict[str, Any] | None) -> str | None:
    """Why a run has not ended well; and of which moment its scores and pictures are, where it has any."""
    if last is None or last["mark"] == 1.0:
        return row.cause
    shown = f"its scores and pictures are those at {last['mark']:.1%} of its budget"
    return f"{row.cause}; {shown}" if row.cause else shown


def _metrics(bench: Bench, rows: list[RunRow]) -> list[MetricInfo]:
    """The metrics that any of the runs was scored by, in the order that Turntable lists them."""
    known = metrics()
    definitions = {score.metric: score.definition for row in rows for score in bench.record.scores(row.id)}
    infos = []
    for name in sorted(definitions, key=lambda name: ([*known, name].index(name), name)):
        metric = known.get(name)
        infos.append(
            MetricInfo(
                name=name,
                title=metric.title if metric else name.upper(),
                unit=metric.unit if metric else "",
                higher_is_better=metric.higher_is_better if metric else False,  # LPIPS is the only other one
                definition=definitions[name],
            )
        )
    return infos
