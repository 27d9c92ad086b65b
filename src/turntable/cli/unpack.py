"""``turntable unpack``: a bench from a pack, without a network."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from . import _options as o


@o.verb
def unpack(
    source: Annotated[
        Path, typer.Argument(metavar="PACK", help="The pack: a file or a folder.", show_default=False)
    ],
    expect: Annotated[
        str | None,
        typer.Option(
            "--expect",
            metavar="SHA256",
            help="Refuse any other pack than the one with this sha256 (pack prints it).",
        ),
    ] = None,
    others: Annotated[
        list[Path] | None,
        typer.Option(
            "--with", metavar="PACK", help="An earlier pack that this one was made --since; repeatable."
        ),
    ] = None,
    no_build: Annotated[
        bool, typer.Option("--no-build", help="Leave the environments to be built when they are needed.")
    ] = False,
    trust_settings: Annotated[
        bool,
        typer.Option(
            "--trust-settings",
            help="Take the pack's bench.toml: what methods may read of this machine, and packages from elsewhere.",
        ),
    ] = False,
    bench: o.BenchOption = None,
    as_json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Make the bench of a pack, or add a pack to it: checks every hash before anything is used, overwrites nothing.

    Environments are built from what is in the pack; no network is needed. What can't run here is said.
    """
    from ..bench import Bench
    from ..moving import unpack as do
    from ._progress import watching

    place = Bench.find(bench)
    with watching() as watcher:
        done = do(source.expanduser(), place, watcher, expect, others or (), not no_build, trust_settings)
    if as_json:
        o.print_json({**asdict(done), "bench": str(done.bench)})
        return
    for line in done.cannot:
        o.say(line)
    for method, hash in done.environments.items():
        o.say(f"{method}: environment {hash}")
    o.say(
        f"{done.files} files are new, {done.kept} were there already; {done.seconds:.1f} s; pack {done.sha256}"
    )
    typer.echo(done.bench)
