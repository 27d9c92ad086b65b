"""How ``compare``, ``demo`` and ``run`` end: the scores, the page's path, and the exit status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from ._captures import say_leakage
from ._options import FAILED, fail, print_json, say
from ._tables import print_scores

if TYPE_CHECKING:
    from ..jobs import Comparison


def end_comparisons(done: list[Comparison], documents: list[dict[str, Any]], as_json: bool) -> None:
    """Print what came out; status 3 if a run failed."""
    if as_json:
        print_json(documents[0] if len(documents) == 1 else {"captures": documents})
    for comparison, document in zip(done, documents, strict=True):
        left_out = comparison.capture.left_out
        if left_out:
            names = ", ".join(entry["name"] for entry in left_out)
            say(f"{comparison.capture.name}: {len(left_out)} entries of the source were left out: {names}")
        say_leakage(comparison.capture)
        if not as_json:
            print_scores(document)
        for row in comparison.failed:
            say(f"{row.id} failed: {row.cause}")
        if as_json:
            say(f"page: {comparison.page}")
        else:
            typer.echo(f"page: {comparison.page}")
    problems = [problem for comparison in done for problem in comparison.problems]
    if problems:
        fail(" ".join(problems))
    if any(comparison.failed for comparison in done):
        raise typer.Exit(FAILED)
