"""One look at the bench for all viewers: what changed is put into bytes once, and every viewer gets the same bytes.

**Parts** are what is shown, by a key: a run's row, the turns, the captures (see :mod:`.state`). A viewer first gets all of
them, then those that changed. Nobody watches: nobody looks. A viewer that is behind has one event waiting and no more; when
the next comes, it is replaced by all of the parts as they are then, so that a browser that sleeps costs no memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import Any

from ..errors import TurntableError

Parts = dict[str, Any]

PERIOD_S = 1.0
"""Looking more often shows nobody more: a run notes its progress once a second."""

LONGEST_PERIOD_S = 8.0

SHARE = 0.005
"""So much of a core is spent on viewers, however many there are: training has the rest. Where a look and its sending cost
more, they happen less often."""

AT_ONCE_S = 0.1
"""A look that is younger is as good as a new one."""

HEARTBEAT_S = 15.0
"""Proxies close what is silent for longer."""

PATIENCE_S = 60.0
"""A viewer that takes nothing for so long is let go; a browser that comes back connects again by itself."""

HEARTBEAT = b": .\n\n"


def next_period(spent_s: float) -> float:
    """How long to wait for the next look, if the last and its sending took ``spent_s`` of processor time."""
    return min(LONGEST_PERIOD_S, max(PERIOD_S, spent_s / SHARE))


def changes(before: Parts, now: Parts) -> Parts:
    """The parts that are other than before; None for those that have gone."""
    gone = dict.fromkeys(before.keys() - now.keys())
    return {**gone, **{key: part for key, part in now.items() if before.get(key, _NOTHING) != part}}


_NOTHING = object()


def event(name: str, now: float, parts: Parts) -> bytes:
    """A server-sent event: ``{"now": our clock, "parts": …}``. JSON has no line breaks of its own: the data is one line."""
    data = {"now": round(now, 2), "parts": parts}
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return f"event: {name}\ndata: {text}\n\n".encode("utf-8", "replace")


class Look:
    """What there was to be seen at one moment."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.time = time.time()
        self.at = time.monotonic()

    @cached_property
    def whole(self) -> bytes:
        """All of it, as an event."""
        return event("all", self.time, self.parts)


class Viewer:
    """One who watches: holds the event to be sent next, at most one."""

    def __init__(self) -> None:
        self._waiting: bytes | None = None
        self._wake = asyncio.Event()
        self._since = time.monotonic()
        self._closing = asyncio.Event()

    @property
    def closed(self) -> bool:
        """Whether nothing more is sent."""
        return self._closing.is_set()

    def offer(self, data: bytes, whole: Callable[[], bytes]) -> None:
        """Have ``data`` sent; ``whole()`` instead, if what was offered before hasn't been taken yet."""
        if self._waiting is None:
            self._waiting = data
            self._since = time.monotonic()
        elif time.monotonic() - self._since > PATIENCE_S:
            self.close()
        elif data is not HEARTBEAT:
            self._waiting = whole()
        self._wake.set()

    def close(self) -> None:
        """Have nothing more sent."""
        self._closing.set()
        self._wake.set()

    async def await_closing(self) -> None:
        """Return when nothing more is to be sent."""
        await self._closing.wait()

    async def take(self) -> bytes | None:
        """The next event; None when there will be no more."""
        while not self.closed:
            if self._waiting is not None:
                data, self._waiting = self._waiting, None
                return data
            self._wake.clear()
            await self._wake.wait()
        return None


class Stream:
    """Looks as long as somebody watches, and tells all who do.

    Args:
        look: what there is to be seen; None where nothing has changed since it was asked last.
    """

    def __init__(self, look: Callable[[], Awaitable[Parts | None]]) -> None:
        self._look = look
        self._last: Look | None = None
        self._viewers: set[Viewer] = set()
        self._task: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._looking = asyncio.Lock()
        self._wishes = self._seen = 0  # what was changed from here, and what the last look has seen of it
        self._closed = False

    @property
    def viewers(self) -> int:
        """How many watch."""
        return len(self._viewers)

    async def now(self) -> Look:
        """What is to be seen: the last look, if somebody watches anyway or it is young; else a new one."""
        if not self._is_young(PERIOD_S):
            await self._look_again()
        assert self._last is not None
        return self._last

    def _is_young(self, age_s: float) -> bool:
        last = self._last
        return last is not None and self._seen == self._wishes and time.monotonic() - last.at < age_s

    async def join(self) -> Viewer:
        """A new viewer, to whom all parts have been offered."""
        look = await self.now()
        viewer = Viewer()
        if self._closed:
            viewer.close()
            return viewer
        viewer.offer(look.whole, lambda: look.whole)
        self._viewers.add(viewer)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch())
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """The viewer watches no longer."""
        viewer.close()
        self._viewers.discard(viewer)
        if not self._viewers:
            self._hurry.set()

    def hurry(self) -> None:
        """Look at once: something was changed from here, and whoever changed it wants to see it."""
        self._wishes += 1
        self._hurry.set()

    def close(self) -> None:
        """Let everybody go; who comes later is let go at once."""
        self._closed = True
        for viewer in tuple(self._viewers):
            viewer.close()
        self._hurry.set()

    async def _look_again(self) -> None:
        async with self._looking:
            if self._is_young(AT_ONCE_S):
                return  # who waited here for another's look takes it
            wishes = self._wishes
            parts = await self._look()
            self._seen = (
                wishes  # not before: who asks meanwhile would be shown what was there before the wish
            )
            if parts is not None:
                self._last = Look(parts)
            elif self._last is not None:
                self._last.at = time.monotonic()

    async def _watch(self) -> None:
        shown = self._last
        told = time.monotonic()
        period = PERIOD_S
        said = ""
        while self._viewers and not self._closed:
            self._hurry.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), period)
            spent = time.process_time()
            try:
                await self._look_again()
                said = ""
            except (TurntableError, OSError) as error:
                # A full disk, a record that is being made again: it may pass. It is said once, not once a second.
                if str(error) != said:
                    said = str(error)
                    logging.getLogger(__name__).warning("turntable: %s", said)
            if self._tell(shown) or (time.monotonic() - told > HEARTBEAT_S and self._beat()):
                told = time.monotonic()
            shown = self._last
            await asyncio.sleep(0)  # those who were told something send it now, so that it is counted
            period = next_period(time.process_time() - spent)

    def _tell(self, shown: Look | None) -> bool:
        """Tell all viewers what has changed since they were ``shown`` something; whether anything has."""
        last = self._last
        if last is None or last is shown:
            return False
        changed = changes(shown.parts, last.parts) if shown else last.parts
        if changed:
            data = event("changes", last.time, changed)
            for viewer in tuple(self._viewers):
                viewer.offer(data, lambda: last.whole)
        return bool(changed)

    def _beat(self) -> bool:
        for viewer in tuple(self._viewers):
            viewer.offer(HEARTBEAT, lambda: HEARTBEAT)
        return True
