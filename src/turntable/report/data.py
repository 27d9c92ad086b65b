"""What the page is made of: plain data, gathered by :mod:`.collect`, shown by :mod:`.page`.

Notation: an *item* is a held-out view, called by its name in the capture; scores are in the unit of their
metric, times in seconds, memory in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..captures.capture import Capture

FLOOR = "nearest"
"""The method that any other must beat: it shows the training photo whose camera is nearest."""


@dataclass(frozen=True)
class MetricInfo:
    """One metric, as people are told about it.

    Args:
        name: as in scores and JSON.
        title, unit: for people; the unit may be empty.
        higher_is_better: which way is good.
        definition: what exactly was computed, as stored with the scores.
    """

    name: str
    title: str
    unit: str
    higher_is_better: bool
    definition: str


@dataclass(frozen=True)
class ReportRun:
    """One run, whatever became of it.

    Args:
        id, method, title, license, paper, seed: which run of which method; paper has ``title``, ``year`` and
            ``url``.
        state: ``done``, ``failed``, ``cancelled``, ``running``, ``paused`` or ``queued``.
        cause: why it failed, one line; None where it did not.
        settings, budget, device: what was asked, and where it ran.
        device_seconds, setup_seconds, steps, peak_memory_bytes: what it took.
        scores: metric to ``{"mean", "min", "max", "p10", "p90", "worst", "per_item": {view: value}}`` at the
            whole budget; {} where it was never scored.
        curve: ``{"device_seconds", "steps", "scores": {metric: {"mean"}}}`` at each mark of the budget.
        views_folder: holds one PNG per held-out view, called as the capture's photo is.
        log_tail: the last lines of its log.
    """

    id: str
    method: str
    title: str
    license: str
    paper: dict[str, Any] | None
    seed: int
    state: str
    cause: str | None
    settings: dict[str, Any]
    budget: str
    device: str
    device_seconds: float
    setup_seconds: float
    steps: int
    peak_memory_bytes: int
    scores: dict[str, Any]
    curve: list[dict[str, Any]]
    views_folder: Path
    log_tail: list[str]


@dataclass(frozen=True)
class ReportData:
    """All that one page shows.

    Args:
        capture: its photos are shown, its held-out views are what the runs are compared on.
        runs: in the order in which they were asked for.
        metrics: in the order in which the page lists them; the first decides the order of the table.
        machine, versions: name to words.
        command: what to type to get the same again; None where nobody typed one.
        created: when, in words.
        lang: of the page's texts; only ``en`` is there.
    """

    capture: Capture
    runs: list[ReportRun]
    metrics: list[MetricInfo]
    machine: dict[str, str]
    versions: dict[str, str]
    command: str | None
    created: str
    lang: str = "en"


def labels(runs: list[ReportRun]) -> dict[str, str]:
    """What each run is called on the page, by its id: its method, or that id where a method has more."""
    methods = [run.method for run in runs]
    return {run.id: run.method if methods.count(run.method) == 1 else run.id for run in runs}
