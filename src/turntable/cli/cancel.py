"""``turntable cancel``: give runs up for good."""

from __future__ import annotations

from . import _options as o
from ._asking import WaitOption, ask


@o.verb
def cancel(
    runs: o.RunsArgument,
    wait: WaitOption = 60.0,
    bench: o.BenchOption = None,
    as_json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Cancel runs: each ends, with everything that it has started; what it has made so far stays."""
    from ..control import cancel as do

    ask(bench, runs, lambda place, run: do(place, run, wait), "cancel", as_json)
