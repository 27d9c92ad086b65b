"""Gathering what the page shows of a capture: every run of it, whatever became of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..bench import Bench
from ..captures.capture import Capture
from ..captures.leakage import leakage_of
from ..machine import describe, versions
from ..methods.spec import Method
from ..record import RunRow
from ..reproduced import method_as_asked
from ..results import chosen_definitions, run_document, runs_on
from ..run import Asked, RunFolder
from ..tasks.metrics import metrics
from ..tasks.published import Beside, Ours, beside, load_published
from ..tasks.views import answers_folder
from ..turns.queue import Queue, Snapshot
from ..turns.watcher import Watcher
from .contestants import contestants
from .data import Film, MetricInfo, PageOptions, ReportData, ReportRun
from .page import build_page

LOG_LINES = 30


@dataclass(frozen=True)
class _Gathered:
    """One run, as it was asked and as the record has it."""

    row: RunRow
    folder: RunFolder
    asked: Asked
    document: dict[str, Any]
    method: Method | None
    """As it was asked; None where it has gone or changed since, and nobody can say what it was."""


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
    gathered = _gather(bench, capture)
    snapshot = Queue(bench.record).snapshot()
    shown = _metrics(gathered)
    definitions = {metric.name: metric.definition for metric in shown}
    runs = [_run(one, snapshot, definitions) for one in gathered]
    return ReportData(
        capture=capture,
        runs=runs,
        metrics=shown,
        machine=_machine(runs),
        versions=_versions(runs),
        command=_commands(gathered),
        created=time.strftime("%Y-%m-%d %H:%M:%S %z"),
        lang=options.lang or bench.settings().lang,
        leaks=tuple(leakage_of(capture)),
        films=_films(bench, gathered, runs, watcher or Watcher(), options.walls) if options.around else {},
        published=_published(bench, capture, gathered, runs),
    )


def _gather(bench: Bench, capture: Capture) -> list[_Gathered]:
    methods: dict[tuple[str, str], Method | None] = {}
    found = []
    for row in runs_on(bench, capture):
        folder = bench.run_folder(row.id)
        asked = folder.asked()
        which = asked.method_folder, asked.method_fingerprint
        if which not in methods:
            methods[which] = method_as_asked(asked)
        found.append(_Gathered(row, folder, asked, run_document(bench, row), methods[which]))
    return found


def _machine(runs: Sequence[ReportRun]) -> dict[str, str]:
    """Where the runs ran, as they noted it; several machines by their runs; and the one that wrote the page, if another."""
    here = describe()
    machines: list[tuple[dict[str, str], list[str]]] = []
    for run in runs:
        if run.machine:
            known = next((of_runs for machine, of_runs in machines if machine == run.machine), None)
            if known is None:
                machines.append((run.machine, known := []))
            known.append(run.id)
    if len(machines) == 1:
        found = dict(machines[0][0])
    else:
        found = {", ".join(of_runs): "; ".join(machine.values()) for machine, of_runs in machines}
    if here not in [machine for machine, _ in machines]:
        found["page written on"] = "; ".join(here.values())
    return found


def _versions(runs: Sequence[ReportRun]) -> dict[str, str]:
    """What the runs ran with, as they noted it: a package's versions, if several, one after the other."""
    found: dict[str, list[str]] = {}
    for run in runs:
        for name, version in run.versions.items():
            if name != "environment" and version not in found.setdefault(name, []):
                found[name].append(version)
    ran_with = {name: ", ".join(several) for name, several in found.items()}
    return ran_with or versions()


def _films(
    bench: Bench, gathered: Sequence[_Gathered], runs: list[ReportRun], watcher: Watcher, walls: bool
) -> dict[str, Film]:
    """Of every contestant that has scores, the film and the 3D view of its run with the lowest mean of the first metric."""
    from ..filming import page_film  # PyAV, viser and workers: only where films are wanted
    from ..scenes import static_scene

    by_id = {one.row.id: one.row for one in gathered}
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
    bench: Bench, capture: Capture, gathered: Sequence[_Gathered], runs: list[ReportRun]
) -> tuple[Beside, ...]:
    """Published numbers on this capture's scene: of the methods that ours implement beside ours, the rest by themselves."""
    by_id = {one.row.id: one for one in gathered}
    methods = {one.asked.method_fingerprint: one.method for one in gathered if one.method}
    facts = [fact for method in methods.values() for fact in method.facts]
    known = load_published(bench.folder / "published", facts)
    found: list[Beside] = []
    for one in contestants(runs):
        if not one.scored:
            continue
        first = by_id[one.scored[0].id]
        ours = Ours.of_run(first.document, first.method)
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


def _commands(gathered: Sequence[_Gathered]) -> str | None:
    """The different commands that asked for these runs, a line each; None where nobody typed one."""
    commands = dict.fromkeys(one.asked.command for one in gathered)
    return "\n".join(command for command in commands if command) or None


def _run(one: _Gathered, snapshot: Snapshot, definitions: Mapping[str, str]) -> ReportRun:
    row, asked, method = one.row, one.asked, one.method
    used = one.document["definitions"]
    outdated = tuple(name for name, definition in used.items() if definition != definitions[name])
    curve = _without(one.document["curve"], outdated, next(iter(definitions), ""))
    last = curve[-1] if curve else None
    return ReportRun(
        id=row.id,
        method=row.method,
        title=method.title if method else row.method,
        license=method.license if method else "",
        paper=method.paper if method else None,
        seed=asked.seed,
        state=snapshot.state_of(row),
        cause=_cause(row, last),
        settings=asked.settings,
        budget=str(asked.budget),
        device=row.device,
        device_seconds=row.device_seconds,
        setup_seconds=row.setup_seconds,
        steps=row.steps,
        peak_memory_bytes=row.peak_memory_bytes,
        scores=last["scores"] if last else {},
        curve=curve,
        views_folder=answers_folder(one.folder.path, last["mark"] if last else 1.0),
        log_tail=one.folder.log_tail(LOG_LINES),
        fingerprint=asked.method_fingerprint,
        wants=asked.device,
        environment=asked.versions.get("environment") or "",
        versions=asked.versions,
        machine=asked.machine,
        outdated=outdated,
    )


def _without(curve: list[dict[str, Any]], outdated: Sequence[str], first: str) -> list[dict[str, Any]]:
    """The scores at each mark without ``outdated`` metrics; [] where the metric that ranks is among them."""
    if first in outdated:
        return []
    return [
        {**mark, "scores": {name: scores for name, scores in mark["scores"].items() if name not in outdated}}
        for mark in curve
    ]


def _cause(row: RunRow, last: dict[str, Any] | None) -> str | None:
    """Why a run has not ended well; and of which moment its scores and pictures are, where it has any."""
    if last is None or last["mark"] == 1.0:
        return row.cause
    shown = f"its scores and pictures are those at {last['mark']:.1%} of its budget"
    return f"{row.cause}; {shown}" if row.cause else shown


def _metrics(gathered: Sequence[_Gathered]) -> list[MetricInfo]:
    """The metrics that any of the runs was scored by, in the order that Turntable lists them.

    Each by one definition: today's, where any run was scored by it, else the one that the last run has.
    """
    known = metrics()
    chosen = chosen_definitions(used for one in gathered for used in one.document["definitions"].items())
    infos = []
    for name in sorted(chosen, key=lambda name: ([*known, name].index(name), name)):
        metric = known.get(name)
        infos.append(
            MetricInfo(
                name=name,
                title=metric.title if metric else name.upper(),
                unit=metric.unit if metric else "",
                higher_is_better=metric.higher_is_better if metric else False,  # LPIPS is the only other one
                definition=chosen[name],
            )
        )
    return infos
