"""``turntable watch``: the queue, live."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from . import _options as o
from ._queue_table import RIGHT, device_lines, run_cells

if TYPE_CHECKING:
    from ..control import QueueView


@o.verb
def watch(
    every: Annotated[float, typer.Option("--every", metavar="SECONDS", help="How often to look.")] = 1.0,
    bench: o.BenchOption = None,
    debug: o.DebugOption = False,
) -> None:
    """Show the queue live until nothing runs or waits any more (or Ctrl-C, which stops the watching only).

    Where the output is no terminal, a line is printed whenever a run changes its state.
    """
    from ..bench import Bench
    from ..control import view_queue
    from ..errors import TurntableError

    if not 0.1 <= every <= 3600:
        raise TurntableError(f"--every is a number of seconds from 0.1 to 3600, not {every:g}.")
    place = Bench.find(bench)
    try:
        if sys.stdout.isatty():
            _show(lambda: view_queue(place), every)
        else:
            _tell(lambda: view_queue(place), every)
    except KeyboardInterrupt:
        return


def _at_work(view: QueueView) -> bool:
    return any(row["state"] in ("queued", "running", "interrupted") for row in view.runs)


def _show(look: Callable[[], QueueView], every: float) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from ._tables import make_table

    with Live(auto_refresh=False) as live:
        while True:
            view = look()
            columns, cells = run_cells(view)
            lines = [Text(line) for line in device_lines(view)]
            live.update(Group(*lines, make_table(columns, cells, RIGHT)), refresh=True)
            if not _at_work(view):
                return
            time.sleep(every)


def _tell(look: Callable[[], QueueView], every: float) -> None:
    told: dict[str, str] = {}
    while True:
        view = look()
        for row in view.runs:
            if told.get(row["id"]) != row["state"]:
                told[row["id"]] = row["state"]
                cause = f": {row['cause']}" if row["cause"] else ""
                typer.echo(f"{row['id']}: {row['state']} at {row['fraction']:.0%}{cause}")
        sys.stdout.flush()
        if not _at_work(view):
            return
        time.sleep(every)
