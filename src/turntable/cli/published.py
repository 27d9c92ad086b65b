"""``turntable published``: numbers from papers, with their protocols and sources."""

from __future__ import annotations

from typing import Annotated

import typer

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
    """Print the published numbers that are known: Turntable's, the bench's own (published/*.toml), and those of methods."""
    from ..bench import Bench
    from ..tasks.published import find
    from ._tables import print_facts

    known = Bench.find(bench).published()
    found = find(known, what)
    if as_json:
        o.print_json({"published": [fact.to_json() for fact in found]})
        return
    for dataset in dict.fromkeys(fact.dataset for fact in found):
        title = known.datasets[dataset].title
        typer.echo(dataset if title == dataset else f"{title} ({dataset})")
        print_facts([fact for fact in found if fact.dataset == dataset])
