"""``turntable scores``: the numbers."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from . import _options as o


@o.verb
def scores(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="CAPTURE|RUN", help="A capture or a run; may be left out if there is one capture."
        ),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print every single score as CSV.")] = False,
    bench: o.BenchOption = None,
    as_json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Print the scores of a capture's runs, or of one run."""
    from ..bench import Bench
    from ..results import find_document, score_table
    from ._tables import print_scores

    place = Bench.find(bench)
    document = find_document(place, what)
    if as_json:
        o.print_json(document)
    elif as_csv:
        sys.stdout.write(score_table(place, document))
    else:
        print_scores(document)
