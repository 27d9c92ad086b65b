"""``turntable get``: a data set that a catalogue names."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from . import _options as o


@o.verb
def get(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="What to get, such as nerf_synthetic/lego.", show_default=False),
    ],
    catalogue: Annotated[
        Path | None,
        typer.Option(
            "--catalogue",
            metavar="FILE",
            help="A catalogue of addresses that counts before the others.",
            show_default="the bench's catalogue.toml",
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            metavar="ARCHIVE",
            help="An archive that you have already, instead of an address.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Where data sets go.", show_default="datasets in the bench"
        ),
    ] = None,
    bench: o.BenchOption = None,
    as_json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Fetch a data set from the address that your catalogue gives, check its hash, and unpack it.

    Interrupted, the same command goes on. Turntable itself knows no addresses: those of data sets belong into the bench's
    catalogue.toml.
    """
    from ..bench import Bench
    from ..datasets import get_dataset
    from ._progress import watching

    place = Bench.find(bench)
    with watching() as watcher:
        got = get_dataset(place, name, watcher, catalogue=catalogue, file=file, out=out)
    if as_json:
        paths = {"folder": str(got.folder), "archive": str(got.archive) if got.archive else None}
        o.print_json({**asdict(got), **paths})
        return
    if got.recorded:
        o.say(f"No sha256 was known: {got.sha256} is recorded, and held to from now on.")
    if got.archive is not None:
        o.say(f"The archive is kept for other scenes in it; remove it when you like: {got.archive}")
    o.say(f"Go on with: turntable compare {shlex.quote(str(got.folder))}")
    typer.echo(got.folder)
