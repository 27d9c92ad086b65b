"""The scores of a capture as one document: what ``turntable scores CAPTURE --json`` prints.

Everything in it comes from the record; nothing is left out: a run that failed is there with its cause.
"""

from __future__ import annotations

from typing import Any

from .bench import Bench
from .captures.capture import Capture
from .record import RunRow, Score
from .tasks.metrics import metrics
from .tasks.summary import summarise


def capture_document(bench: Bench, capture: Capture, runs: list[RunRow] | None = None) -> dict[str, Any]:
    """The scores of ``capture``: of all its runs, or of ``runs`` alone.

    Per run: its settings and cost, the summary of each metric at the whole budget (``scores``), and at each
    mark (``curve``).
    """
    rows = bench.record.runs(capture=capture.name) if runs is None else runs
    return {
        "capture": capture.name,
        "capture_hash": capture.hash,
        "task": "views",
        "photos": len(capture.views),
        "training": len(capture.training),
        "held_out": [view.name for view in capture.held_out],
        "left_out": list(capture.left_out),
        "notes": list(capture.document["notes"]),
        "runs": [run_document(bench, row) for row in rows],
    }


def run_document(bench: Bench, row: RunRow) -> dict[str, Any]:
    """One run's part of the document."""
    asked = bench.run_folder(row.id).asked()
    scores = bench.record.scores(row.id)
    marks = sorted({score.mark for score in scores})
    curve = []
    for mark in marks:
        at_mark = [score for score in scores if score.mark == mark]
        curve.append(
            {
                "mark": mark,
                "device_seconds": at_mark[0].device_seconds,
                "steps": at_mark[0].steps,
                "scores": summaries(at_mark),
            }
        )
    return {
        "id": row.id,
        "method": row.method,
        "seed": asked.seed,
        "state": row.state.value,
        "cause": row.cause,
        "device": row.device,
        "budget": str(asked.budget),
        "settings": asked.settings,
        "device_seconds": row.device_seconds,
        "setup_seconds": row.setup_seconds,
        "steps": row.steps,
        "peak_memory_bytes": row.peak_memory_bytes,
        "fraction": row.fraction,
        "scores": curve[-1]["scores"] if marks and marks[-1] == 1.0 else {},
        "definitions": {score.metric: score.definition for score in scores},
        "curve": curve,
    }


def summaries(scores: list[Score]) -> dict[str, Any]:
    """Per metric the summary of its scores; scores of one mark of one run."""
    known = metrics()
    found: dict[str, dict[str, float]] = {}
    for score in scores:
        found.setdefault(score.metric, {})[score.item] = score.value
    return {
        name: summarise(
            per_item, higher_is_better=known[name].higher_is_better if name in known else name != "lpips"
        )
        for name, per_item in found.items()
    }
