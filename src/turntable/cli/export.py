"""``turntable export``: what other programs open."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import _options as o


@o.verb
def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's id (see status).")],
    form: Annotated[str, typer.Option("--as", metavar="ply|spz", help="The kind of file.")] = "ply",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where to.", show_default="RUN.ply, here")
    ] = None,
    no_sandbox: o.NoSandboxOption = False,
    bench: o.BenchOption = None,
    as_json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Write what a run has made, as other programs open it, from its newest checkpoint."""
    from ..bench import Bench
    from ..exporting import export as do
    from ._progress import watching

    with watching() as watcher:
        written = do(Bench.find(bench), run, form, out, watcher, not no_sandbox)
    if as_json:
        o.print_json({"file": str(written), "bytes": written.stat().st_size})
    else:
        typer.echo(str(written))
