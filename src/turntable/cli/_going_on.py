"""What ``resume``, ``retry`` and ``run --detach`` share: somebody has to work on the runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from . import _options as o

if TYPE_CHECKING:
    from ..bench import Bench
    from ..captures.capture import Capture
    from ..jobs import Handling, RunRequest


def go_on(
    place: Bench,
    runs: list[str],
    detach: bool,
    patience: float,
    lpips_weights: Path | None,
    no_sandbox: bool,
    as_json: bool,
) -> None:
    """See to it that a supervisor works on ``runs``: one that is there, one in the background, or this process."""
    from ..jobs import Handling

    left = unanswered(place, runs)
    if not left:
        print_runs(place, runs, as_json)
        return
    handling = Handling(
        o.checked_patience(patience), lpips_weights, detached=not o.has_terminal(), walls=not no_sandbox
    )
    if detach:
        leave_behind(place, left, handling)
        print_runs(place, runs, as_json)
        return
    from ..jobs import go_on
    from ..results import capture_document
    from ._ending import end_comparisons
    from ._progress import watching

    with watching() as watcher:
        done = go_on(place, left, handling, watcher)
    documents = [capture_document(place, comparison.capture, comparison.runs) for comparison in done]
    end_comparisons(done, documents, as_json)


def plan_and_leave(place: Bench, captures: list[Capture], request: RunRequest, as_json: bool) -> None:
    """Queue what is asked of some captures, and see to it that a supervisor in the background works on it."""
    from ..jobs import plan

    runs = [folder.id for capture in captures for folder in plan(place, capture, request, o.say)]
    if left := unanswered(place, runs):
        leave_behind(place, left, request.handling)
    print_runs(place, runs, as_json)


def unanswered(place: Bench, runs: list[str]) -> list[str]:
    """Those of ``runs`` that have not ended, and for which no supervisor answers; says who answers for the others."""
    from ..turns.queue import Queue

    queue = Queue(place.record)
    left = []
    for run in runs:
        state = place.row(run).state
        if state.ended:
            o.say(f"{run}: {state.value} already")
        elif answering := queue.answering(run):
            o.say(f"{run}: goes on in the turntable that waits for it (process {answering[0].pid})")
        else:
            left.append(run)
    return left


def leave_behind(place: Bench, runs: list[str], handling: Handling) -> None:
    """Start a supervisor in the background, and say where.

    Raises:
        TurntableError: none of the runs can be worked on.
    """
    from ..jobs import detach, method_of
    from ..turns.queue import Queue
    from ..turns.supervisor import CannotGoOn

    faults: dict[str, str] = {}
    for run in runs:
        try:
            method_of(place, place.run_folder(run).asked())
        except CannotGoOn as error:  # said here, where somebody reads it
            faults[run] = str(error)
            Queue(place.record).note_fault(run, faults[run])
    runs = [run for run in runs if run not in faults]
    if not runs:
        raise CannotGoOn(" ".join(faults.values()))
    for fault in faults.values():
        o.say(fault)
    pid, log = detach(place, runs, handling)
    count = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    o.say(f"{count} queued; process {pid} works on it in the background and writes to {log}")
    o.say("turntable watch shows how they are going; pause, resume and cancel work from any terminal.")


def print_runs(place: Bench, runs: list[str], as_json: bool) -> None:
    """The runs, on standard output."""
    if as_json:
        from ..control import view_runs

        o.print_json({"runs": view_runs(place, runs)})
        return
    for run in runs:
        typer.echo(run)
