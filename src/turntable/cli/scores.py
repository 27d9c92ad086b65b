"""``turntable scores``: the numbers."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ..errors import TurntableError
from . import _options as o


@o.verb
def scores(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CAPTURE|RUN]…", help="Captures or runs; may be left out if there is one capture."
        ),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print every single score as CSV.")] = False,
    mean: Annotated[
        bool, typer.Option("--mean", help="Print means over seeds; over different captures they are refused.")
    ] = False,
    bench: o.BenchOption = None,
    as_json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Print the scores of captures' runs, or of single runs.

    With several captures, one after the other: scores of different captures, splits, sizes or definitions are never put into
    one mean.
    """
    from ..bench import Bench
    from ..results import find_document, mean_document, score_table
    from ._tables import print_means, print_scores

    if mean and as_csv:
        raise TurntableError("--csv prints single scores and --mean prints means. Give one of them.")
    place = Bench.find(bench)
    documents = [find_document(place, one) for one in dict.fromkeys(what or [None])]
    if mean:
        means = mean_document(place, documents)
        o.print_json(means) if as_json else print_means(means)
    elif as_json:
        o.print_json(documents[0] if len(documents) == 1 else {"captures": documents})
    elif as_csv:
        sys.stdout.write(score_table(place, documents))
    else:
        for document in documents:
            print_scores(document)
