"""``turntable report``: the page."""

from __future__ import annotations

from typing import Annotated

import typer

from . import _options as o


@o.verb
def report(
    capture: Annotated[
        str | None,
        typer.Argument(metavar="CAPTURE", help="A capture's name; may be left out if there is only one."),
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    single_file: Annotated[
        bool,
        typer.Option(
            "--single-file", help="Write one file with everything in it, for mail: reports/<capture>.html."
        ),
    ] = False,
    lang: o.LangOption = None,
    no_3d: o.NoAroundOption = False,
    no_sandbox: o.NoSandboxOption = False,
    bench: o.BenchOption = None,
    as_json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Write the page of a capture: every held-out view of every run, worst first. Prints its path."""
    from ..bench import Bench
    from ..report.collect import write_page
    from ..results import only_capture
    from ._progress import watching

    options = o.page_options(lang, no_3d, no_sandbox, single_file)
    place = Bench.find(bench)
    chosen = place.capture(capture) if capture else only_capture(place)
    with watching() as watcher:
        page = write_page(place, chosen, watcher, options)
    if as_json:
        o.print_json({"page": str(page)})
    else:
        typer.echo(f"page: {page}")
    if open_it:
        typer.launch(page.as_uri())
