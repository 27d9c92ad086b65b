"""Middlebury multi-view stereo: ``<name>_par.txt``, a line ``photo K R t`` each.

Poses are world to camera with OpenCV's axes. ``K [R t]`` gives pixel indices, pixel 0's centre being 0, as is
usual where calibration comes from detected corners; the house's pixel centres lie at half integers, so half a
pixel is added to the principal point.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import TurntableError
from .cameras import check_intrinsics, nearest_rotation
from .images import upright_size
from .source import LeftOut, Source, SourceCamera, SourceOptions, SourceView

FORMAT = "middlebury"


def recognise(source: Path) -> bool:
    """Whether the folder has a ``*_par.txt``."""
    return source.is_dir() and any(source.glob("*_par.txt"))


def load(source: Path, options: SourceOptions) -> Source:
    """Read every line.

    Raises:
        TurntableError: a line that isn't a name and 21 numbers, a skewed or impossible camera.
    """
    files = source_files(source)
    if len(files) != 1:
        raise TurntableError(f"A Middlebury source needs exactly one *_par.txt; {source} has {len(files)}.")
    path = files[0]
    lines = [line.split() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    if not lines or len(lines[0]) != 1 or not lines[0][0].isdigit() or int(lines[0][0]) != len(lines) - 1:
        raise TurntableError(
            f"{path.name} must begin with the number of its lines; it has {len(lines) - 1} after the first."
        )
    loaded = Source(FORMAT, [], poses={"from": path.name})
    for words in lines[1:]:
        what = f"{path.name}: the line of {words[0]}"
        try:
            numbers = np.array([float(word) for word in words[1:]])
        except ValueError:
            numbers = np.zeros(0)
        if numbers.size != 21:
            raise TurntableError(
                f"{what} must be a name and 21 numbers (K, R, t); {len(words) - 1} words follow the name."
            )
        k, rotation, t = numbers[:9].reshape(3, 3), numbers[9:18].reshape(3, 3), numbers[18:]
        photo = source / words[0]
        size = upright_size(photo)
        if size is None:
            why = "the file is no picture that can be read" if photo.is_file() else "the file is missing"
            loaded.left_out.append(LeftOut(words[0], why))
            continue
        if abs(k[0, 1]) > 1e-6 * abs(k[0, 0]):
            raise TurntableError(f"{what}: pixels must not be skewed, but K[0,1] is {k[0, 1]}.")
        camera = SourceCamera("PINHOLE", (k[0, 0], k[1, 1], k[0, 2] + 0.5, k[1, 2] + 0.5), *size)
        check_intrinsics(camera, what)
        if not np.isfinite(t).all():
            raise TurntableError(
                f"{what} must hold finite numbers, but has NaN or infinity. Mend or remove that entry."
            )
        loaded.views.append(SourceView(words[0], photo, camera, nearest_rotation(rotation, what), t))
    return loaded


def source_files(source: Path) -> list[Path]:
    """The files besides the photos that the capture depends on."""
    return sorted(source.glob("*_par.txt"))
