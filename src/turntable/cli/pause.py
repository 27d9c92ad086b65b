"""``turntable pause``: have runs leave their device until they are resumed."""

from __future__ import annotations

from . import _options as o
from ._asking import WaitOption, ask


@o.verb
def pause(
    runs: o.RunsArgument,
    wait: WaitOption = 60.0,
    bench: o.BenchOption = None,
    as_json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Pause runs: each saves after the step at hand and gives its device to the next; resume lets it go on.

    A program that can't save is frozen, and on a graphics card its memory is moved away first; what can't be paused runs on,
    and you are told why.
    """
    from ..control import pause as do

    ask(bench, runs, lambda place, run: do(place, run, wait), "pause", as_json)
