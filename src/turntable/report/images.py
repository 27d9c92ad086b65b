"""The page's pictures: each held-out view's photo, and each run's rendering of it with its error map.

They are for looking at; scores never come from them. Where a view has a mask, pixels that do not count are
dimmed in every picture, and the error map is that of the score: both pictures are equal there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from plotly.colors import sequential

from ..captures.capture import CaptureView
from ..errors import TurntableError
from ..tasks.metrics import flip_map
from ..tasks.renderings import read_answer
from ..tasks.views import folder_of
from .data import ReportRun

LOSSLESS_MEGAPIXELS = 20.0
"""Up to this much in all its pictures a page is lossless. Photos take about 1.2 bytes a pixel as lossless
WebP, so that such a page stays under about 25 MB, which can still be sent by mail."""

QUALITY = 90
"""WebP's, for larger pages: a seventh of the bytes, and no difference that an eye finds at pixel scale."""

DIM = 0.3
"""How much is left of a pixel that the mask does not count: what it shows can still be made out."""

DIM_TOWARDS = 128.0
"""The grey that those pixels go towards, so that they stand out from dark and from light pictures alike."""

_STOPS = np.array([[int(stop[i : i + 2], 16) for i in (1, 3, 5)] for stop in sequential.Magma], np.float64)
SCALE_COLOURS: tuple[str, ...] = tuple(sequential.Magma)
"""The error maps' colours from 0 to 1, evenly spaced, linear in between: for the page's legend."""


@dataclass(frozen=True)
class Picture:
    """One picture of the page: ``file`` beside ``index.html``, its size in pixels."""

    file: str
    width: int
    height: int


@dataclass(frozen=True)
class RunPictures:
    """What a run answered for one view: both pictures, or why there are none."""

    rendering: Picture | None
    error_map: Picture | None
    missing: str | None = None


@dataclass(frozen=True)
class ViewPictures:
    """All pictures of one held-out view, by the run's id; ``counted`` is the share of pixels in the mask."""

    photo: Picture
    counted: float | None
    runs: dict[str, RunPictures]


def write_pictures(
    folder: Path,
    views: Sequence[CaptureView],
    runs: Sequence[ReportRun],
    progress: Callable[[int, int], None],
) -> tuple[dict[str, ViewPictures], bool]:
    """Write every picture of the page into ``folder/images``.

    Args:
        folder: the page's.
        views: the held-out views.
        runs: whose renderings are looked for.
        progress: told how many views are done, of how many.

    Returns:
        The pictures by the view's name, and whether they are lossless.

    Raises:
        TurntableError: a photo of the capture is missing or damaged.
        OSError: a picture can't be written.
    """
    (folder / "images").mkdir()
    lossless = _megapixels(views, runs) <= LOSSLESS_MEGAPIXELS

    def write_view(numbered: tuple[int, CaptureView]) -> ViewPictures:
        return _write_view(folder, *numbered, runs, lossless)

    found: dict[str, ViewPictures] = {}
    progress(0, len(views))
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for view, pictures in zip(views, pool.map(write_view, enumerate(views)), strict=True):
            found[view.name] = pictures
            progress(len(found), len(views))
    return found, lossless


def colour_map(error: np.ndarray) -> np.ndarray:
    """The colours ``uint8[H, W, 3]`` of an error map ``float32[H, W]``, 0 to 1, by the page's scale."""
    position = np.clip(error, 0.0, 1.0) * (len(_STOPS) - 1)
    return (
        np.stack(
            [np.interp(position, np.arange(len(_STOPS)), _STOPS[:, channel]) for channel in range(3)], axis=-1
        )
        .round()
        .astype(np.uint8)
    )


def dimmed(picture: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """``uint8[H, W, 3]`` with the pixels dimmed where ``bool[H, W]`` is False; as it is without a mask."""
    if mask is None:
        return picture
    faint = DIM * picture + (1 - DIM) * DIM_TOWARDS
    return np.where(mask[..., None], picture, faint.round()).astype(np.uint8)


def _write_view(
    folder: Path, index: int, view: CaptureView, runs: Sequence[ReportRun], lossless: bool
) -> ViewPictures:
    try:
        photo, mask = view.image(), view.mask()
    except (OSError, ValueError) as error:
        raise TurntableError(
            f"The photo of view {view.name!r} can't be read ({error}); add the capture again, then its page."
        ) from None
    stem = f"images/{index:04d}"
    answers: dict[str, RunPictures] = {}
    for number, run in enumerate(runs):
        path = run.views_folder / view.image_path.name
        try:
            run_folder = folder_of(run.views_folder)
            size = view.camera.width, view.camera.height
            rendering = read_answer(run_folder, path.relative_to(run_folder).as_posix(), *size)
            error = flip_map(*_equal_outside(photo, rendering, mask))
        except FileNotFoundError:
            answers[run.id] = RunPictures(None, None, f"there is no file {path.name}")
        except (OSError, ValueError) as error:
            answers[run.id] = RunPictures(None, None, f"its file can't be shown ({error})")
        else:
            answers[run.id] = RunPictures(
                _write(folder, f"{stem}-run{number}.webp", dimmed(rendering, mask), lossless),
                _write(folder, f"{stem}-run{number}-error.webp", dimmed(colour_map(error), mask), lossless),
            )
    return ViewPictures(
        photo=_write(folder, f"{stem}-photo.webp", dimmed(photo, mask), lossless),
        counted=None if mask is None else float(mask.mean()),
        runs=answers,
    )


def _equal_outside(
    photo: np.ndarray, rendering: np.ndarray, mask: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Both pictures as the score compares them: mid-grey wherever the mask does not count."""
    if photo.shape != rendering.shape:
        raise ValueError(f"it is {_size(rendering)} pixels, the photo {_size(photo)}")
    if mask is None:
        return photo, rendering
    grey = np.uint8(128)
    return np.where(mask[..., None], photo, grey), np.where(mask[..., None], rendering, grey)


def _size(picture: np.ndarray) -> str:
    return "×".join(map(str, (picture.shape[1], picture.shape[0], *picture.shape[2:])))


def _write(folder: Path, file: str, picture: np.ndarray, lossless: bool) -> Picture:
    height, width = picture.shape[:2]
    with (folder / file).open("wb") as out:  # method 2: half of the time of the default for 3 % more bytes
        Image.fromarray(picture).save(out, "WEBP", lossless=lossless, quality=QUALITY, method=2)
    return Picture(file, width, height)


def _megapixels(views: Sequence[CaptureView], runs: Sequence[ReportRun]) -> float:
    each = 1 + 2 * sum(1 for run in runs if run.views_folder.is_dir())
    return sum(view.camera.width * view.camera.height for view in views) * each / 1e6
