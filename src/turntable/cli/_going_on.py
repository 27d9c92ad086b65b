"""What ``resume``, ``retry`` and ``run --detach`` share: somebody has to work on the runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from . import _options as o

if TYPE_CHECKING:
    from ..bench import Bench
    from ..jobs import Handling


def go_on(
    place: Bench, runs: list[str], detach: bool, patience: float, lpips_weights: Path | None, as_json: bool
) -> None:
    """See to it that a supervisor works on ``runs``: one that is there, one in the background, or this process."""
    from ..turns.queue import Queue

    queue = Queue(place.record)
    left = [run for run in runs if not place.row(run).state.ended]
    answered = {run: queue.answering(run) for run in left}
    if all(answered.values()):
        for run in left:
            o.say(f"{run}: goes on in the turntable that waits for it (process {answered[run][0].pid})")
        print_runs(place, runs, as_json)
        return
    from ..jobs import Handling, go_on
    from ..results import capture_document
    from ._ending import end_comparisons
    from ._progress import watching

    handling = Handling(o.checked_patience(patience), lpips_weights, detached=not o.has_terminal())
    if detach:
        leave_behind(place, left, handling, as_json)
        return
    with watching() as watcher:
        done = go_on(place, runs, handling, watcher)
    documents = [capture_document(place, comparison.capture, comparison.runs) for comparison in done]
    end_comparisons(done, documents, as_json)


def leave_behind(place: Bench, runs: list[str], handling: Handling, as_json: bool) -> None:
    """Start a supervisor in the background, and say where."""
    from ..jobs import detach

    pid, log = detach(place, runs, handling)
    o.say(f"{len(runs)} runs queued; process {pid} works on them in the background and writes to {log}")
    o.say("turntable watch shows how they are going; pause, resume and cancel work from any terminal.")
    print_runs(place, runs, as_json)


def print_runs(place: Bench, runs: list[str], as_json: bool) -> None:
    """The runs, on standard output."""
    if as_json:
        from ..control import view_queue

        shown = {row["id"]: row for row in view_queue(place, everything=True).runs}
        o.print_json({"runs": [shown[run] for run in runs]})
        return
    for run in runs:
        typer.echo(run)
