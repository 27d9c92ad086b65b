"""The one sentence on top of the page: which method did best, by how much, and against the floor.

It says no more than the runs can show. Runs of one method with the same settings and budget are one
contestant: its number is the mean over those runs, never the best of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from .data import FLOOR, MetricInfo, ReportData, ReportRun, labels


@dataclass(frozen=True)
class Answer:
    """The sentence, and what must be known to read it rightly, one sentence each."""

    sentence: str
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Contestant:
    """Finished runs that differ by their seed alone; ``means`` by the metric's name."""

    label: str
    method: str
    budget: str
    runs: int
    means: dict[str, float]


def answer(data: ReportData) -> Answer:
    """What can be said of ``data``, in words."""
    finished = [run for run in data.runs if run.state == "done" and run.scores]
    # asked again and answered since, an older failure leaves no question open; it stays in the table
    answered = {_question(run) for run in finished}
    failed = [run for run in data.runs if run.state == "failed" and _question(run) not in answered]
    waiting = [
        run for run in data.runs if run.state not in ("done", "failed") and _question(run) not in answered
    ]
    unscored = [run for run in data.runs if run.state == "done" and not run.scores]
    field = contestants(finished, data)
    remarks = list(_remarks(field, data))
    if not field or not data.metrics:
        why = "no run has been scored" if data.runs else "nothing has been run yet"
        return Answer(
            f"Can’t tell which method did best: {_reasons(failed, waiting, unscored, data) or why}.", ()
        )
    metric = data.metrics[0]
    field = [one for one in field if metric.name in one.means]
    ranked = sorted(field, key=lambda one: _badness(one, metric))
    if len(ranked) == 1:
        only = ranked[0]
        reason = _reasons(failed, waiting, unscored, data)
        start = (
            f"Can’t tell which method did best: {reason}, and"
            if reason
            else "Can’t tell which method did best:"
        )
        value = with_unit(only.means[metric.name], metric)
        return Answer(f"{start} only {only.label} has scores ({value} mean {metric.title}).", tuple(remarks))
    best = _leader(ranked, metric, len(data.capture.held_out))
    if reason := _reasons(failed, waiting, unscored, data):
        return Answer(
            f"Can’t tell which method did best: {reason}. Of those with scores, {best}.", tuple(remarks)
        )
    return Answer(f"{best}.", tuple(remarks))


def _question(run: ReportRun) -> tuple[str, str, str, int]:
    return run.method, json.dumps(run.settings, sort_keys=True, default=str), run.budget, run.seed


def contestants(finished: list[ReportRun], data: ReportData) -> list[Contestant]:
    """The finished runs, gathered by method, settings and budget, in the order they were asked for."""
    groups: dict[tuple[str, str, str], list[ReportRun]] = {}
    for run in finished:
        key = (run.method, json.dumps(run.settings, sort_keys=True, default=str), run.budget)
        groups.setdefault(key, []).append(run)
    methods = [method for method, _, _ in groups]
    called = labels(data.runs)
    found = []
    for (method, _, budget), runs in groups.items():
        shared = [m.name for m in data.metrics if all(m.name in run.scores for run in runs)]
        label = method if methods.count(method) == 1 else " + ".join(called[run.id] for run in runs)
        means = {name: sum(run.scores[name]["mean"] for run in runs) / len(runs) for name in shared}
        found.append(Contestant(label, method, budget, len(runs), means))
    return found


def number(value: float, metric: MetricInfo) -> str:
    """A score in as many digits as can matter: two for decibels, three for what lies between 0 and 1."""
    return f"{value:.{2 if metric.unit == 'dB' else 3}f}"


def with_unit(value: float, metric: MetricInfo) -> str:
    """A score with its unit beside it."""
    return f"{number(value, metric)} {metric.unit}".rstrip()


def _badness(one: Contestant, metric: MetricInfo) -> float:
    return -one.means[metric.name] if metric.higher_is_better else one.means[metric.name]


def _leader(ranked: list[Contestant], metric: MetricInfo, views: int) -> str:
    first, second = ranked[0], ranked[1]
    value = first.means[metric.name]
    over = f"over {views} held-out view{'s' if views != 1 else ''}"
    if number(value, metric) == number(second.means[metric.name], metric):
        equal = [
            one.label for one in ranked if number(one.means[metric.name], metric) == number(value, metric)
        ]
        return f"{_list(equal)} come out level: {with_unit(value, metric)} mean {metric.title} {over}"
    text = f"{first.label} did best: {with_unit(value, metric)} mean {metric.title} {over}"
    floors = [one for one in ranked if one.method == FLOOR]
    if first.method == FLOOR:
        return f"{text}. It is the floor: no method beat showing the nearest training photo"
    if not floors:
        return f"{text}; the floor, {FLOOR}, was not run"
    floor = floors[0].means[metric.name]
    difference = abs(
        float(number(value, metric)) - float(number(floor, metric))
    )  # of the numbers that are shown
    lead = f"{with_unit(difference, metric)} {'above' if metric.higher_is_better else 'below'}"
    return f"{text}, {lead} the floor, {FLOOR} ({with_unit(floor, metric)})"


def _remarks(field: list[Contestant], data: ReportData) -> Iterable[str]:
    if len(field) < 2:
        return
    leaders: dict[str, list[str]] = {}
    for metric in data.metrics:
        scored = [one for one in field if metric.name in one.means]
        if len(scored) == len(field):
            leaders.setdefault(min(scored, key=lambda one: _badness(one, metric)).label, []).append(
                metric.title
            )
    if len(leaders) > 1:
        yield (
            "The metrics disagree: "
            + ", ".join(f"{who} leads by {_list(by)}" for who, by in leaders.items())
            + "."
        )
    elif agreeing := next((by for by in leaders.values() if len(by) > 1), None):
        yield f"{_list(agreeing)} agree."
    if len({one.budget for one in field}) > 1:
        yield "The budgets differ, so this compares methods with their budgets: see the table."
    if all(one.runs == 1 for one in field):
        yield "Each was run once: how much of the difference is chance was not measured."


def _reasons(
    failed: list[ReportRun], waiting: list[ReportRun], unscored: list[ReportRun], data: ReportData
) -> str:
    called = labels(data.runs)
    parts = []
    if failed:
        parts.append(f"{_list(called[run.id] for run in failed)} failed")
    if unscored:
        parts.append(f"no scores of {_list(called[run.id] for run in unscored)}")
    for state in ("running", "paused", "queued", "cancelled"):
        names = [called[run.id] for run in waiting if run.state == state]
        if names:
            parts.append(f"{_list(names)} {'is' if len(names) == 1 else 'are'} {state}")
    return ", ".join(parts)


def _list(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
