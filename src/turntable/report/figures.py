"""The page's own drawings, as plain numbers in pixels: the template draws them as SVG; points are links or have a title.

They need no script, print, and are read by the keyboard; colours are the style sheet's, by the contestant's slot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..tasks.statistics import Ranking
from .answer import number, with_unit
from .contestants import Contestant
from .data import MetricInfo

SLOTS = 8
"""How many colours the style sheet has for contestants; with more they come again."""

BAR_WIDTH = 220
"""Of the drawing of an interval, in pixels: two of them stand beside each other on a phone held sideways."""

CHART_WIDTH, CHART_HEIGHT = 460, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 34
"""Margins of a chart, in pixels: room for the ticks' numbers."""

POINT_GAP = 14.0
"""Least distance of two views in the plot of all views, in pixels: what a finger can hit beside its neighbour is more, but
300 views must fit into a plot that scrolls."""


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from ``low`` to ``high``, at most ``most`` of them, by steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 10) for index in range(first, math.floor(high / step + 1e-9) + 1)]


class Scale:
    """From a value to a place in pixels, both ends included."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.high = low, high if high > low else low + 1.0
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self._start + share * (self._end - self._start), 1)


def interval_bars(order: Sequence[Contestant], metric: MetricInfo, ranked: Ranking) -> dict[str, Any]:
    """For each contestant its mean, its interval and the mean of each of its runs, on one scale.

    Returns:
        ``width``, ``low`` and ``high`` (ends of the scale, in words), and ``bars`` by label: ``at``, ``start``, ``end`` and
        ``runs`` (``at``, ``title``), in pixels.
    """
    values = [value for one in ranked.intervals.values() for value in (one.low, one.high)]
    values += [
        run.scores[metric.name]["mean"] for one in order for run in one.scored if metric.name in run.scores
    ]
    known = [value for value in values if math.isfinite(value)]
    scale = Scale(min(known), max(known), 5, BAR_WIDTH - 5)
    bars = {}
    for one in order:
        if (interval := ranked.intervals.get(one.label)) is None:
            continue
        bars[one.label] = {
            "at": scale(interval.mean),
            "start": scale(max(interval.low, scale.low)),
            "end": scale(min(interval.high, scale.high)),
            "runs": [
                {
                    "at": scale(run.scores[metric.name]["mean"]),
                    "title": f"{run.id}: {with_unit(run.scores[metric.name]['mean'], metric)}",
                }
                for run in one.scored
                if metric.name in run.scores
            ],
        }
    return {
        "width": BAR_WIDTH,
        "low": number(scale.low, metric),
        "high": number(scale.high, metric),
        "bars": bars,
    }


def cost_chart(order: Sequence[Contestant], metric: MetricInfo) -> dict[str, Any] | None:
    """Quality against device seconds: a line per run, through the marks of its budget; the floor is a level.

    Returns:
        ``width``, ``height``, ``x_ticks`` and ``y_ticks`` (``at``, ``text``), and ``lines`` (``slot``, ``points`` for SVG,
        ``ends``: ``x``, ``y``, ``title`` of each mark, ``level``); None where no run has a curve.
    """
    curves = [
        (slot, one, run, [point for point in run.curve if metric.name in point["scores"]])
        for slot, one in enumerate(order)
        for run in one.scored
    ]
    curves = [curve for curve in curves if curve[3]]
    if not curves:
        return None
    longest = max(point["device_seconds"] for *_, points in curves for point in points) or 1.0
    means = [point["scores"][metric.name]["mean"] for *_, points in curves for point in points]
    x = Scale(0.0, longest, LEFT, CHART_WIDTH - RIGHT)
    y = Scale(*_padded(min(means), max(means)), CHART_HEIGHT - BOTTOM, TOP)
    lines = []
    for slot, one, run, points in curves:
        if one.is_floor:  # it does not train: its score holds at any time
            level = y(points[-1]["scores"][metric.name]["mean"])
            ends = [(LEFT, level, 0.0, points[-1]), (CHART_WIDTH - RIGHT, level, longest, points[-1])]
        else:
            ends = [
                (
                    x(point["device_seconds"]),
                    y(point["scores"][metric.name]["mean"]),
                    point["device_seconds"],
                    point,
                )
                for point in points
            ]
        lines.append(
            {
                "slot": slot % SLOTS,
                "level": one.is_floor,
                "points": " ".join(f"{at},{height}" for at, height, _, _ in ends),
                "ends": [
                    {
                        "x": at,
                        "y": height,
                        "title": f"{run.id}: {with_unit(point['scores'][metric.name]['mean'], metric)}, {seconds:.1f} s",
                    }
                    for at, height, seconds, point in ends
                ],
            }
        )
    return {
        "width": CHART_WIDTH,
        "height": CHART_HEIGHT,
        "bottom": CHART_HEIGHT - BOTTOM,
        "left": LEFT,
        "right": CHART_WIDTH - RIGHT,
        "x_ticks": [{"at": x(tick), "text": f"{tick:g}"} for tick in ticks(0.0, longest)],
        "y_ticks": [{"at": y(tick), "text": f"{tick:g}"} for tick in ticks(y.low, y.high, 5)],
        "lines": lines,
    }


def view_plot(
    order: Sequence[Contestant], metric: MetricInfo, views: Sequence[dict[str, Any]]
) -> dict[str, Any] | None:
    """Every view's score, a point per contestant and view, the views in the order of their names.

    A point is the mean over the contestant's runs, and a thin line reaches from the worst to the best of them.

    Args:
        order: the contestants, as the page lists them.
        metric: what is plotted.
        views: ``name`` and ``anchor`` of each, in the order of their names.

    Returns:
        ``width``, ``height``, ``y_ticks``, ``names`` (``at``, ``text``, ``anchor``) and ``points`` (``x``, ``y``, ``slot``,
        ``anchor``, ``run``, ``title``, ``low``, ``high``, ``worst``); None where nothing was scored.
    """
    values = [
        run.scores[metric.name]["per_item"][view["name"]]
        for one in order
        for run in one.scored
        for view in views
        if view["name"] in run.scores.get(metric.name, {}).get("per_item", {})
    ]
    if not values:
        return None
    width = max(CHART_WIDTH * 2, LEFT + RIGHT + POINT_GAP * len(views))
    y = Scale(*_padded(min(values), max(values)), CHART_HEIGHT - BOTTOM, TOP)
    x = Scale(0.0, max(1.0, float(len(views))), LEFT, width - RIGHT)
    points = []
    for index, view in enumerate(views):
        for slot, one in enumerate(order):
            scored = {
                run.id: run.scores[metric.name]["per_item"][view["name"]]
                for run in one.scored
                if view["name"] in run.scores.get(metric.name, {}).get("per_item", {})
            }
            if not scored:
                continue
            mean = sum(scored.values()) / len(scored)
            worst_of = min if metric.higher_is_better else max
            worst_run = worst_of(scored, key=lambda run: scored[run])
            spread = (slot - (len(order) - 1) / 2) * min(3.0, 8.0 / max(1, len(order)))
            points.append(
                {
                    "x": round(x(index + 0.5) + spread, 1),
                    "y": y(mean),
                    "low": y(min(scored.values())),
                    "high": y(max(scored.values())),
                    "slot": slot % SLOTS,
                    "shape": slot // SLOTS % 2,
                    "anchor": view["anchor"],
                    "run": worst_run,
                    "title": f"{view['name']}, {one.label}: {with_unit(mean, metric)}",
                    "floor": one.is_floor,
                    "value": mean,
                }
            )
    judged = [point for point in points if not point["floor"]] or points
    worst = (min if metric.higher_is_better else max)(judged, key=lambda point: point["value"])
    for point in points:
        point["worst"] = point is worst
    points.sort(
        key=lambda point: point["worst"]
    )  # drawn last, over its neighbours, so that a click on it finds it
    return {
        "width": round(width),
        "height": CHART_HEIGHT,
        "left": LEFT,
        "right": round(width) - RIGHT,
        "bottom": CHART_HEIGHT - BOTTOM,
        "y_ticks": [{"at": y(tick), "text": f"{tick:g}"} for tick in ticks(y.low, y.high, 5)],
        "x_ticks": [],
        "names": [
            {"at": x(index + 0.5), "text": view["name"]} for index, view in _some(views, (width - LEFT) / 90)
        ],
        "points": points,
    }


def _some(views: Sequence[dict[str, Any]], most: float) -> list[tuple[int, dict[str, Any]]]:
    """Evenly spaced ones of the views, few enough that their names don't run into each other."""
    every = max(1, math.ceil(len(views) / max(1.0, most)))
    return [(index, view) for index, view in enumerate(views) if index % every == 0]


def _padded(low: float, high: float) -> tuple[float, float]:
    """A little more than from ``low`` to ``high``, so that no point lies on the frame."""
    room = (high - low) * 0.06 or abs(high) * 0.01 or 0.01
    return low - room, high + room
