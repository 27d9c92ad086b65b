"""Granting what is wished of a run that no supervisor has: whoever finds it takes the run's lock and does it."""

from __future__ import annotations

from ..record import Record, State
from ..run import RunFolder, settle
from .queue import CANCEL, GIVEN_UP, PAUSE, RESUME, Queue

BECOMES = {PAUSE: State.PAUSED, CANCEL: State.CANCELLED, RESUME: State.QUEUED}
"""What a run is once a wish has been granted."""


def grant(folder: RunFolder, record: Record, wish: str) -> bool:
    """Grant a wish, unless a supervisor has the run: then it is for that one to do.

    Returns:
        Whether it was done; False also where the wish was taken back, or another has taken its place, or the run's folder
        is gone or another user's.
    """
    try:
        lock = folder.lock("supervisor.lock")
    except (FileNotFoundError, PermissionError):
        return False
    if lock is None:
        return False
    queue = Queue(record)
    with lock:
        row = record.run(folder.id)
        if row is None or queue.wish_of(folder.id) != wish:
            return False
        state = BECOMES.get(wish)
        # If it may not become that, its supervisor has done it, or something else, in the moment before it let go.
        if state is not None and row.state.may_become(state):
            if state.ended:
                _end_what_is_left(folder)
            settle(folder, record, state, GIVEN_UP if wish == CANCEL else wish)
        queue.take_back(folder.id, wish)
    return True


def _end_what_is_left(folder: RunFolder) -> None:
    lock = folder.lock()
    if lock is not None:
        lock.close()
        return
    from .process import kill_leftovers  # psutil takes a while to import, and is hardly ever needed here

    kill_leftovers(folder)
