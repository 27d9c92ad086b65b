"""``turntable status``: who holds which device, what waits and why, and how far every run is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _options as o

if TYPE_CHECKING:
    from ..control import QueueView


@o.verb
def status(
    everything: Annotated[
        bool, typer.Option("--all", help="Show every run, however long ago it ended.")
    ] = False,
    bench: o.BenchOption = None,
    as_json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Show who holds which device, what waits and why, and how far every run is."""
    from ..bench import Bench
    from ..control import view_queue
    from ._tables import plain_table

    view = view_queue(Bench.find(bench), everything)
    if as_json:
        o.print_json(view.document())
        return
    for line in device_lines(view):
        typer.echo(line)
    columns, cells = run_cells(view)
    typer.echo(plain_table(columns, cells, right=RIGHT))
    if view.older:
        typer.echo(f"… and {view.older} that ended before these (--all shows them)")


RIGHT = ("budget used", "left", "device s", "steps", "memory MB")


def device_lines(view: QueueView) -> list[str]:
    """A line for every device that is held or waited for."""
    lines = []
    for device in view.devices:
        if device["run"] is None:
            lines.append(f"{device['name']}: free")
            continue
        since = f" for {device['held_s']:.0f} s" if device["held_s"] is not None else ""
        elsewhere = "" if device["held_s"] is not None else f" of the bench {device['bench']}"
        lines.append(f"{device['name']}: {device['run']}{elsewhere}{since} (process {device['supervisor']})")
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
    return "; ".join(part for part in (*parts, row["waits"], row["pausing"]) if part)
