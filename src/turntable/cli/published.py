"""``turntable published``: numbers from papers, with their protocols and sources."""

from __future__ import annotations

from typing import Annotated

import typer

from ..methods.facts import MEAN
from . import _options as o


@o.verb
def published(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="DATASET[/SCENE]",
            help="A data set, one of its scenes, or its means (DATASET/mean).",
            show_default="all",
        ),
    ] = None,
    bench: o.BenchOption = None,
    as_json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Print the published numbers that are known: Turntable's, the bench's own (published/*.toml), and those of methods.

    Of a data set or its means, those of the bench's own runs are set beside them where both were measured alike.
    """
    from ..bench import Bench
    from ..reproduced import means_beside
    from ..tasks.published import find
    from ..tasks.published_tables import beside_lines
    from ._tables import print_facts

    place = Bench.find(bench)
    known = place.published()
    found = find(known, what)
    dataset, _, scene = (what or "").partition("/")
    rows, notes = means_beside(place, dataset, known) if dataset and scene in ("", MEAN) else ([], [])
    if as_json:
        means = {"means_beside": [row.to_json() for row in rows], "notes": notes} if what else {}
        o.print_json({"published": [fact.to_json() for fact in found], **means})
        return
    for dataset in dict.fromkeys(fact.dataset for fact in found):
        title = known.datasets[dataset].title
        typer.echo(dataset if title == dataset else f"{title} ({dataset})")
        print_facts([fact for fact in found if fact.dataset == dataset])
    for line in [*beside_lines(rows), *notes]:
        typer.echo(line)
