"""Who gets the next turn: a pure function of the queue, the devices and the clock.

One rule serves every wish. Of the runs that may use a device, those of the highest priority come first, and of these the
one that has waited longest. A run with a quantum gives its device up when that is used and somebody waits: so a
comparison's runs go round robin. A run without one keeps its device to its end: first come, first served. A run of a
higher priority doesn't wait for either.

Nobody starves: whoever has waited :data:`AGE_S` counts one priority higher, and again after as long, and keeps that for
:data:`PROTECTED_S` of the turn that it gets. Order is a count of turns (``place``), not a time: a clock that is set makes
some runs seem older by as much, and does no other harm.

Everything here is plain data: nothing is started, stopped or looked up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

AGE_S = 1800.0
"""Half an hour: long against a quantum, short against a working day."""

PROTECTED_S = 60.0
"""For so long a turn that was got by waiting isn't taken away by a higher priority: long enough to get somewhere."""


@dataclass(frozen=True)
class Waiting:
    """A run that is not held back by its user: it waits for a turn, or has one.

    Args:
        run: its id.
        place: counts up with every run queued and every turn ended; the smallest has waited longest.
        since: when its waiting began, in seconds since the epoch.
        priority: higher goes first.
        wants: ``cpu``, ``cuda`` (any card) or ``cuda:<number>``.
        began_on: the model of the device that it had its first turn on, or None: it is never moved to another.
        need_bytes: memory of the device that it is said or known to need; 0 where nobody knows.
        quantum_s: how long it may hold a device while others wait; None: to its end.
        after: the id of the run that must have ended first, if that hasn't.
        served_on: the devices on which a supervisor lives that may work on it; None: all.
        fault: why nobody can work on it, in words, or None.
        kept_on: the device for which its process is kept in memory, if it can't leave it without a loss; else None.
        pausable: False where no way of pausing it works on this machine: it runs to its end.
    """

    run: str
    place: int
    since: float
    priority: int = 0
    wants: str = "cpu"
    began_on: str | None = None
    need_bytes: int = 0
    quantum_s: float | None = None
    after: str | None = None
    served_on: frozenset[str] | None = None
    fault: str | None = None
    kept_on: str | None = None
    pausable: bool = True


@dataclass(frozen=True)
class Turn:
    """Who holds a device: since how many seconds, and with what priority it got it (aged, see :func:`aged`)."""

    run: Waiting
    held_s: float
    priority: int


@dataclass(frozen=True)
class Device:
    """A device, and who holds it.

    Args:
        name: ``cpu``, ``cuda:0`` …
        model: equal for devices between which a run may be moved: ``cpu``, or a card's name and memory.
        memory_bytes: all that it has; None where unknown.
        free_bytes: what a run that starts now can have of it; None where unknown.
        turn: who holds it, or None.
    """

    name: str
    model: str
    memory_bytes: int | None = None
    free_bytes: int | None = None
    turn: Turn | None = None


@dataclass(frozen=True)
class Start:
    """Give ``device`` to ``run``; ``priority`` is what it counts for this turn."""

    run: str
    device: str
    priority: int


@dataclass(frozen=True)
class End:
    """Ask ``run`` to give ``device`` up: ``why`` is ``quantum`` or ``priority``."""

    run: str
    device: str
    why: str


def aged(run: Waiting, now: float) -> int:
    """What a waiting run's priority counts at ``now`` (seconds since the epoch)."""
    return run.priority + int(max(0.0, now - run.since) / AGE_S)


def allows(wish: str, device: Device) -> bool:
    """Whether ``device`` is one that a device wish (``cpu``, ``cuda``, ``cuda:1``) names."""
    return wish in (device.name, device.name.partition(":")[0])


def in_line(waiting: Sequence[Waiting], now: float) -> list[Waiting]:
    """Runs in the order in which they come to a device, at ``now`` (seconds since the epoch)."""
    return sorted(waiting, key=lambda run: (-aged(run, now), run.place))


def why_none(run: Waiting, devices: Sequence[Device]) -> str | None:
    """Why ``run`` could have no device even if nobody else wanted one, in words; None if it could."""
    reasons = [why_not(run, device) for device in devices if allows(run.wants, device)]
    return None if None in reasons else (reasons or [f"this machine has no {run.wants}"])[0]


def why_not(run: Waiting, device: Device) -> str | None:
    """Why ``run`` can't have its next turn on ``device`` even if nobody else wants it, in words; None if it can."""
    if run.fault is not None:
        return run.fault
    if run.after is not None:
        return f"waits for {run.after} to end"
    if run.served_on is not None and not run.served_on:
        return "nobody works on it: its supervisor is gone; turntable resume goes on with it"
    if not allows(run.wants, device):
        return f"wants {run.wants}"
    if run.served_on is not None and device.name not in run.served_on:
        return f"nobody gives turns on {device.name}"
    if run.kept_on not in (None, device.name):
        return f"its process is kept in memory for {run.kept_on}"
    if run.began_on is not None and run.began_on != device.model:
        return f"began on {run.began_on}, and {device.name} is {device.model}: runs aren't moved between unlike devices"
    for have, what in ((device.memory_bytes, "has"), (device.free_bytes, "has free")):
        if have is not None and run.need_bytes > have:
            return f"needs {run.need_bytes / 1e9:.1f} GB; {device.name} {what} {have / 1e9:.1f} GB"
    return None


def decide(waiting: Sequence[Waiting], devices: Sequence[Device], now: float) -> list[Start | End]:
    """What is to be done now: turns to begin on free devices, and turns to end on held ones.

    Args:
        waiting: the runs that wait for a turn; not those that hold a device.
        devices: all devices of the machine.
        now: seconds since the epoch.
    """
    decisions: list[Start | End] = []
    left = in_line(waiting, now)
    fits = {run.run: [device.name for device in devices if why_not(run, device) is None] for run in left}
    takers = Counter(name for names in fits.values() for name in names)
    # Free devices first: a holder isn't asked to make room for somebody who finds room elsewhere.
    free = {device.name for device in devices if device.turn is None}
    for run in list(left):
        if not free:
            break
        if places := [name for name in fits[run.run] if name in free]:
            # The one that fewest could use: they may need what this run doesn't.
            best = min(places, key=lambda name: takers[name])
            decisions.append(Start(run.run, best, aged(run, now)))
            free.remove(best)
            left.remove(run)
            takers.subtract(fits[run.run])
    # Then the lowest priority, and whoever has held for longest: while a turn is being ended it stays the one, and no
    # second one is.
    held = [(device, device.turn) for device in devices if device.turn is not None]
    for device, turn in sorted(held, key=lambda pair: (pair[1].priority, -pair[1].held_s)):
        # Not the first in line alone: one that has aged may have to wait where one of a higher priority need not.
        for run in [run for run in left if device.name in fits[run.run]]:
            if (why := _why_end(turn, run, now)) is not None:
                decisions.append(End(turn.run.run, device.name, why))
                left.remove(run)
                break
    return decisions


def _why_end(turn: Turn, candidate: Waiting, now: float) -> str | None:
    holder = turn.run
    if not holder.pausable:
        return None
    if candidate.priority > (turn.priority if turn.held_s < PROTECTED_S else holder.priority):
        return "priority"
    used = holder.quantum_s is not None and turn.held_s >= holder.quantum_s
    if used and aged(candidate, now) >= holder.priority:
        return "quantum"
    return None
