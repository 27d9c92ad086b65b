"""LLFF's ``poses_bounds.npy``: one row of 17 numbers a photo, in the order of the photos' names.

A row is a 3×5 matrix ``[axes | centre | (height, width, focal)]`` and two depth bounds. The axes are camera
to world, in the order down, right, backward (LLFF's own; see its README, "Using your own poses"). The
principal point is the photo's centre, so pixel centres lie at half integers. Photos may be a uniform scaling
of what a row says.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import TurntableError
from .cameras import check_intrinsics, world_to_camera
from .images import is_picture, upright_size
from .source import LeftOut, Source, SourceCamera, SourceOptions, SourceView

FORMAT = "llff"

_FOLDERS = ("images", "images_2", "images_4", "images_8")


def recognise(source: Path) -> bool:
    """Whether the folder has a ``poses_bounds.npy``."""
    return source.is_dir() and (source / "poses_bounds.npy").is_file()


def load(source: Path, options: SourceOptions) -> Source:
    """Read the poses; photos are the largest of ``images``, ``images_2``, ``images_4``, ``images_8``.

    Raises:
        TurntableError: not such an array, or another number of photos than of poses.
    """
    path = source / "poses_bounds.npy"
    try:
        rows = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise TurntableError(f"{path} can't be read: {error}.") from None
    if rows.ndim != 2 or rows.shape[1] != 17 or rows.dtype.kind != "f":
        raise TurntableError(f"{path} must be float[N, 17], not {rows.dtype}{list(rows.shape)}.")
    wanted = _FOLDERS if options.images is None else (options.images,)
    folder = next((source / name for name in wanted if (source / name).is_dir()), source)
    if options.images is not None and folder == source:
        raise TurntableError(f"--images {options.images}: there is no such folder in {source}.")
    photos = sorted(photo for photo in folder.iterdir() if is_picture(photo))
    if len(photos) != len(rows):
        raise TurntableError(
            f"{path.name} has {len(rows)} poses, but {folder} has {len(photos)} photos; they belong together "
            "by order, so the numbers must be equal."
        )
    loaded = Source(FORMAT, [], poses={"from": "poses_bounds.npy"})
    for photo, row in zip(photos, rows.astype(np.float64), strict=True):
        what = f"{path.name}: pose of {photo.name}"
        matrix = row[:15].reshape(3, 5)
        down, right, backward, centre = matrix[:, 0], matrix[:, 1], matrix[:, 2], matrix[:, 3]
        rotation, translation = world_to_camera(np.stack([right, down, -backward], 1), centre, what)
        size = upright_size(photo)
        if size is None:
            loaded.left_out.append(LeftOut(photo.name, "the file is no picture that can be read"))
            continue
        camera = _camera(matrix[:, 4], size, what)
        if camera is None:
            shape = f"{matrix[1, 4]:g}×{matrix[0, 4]:g}"
            why = f"the picture is {size[0]}×{size[1]}, no uniform scaling of the {shape} of its pose"
            loaded.left_out.append(LeftOut(photo.name, why))
            continue
        loaded.views.append(SourceView(photo.name, photo, camera, rotation, translation))
    return loaded


def source_files(source: Path) -> list[Path]:
    """The files besides the photos that the capture depends on."""
    return [source / "poses_bounds.npy"]


def _camera(hwf: np.ndarray, size: tuple[int, int], what: str) -> SourceCamera | None:
    """The camera for a photo of ``size``; None if that is no uniform scaling of what the pose says."""
    height, width, focal = (float(number) for number in hwf)
    if not (np.isfinite(hwf).all() and min(height, width, focal) > 0):
        raise TurntableError(
            f"{what}: height, width and focal length must be positive numbers, not {hwf.tolist()}."
        )
    scale = size[0] / width
    if abs(height * scale - size[1]) > 1.0:  # a pixel of rounding on the shorter side is usual
        return None
    focals = (focal * scale, focal * size[1] / height)
    camera = SourceCamera("PINHOLE", (*focals, size[0] / 2, size[1] / 2), *size)
    check_intrinsics(camera, what)
    return camera
