"""What ``pause`` and ``cancel`` share: asking something of several runs, and saying what came of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import _options as o

if TYPE_CHECKING:
    from ..bench import Bench
    from ..record import RunRow

WaitOption = Annotated[
    float, typer.Option("--wait", metavar="SECONDS", help="How long to wait for it to happen; 0: only ask.")
]


def ask(
    bench: Path | None, runs: list[str], do: Callable[[Bench, str], RunRow], what: str, as_json: bool
) -> None:
    """Ask the same of every run; a name that nobody knows is found before anything is asked."""
    from ..bench import Bench
    from ..control import view_runs

    place = Bench.find(bench)
    ended = [run for run in runs if place.row(run).state.ended]
    if ended:
        do(place, ended[0])  # which says that it can't be, before anything is asked of the others
    rows = [do(place, run) for run in runs]
    if as_json:
        o.print_json({"runs": view_runs(place, runs)})
        return
    wanted = {"pause": "paused", "cancel": "cancelled"}[what]
    for row in rows:
        if row.state.value == wanted or row.state.ended:
            typer.echo(f"{row.id}: {row.state.value}")
        else:
            typer.echo(f"{row.id}: {what} asked for; it is {row.state.value} until its step has ended")
