"""The scores of a capture as one document: what ``turntable scores CAPTURE --json`` prints.

Everything in it comes from the record; nothing is left out: a run that failed is there with its cause.
"""

from __future__ import annotations

import csv
import io
from typing import Any

from .bench import Bench
from .captures.capture import Capture
from .errors import TurntableError, unknown_name
from .record import RunRow, Score
from .tasks.metrics import higher_is_better, metrics
from .tasks.summary import summarise


def capture_document(bench: Bench, capture: Capture, runs: list[RunRow] | None = None) -> dict[str, Any]:
    """The scores of ``capture``: of all its runs, or of ``runs`` alone.

    Per run: its settings and cost, the summary of each metric at the whole budget (``scores``), and at each
    mark (``curve``).
    """
    rows = runs_on(bench, capture) if runs is None else runs
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


def runs_on(bench: Bench, capture: Capture) -> list[RunRow]:
    """The runs on this very capture; not those on another that had its name before."""
    return [row for row in bench.record.runs(capture=capture.name) if row.capture_hash == capture.hash]


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
        "device_memory_bytes": row.device_memory_bytes,
        "fraction": row.fraction,
        "scores": curve[-1]["scores"] if marks and marks[-1] == 1.0 else {},
        "definitions": {score.metric: score.definition for score in scores},
        "curve": curve,
    }


def summaries(scores: list[Score]) -> dict[str, Any]:
    """Per metric the summary of its scores; scores of one mark of one run."""
    found: dict[str, dict[str, float]] = {}
    for score in scores:
        found.setdefault(score.metric, {})[score.item] = score.value
    order = [*metrics(), *found]  # as Turntable lists them; others after them
    names = sorted(found, key=order.index)
    return {name: summarise(found[name], higher_is_better(name)) for name in names}


def only_capture(bench: Bench) -> Capture:
    """The bench's capture, where no name was given.

    Raises:
        TurntableError: there is none, or more than one to choose from.
    """
    captures = bench.captures()
    if len(captures) != 1:
        names = ", ".join(captures) or "none yet; add one with turntable compare or capture add"
        raise TurntableError(
            f"A capture must be named where a bench has not just one; {bench.folder} has: {names}."
        )
    return next(iter(captures.values()))


def find_document(bench: Bench, what: str | None) -> dict[str, Any]:
    """The document of the capture called ``what``, of the run with that id, or of the only capture.

    Raises:
        TurntableError: nobody knows it.
    """
    if what is None:
        return capture_document(bench, only_capture(bench))
    captures = bench.captures()
    if what in captures:
        return capture_document(bench, captures[what])
    row = bench.record.run(what)
    if row is None:
        raise unknown_name("capture or run", what, [*captures, *(row.id for row in bench.record.runs())])
    return capture_document(bench, bench.capture(row.capture), [row])


def score_table(bench: Bench, document: dict[str, Any]) -> str:
    """Every single score of a document's runs as CSV, at every mark."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [
            "capture",
            "run",
            "method",
            "seed",
            "state",
            "mark",
            "steps",
            "device_seconds",
            "metric",
            "item",
            "value",
        ]
    )
    for run in document["runs"]:
        head = [document["capture"], run["id"], run["method"], run["seed"], run["state"]]
        for score in bench.record.scores(run["id"]):
            row = [score.mark, score.steps, score.device_seconds, score.metric, score.item, score.value]
            writer.writerow(head + row)
    return text.getvalue()
