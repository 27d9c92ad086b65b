"""The program: every verb, in the order that its help lists them.

Nothing heavy is imported here, so that ``turntable --help`` answers at once; verbs import what they use.
"""

from __future__ import annotations

from typing import Annotated

import typer

from . import (
    cancel,
    capture,
    compare,
    demo,
    doctor,
    env,
    export,
    get,
    method,
    pack,
    pause,
    published,
    report,
    resume,
    retry,
    run,
    scores,
    serve,
    status,
    unpack,
    view,
    watch,
)

app = typer.Typer(
    help="Find out what research models really do: every held-out view of your own photos, scored and shown, "
    "worst first. Start with: turntable demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for verb in (
    demo,
    compare,
    get,
    run,
    status,
    watch,
    pause,
    resume,
    cancel,
    retry,
    scores,
    published,
    report,
    view,
    serve,
    export,
    pack,
    unpack,
    doctor,
):
    app.command()(getattr(verb, verb.__name__.rpartition(".")[2]))
app.add_typer(capture.app, name="capture", help="Captures: add, list, show.")
app.add_typer(method.app, name="method", help="Methods: list, show, new, check, install.")
app.add_typer(env.app, name="env", help="Environments of methods: list, build, lock, export, remove, prune.")


def _print_version(wanted: bool) -> None:
    if wanted:
        from ..machine import versions

        typer.echo(f"turntable {versions()['turntable']}")
        raise typer.Exit


@app.callback()
def turntable(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end."),
    ] = False,
) -> None:
    """Find out what research models really do: every held-out view of your own photos, scored and shown."""
