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
        record = None if rebuilt is None else {"runs": rebuilt[0], "passed_over": rebuilt[1]}
        o.print_json({"findings": [finding.__dict__ for finding in findings], "rebuilt": record})
        return
    if rebuilt is not None:
        typer.echo(f"The record was made again; it holds {rebuilt[0]} runs.")
        for line in rebuilt[1]:
            typer.echo(f"Passed over: {line}")
    print_table(
        ["", "what", "finding"], [[{True: "yes", False: "no"}[f.good], f.what, f.text] for f in findings]
    )
