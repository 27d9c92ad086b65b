"""What the page needs of every rendering, made once, when it is scored, and kept in the run's folder::

    runs/<id>/page/
    ├── <view>.<mark>.webp        the rendering, as the page shows it
    ├── <view>.<mark>-error.webp  its error map
    └── <view>.<mark>.json        which file that was, other scores of it, and the training photo that it may be

An error map takes half a second, so a page of a thousand renderings could not be written at once otherwise. What is kept is
made again where the rendering has been written since, and may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import io
import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .. import files
from ..captures.capture import Capture, CaptureView
from ..errors import TurntableError
from ..tasks.memorised import TrainingPhotos
from ..tasks.metrics import error_map
from ..tasks.sensitivity import variants
from ..tasks.views import Keep

FORMAT = 2
"""Counts the changes of what is kept, so that what an older Turntable left is made again."""

FOLDER = "page"
"""In a run's folder; its method can't write there."""

LOSSLESS_MEGAPIXELS = 1.0
"""Up to this much in all its held-out photos together a capture's pictures are lossless. Photos take about 1.2 bytes a pixel
as lossless WebP: five methods' renderings and error maps are about 13 MB then, which can still be sent by mail."""

QUALITY = 90
"""WebP's, for larger captures: a seventh of the bytes, and no difference that an eye finds at pixel scale."""

LARGEST_SIDE = 16383
"""WebP's, in pixels."""

DIM = 0.3
"""How much is left of a pixel that the mask does not count: what it shows can still be made out."""

DIM_TOWARDS = 128.0
"""The grey that those pixels go towards, so that they stand out from dark and from light pictures alike."""

SCALE_COLOURS = [
    "#000004",
    "#180f3d",
    "#440f76",
    "#721f81",
    "#9e2f7f",
    "#cd4071",
    "#f1605d",
    "#fd9668",
    "#feca8d",
    "#fcfdbf",
]  # Magma, by Nathaniel Smith and Stéfan van der Walt, at ten places
"""The error maps' colours from 0 to 1, evenly spaced, linear in between: for the page's legend."""

_STOPS = np.array([[int(stop[i : i + 2], 16) for i in (1, 3, 5)] for stop in SCALE_COLOURS], np.float64)
_PALETTE = (
    np.stack(
        [
            np.interp(np.linspace(0, len(_STOPS) - 1, 256), np.arange(len(_STOPS)), _STOPS[:, channel])
            for channel in range(3)
        ],
        axis=-1,
    )
    .round()
    .astype(np.uint8)
)


@dataclass(frozen=True)
class Recalled:
    """The training photo that a rendering is: every pixel of it, or a copy encoded anew."""

    training: str
    identical: bool


@dataclass(frozen=True)
class Kept:
    """One rendering: its pictures, and what was found out about it.

    Args:
        rendering, error_map: WebP files.
        variants: its scores by other definitions (see :mod:`turntable.tasks.sensitivity`).
        memorised: the training photo that it is, or None.
    """

    rendering: Path
    error_map: Path
    variants: dict[str, float]
    memorised: Recalled | None


class Keeper:
    """Makes and finds what is kept of the renderings on one capture. May be used by several threads."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._photos: TrainingPhotos | None = None
        self._lock = threading.Lock()
        self.lossless = is_lossless(capture)

    def keep(
        self,
        run: Path,
        answer: str,
        view: CaptureView,
        photo: np.ndarray,
        rendering: np.ndarray,
        mask: np.ndarray | None,
    ) -> Kept:
        """Make what is kept of a rendering.

        Args:
            run: its run's folder.
            answer: the rendering's file, by its path in there.
            view: what it is of.
            photo, rendering: ``uint8[H, W, 3]``.
            mask: ``bool[H, W]``, or None.

        Raises:
            OSError: it can't be written.
        """
        if rendering.ndim == 2:
            rendering = np.repeat(rendering[..., None], 3, axis=-1)
        shown, error, facts = self._paths(run, answer, view)
        shown.parent.mkdir(exist_ok=True)
        found = self._training_photos().memorised(rendering, view.name)
        scores = variants(photo, rendering, mask)
        files.write_bytes(shown, encoded(dimmed(rendering, mask), self.lossless))
        files.write_bytes(
            error, encoded(dimmed(colour_map(error_map(photo, rendering, mask)), mask), self.lossless)
        )
        document = {
            "of": self._identity(run / answer),
            "variants": scores,
            "memorised": None if found is None else [found.training, found.identical],
        }
        files.write_json(facts, document)
        recalled = None if found is None else Recalled(found.training, found.identical)
        return Kept(shown, error, scores, recalled)

    def find(self, run: Path, answer: str, view: CaptureView) -> Kept | None:
        """What is kept of a rendering; None where it must be made (again).

        Raises:
            FileNotFoundError: there is no such rendering.
        """
        shown, error, facts = self._paths(run, answer, view)
        identity = self._identity(run / answer)
        try:
            document = json.loads(facts.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        if document.get("of") != identity or not (shown.is_file() and error.is_file()):
            return None
        found = document["memorised"]
        return Kept(shown, error, document["variants"], None if found is None else Recalled(*found))

    def _training_photos(self) -> TrainingPhotos:
        with self._lock:
            if self._photos is None:
                self._photos = TrainingPhotos(self._capture)
            return self._photos

    def _paths(self, run: Path, answer: str, view: CaptureView) -> tuple[Path, Path, Path]:
        # By mark: a page may be written while the run is scored at its next one.
        stem = f"{view.image_path.name.removesuffix('.png')}.{(run / answer).parent.name}"
        folder = run / FOLDER
        return folder / f"{stem}.webp", folder / f"{stem}-error.webp", folder / f"{stem}.json"

    def _identity(self, rendering: Path) -> list[Any]:
        """What tells a rendering from one that was written at its place later."""
        status = rendering.stat()
        return [
            FORMAT,
            self._capture.hash,
            self.lossless,
            str(rendering.parent.name),
            status.st_size,
            status.st_mtime_ns,
        ]


def keeping(capture: Capture) -> Keep:
    """What a task does with each rendering: keep what the page needs of it."""
    keeper = Keeper(capture)

    def keep(
        run: Path,
        answer: str,
        view: CaptureView,
        photo: np.ndarray,
        rendering: np.ndarray,
        mask: np.ndarray | None,
    ) -> None:
        # The disk is full, or a photo is damaged: no run fails for that; the page tries again, and says so.
        with contextlib.suppress(OSError, ValueError, TurntableError):
            keeper.keep(run, answer, view, photo, rendering, mask)

    return keep


def is_lossless(capture: Capture) -> bool:
    """Whether the pictures of a capture's pages are the very pixels."""
    pixels = sum(view.camera.width * view.camera.height for view in capture.held_out)
    return pixels <= LOSSLESS_MEGAPIXELS * 1e6


def colour_map(error: np.ndarray) -> np.ndarray:
    """The colours ``uint8[H, W, 3]`` of an error map ``float32[H, W]``, 0 to 1, by the page's scale, in 256 steps."""
    return _PALETTE[(np.clip(error, 0.0, 1.0) * 255).round().astype(np.uint8)]


def dimmed(picture: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """``uint8[H, W, 3]`` with the pixels dimmed where ``bool[H, W]`` is False; as it is without a mask."""
    if mask is None:
        return picture
    faint = DIM * picture + (1 - DIM) * DIM_TOWARDS
    return np.where(mask[..., None], picture, faint.round()).astype(np.uint8)


def encoded(picture: np.ndarray, lossless: bool) -> bytes:
    """``uint8[H, W, 3]`` as a WebP file; smaller where it is larger than WebP can be."""
    out = io.BytesIO()  # method 2: half of the time of the default for 3 % more bytes
    shown = Image.fromarray(picture)
    shown.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    shown.save(out, "WEBP", lossless=lossless, quality=QUALITY, method=2)
    return out.getvalue()
