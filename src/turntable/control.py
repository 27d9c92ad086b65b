"""What users want of runs that are there: pause, resume, cancel, retry; and how the queue stands.

A run's state is written by whoever holds its ``supervisor.lock``. Where a supervisor has it, a wish is left in the queue,
which the supervisor grants within a step; where nobody has it, we take the lock and write the state ourselves.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from .bench import Bench
from .errors import TurntableError
from .record import RunRow, State
from .run import Asked, RunFolder
from .turns import policy
from .turns.device import Holder, devices, fitting, free_card_bytes, is_held, processor
from .turns.queue import CANCEL, PAUSE, RESUME, Queue, Snapshot
from .turns.wishes import BECOMES, grant

LOOK_EVERY_S = 0.05
WAIT_S = 60.0
"""How long a wish is waited for: a step, a save and the moving of a large process's memory fit into it."""


def pause(bench: Bench, run: str, wait_s: float = WAIT_S) -> RunRow:
    """Have a run leave its device and stay away from it until it is resumed.

    Returns:
        Its row, as it is when the wish has been granted; still as before where the supervisor takes longer than ``wait_s``.

    Raises:
        TurntableError: there is no such run, or it has ended.
    """
    return _wish(bench, run, PAUSE, wait_s)


def cancel(bench: Bench, run: str, wait_s: float = WAIT_S) -> RunRow:
    """Give a run up for good; its process and all that it started end.

    Raises:
        TurntableError: there is no such run, or it has ended.
    """
    return _wish(bench, run, CANCEL, wait_s)


def resume(bench: Bench, run: str, wait_s: float = WAIT_S) -> RunRow:
    """Put a paused run back into the queue; one that isn't paused is left as it is.

    Raises:
        TurntableError: there is no such run, or it has ended.
    """
    row = _unended(bench, run, "resumed")
    if row.state is not State.PAUSED:
        for wish in (PAUSE, RESUME):  # one that was not granted yet, or that somebody was faster with
            Queue(bench.record).take_back(run, wish)
        return row
    return _wish(bench, run, RESUME, wait_s)


def retry(bench: Bench, run: str) -> RunFolder:
    """Ask the question of a run that failed or was cancelled again, as a new run; the old one stays to be seen.

    Raises:
        TurntableError: there is no such run, or it neither failed nor was cancelled.
    """
    row = bench.row(run)
    if row.state not in (State.FAILED, State.CANCELLED):
        raise TurntableError(
            f"Only a run that failed or was cancelled can be retried; {run} is {row.state.value}. "
            "(compare --fresh asks the same question again.)"
        )
    asked = bench.run_folder(run).asked()
    terms = replace(asked.terms, after=None, owner=os.getuid())
    with bench.planning():
        return enqueue(bench, replace(asked, id="", created=time.time(), terms=terms))


def enqueue(bench: Bench, asked: Asked) -> RunFolder:
    """Queue a new run; how much memory it needs is taken from earlier runs of its method there, unless it was declared."""
    folder = bench.queue(asked)
    most = max(
        (found.memory_bytes or 0 for found in devices() if found.name in fitting(asked.device)), default=0
    )
    Queue(bench.record).learn(folder.id, asked.device, most)
    return folder


def _unended(bench: Bench, run: str, what: str) -> RunRow:
    row = bench.row(run)
    if row.state.ended:
        raise TurntableError(f"Only a run that has not ended can be {what}; {run} is {row.state.value}.")
    return row


def _wish(bench: Bench, run: str, wish: str, wait_s: float) -> RunRow:
    row = _unended(bench, run, {PAUSE: "paused", CANCEL: "cancelled", RESUME: "resumed"}[wish])
    if row.state is BECOMES[wish]:
        return row
    folder = bench.run_folder(run)
    queue = Queue(bench.record)
    queue.wish(run, wish)
    deadline = time.monotonic() + wait_s
    while True:
        row = bench.row(run)
        granted = row.state is not State.PAUSED if wish == RESUME else row.state is BECOMES[wish]
        if row.state.ended or granted:
            # Its device is given back a moment later: whoever asked for it back finds it free.
            while wish != RESUME and queue.holds_device(run) and time.monotonic() < deadline:
                time.sleep(LOOK_EVERY_S)
            return row
        if grant(folder, bench.record, wish):
            continue
        if queue.wish_of(run) != wish:  # granted in this moment, or somebody else wants something else
            return bench.row(run)
        if wish == PAUSE and (entry := queue.entry(run)) is not None and not entry.pausable:
            queue.take_back(run, wish)
            raise TurntableError(
                f"Run {run} can't be paused: {entry.pausing}. (turntable cancel {run} ends it.)"
            )
        if time.monotonic() > deadline:
            return row
        time.sleep(LOOK_EVERY_S)


@dataclass(frozen=True)
class QueueView:
    """How the queue stands: what ``status`` and ``watch`` show."""

    devices: list[dict[str, Any]]
    supervisors: list[dict[str, Any]]
    runs: list[dict[str, Any]]
    older: int
    """How many ended runs there are that ``runs`` leaves out."""

    def document(self) -> dict[str, Any]:
        """What ``status --json`` prints."""
        return {
            "devices": self.devices,
            "supervisors": self.supervisors,
            "runs": self.runs,
            "older": self.older,
        }


RECENT = 20
"""So many ended runs are shown unless all are asked for."""


def view_queue(bench: Bench, everything: bool = False) -> QueueView:
    """The devices that are held or waited for, and the runs: those that have not ended, and the last that have.

    Args:
        bench: the bench.
        everything: all runs, however many there are.
    """
    record = bench.record
    snapshot = Queue(record).snapshot()
    rows = record.runs(unended=True)
    older = 0
    if everything:
        rows = record.runs()
    else:
        ended = record.last_ended(RECENT)
        older = record.count_runs() - len(rows) - len(ended)
        rows = sorted([*ended, *rows], key=lambda row: row.created)
    reasons = _reasons(snapshot)
    names = {lease.device for lease in snapshot.leases.values()} | {
        name
        for entry in snapshot.entries.values()
        for name in ([entry.wants] if entry.wants != "cuda" else [])
    }
    return QueueView(
        [_device(bench, name, snapshot) for name in sorted(names)],
        [
            {
                "pid": row.who.pid,
                "user": row.owner,
                "in_background": row.detached,
                "devices": sorted(row.devices),
                "runs": sorted(run for run, who in snapshot.wanted.items() if row.who in who),
            }
            for row in snapshot.supervisors
        ],
        [_run(row, snapshot, reasons) for row in rows],
        older,
    )


def view_runs(bench: Bench, runs: Sequence[str]) -> list[dict[str, Any]]:
    """Some runs, as :func:`view_queue` shows them."""
    snapshot = Queue(bench.record).snapshot()
    reasons = _reasons(snapshot)
    return [_run(bench.row(run), snapshot, reasons) for run in runs]


def _device(bench: Bench, name: str, snapshot: Snapshot) -> dict[str, Any]:
    lease = snapshot.leases.get(name)
    shown: dict[str, Any] = {"name": name, "run": None, "bench": None, "supervisor": None, "held_s": None}
    if lease is not None:
        held_s = round(time.monotonic() - lease.began, 1)
        return {
            **shown,
            "run": lease.run,
            "bench": str(bench.folder),
            "supervisor": lease.who.pid,
            "held_s": held_s,
        }
    holder = is_held(name)
    if isinstance(holder, Holder):
        shown |= {"run": holder.run, "bench": holder.bench, "supervisor": holder.supervisor.pid}
    return shown


def _reasons(snapshot: Snapshot) -> dict[str, str]:
    """Why each run that waits for a turn doesn't have one."""
    waits = snapshot.waits()
    cards = any(run.wants.startswith("cuda") for run in waits)
    known = devices() if cards else (processor(),)  # asking for cards takes a second where there are some
    known = [replace(device, free_bytes=_free_bytes(device, waits)) for device in known]
    line = policy.in_line(waits, time.time())
    reasons = {}
    place = 0
    for run in line:
        if (why := policy.why_none(run, known)) is not None:
            earlier = snapshot.entries.get(run.after or "")
            paused = earlier is not None and earlier.state is State.PAUSED
            reasons[run.run] = f"{why} (which is paused)" if paused else why
        else:
            place += 1
            reasons[run.run] = f"number {place} in line" if len(line) > 1 else "next in line"
    return reasons


def _free_bytes(device: policy.Device, waits: Sequence[policy.Waiting]) -> int | None:
    """What is free of a device's memory, if it may matter to a run that waits."""
    if device.name != "cpu":
        return free_card_bytes().get(device.name)
    if not any(run.need_bytes > (device.memory_bytes or 0) / 4 for run in waits):
        return None
    import psutil  # takes a while

    return psutil.virtual_memory().available


def _run(row: RunRow, snapshot: Snapshot, reasons: dict[str, str]) -> dict[str, Any]:
    entry = snapshot.entries.get(row.id)
    left_s = None
    if not row.state.ended and 0 < row.fraction < 1:
        left_s = round(row.device_seconds * (1 - row.fraction) / row.fraction, 1)
    return {
        "id": row.id,
        "capture": row.capture,
        "method": row.method,
        "state": snapshot.state_of(row),
        "cause": row.cause,
        "device": row.device,
        "steps": row.steps,
        "device_seconds": row.device_seconds,
        "device_seconds_left": left_s,
        "peak_memory_bytes": row.peak_memory_bytes,
        "fraction": row.fraction,
        "priority": entry.priority if entry else None,
        "wish": entry.wish if entry else None,
        "waits": reasons.get(row.id) or (entry.fault if entry else None),
        "pausable": bool(entry.pausable) if entry else None,
        # What a process that has ended had kept in memory is gone with it.
        "pausing": entry.pausing if entry and snapshot.supervisors else None,
    }
