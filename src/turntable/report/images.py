"""The page's pictures: each held-out view's photo, and each run's rendering of it with its error map.

They are for looking at; scores never come from them. Where a view has a mask, pixels that do not count are
dimmed in every picture, and the error map is that of the score: both pictures are equal there.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ..captures.capture import Capture, CaptureView
from ..errors import TurntableError
from ..files import link_or_copy
from ..tasks.renderings import read_answer
from ..tasks.views import folder_of
from .data import ReportRun
from .kept import Keeper, Kept, Recalled, dimmed, encoded


@dataclass(frozen=True)
class Picture:
    """One picture of the page: ``file`` beside ``index.html``, its size in pixels."""

    file: str
    width: int
    height: int


@dataclass(frozen=True)
class RunPictures:
    """What a run answered for one view: both pictures, or why there are none.

    ``variants`` and ``memorised`` are what was found out about the rendering: see :class:`.kept.Kept`.
    """

    rendering: Picture | None
    error_map: Picture | None
    missing: str | None = None
    variants: dict[str, float] | None = None
    memorised: Recalled | None = None


@dataclass(frozen=True)
class ViewPictures:
    """All pictures of one held-out view, by the run's id; ``counted`` is the share of pixels in the mask."""

    photo: Picture
    counted: float | None
    runs: dict[str, RunPictures]


def write_pictures(
    folder: Path, capture: Capture, runs: Sequence[ReportRun], progress: Callable[[int, int], None]
) -> tuple[dict[str, ViewPictures], bool]:
    """Write every picture of the page into ``folder/images``.

    Args:
        folder: the page's.
        capture: whose held-out views are shown.
        runs: whose renderings are looked for.
        progress: told how many views are done, of how many.

    Returns:
        The pictures by the view's name, and whether they are lossless.

    Raises:
        TurntableError: a photo of the capture is missing or damaged.
        OSError: a picture can't be written.
    """
    (folder / "images").mkdir()
    keeper = Keeper(capture)
    views = capture.held_out

    def write_view(numbered: tuple[int, CaptureView]) -> ViewPictures:
        return _write_view(folder, *numbered, runs, keeper)

    found: dict[str, ViewPictures] = {}
    progress(0, len(views))
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        try:
            for view, pictures in zip(views, pool.map(write_view, enumerate(views)), strict=True):
                found[view.name] = pictures
                progress(len(found), len(views))
        except BaseException:  # Ctrl-C must not wait for all the rest
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return found, keeper.lossless


def _write_view(
    folder: Path, index: int, view: CaptureView, runs: Sequence[ReportRun], keeper: Keeper
) -> ViewPictures:
    try:
        photo, mask = view.image(), view.mask()
    except (OSError, ValueError) as error:
        raise TurntableError(
            f"The photo of view {view.name!r} can't be read ({error}); add the capture again, then its page."
        ) from None
    size = view.camera.width, view.camera.height
    stem = f"images/{index:04d}"
    answers: dict[str, RunPictures] = {}
    for run in runs:
        path = run.views_folder / view.image_path.name
        run_folder = folder_of(run.views_folder)
        answer = path.relative_to(run_folder).as_posix()
        try:
            kept = keeper.find(run_folder, answer, view)
            if kept is None:
                kept = keeper.keep(
                    run_folder, answer, view, photo, read_answer(run_folder, answer, *size), mask
                )
        except FileNotFoundError:
            answers[run.id] = RunPictures(None, None, f"there is no file {path.name}")
        except ValueError as error:
            answers[run.id] = RunPictures(None, None, f"its file can't be shown ({error})")
        else:
            answers[run.id] = _put(folder, f"{stem}-{picture_key(run)}", kept, *size)
    (folder / f"{stem}-photo.webp").write_bytes(encoded(dimmed(photo, mask), keeper.lossless))
    return ViewPictures(
        photo=Picture(f"{stem}-photo.webp", *size),
        counted=None if mask is None else float(mask.mean()),
        runs=answers,
    )


def picture_key(run: ReportRun) -> str:
    """What files of a run are called on a page: nothing that another run's, or its own of another mark, ever are called.

    A page that is open while it is written again must not show one method's picture under another's name.
    """
    return hashlib.sha256(f"{run.id} {run.views_folder.name}".encode()).hexdigest()[:12]


def _put(folder: Path, stem: str, kept: Kept, width: int, height: int) -> RunPictures:
    link_or_copy(kept.rendering, folder / f"{stem}.webp")
    link_or_copy(kept.error_map, folder / f"{stem}-error.webp")
    return RunPictures(
        Picture(f"{stem}.webp", width, height),
        Picture(f"{stem}-error.webp", width, height),
        variants=kept.variants,
        memorised=kept.memorised,
    )
