"""``turntable export``: what other programs open."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import _options as o


@o.verb
def export(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN", help="A run's id (see status); several for a film of them side by side."
        ),
    ],
    form: Annotated[str, typer.Option("--as", metavar="ply|spz|mp4", help="The kind of file.")] = "ply",
    path: Annotated[
        str,
        typer.Option(
            "--path",
            metavar="orbit|views|FILE",
            help="mp4: around the scene, through the views by name, or the cameras of a JSON file.",
        ),
    ] = "orbit",
    frames: Annotated[int, typer.Option("--frames", metavar="N", help="mp4: how many frames.")] = 120,
    fps: Annotated[int, typer.Option("--fps", metavar="N", help="mp4: frames a second.")] = 30,
    long_side: Annotated[
        int | None,
        typer.Option(
            "--long-side",
            metavar="PX",
            help="mp4: the longer side of a picture.",
            show_default="the capture's",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where to.", show_default="RUN.ply, here")
    ] = None,
    no_sandbox: o.NoSandboxOption = False,
    bench: o.BenchOption = None,
    as_json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Write what a run has made, as other programs open it, from its newest checkpoint.

    With --as mp4, a film along a camera path: nothing of it is scored.
    """
    from ..bench import Bench
    from ._progress import watching

    place = Bench.find(bench)
    if form == "mp4":
        from ..captures.paths import Film
        from ..filming import Shot, film_runs

        shot = Shot(path, Film(frames, long_side), fps)
        with watching() as watcher:
            written = film_runs(place, runs, shot, out, watcher, not no_sandbox)
    else:
        from ..exporting import export as do

        if len(runs) > 1:
            o.fail(f"Several runs at once are exported as mp4 alone, not as {form}. Name one run.")
        with watching() as watcher:
            written = do(place, runs[0], form, out, watcher, not no_sandbox)
    if as_json:
        o.print_json({"file": str(written), "bytes": written.stat().st_size})
    else:
        typer.echo(str(written))
