"""Training photos: 8 bits a channel, halved twice for coarse-to-fine training, read as needed within a bound of
memory.

Words: an entry is one photo with its mask at one level; level 0 is full size, each further one is half of the one
before. Kept entries stay in memory; any other is read from its file whenever it is asked for.

Why what is kept is fixed for as long as one level is in use, instead of the least recently used being dropped:
training asks for every photo once, in a random order, then for every photo once in another. What was asked for
longest ago is therefore what comes back soonest, and with room for half of the photos LRU finds 15 % of them (none,
were the order always the same). A set that stays finds its share, half; and as long as the next order isn't drawn
yet, all photos that this round is done with are alike, so that no other choice can be expected to find more.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

LEVELS = 3
READ_AT_ONCE = 100_000_000
"""Pixels of all photos up to which they are read before training, whose budget then doesn't pay for it: some
seconds. More would keep the user waiting; those are read while training goes on."""
BORDERS = 32
"""Photos whose borders are looked at, where there are too many pixels to read at once: one decides little."""
BAND = 32
"""Rows halved together: few enough for their sums to stay in the processor's cache."""

Entry = tuple[np.ndarray, np.ndarray | None]
"""``uint8[H, W, 3]``; ``uint8[H, W]``, 1 where a pixel counts, or None where every pixel does."""


def halved(photo: np.ndarray) -> np.ndarray:
    """``uint8[H // 2, W // 2, …]``: means of 2×2 pixels, rounded; an odd last row or column is dropped."""
    height, width = max(photo.shape[0] // 2, 1), max(photo.shape[1] // 2, 1)
    if photo.shape[0] < 2 or photo.shape[1] < 2:
        return photo[:height, :width].copy()
    rows = photo.reshape(photo.shape[0], -1)
    channels = rows.shape[1] // photo.shape[1]
    out = np.empty((height, width, channels), np.uint8)
    for first in range(0, height, BAND):
        last = min(first + BAND, height)
        sums = np.add(rows[2 * first : 2 * last : 2], rows[2 * first + 1 : 2 * last : 2], dtype=np.uint16)
        # every pixel with its right neighbour, wanted or not: in steps of 1 it is several times as fast
        means = ((sums[:, :-channels] + sums[:, channels:] + 2) >> 2).astype(np.uint8)
        for channel in range(channels):
            out[first:last, :, channel] = means[:, channel :: 2 * channels][:, :width]
    return out.reshape(height, width, *photo.shape[2:])


def read_entries(view: Any, levels: Iterable[int]) -> dict[int, Entry]:
    """A view's photo and mask, from their files, at each of ``levels``.

    Raises:
        OSError, ValueError: as reading the files does.
    """
    photo, mask = np.ascontiguousarray(view.image_u8), view.mask
    if mask is not None:
        mask = np.ascontiguousarray((mask > 0.5).astype(np.uint8))
    wanted = set(levels)
    entries: dict[int, Entry] = {}
    for level in range(max(wanted) + 1):
        if level > 0:
            photo = halved(photo)
            if mask is not None:  # a pixel counts where all four of its pixels do
                mask = (halved(mask * np.uint8(4)) == 4).astype(np.uint8)
        if level in wanted:
            entries[level] = photo, mask
    return entries


def plan(sizes: np.ndarray, bound: int, level: int) -> np.ndarray:
    """Which entries are kept while ``level`` is in use.

    Those of that level come first, whichever of them fit. What room is left goes to the others, coarse before
    fine: the same bytes keep more photos from being read again.

    Args:
        sizes: ``int64[levels, N]``, bytes.
        bound: how many bytes all that is kept may have.

    Returns:
        ``bool[levels, N]``.
    """
    kept = np.zeros(sizes.shape, bool)
    for each in [level, *(other for other in reversed(range(len(sizes))) if other != level)]:
        for index, size in enumerate(sizes[each].tolist()):
            if size <= bound:
                kept[each, index] = True
                bound -= size
    return kept


class Photos:
    """Photos and masks of the training views at each level.

    All are read here, once, where they have at most ``READ_AT_ONCE`` pixels and all levels fit into the bound.
    Otherwise each is read when it is first asked for, and again whenever it is asked for but isn't kept. Nothing
    but the time taken depends on the bound, or on what was asked for before.

    Args:
        views: the training views.
        levels: how many sizes there are.
        bound: how many bytes of photos and masks are kept. In use beside them are at most the photo that was asked
            for last, the one read ahead, and what reading takes: some 11 bytes for each pixel of a photo. Default:
            a quarter of :func:`available_memory`.

    Raises:
        OSError, ValueError: as reading the files does.
    """

    def __init__(self, views: Any, levels: int = LEVELS, bound: int | None = None) -> None:
        self._views = list(views)
        self.cameras = [view.camera for view in self._views]
        self._bound = available_memory() // 4 if bound is None else bound
        self._sizes = np.array(
            [[entry_bytes(view, level) for view in self._views] for level in range(levels)], np.int64
        )
        self._level = levels - 1
        self._plan = plan(self._sizes, self._bound, self._level)
        self._kept: list[list[Entry | None]] = [[None] * len(self._views) for _ in range(levels)]
        self._last: tuple[tuple[int, int], Entry] | None = None
        self._ahead: tuple[tuple[int, int], Future[dict[int, Entry]]] | None = None
        self._few = sum(camera.width * camera.height for camera in self.cameras) <= READ_AT_ONCE
        if self._few and self._plan.all():
            for index in range(len(self)):
                self._entry(index, self._level)

    def __len__(self) -> int:
        return len(self._views)

    def photo(self, index: int, level: int = 0) -> np.ndarray:
        """``uint8[H, W, 3]``.

        Raises:
            OSError, ValueError: as reading the file does, here or ahead.
        """
        return (self._kept[level][index] or self._entry(index, level))[0]

    def mask(self, index: int, level: int = 0) -> np.ndarray | None:
        """``uint8[H, W]``, 1 where a pixel counts, or None where every pixel does. Raises as :meth:`photo`."""
        return (self._kept[level][index] or self._entry(index, level))[1]

    def prefetch(self, index: int, level: int = 0) -> None:
        """Begin to read in the background what is going to be asked for next, unless it is in memory.

        At most one photo is read ahead: ask for it before another is prefetched, which would take its place if
        it has been read, and is passed over if it hasn't.
        """
        key = index, level
        if self._kept[level][index] is not None or (self._last is not None and self._last[0] == key):
            return
        if self._ahead is not None and (self._ahead[0] == key or not self._ahead[1].done()):
            return
        self._use(level)
        future: Future[dict[int, Entry]] = Future()
        view, levels = self._views[index], self._wanted(index, level)

        def read() -> None:
            try:
                future.set_result(read_entries(view, levels))
            except BaseException as error:  # noqa: BLE001  # goes to whoever asks for the photo
                future.set_exception(error)

        # its own thread each time, a daemon: an executor's would be waited for when the interpreter ends
        threading.Thread(target=read, name="splat-prefetch", daemon=True).start()
        self._ahead = key, future

    def _entry(self, index: int, level: int) -> Entry:
        """What isn't kept yet, or never: the one asked for last, one read ahead, or read now."""
        key = index, level
        if self._last is not None and self._last[0] == key:
            return self._last[1]
        self._use(level)
        if self._ahead is not None and self._ahead[0] == key:
            future, self._ahead = self._ahead[1], None
            entries = future.result()
        else:
            entries = read_entries(self._views[index], self._wanted(index, level))
        for each, entry in entries.items():
            if self._plan[each, index]:
                self._kept[each][index] = entry
        self._last = key, entries[level]
        return entries[level]

    def _wanted(self, index: int, level: int) -> list[int]:
        """The levels to make of a photo that is read because one was asked for: that, and those to be kept."""
        return [
            each
            for each, kept in enumerate(self._kept)
            if each == level or (self._plan[each, index] and kept[index] is None)
        ]

    def _use(self, level: int) -> None:
        """Plan for ``level``, and drop what the plan doesn't keep."""
        if level == self._level:
            return
        self._level, self._plan = level, plan(self._sizes, self._bound, level)
        for kept, planned in zip(self._kept, self._plan.tolist(), strict=True):
            kept[:] = [entry if stays else None for entry, stays in zip(kept, planned, strict=True)]

    @property
    def mean_pixels(self) -> float:
        """Pixels of a photo, on average."""
        return float(np.mean([camera.width * camera.height for camera in self.cameras]))

    @property
    def sample(self) -> np.ndarray:
        """``int64[M]``: all photos, or ``BORDERS`` evenly spread ones where they have more than ``READ_AT_ONCE``
        pixels: what may be looked at before training begins.
        """
        if self._few or len(self) <= BORDERS:
            return np.arange(len(self))
        return np.linspace(0, len(self) - 1, BORDERS).astype(np.int64)

    def border_colour(self) -> np.ndarray:
        """``float32[3]`` in [0, 1]: the median colour of the outermost pixels that count; of all that count, where
        none of those does. Of all photos, or of ``BORDERS`` evenly spread ones where they have more than
        ``READ_AT_ONCE`` pixels.
        """
        level = len(self._kept) - 1
        border, inside = [], []
        for index in self.sample.tolist():
            photo, mask = self.photo(index, level), self.mask(index, level)
            edge = np.ones(photo.shape[:2], bool)
            edge[1:-1, 1:-1] = False
            border.append(photo[edge if mask is None else edge & (mask > 0)])
            inside.append(photo.reshape(-1, 3) if mask is None else photo[mask > 0])
        colours = np.concatenate(border)
        if not len(colours):
            colours = np.concatenate(inside)
        return (
            np.median(colours, axis=0).astype(np.float32) / 255 if len(colours) else np.zeros(3, np.float32)
        )


def entry_bytes(view: Any, level: int) -> int:
    """Bytes of a view's photo and mask at a level, without reading them."""
    width, height = max(view.camera.width >> level, 1), max(view.camera.height >> level, 1)
    return width * height * (3 if view.mask_path is None else 4)


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that this process could still take without anything being swapped out or killed.

    Linux says it in ``/proc/meminfo``; elsewhere (macOS has no such figure: what is free is kept near nothing) it
    is half of the physical memory. No more than the cgroups (version 2) of this process have left.

    Args:
        root: the folder that holds ``proc`` and ``sys``.
    """
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        lines = []
    machine = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    if not machine:
        machine = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2]
    return max(min([*machine, *cgroups_left(root)]), 0)


def cgroups_left(root: Path) -> Iterator[int]:
    """Bytes that each cgroup above this process leaves it, where there is a limit. Cached files count as left, since
    they go when memory is needed.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for parts in [Path(line.removeprefix("0::/")).parts for line in lines if line.startswith("0::/")]:
        for depth in range(len(parts) + 1):
            folder = (root / "sys/fs/cgroup").joinpath(*parts[:depth])
            try:
                limit = (folder / "memory.max").read_text().strip()
                used = int((folder / "memory.current").read_text())
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            except OSError:  # the root has no limit; a container may not see the folders above its own
                continue
            if limit != "max":
                yield int(limit) - used + int(stat["active_file"]) + int(stat["inactive_file"])
