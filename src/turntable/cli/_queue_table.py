"""The queue as text: what ``status`` and ``watch`` print. Imports neither Typer nor Rich (see ``turntable.__main__``)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..control import QueueView


def print_queue(bench: str | Path | None, everything: bool, as_json: bool) -> None:
    """Print how the queue of a bench stands.

    Raises:
        TurntableError: there is no bench, or it can't be read.
    """
    from ..bench import Bench
    from ..control import view_queue
    from ._tables import plain_table

    view = view_queue(Bench.find(Path(bench) if bench is not None else None), everything)
    if as_json:
        text = json.dumps(view.document(), ensure_ascii=False, indent=1, allow_nan=False)
    else:
        columns, cells = run_cells(view)
        lines = [*device_lines(view), plain_table(columns, cells, right=RIGHT)]
        if view.older:
            lines.append(f"… and {view.older} that ended before these (--all shows them)")
        text = "\n".join(lines)
    sys.stdout.write(text + "\n")


RIGHT = ("budget used", "left", "device s", "steps", "memory MB")


def device_lines(view: QueueView) -> list[str]:
    """A line for every device that is held or waited for, and for every supervisor that has no terminal."""
    lines = []
    for device in view.devices:
        if device["run"] is None:
            lines.append(f"{device['name']}: free")
            continue
        since = f" for {device['held_s']:.0f} s" if device["held_s"] is not None else ""
        elsewhere = "" if device["held_s"] is not None else f" of the bench {device['bench']}"
        lines.append(f"{device['name']}: {device['run']}{elsewhere}{since} (process {device['supervisor']})")
    for row in view.supervisors:
        if row["in_background"]:
            runs = "its run has" if len(row["runs"]) == 1 else f"its {len(row['runs'])} runs have"
            lines.append(f"Process {row['pid']} works in the background until {runs} ended.")
    return lines


def run_cells(view: QueueView) -> tuple[list[str], list[list[str]]]:
    """The columns and rows of the table of runs."""
    columns = ["run", "state", "budget used", "left", "device", "device s", "steps", "memory MB", "remark"]
    return columns, [
        [
            row["id"],
            row["state"],
            f"{row['fraction']:.0%}",
            "" if row["device_seconds_left"] is None else f"{row['device_seconds_left']:.0f} s",
            row["device"],
            f"{row['device_seconds']:.1f}",
            str(row["steps"]),
            f"{row['peak_memory_bytes'] / 1e6:.0f}",
            remark(row),
        ]
        for row in view.runs
    ]


def remark(row: dict[str, Any]) -> str:
    """What else is to be said of a run: why it failed, what is wished, why it waits, how it was paused."""
    parts = [row["cause"]]
    if row["priority"]:
        parts.append(f"priority {row['priority']}")
    if row["wish"]:
        parts.append(f"{row['wish']} asked for")
    parts.append(row["waits"])
    if row["pausable"] is False:
        parts.append(f"can't be paused: {row['pausing']}")
    elif row["state"] != "running":
        parts.append(row["pausing"])
    return "; ".join(part for part in parts if part)
