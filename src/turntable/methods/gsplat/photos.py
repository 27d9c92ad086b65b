"""Training photos as 8 bits a channel: kept in memory within a bound, the next one read ahead."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

READ_AT_ONCE = 100_000_000
"""Pixels of all photos up to which they are read before training, whose budget then doesn't pay for it."""
UNKNOWN_MEMORY = 4 << 30
"""What is taken to be available where the system doesn't say."""

Entry = tuple[np.ndarray, np.ndarray | None]
"""``uint8[H, W, 3]``; ``bool[H, W]``, true where a pixel counts, or None where every pixel does."""


class Photos:
    """The photos and masks of the training views.

    Which are kept is decided beforehand: the first that fit. Training asks for every photo once in a random order, then
    again in another, so that no choice finds more of them in memory. Nothing but the time taken depends on it.

    Args:
        views: the training views.
        bound: bytes of photos and masks to keep; default: a quarter of the memory that is available.
    """

    def __init__(self, views: Any, bound: int | None = None) -> None:
        self._views = list(views)
        left = available_memory() // 4 if bound is None else bound
        self._keeps = []
        for view in self._views:
            size = view.camera.width * view.camera.height * 4
            self._keeps.append(size <= left)
            left -= size if size <= left else 0
        self._kept: dict[int, Entry] = {}
        self._ahead: tuple[int, Future[Entry]] | None = None
        self._reader = ThreadPoolExecutor(1, "gsplat-photos")
        if sum(view.camera.width * view.camera.height for view in self._views) <= READ_AT_ONCE:
            for index, keeps in enumerate(self._keeps):
                if keeps:
                    self.get(index)

    def __len__(self) -> int:
        return len(self._views)

    def get(self, index: int) -> Entry:
        """A photo and its mask.

        Raises:
            OSError, ValueError: as reading its files does.
        """
        if index in self._kept:
            return self._kept[index]
        if self._ahead is not None and self._ahead[0] == index:
            entry = self._ahead[1].result()
            self._ahead = None
        else:
            entry = self._read(index)
        if self._keeps[index]:
            self._kept[index] = entry
        return entry

    def prefetch(self, index: int) -> None:
        """Begin to read what is asked for next, unless it is in memory."""
        if index not in self._kept and (self._ahead is None or self._ahead[0] != index):
            self._ahead = index, self._reader.submit(self._read, index)

    def _read(self, index: int) -> Entry:
        view = self._views[index]
        mask = view.mask
        return np.ascontiguousarray(view.image_u8), None if mask is None else np.asarray(mask) > 0.5


def available_memory(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Bytes that Linux says could still be taken without swapping."""
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return UNKNOWN_MEMORY
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return found[0] if found else UNKNOWN_MEMORY
