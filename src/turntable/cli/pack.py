"""``turntable pack``: everything that a bench needs, in one file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from . import _options as o


@o.verb
def pack(
    target: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="The pack: a file, or a folder that exists or ends in /.", show_default=False
        ),
    ],
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="PART",
            help="Pack this part alone: captures, methods, runs, reports, environments or weights; repeatable.",
        ),
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option("--without", metavar="PART", help="Leave this part out; repeatable.")
    ] = None,
    since: Annotated[
        Path | None,
        typer.Option(
            "--since",
            metavar="PACK",
            help="Leave out what this earlier pack has; unpack --with it.",
            show_default=False,
        ),
    ] = None,
    bench: o.BenchOption = None,
    as_json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Write everything that the bench needs into one file: captures, runs, methods, and what environments are made from.

    The sha256 that is printed stands for all that is in it: unpack --expect checks it.
    """
    from ..bench import Bench
    from ..moving import pack as do
    from ._progress import watching

    wanted = Path(target).expanduser()
    if target.endswith("/"):  # a folder is meant, there or not
        wanted.mkdir(parents=True, exist_ok=True)
    with watching() as watcher:
        done = do(Bench.find(bench), wanted, watcher, only or (), without or (), since)
    if as_json:
        o.print_json({**asdict(done), "path": str(done.path)})
        return
    o.say(
        f"{done.files} files, {done.blobs} contents, {done.size_bytes / 1e6:.1f} MB in {done.seconds:.1f} s"
    )
    typer.echo(f"{done.sha256}  {done.path}")
