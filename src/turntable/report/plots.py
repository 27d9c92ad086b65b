"""Quality against device seconds, one chart per metric: what Plotly draws, as plain data.

Colours are not decided here: a trace names its run's slot, and the page's script takes the colour from the
style sheet, so that light, dark and print each have their own.
"""

from __future__ import annotations

from typing import Any

from .data import FLOOR, MetricInfo, ReportRun, labels

SLOTS = 8
"""How many colours the style sheet has for runs; with more they come again, dashed and marked otherwise."""

_DASHES = ("solid", "dash", "dot", "dashdot")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up")


def plotly_script() -> str:
    """Plotly's whole JavaScript, from the installed package: the page carries it and loads nothing else."""
    from plotly import offline

    return offline.get_plotlyjs()


def curve_charts(runs: list[ReportRun], metrics: list[MetricInfo]) -> list[dict[str, Any]]:
    """One chart per metric that any run has a curve of.

    Returns:
        ``{"metric", "title", "unit", "note", "traces"}`` each; a trace has Plotly's ``x`` (device seconds),
        ``y``, ``name``, ``text`` (steps), ``mode``, and ``slot``, ``dash``, ``symbol``.
    """
    charts = []
    for metric in metrics:
        longest = max((point["device_seconds"] for run in runs for point in run.curve), default=0.0)
        traces = [
            trace
            for index, run in enumerate(runs)
            if (trace := _trace(index, run, metric, labels(runs)[run.id], longest)) is not None
        ]
        if traces:
            note = "higher is better" if metric.higher_is_better else "lower is better"
            charts.append(
                {
                    "metric": metric.name,
                    "title": metric.title,
                    "unit": metric.unit,
                    "note": note,
                    "traces": traces,
                }
            )
    return charts


def _trace(
    index: int, run: ReportRun, metric: MetricInfo, label: str, longest: float
) -> dict[str, Any] | None:
    points = [point for point in run.curve if metric.name in point["scores"]]
    if not points:
        return None
    style = {"slot": index % SLOTS, "symbol": _SYMBOLS[index // SLOTS % len(_SYMBOLS)]}
    if (
        run.method == FLOOR
    ):  # it does not train: its score holds at any time, so it is a level to compare with
        value = points[-1]["scores"][metric.name]["mean"]
        name = f"{label} (the floor)"
        x = [0.0, max(longest, 1.0)]
        text = ["does not train"] * len(x)
        return {
            "x": x,
            "y": [value] * len(x),
            "name": name,
            "text": text,
            "mode": "lines",
            "dash": "dot",
            **style,
        }
    return {
        "x": [point["device_seconds"] for point in points],
        "y": [point["scores"][metric.name]["mean"] for point in points],
        "name": label,
        "text": [f"{point['steps']:,} steps" for point in points],
        "mode": "lines+markers",
        "dash": _DASHES[index // SLOTS % len(_DASHES)],
        **style,
    }
