"""``turntable resume``: let paused or interrupted runs go on."""

from __future__ import annotations

from . import _options as o


@o.verb
def resume(
    runs: o.RunsArgument,
    detach: o.DetachOption = False,
    patience: o.PatienceOption = 600.0,
    lpips_weights: o.LpipsOption = None,
    no_sandbox: o.NoSandboxOption = False,
    bench: o.BenchOption = None,
    as_json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Let runs go on that are paused, or that a killed terminal left behind.

    If a turntable that waits for them is still there, it takes them up again; else this one does.
    """
    from ..bench import Bench
    from ..control import resume as do
    from ._going_on import go_on

    place = Bench.find(bench)
    for run in runs:
        place.row(run)
    if all(place.row(run).state.ended for run in runs):
        do(place, runs[0])  # which says that it can't be
    for run in runs:
        if not place.row(run).state.ended:
            do(place, run)
    go_on(place, runs, detach, patience, lpips_weights, no_sandbox, as_json)
