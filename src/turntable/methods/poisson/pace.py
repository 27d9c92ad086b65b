"""How much of the work is done in one step, so that all of it is done when the budget ends. Plain numbers only.

A budget of steps is told from one of time by its shares: after k of n steps the share used is exactly k/n.
"""

from __future__ import annotations

import math

SHARES = (0.4, 0.8)
"""Share of the budget by which photos, then pairs of photos, are to be done; the rest is for points and mesh."""

LAST = SHARES[1]
"""Share of a budget of time after which no other step may come: what is missing then, without the mesh, is everything."""


def total_steps(fraction: float | None, steps: int) -> int | None:
    """Of a budget that is counted in steps, how many it has; None where it isn't, or it can't be told yet.

    Args:
        fraction: share of the budget used; None if nobody told.
        steps: done so far.
    """
    if not fraction or not steps:
        return None
    total = steps / fraction
    return round(total) if abs(total - round(total)) < 1e-6 * total else None


def is_last(fraction: float | None, steps: int) -> bool:
    """Whether everything that is left has to be done in this step."""
    total = total_steps(fraction, steps)
    return steps >= total - 1 if total is not None else (fraction or 0.0) > LAST


def units(left: int, phase: int, fraction: float | None, steps: int) -> int:
    """How many of the ``left`` units (photos, blocks of pairs) of a phase this step does; 0: the phase is over.

    Of a budget of steps, each takes its share. Of a budget of time, units are done one by one, and those that aren't
    done when the phase's share is used up are left out.

    Args:
        left: units that aren't done.
        phase: 0 photos, 1 pairs.
        fraction: as in :func:`total_steps`.
        steps: done so far.
    """
    if not left:
        return 0
    total = total_steps(fraction, steps)
    if total is not None:
        room = math.floor(SHARES[phase] * total + 1e-6) - steps
        return math.ceil(left / max(room, 1))
    return 0 if (fraction or 0.0) > SHARES[phase] else 1
