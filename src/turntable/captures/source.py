"""What every loader makes of a source, before any photo is undistorted or resized.

A loader is a module with::

    FORMAT: str                                    # its name for --format
    def recognise(source: Path) -> bool            # does this lie here? cheap, looks at names only
    def load(source: Path, options: SourceOptions) -> Source

Loaders convert to the house conventions (world to camera, OpenCV axes, pixel centres at half integers);
nothing after them does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class SourceCamera:
    """Intrinsics as the source gives them, in COLMAP's words.

    Args:
        model: a camera model that pycolmap knows: ``PINHOLE``, ``OPENCV``, ``OPENCV_FISHEYE`` …
        params: that model's parameters in COLMAP's order, in pixels of ``width``×``height``.
        width, height: the size, in pixels, of the photos that the parameters hold for.
    """

    model: str
    params: tuple[float, ...]
    width: int
    height: int


@dataclass(frozen=True)
class SourceView:
    """One photo with its camera.

    Args:
        name: as the source names it (its file name, with folders where that is needed to be unique).
        image_path: the photo: whatever Pillow reads, EXIF orientation not yet applied.
        camera: its intrinsics, in the photo's pixels.
        R: ``float64[3, 3]``, t: ``float64[3]``: world to camera, OpenCV axes.
        mask_path: a grey picture, bright where a pixel counts, or None.
        held_out: what the source says about the split; None where it says nothing.
        upright: where the photo has its camera's size both as EXIF says to hold it and as its pixels lie in
            the file, whether the camera is for the former.
        origin: where the photo came from, where that is not ``image_path`` (a frame of a video).
    """

    name: str
    image_path: Path
    camera: SourceCamera
    R: np.ndarray
    t: np.ndarray
    mask_path: Path | None = None
    held_out: bool | None = None
    upright: bool = True
    origin: str = ""


@dataclass(frozen=True)
class LeftOut:
    """An entry that is used nowhere, and why, in words for a person."""

    name: str
    why: str


@dataclass
class Source:
    """All that a loader found.

    Args:
        format: the loader's ``FORMAT``.
        views: usable entries; every image was there when it was looked for.
        left_out: entries named by the source that can't be used.
        points: ``float64[P, 3]``, or None where the source has no sparse points (then they are triangulated).
        point_colours: ``uint8[P, 3]``, or None.
        point_views: for each point the names of the views that saw it, or None if the source doesn't say.
            With it, points that only held-out views saw can be dropped.
        poses: how the cameras were found, in plain words and numbers, for the page.
        truth: files that are known exactly (``mesh.ply``, ``depth/<view>.npy``): name in the capture to path.
        notes: what the user should know, one sentence each.
    """

    format: str
    views: list[SourceView]
    left_out: list[LeftOut] = field(default_factory=list)
    points: np.ndarray | None = None
    point_colours: np.ndarray | None = None
    point_views: list[tuple[str, ...]] | None = None
    poses: dict[str, Any] = field(default_factory=dict)
    truth: dict[str, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Progress:
    """How a long piece of work tells how far it is: a name, done and total (0 where unknown)."""

    report: Callable[[str, int, int], None] = lambda name, done, total: None

    def __call__(self, name: str, done: int, total: int) -> None:
        self.report(name, done, total)


@dataclass(frozen=True)
class SourceOptions:
    """What a user may say about reading a source.

    Args:
        scratch: a folder for intermediate files; removed by the caller.
        seed: for everything that draws random numbers while finding poses.
        accept_poses: go on even where the gate finds the poses doubtful.
        matching: ``exhaustive``, ``sequential`` or ``auto`` (sequential for videos and many photos).
        mapper: ``incremental`` or ``global``.
        frames: how many frames to take from a video.
        images: the folder beside a COLMAP model or LLFF's poses that photos are taken from, or None for the usual one.
        progress: told how far long work is.
    """

    scratch: Path
    seed: int = 0
    accept_poses: bool = False
    matching: str = "auto"
    mapper: str = "incremental"
    frames: int = 60
    images: str | None = None
    progress: Progress = field(default_factory=Progress)
