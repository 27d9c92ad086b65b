"""Published numbers as tables to print, with protocols and sources in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..methods.facts import Fact, Protocol
from .published import Beside


@dataclass(frozen=True)
class FactTable:
    """Facts as a table to print.

    Args:
        columns, rows: their text; ``right`` are the columns of numbers.
        notes: what the numbers in the first column's square brackets stand for: protocol, source, remarks.
    """

    columns: list[str]
    rows: list[list[str]]
    right: list[str]
    notes: list[str]


def tables(facts: Sequence[Fact]) -> list[FactTable]:
    """One table for each metric: a row for each published run of a method, a column for each scene."""
    made = []
    for metric in dict.fromkeys(fact.metric for fact in facts):
        of_metric = [fact for fact in facts if fact.metric == metric]
        scenes = list(dict.fromkeys(fact.scene for fact in of_metric))
        notes: list[str] = []
        rows: dict[tuple[str, ...], dict[str, str]] = {}
        for fact in of_metric:
            note = _note_of(fact)
            if note not in notes:
                notes.append(note)
            row = (f"{fact.method} [{notes.index(note) + 1}]", fact.budget, *_cost_cells(fact))
            rows.setdefault(row, {})[fact.scene] = _digits(fact.value, metric)
        costs = [] if all(row[2:] == ("", "") for row in rows) else ["training", "frames/s"]
        columns = [f"{metric} of", "trained for", *scenes, *costs]
        body = [
            [row[0], row[1], *(cells.get(scene, "–") for scene in scenes), *(row[2:] if costs else ())]
            for row, cells in rows.items()
        ]
        numbered = [f"[{number}] {note}" for number, note in enumerate(notes, 1)]
        made.append(FactTable(columns, body, columns[2:], numbered))
    return made


def beside_lines(rows: Sequence[Beside]) -> list[str]:
    """Published means beside ours, a line each: those that agree, and those of the same method with what sets them apart."""
    lines = []
    for row in rows:
        trained = f" ({row.budget})" if row.budget else ""
        theirs = f"{row.metric} {_digits(row.value, row.metric)} of {row.method}{trained}"
        if row.agrees and row.ours is not None:
            lines.append(
                f"{theirs} beside {_digits(row.ours, row.metric)} of {row.our_method}: measured alike"
            )
        elif row.same_method:
            lines.append(f"{theirs} is not comparable with {row.our_method}: {'; '.join(row.differences)}")
    rest = len(rows) - len(lines)
    if rest:
        means = "1 mean of another method was" if rest == 1 else f"{rest} means of other methods were"
        lines.append(f"{means} measured otherwise; --json says how.")
    return lines


def _digits(value: float, metric: str) -> str:
    return f"{value:.3f}" if metric == "ssim" or metric.startswith("lpips") else f"{value:.2f}"


def _note_of(fact: Fact) -> str:
    words = [
        fact.source + ("" if fact.checked else " (not checked)"),
        f"measured by {fact.by}" if fact.by else "",
        fact.note,
        "protocol: " + (in_words(fact.protocol) or "not said"),
        f"hardware: {fact.cost.hardware}" if fact.cost.hardware else "",
        "settings: " + ", ".join(f"{name}={value}" for name, value in fact.settings.items())
        if fact.settings
        else "",
    ]
    return "; ".join(word for word in words if word)


def in_words(protocol: Protocol) -> str:
    """What is known of a protocol, in words for a person; "" where nothing is."""
    resized = {True: "resized by the authors", False: "the data set's own smaller pictures"}
    splits = {"own": "the data set's own split", "every 8th": "every 8th view held out"}
    edges = {"valid": "valid region", "zero-padded": "zero-padded", "reflected": "reflected"}
    parts = [
        f"task {protocol.task}" if protocol.task else "",
        f"{protocol.views} held-out views" if protocol.views else "",
        f"{protocol.training} training views" if protocol.training else "",
        splits.get(protocol.split or "", ""),
        f"{protocol.background} background" if protocol.background not in (None, "none") else "",
        "{}×{} pixels".format(*protocol.size) if protocol.size else "",
        _factors_in_words(protocol),
        "" if protocol.resized_by_authors is None else resized[protocol.resized_by_authors],
        f"{protocol.pictures} pictures" if protocol.pictures else "",
        f"SSIM {edges[protocol.ssim]}" if protocol.ssim else "",
        f"LPIPS {protocol.lpips}" if protocol.lpips else "",
        f"means over {protocol.scene_count} scenes" if protocol.scene_count else "",
        f"in {protocol.unit}" if protocol.unit else "",
        f"on a {protocol.hardware}" if protocol.hardware else "",
        protocol.text,
    ]
    return ", ".join(part for part in parts if part)


def _factors_in_words(protocol: Protocol) -> str:
    by_factor: dict[float, list[str]] = {}
    for scene, factor in protocol.factors.items():
        by_factor.setdefault(factor, []).append(scene)
    return ", ".join(f"{factor:g} times smaller ({' '.join(scenes)})" for factor, scenes in by_factor.items())


def _cost_cells(fact: Fact) -> tuple[str, str]:
    seconds, rate = fact.cost.training_s, fact.cost.frames_per_s
    return "" if seconds is None else f"{seconds:g} s", "" if rate is None else f"{rate:g}"
