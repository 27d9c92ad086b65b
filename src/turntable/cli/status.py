"""``turntable status``: who holds which device, what waits and why, and how far every run is."""

from __future__ import annotations

from typing import Annotated

import typer

from . import _options as o
from ._queue_table import print_queue


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
    print_queue(bench, everything, as_json)
