"""``turntable doctor``: what this machine can do, what it can't and why."""

from __future__ import annotations

from typing import Annotated

import typer

from . import _options as o


@o.verb
def doctor(
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Make the bench's record again from its run folders.")
    ] = False,
    bench: o.BenchOption = None,
    as_json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Say what this machine and this bench can do, what they can't, and why."""
    from ..bench import Bench
    from ..diagnosis import examine
    from ._tables import print_table

    place = Bench.find(bench)
    rebuilt = place.rebuild_record() if rebuild else None
    findings = examine(place)
    if as_json:
        o.print_json({"findings": [finding.__dict__ for finding in findings], "rebuilt_runs": rebuilt})
        return
    if rebuilt is not None:
        typer.echo(f"The record was made again; it holds {rebuilt} runs.")
    print_table(
        ["", "what", "finding"], [[{True: "yes", False: "no"}[f.good], f.what, f.text] for f in findings]
    )
