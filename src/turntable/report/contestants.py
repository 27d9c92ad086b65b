"""Who is compared: runs that differ by their seed alone are one contestant, whatever became of each of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..captures.split import numbers_by_value
from ..tasks.statistics import Ranking, Sample, rank
from .data import FLOOR, MetricInfo, ReportData, ReportRun


@dataclass(frozen=True)
class Contestant:
    """A method with its code, settings, budget and device.

    Args:
        label: what it is called: its method, and what tells it from others of that method; unique on the page.
        runs: all its runs, in the order in which they were asked for.
    """

    label: str
    runs: tuple[ReportRun, ...]

    @property
    def method(self) -> str:
        return self.runs[0].method

    @property
    def title(self) -> str:
        return self.runs[0].title

    @property
    def is_floor(self) -> bool:
        return self.method == FLOOR

    @property
    def scored(self) -> tuple[ReportRun, ...]:
        """Its runs that are done and scored: those that count in its mean."""
        return tuple(run for run in self.runs if run.state == "done" and run.scores)

    @property
    def failed(self) -> tuple[ReportRun, ...]:
        """Its runs that failed, those that were answered by another one since among them."""
        return tuple(run for run in self.runs if run.state == "failed")

    @property
    def unanswered(self) -> tuple[ReportRun, ...]:
        """Its runs without scores whose seed no other run has answered."""
        answered = {run.seed for run in self.scored}
        return tuple(run for run in self.runs if run.seed not in answered)

    @property
    def by_seed(self) -> dict[int, list[ReportRun]]:
        """Its scored runs by their seed. Asked again with the same seed, a method that uses nothing else gives the same
        answer: such runs say nothing of chance, and count as one."""
        found: dict[int, list[ReportRun]] = {}
        for run in self.scored:
            found.setdefault(run.seed, []).append(run)
        return found

    def mean_of(self, metric: str) -> float | None:
        """The mean over its seeds of one metric's mean over the views; None where a run lacks it."""
        if not self.scored or any(metric not in run.scores for run in self.scored):
            return None
        return _mean([_mean([run.scores[metric]["mean"] for run in runs]) for runs in self.by_seed.values()])

    def of_view(self, metric: str, view: str) -> float | None:
        """The mean over its seeds of one view's score; None where there is none."""
        values = []
        for runs in self.by_seed.values():
            per_item = [run.scores.get(metric, {}).get("per_item", {}) for run in runs]
            if known := [scores[view] for scores in per_item if view in scores]:
                values.append(_mean(known))
        return _mean(values) if values else None


def contestants(runs: Sequence[ReportRun]) -> list[Contestant]:
    """The runs gathered by all that makes their answers comparable but the seed, as the first of each was asked for."""
    groups: dict[_Key, list[ReportRun]] = {}
    for run in runs:
        groups.setdefault(_key(run), []).append(run)
    called = {key: _label(key, members[0], groups) for key, members in groups.items()}
    names = list(called.values())
    return [
        Contestant(
            called[key] if names.count(called[key]) == 1 else f"{called[key]} [{members[0].id}]",
            tuple(members),
        )
        for key, members in groups.items()
    ]


def in_order(data: ReportData) -> list[Contestant]:
    """The contestants as the page lists them: best mean of the first metric first, then those without scores."""

    def key(one: Contestant) -> tuple[int, float, str]:
        metric = data.metrics[0] if data.metrics else None
        mean = one.mean_of(metric.name) if metric else None
        if metric is None or mean is None:
            return 1, 0.0, one.label
        return 0, -mean if metric.higher_is_better else mean, one.label

    return sorted(contestants(data.runs), key=key)


def samples_of(data: ReportData, metric: MetricInfo) -> list[Sample]:
    """The scores of every contestant by ``metric``, of its runs that have all views; a row for each seed.

    Views stand in the order in which they were taken, as far as their names tell: neighbours are taken as a block.
    """
    views = sorted((view.name for view in data.capture.held_out), key=numbers_by_value)
    samples = []
    for one in contestants(data.runs):
        rows = []
        for runs in one.by_seed.values():
            per_item = [run.scores.get(metric.name, {}).get("per_item", {}) for run in runs]
            whole = [[scores[view] for view in views] for scores in per_item if set(views) <= set(scores)]
            if whole:
                rows.append(np.mean(whole, axis=0))
        scores = np.array(rows, np.float64).reshape(len(rows), len(views))
        samples.append(Sample(one.label, scores, failed=len(one.failed)))
    return samples


def ranking(data: ReportData, metric: MetricInfo) -> Ranking | None:
    """The statistics of ``metric``; None where nothing was scored by it."""
    samples = samples_of(data, metric)
    if not any(len(sample.scores) for sample in samples):
        return None
    return rank(samples, metric.higher_is_better)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


_Key = tuple[str, str, str, str, str]


def _key(run: ReportRun) -> _Key:
    settings = json.dumps(run.settings, sort_keys=True, default=str)
    return run.method, run.fingerprint, settings, run.budget, run.wants


def _label(key: _Key, ours: ReportRun, groups: dict[_Key, list[ReportRun]]) -> str:
    """The method's name; where there are others of that name, with what is different from any of them."""
    others = [members[0] for other, members in groups.items() if other[0] == key[0] and other != key]
    parts = []
    if any(other.budget != ours.budget for other in others):
        parts.append(ours.budget)
    if any(other.wants != ours.wants for other in others):
        parts.append(ours.wants)
    if any(other.fingerprint != ours.fingerprint for other in others):
        parts.append(f"code {ours.fingerprint[:6]}")
    names = [
        name for name in ours.settings if any(o.settings.get(name) != ours.settings[name] for o in others)
    ]
    parts += [f"{name}={ours.settings[name]}" for name in names]
    return f"{ours.method} ({', '.join(parts)})" if parts else ours.method
