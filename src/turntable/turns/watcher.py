"""Who is told how runs are going: the command line's progress bars, or nobody."""

from __future__ import annotations

import contextlib
import threading
from typing import Any


class Watcher:
    """Told of everything that happens to runs; this one does nothing with it. Override what is wanted."""

    def job_progress(self, what: str, done: int, total: int) -> None:
        """Work that is no run's is done: ``done`` of ``total`` (0 where unknown) of what is called ``what``."""

    def note(self, text: str) -> None:
        """Something that the user should read, one line."""

    def run_started(self, run: str, fraction: float) -> None:
        """A run begins, or goes on from ``fraction`` of its budget."""

    def run_progress(self, run: str, fraction: float, state: dict[str, Any], info: dict[str, Any]) -> None:
        """A run trains: the worker's ``state`` and what its last step said."""

    def run_doing(self, run: str, what: str, done: int, total: int) -> None:
        """A run does something that is not training: rendering, scoring, saving."""

    def run_scored(self, run: str, mark: float, means: dict[str, float]) -> None:
        """A run was scored at ``mark`` of its budget: the mean of each metric."""

    def run_stopped(self, run: str, why: str, how: str) -> None:
        """A run's turn is over before the run is: ``why``, and ``how`` it left the device, in words."""

    def run_ended(self, run: str, state: str, cause: str | None) -> None:
        """A run is done, failed or cancelled."""


class Guarded(Watcher):
    """Passes everything on to another watcher, from any thread, one call at a time.

    A watcher that can't write any more (its terminal was closed, nobody reads its pipe) is no reason to stop working.
    """

    def __init__(self, inner: Watcher) -> None:
        self._inner = inner
        self._lock = threading.Lock()

    def _tell(self, what: str, *arguments: Any) -> None:
        with self._lock, contextlib.suppress(OSError):
            getattr(self._inner, what)(*arguments)

    def job_progress(self, what: str, done: int, total: int) -> None:
        self._tell("job_progress", what, done, total)

    def note(self, text: str) -> None:
        self._tell("note", text)

    def run_started(self, run: str, fraction: float) -> None:
        self._tell("run_started", run, fraction)

    def run_progress(self, run: str, fraction: float, state: dict[str, Any], info: dict[str, Any]) -> None:
        self._tell("run_progress", run, fraction, state, info)

    def run_doing(self, run: str, what: str, done: int, total: int) -> None:
        self._tell("run_doing", run, what, done, total)

    def run_scored(self, run: str, mark: float, means: dict[str, float]) -> None:
        self._tell("run_scored", run, mark, means)

    def run_stopped(self, run: str, why: str, how: str) -> None:
        self._tell("run_stopped", run, why, how)

    def run_ended(self, run: str, state: str, cause: str | None) -> None:
        self._tell("run_ended", run, state, cause)
