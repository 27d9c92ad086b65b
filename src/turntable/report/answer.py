"""The one sentence on top of the page: which method did best, by how much, and how sure that is.

It says no more than the runs can show. Runs of one method with the same settings and budget are one contestant: its number
is the mean over those runs, never the best of them. Who did best is said only where the statistics tell it from every other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..lang import Texts, texts
from ..tasks.statistics import Ranking
from .contestants import Contestant, in_order, ranking
from .data import FLOOR, MetricInfo, ReportData


@dataclass(frozen=True)
class Answer:
    """The sentence, and what must be known to read it rightly, one sentence each."""

    sentence: str
    remarks: tuple[str, ...]


def answer(data: ReportData) -> Answer:
    """What can be said of ``data``, in words of its language."""
    t = texts(data.lang)
    order = in_order(data)
    reasons = _reasons(order, t)
    metric = data.metrics[0] if data.metrics else None
    field = [one for one in order if metric is not None and one.mean_of(metric.name) is not None]
    ranked = ranking(data, metric) if metric else None
    if metric is None or ranked is None or not field:
        why = reasons or t("answer.unscored" if data.runs else "answer.nothing_run")
        return Answer(t("answer.cant", why=why), ())
    remarks = tuple(_remarks(field, ranked, data, t))
    if len(field) == 1:
        only = field[0]
        values = {
            "name": only.label,
            "value": with_unit(only.mean_of(metric.name) or 0.0, metric),
            "metric": metric.title,
        }
        text = t("answer.only_because", why=reasons, **values) if reasons else t("answer.only", **values)
        return Answer(text, remarks)
    core = _core(field, ranked, metric, data, t)
    return Answer(t("answer.so_far", why=reasons, core=core) if reasons else core, remarks)


def _core(
    field: Sequence[Contestant], ranked: Ranking, metric: MetricInfo, data: ReportData, t: Texts
) -> str:
    first, *others = field
    tied = [other for other in others if not lead(ranked, first.label, other.label).decided]
    second = (tied or others)[0]
    views = t("answer.views", count=len(data.capture.held_out))
    seeds = t("answer.seeds", count=min(len(one.by_seed) for one in (first, *(tied or [second]))))
    ahead = lead(ranked, first.label, second.label)
    values = {
        "name": first.label,
        "value": with_unit(first.mean_of(metric.name) or 0.0, metric),
        "second": second.label,
        "metric": metric.title,
        "views": views,
        "seeds": seeds,
        "difference": with_unit(ahead.mean, metric),
        "low": number(ahead.low, metric),
        "high": number(ahead.high, metric),
        "level": f"{ranked.level * 100:g}",
    }
    floor = next((one for one in field if one.is_floor), None)
    if ranked.leader == first.label:
        return t("answer.best", **values, floor=_floor(first, second, floor, metric, t))
    behind = [one.label for one in others if one not in tied]
    end = t("answer.behind", names=listed(behind, t), first=first.label) if behind else ""
    return t("answer.tied", names=listed([first.label, *(one.label for one in tied)], t), **values, end=end)


def _floor(
    first: Contestant, second: Contestant, floor: Contestant | None, metric: MetricInfo, t: Texts
) -> str:
    if first.is_floor:
        return t("answer.floor_first")
    if second.is_floor:
        return t("answer.floor_second")
    if floor is None:
        return t("answer.floor_absent", floor=FLOOR)
    value, best = floor.mean_of(metric.name) or 0.0, first.mean_of(metric.name) or 0.0
    difference = abs(_as_shown(best, metric) - _as_shown(value, metric))  # of the numbers that are shown
    return t(
        "answer.floor_above" if metric.higher_is_better else "answer.floor_below",
        floor=floor.label,
        difference=with_unit(difference, metric),
        value=with_unit(value, metric),
    )


@dataclass(frozen=True)
class Lead:
    """By how much one contestant is better than another, by the metric's unit; negative where it is worse."""

    mean: float
    low: float
    high: float
    views_better: int
    decided: bool
    p_holm: float


def lead(ranked: Ranking, first: str, second: str) -> Lead:
    """How ``first`` stands against ``second``, whichever of them the statistics name first."""
    pair = ranked.pair(first, second)
    found = pair.difference
    if pair.first == first:
        return Lead(found.mean, found.low, found.high, pair.views_better, pair.decided, pair.p_holm)
    return Lead(-found.mean, -found.high, -found.low, pair.views_worse, pair.decided, pair.p_holm)


def number(value: float, metric: MetricInfo) -> str:
    """A score in as many digits as can matter: two for decibels, three for what lies between 0 and 1."""
    if math.isinf(value):  # the end of an interval of which nothing is known
        return "∞" if value > 0 else "−∞"
    return f"{value:.{2 if metric.unit == 'dB' else 3}f}".replace("-", "−")


def _as_shown(value: float, metric: MetricInfo) -> float:
    return round(value, 2 if metric.unit == "dB" else 3)


def with_unit(value: float, metric: MetricInfo) -> str:
    """A score with its unit beside it."""
    return f"{number(value, metric)} {metric.unit}".rstrip()


def listed(names: Iterable[str], t: Texts) -> str:
    """Names, one after the other, as the language joins them."""
    *most, last = names
    return t("answer.and", most=", ".join(most), last=last) if most else last


def _remarks(field: Sequence[Contestant], ranked: Ranking, data: ReportData, t: Texts) -> Iterable[str]:
    if len(field) < 2:
        return
    leaders: dict[str, list[str]] = {}
    for metric in data.metrics:
        means = {one.label: mean for one in field if (mean := one.mean_of(metric.name)) is not None}
        if len(means) == len(field):
            best_of = max if metric.higher_is_better else min
            leaders.setdefault(best_of(means, key=lambda name: means[name]), []).append(metric.title)
    if len(leaders) > 1:
        parts = (t("answer.leads", name=who, metrics=listed(by, t)) for who, by in leaders.items())
        yield t("answer.disagree", parts=", ".join(parts))
    elif agreeing := next((by for by in leaders.values() if len(by) > 1), None):
        yield t("answer.agree", metrics=listed(agreeing, t))
    if len({one.runs[0].budget for one in field}) > 1:
        yield t("answer.budgets")
    single = [one.label for one in field if len(one.by_seed) == 1 and not one.is_floor]
    if len(single) == len([one for one in field if not one.is_floor]):
        yield t("answer.once")
    elif single:
        yield t("answer.once_some", names=listed(single, t))


def _reasons(order: Sequence[Contestant], t: Texts) -> str:
    """Which questions are open, in words: runs that failed or have not ended, whose seed no other run has answered."""
    parts = []
    for state in ("failed", "done", "running", "interrupted", "paused", "queued", "cancelled"):
        having = [one for one in order if any(run.state == state for run in one.unanswered)]
        if having:
            parts.append(
                t(
                    f"answer.{'without_scores' if state == 'done' else state}",
                    names=listed(_open(having, state, t), t),
                )
            )
    return ", ".join(parts)


def _open(having: Sequence[Contestant], state: str, t: Texts) -> list[str]:
    """What to call those that have runs in ``state``: with how many of how many, where it isn't all of them."""
    called = []
    for one in having:
        count = sum(run.state == state for run in one.unanswered)
        total = len({run.seed for run in one.runs})
        called.append(
            one.label
            if total == 1
            else t("answer.some", name=one.label, count=min(count, total), total=total)
        )
    return called
