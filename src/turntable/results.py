"""The scores of a capture as one document: what ``turntable scores CAPTURE --json`` prints.

Everything in it comes from the record; nothing is left out: a run that failed is there with its cause.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from .bench import Bench
from .captures.capture import Capture
from .captures.split import split_of
from .errors import TurntableError, unknown_name
from .record import RunRow, Score
from .tasks.metrics import higher_is_better, metrics
from .tasks.summary import Protocol, differences, mean_of, refusal, scenes_differ, summarise


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
    scores = of_one_definition(bench.record.scores(row.id))
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


def of_one_definition(scores: Sequence[Score]) -> list[Score]:
    """A run's scores, of each metric by one definition alone: today's where there are any, else the one used last.

    Where a mark's renderings were scored anew, other marks may have what they were scored by before.
    """
    chosen = chosen_definitions((score.metric, score.definition) for score in scores)
    return [score for score in scores if score.definition == chosen[score.metric]]


def chosen_definitions(used: Iterable[tuple[str, str]]) -> dict[str, str]:
    """By metric the one definition that counts: today's where it is among those that were used, else the last of them.

    Args:
        used: metrics, each with a definition that scores have.
    """
    known = metrics()
    chosen: dict[str, str] = {}
    for name, definition in used:
        if name not in known or chosen.get(name) != known[name].definition:
            chosen[name] = definition
    return chosen


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


def mean_document(bench: Bench, documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean of each metric over the runs that differ in nothing but their seeds.

    Args:
        bench: where they are.
        documents: of captures or runs, as :func:`find_document` has them; those of one capture are taken together.

    Returns:
        ``capture``, ``task`` and ``means``: for each method (with one code, one device, budget and settings) the ``runs``
        that have scores and their ``seeds``, in ``missing`` those that have none and why, and per metric ``mean``, ``min``
        and ``max`` of the means of the runs (of those with one seed, their mean), and ``of`` how many seeds.

    Raises:
        TurntableError: the scores are of more than one capture, size, split or definition, or methods lack scenes; or none.
    """
    runs = {run["id"]: (document, run) for document in documents for run in document["runs"]}
    reasons = _reasons(bench, documents)
    scenes: dict[str, set[str]] = {run["method"]: set() for _, run in runs.values()}
    for document, run in runs.values():
        scenes[run["method"]] |= {document["capture"]} if run["scores"] else set()
    if len({document["capture_hash"] for document in documents}) > 1:
        reasons += scenes_differ(scenes)
    if reasons:
        raise refusal(reasons)
    groups: dict[str, list[dict[str, Any]]] = {}
    for _, run in runs.values():
        asked = bench.run_folder(run["id"]).asked()
        alike = [asked.method, asked.method_fingerprint, asked.device, run["budget"], run["settings"]]
        groups.setdefault(json.dumps(alike, sort_keys=True), []).append(run)
    return {
        "capture": documents[0]["capture"],
        "task": documents[0]["task"],
        "means": [_mean_over_seeds(_protocol(bench, documents[0]), group) for group in groups.values()],
    }


def _mean_over_seeds(protocol: Protocol, runs: list[dict[str, Any]]) -> dict[str, Any]:
    done = [run for run in runs if run["scores"]]
    scores = {}
    for name in dict.fromkeys(name for run in done for name in run["scores"]):
        by_seed: dict[int, list[tuple[Protocol, float]]] = {}
        for run in done:
            if name in run["scores"]:
                protocol = replace(protocol, definition=run["definitions"][name])
                by_seed.setdefault(run["seed"], []).append((protocol, run["scores"][name]["mean"]))
        # A seed that was asked for again says nothing of chance: its runs count as one.
        of_seeds = [(same[0][0], mean_of(same)) for same in by_seed.values()]
        means = [value for _, value in of_seeds]
        scores[name] = {"mean": mean_of(of_seeds), "min": min(means), "max": max(means), "of": len(means)}
    return {
        "method": runs[0]["method"],
        "budget": runs[0]["budget"],
        "settings": runs[0]["settings"],
        "runs": [run["id"] for run in done],
        "seeds": list(dict.fromkeys(run["seed"] for run in done)),
        "missing": {run["id"]: run["cause"] or run["state"] for run in runs if not run["scores"]},
        "scores": scores,
    }


def _protocol(bench: Bench, document: dict[str, Any]) -> Protocol:
    """The protocol of a document's scores, but for the definition."""
    capture = bench.capture(document["capture"])
    sizes = Counter(f"{view.camera.width}×{view.camera.height}" for view in capture.views)
    words = split_of(capture.document)["words"]
    held_out = tuple(document["held_out"])
    ordered = tuple(size for size, _ in sizes.most_common(3))
    return Protocol(capture.name, document["capture_hash"], ordered, words, held_out, "")


def _reasons(bench: Bench, documents: Sequence[dict[str, Any]]) -> list[str]:
    """Why the scores of these documents can't be put into one mean; [] where they can."""
    found: dict[str, list[Protocol]] = {"": []}
    for document in documents:
        protocol = _protocol(bench, document)
        found[""].append(protocol)
        for run in document["runs"]:
            for metric, definition in run["definitions"].items():
                found.setdefault(metric, []).append(replace(protocol, definition=definition))
    return list(dict.fromkeys(reason for protocols in found.values() for reason in differences(protocols)))


def score_table(bench: Bench, documents: Sequence[dict[str, Any]]) -> str:
    """Every single score of the documents' runs as CSV, at every mark."""
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
    for document in documents:
        for run in document["runs"]:
            head = [document["capture"], run["id"], run["method"], run["seed"], run["state"]]
            for score in bench.record.scores(run["id"]):
                row = [score.mark, score.steps, score.device_seconds, score.metric, score.item, score.value]
                writer.writerow(head + row)
    return text.getvalue()
