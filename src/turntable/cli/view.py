"""``turntable view``: looking around."""

from __future__ import annotations

from typing import Annotated

import typer

from . import _options as o


@o.verb
def view(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's id (see status).")],
    port: Annotated[
        int | None,
        typer.Option("--port", metavar="N", help="Where to listen.", show_default="the first free from 8080"),
    ] = None,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Which of this machine's addresses to listen on.")
    ] = "127.0.0.1",
    open_it: Annotated[bool, typer.Option("--open", help="Open the viewer in the browser.")] = False,
    no_sandbox: o.NoSandboxOption = False,
    bench: o.BenchOption = None,
    debug: o.DebugOption = False,
) -> None:
    """Look around in what a run has made, in the browser, while it trains, too; Ctrl-C ends it."""
    from ..bench import Bench
    from ..viewing import Address
    from ..viewing import view as do
    from ._progress import Lines

    def opened(url: str) -> None:
        typer.echo(f"viewer: {url}")
        if open_it:
            typer.launch(url)

    try:
        do(Bench.find(bench), run, Address(host, port), Lines(), opened, not no_sandbox)
    except KeyboardInterrupt:
        return
