"""Who is told how runs are going: the command line's progress bars, or nobody."""

from __future__ import annotations

from typing import Any


class Watcher:
    """Told of everything that happens to runs; this one does nothing with it. Override what is wanted."""

    def capture_progress(self, what: str, done: int, total: int) -> None:
        """A capture is being made: ``done`` of ``total`` (0 where unknown) of the work called ``what``."""

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
