"""``turntable serve``: the live page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import _options as o


@o.verb
def serve(
    host: Annotated[
        str,
        typer.Option(
            "--host",
            metavar="ADDRESS",
            help="Where to listen. Anything but this machine alone needs a token.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", metavar="N", help="The port; 0 for any that is free.")
    ] = 8650,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            metavar="FILE",
            help="Let in only who knows the token in this file; else one is made where it is needed.",
            show_default=False,
        ),
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    lang: o.LangOption = None,
    bench: o.BenchOption = None,
    debug: o.DebugOption = False,
) -> None:
    """Show the bench live in the browser: queue, turns, progress, logs, reports; runs can be paused, resumed, cancelled
    and retried there. Ends with Ctrl-C.
    """
    import secrets

    from ..bench import Bench
    from ..errors import TurntableError
    from ..lang import texts
    from ..serve import security, server

    place = Bench.find(bench)
    place.record.close()  # says so if there is no bench, or it can't be read
    chosen = lang or place.settings().lang
    texts(chosen)
    if not 0 <= port <= 65535:
        raise TurntableError(f"--port is a number from 0 to 65535, not {port}.")
    token = server.read_token(token_file) if token_file is not None else None
    listening = server.listen(host, port)
    if token is None and not security.is_loopback(listening.getsockname()[0]):
        token = secrets.token_urlsafe(32)
    address = server.address(host, listening.getsockname()[1], token if token_file is None else None)

    def ready() -> None:
        typer.echo(f"live page: {address}")
        if token_file is not None:
            o.say(f"(add ?token= and the token in {token_file} to the address)")
        if open_it:
            typer.launch(address)

    server.serve(place.folder, listening, token, chosen, ready)
