"""``turntable retry``: ask the question of a failed or cancelled run again."""

from __future__ import annotations

from . import _options as o


@o.verb
def retry(
    runs: o.RunsArgument,
    detach: o.DetachOption = False,
    patience: o.PatienceOption = 600.0,
    lpips_weights: o.LpipsOption = None,
    no_sandbox: o.NoSandboxOption = False,
    bench: o.BenchOption = None,
    as_json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Ask again what a run was asked that failed or was cancelled: a new run is made; the old one stays to be seen."""
    from ..bench import Bench
    from ..control import retry as do
    from ._going_on import go_on

    place = Bench.find(bench)
    for run in runs:
        place.row(run)
    new = [do(place, run).id for run in runs]
    for old, run in zip(runs, new, strict=True):
        o.say(f"{old}: asked again as {run}")
    go_on(place, new, detach, patience, lpips_weights, no_sandbox, as_json)
