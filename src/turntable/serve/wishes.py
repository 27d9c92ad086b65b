"""What viewers want of the bench: wishes to runs, and pages written again. Nothing here waits in the server's own loop."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .. import control
from ..bench import Bench
from ..lang import languages

WAIT_S = 2.0
"""A viewer waits so long to see a wish granted; one that takes longer is shown as asked for."""

WISHES = ("pause", "resume", "cancel", "retry")


class Wishes:
    """Leaves wishes in the queue, as ``turntable pause`` and its like do; each from a thread with a record of its own.

    Args:
        folder: the bench.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="wishes")

    async def make(self, run: str, wish: str) -> str:
        """Wish something of a run: one of :data:`WISHES`.

        Returns:
            The run's id; for ``retry`` that of the new run.

        Raises:
            TurntableError: there is no such run, or it can't be wished of it.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._make, run, wish)

    def _make(self, run: str, wish: str) -> str:
        bench = Bench(self._folder)
        try:
            if wish == "retry":
                return control.retry(bench, run).id
            waiting: dict[str, Callable[[Bench, str, float], object]] = {
                "pause": control.pause,
                "resume": control.resume,
                "cancel": control.cancel,
            }
            waiting[wish](bench, run, WAIT_S)
            return run
        finally:
            bench.record.close()

    def close(self) -> None:
        """Take no more wishes."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def options_of(page: Path) -> list[str]:
    """How ``turntable report`` was asked to write the page in a folder: its language, and whether it has films."""
    try:
        with (page / "index.html").open(encoding="utf-8", errors="replace") as file:
            head = file.read(500)
    except OSError:
        return []
    lang = re.search(r'<html lang="([a-z]+)"', head)
    options = ["--lang", lang[1]] if lang and lang[1] in languages() else []
    return options if (page / "films").is_dir() or (page / "scenes").is_dir() else [*options, "--no-3d"]


class Pages:
    """Writes pages again, one at a time and in a process of its own: it takes a processor for a while, and memory.

    Args:
        folder: the bench.
        changed: called when a page begins or ends to be written.
    """

    def __init__(self, folder: Path, changed: Callable[[], None]) -> None:
        self._folder = folder
        self._changed = changed
        self._one = asyncio.Lock()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.failed: dict[str, str] = {}
        """By capture, why its page could not be written."""

    @property
    def at_work(self) -> frozenset[str]:
        """The captures whose pages are being written, or wait for another's."""
        return frozenset(self._tasks)

    def write(self, capture: str) -> None:
        """Have the page of a capture written; nothing is done if it is being written."""
        if capture not in self._tasks:
            self.failed.pop(capture, None)
            self._tasks[capture] = asyncio.create_task(self._write(capture))
            self._changed()

    async def _write(self, capture: str) -> None:
        as_it_was = options_of(self._folder / "reports" / capture)
        command = ("-m", "turntable", "report", *as_it_was, "--bench", str(self._folder), "--", capture)
        try:
            async with self._one:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    *command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.PIPE,
                )
                try:
                    _, said = await process.communicate()
                finally:
                    with contextlib.suppress(
                        ProcessLookupError
                    ):  # it has ended by itself, but for when we are stopped
                        process.terminate()
            if process.returncode != 0:
                lines = said.decode("utf-8", "replace").strip().splitlines()
                self.failed[capture] = lines[-1] if lines else f"status {process.returncode}"
        finally:
            del self._tasks[capture]
            self._changed()

    def close(self) -> None:
        """Stop writing; pages are moved into place whole, so that the old one stays."""
        for task in self._tasks.values():
            task.cancel()
