"""Quality against device seconds, one chart per metric: what Plotly draws, as plain data.

Colours are not decided here: a trace names its contestant's slot, and the page's script takes the colour from the
style sheet, so that light, dark and print each have their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..lang import Texts
from .contestants import Contestant
from .data import MetricInfo, ReportRun
from .figures import SLOTS

_DASHES = ("solid", "dash", "dot", "dashdot")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up")


def plotly_script() -> str:
    """Plotly's whole JavaScript, from the installed package: the page carries it and loads nothing else."""
    from plotly import offline

    return offline.get_plotlyjs()


def curve_charts(
    order: Sequence[Contestant], metrics: Sequence[MetricInfo], t: Texts
) -> list[dict[str, Any]]:
    """One chart per metric that any run has a curve of: a trace per run, the runs of a contestant in one colour.

    Returns:
        ``{"metric", "title", "unit", "note", "traces"}`` each; a trace has Plotly's ``x`` (device seconds),
        ``y``, ``name``, ``text`` (steps), ``mode``, ``shown`` (in the legend), and ``slot``, ``dash``, ``symbol``.
    """
    charts = []
    runs = [run for one in order for run in one.runs]
    for metric in metrics:
        longest = max((point["device_seconds"] for run in runs for point in run.curve), default=0.0)
        traces = []
        for index, one in enumerate(order):
            shown = [run for run in one.runs if any(metric.name in point["scores"] for point in run.curve)]
            for place, run in enumerate(shown):
                traces.append({**_trace(index, one, run, metric, longest, t), "shown": place == 0})
        if traces:
            charts.append(
                {
                    "metric": metric.name,
                    "title": metric.title,
                    "unit": metric.unit,
                    "note": t("metric.higher" if metric.higher_is_better else "metric.lower"),
                    "traces": traces,
                }
            )
    return charts


def _trace(
    index: int, one: Contestant, run: ReportRun, metric: MetricInfo, longest: float, t: Texts
) -> dict[str, Any]:
    points = [point for point in run.curve if metric.name in point["scores"]]
    style = {"slot": index % SLOTS, "symbol": _SYMBOLS[index // SLOTS % len(_SYMBOLS)]}
    if one.is_floor:  # it does not train: its score holds at any time, so it is a level to compare with
        value = points[-1]["scores"][metric.name]["mean"]
        return {
            "x": [0.0, max(longest, 1.0)],
            "y": [value, value],
            "name": f"{one.label} ({t('ranking.floor')})",
            "text": [t("curves.no_training")] * 2,
            "mode": "lines",
            "dash": "dot",
            **style,
        }
    return {
        "x": [point["device_seconds"] for point in points],
        "y": [point["scores"][metric.name]["mean"] for point in points],
        "name": one.label,
        "text": [f"{run.id}, {t('curves.steps', steps=format(point['steps'], ','))}" for point in points],
        "mode": "lines+markers",
        "dash": _DASHES[index // SLOTS % len(_DASHES)],
        **style,
    }
