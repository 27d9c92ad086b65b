"""What the page is made of: plain data, gathered by :mod:`.collect`, shown by :mod:`.page`.

Notation: an *item* is a held-out view, called by its name in the capture; scores are in the unit of their
metric, times in seconds, memory in bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..captures.capture import Capture
from ..lang import FIRST

if TYPE_CHECKING:
    from ..captures.leakage import Leak
    from ..tasks.published import Beside

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


@dataclass(frozen=True)
class Film:
    """A run's orbit video, and its 3D view for a page that is served; or why there is none, in words.

    Args:
        run: the run that is shown.
        video, scene: files to be put beside the page.
        no_video, no_scene: why not.
    """

    run: str
    video: Path | None = None
    scene: Path | None = None
    no_video: str = ""
    no_scene: str = ""

    def file(self, suffix: str) -> str:
        """What its file of that suffix is called on the page: as no other run's is."""
        return f"{hashlib.sha256(self.run.encode()).hexdigest()[:12]}.{suffix}"


@dataclass(frozen=True)
class ReportRun:
    """One run, whatever became of it.

    Args:
        id, method, title, license, paper, seed: which run of which method; paper has ``title``, ``year`` and
            ``url``.
        state: ``done``, ``failed``, ``cancelled``, ``running``, ``paused``, ``queued``, or ``interrupted``: whoever
            worked on it was killed, and it goes on when somebody asks for it.
        cause: why it failed, one line; None where it did not.
        settings, budget, device: what was asked, and where it ran.
        device_seconds, setup_seconds, steps, peak_memory_bytes: what it took.
        scores: metric to ``{"mean", "min", "max", "p10", "p90", "worst", "per_item": {view: value}}`` at the
            whole budget; {} where it was never scored.
        curve: ``{"device_seconds", "steps", "scores": {metric: {"mean"}}}`` at each mark of the budget.
        views_folder: holds one PNG per held-out view, called as the capture's photo is.
        log_tail: the last lines of its log.
        fingerprint: of its method's code.
        wants: the device that was asked for.
        environment: the hash of the environment that its method lived in; "" where it lives in Turntable's own.
        versions, machine: what it ran with, and where, by name; {} where it noted nothing.
        outdated: the metrics by another definition of which it was scored than the page's: those scores are left out, and
            all where the metric that ranks is among them.
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
    fingerprint: str = ""
    wants: str = "cpu"
    environment: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, str] = field(default_factory=dict)
    outdated: tuple[str, ...] = ()


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
        lang: of the page's texts.
        films: orbit videos and 3D views, by the contestant's label.
        leaks: training photos among the held-out ones.
        published: numbers from papers, beside ours.
    """

    capture: Capture
    runs: list[ReportRun]
    metrics: list[MetricInfo]
    machine: dict[str, str]
    versions: dict[str, str]
    command: str | None
    created: str
    lang: str = FIRST
    films: dict[str, Film] = field(default_factory=dict)
    leaks: tuple[Leak, ...] = ()
    published: tuple[Beside, ...] = ()
