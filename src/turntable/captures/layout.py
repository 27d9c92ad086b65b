"""A capture as other programs expect one, and the renderings that they leave.

A program that knows nothing of Turntable is given a folder in the flavour of nerfstudio and instant-ngp::

    <folder>/
    ├── transforms.json        the training views; the same as transforms_train.json
    ├── transforms_train.json
    ├── transforms_test.json   the held-out views: cameras alone, their photos are nowhere
    ├── images/                the training photos, PNG
    ├── masks/                 theirs, white where a pixel counts, where they have any
    └── points3D.ply           sparse points, where the capture has any

A held-out view's ``file_path`` names the file that its photo would have. Matrices are camera to world with OpenGL's
axes, pixel centres lie at half integers; no view has distortion.
"""

from __future__ import annotations

import errno
import glob
import os
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from string import Formatter
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from ..errors import TurntableError
from ..files import write_bytes, write_json
from .capture import Capture, CaptureView
from .transforms import opengl_matrix

TEST = "transforms_test.json"
"""The held-out cameras: what a program's ``{cameras}`` names."""

_TRAIN = ("transforms.json", "transforms_train.json")

_SHOWN = 3
"""How many examples a message lists: enough to see what is common to them."""

_EXACT = ("PNG", "BMP")
"""What is read, in Pillow's names: formats that can't be lossy. TIFF and WebP can be, and hide it."""


class MissingRendering(TurntableError):
    """A held-out view has no rendering, or more than one, or shares it with another."""


def write_transforms(capture: Capture, folder: Path) -> Path:
    """Lay ``capture`` out in ``folder``; one that was laid out there before is replaced.

    Photos, masks and points are hard links to the capture's where the file system allows it, else copies; never
    symbolic links, which would lead to the folder that the held-out photos lie in.

    Returns:
        ``folder``.

    Raises:
        FileExistsError: ``folder`` holds something else.
        OSError: it can't be written; nothing is left behind.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / TEST).is_file():
        raise FileExistsError(errno.EEXIST, "it holds something else than a capture's layout", str(folder))
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    _remove(aside, old)
    try:
        (aside / "images").mkdir(parents=True)
        top: dict[str, Any] = {"camera_model": "PINHOLE"}
        write_json(aside / TEST, {**top, "frames": [_frame(view) for view in capture.held_out]})
        if capture.points_path is not None:
            _link(capture.points_path, aside / "points3D.ply")
            top["ply_file_path"] = "points3D.ply"
        frames = []
        for view in capture.training:
            frames.append(frame := _frame(view))
            _link(view.image_path, aside / frame["file_path"])
            if view.mask_path is not None:
                (aside / "masks").mkdir(exist_ok=True)
                frame["mask_path"] = f"masks/{view.mask_path.name}"
                _link(view.mask_path, aside / frame["mask_path"])
        for name in _TRAIN:
            write_json(aside / name, {**top, "frames": frames})
        if folder.exists():
            folder.rename(old)
        aside.rename(folder)
    finally:
        _remove(aside, old)
    return folder


def find_renderings(pattern: str, out: Path, capture: Capture) -> dict[str, Path]:
    """The file that a program left for each held-out view.

    Args:
        pattern: ``views`` of a ``method.toml``, as :mod:`turntable.methods.spec` lets it through. ``{name}`` is the
            photo's name with its suffix (its folders' ``/`` are ``__``, as in the layout's ``images/``, where the
            file is ``{name}.png``), ``{stem}`` the same without the suffix, ``{index}`` the place among the held-out
            views, from 0; ``*`` and ``?`` stand for any characters but ``/``.
        out: the folder that the program wrote to.
        capture: whose held-out views were asked for.

    Returns:
        By the view's name, one file of its own for each.

    Raises:
        MissingRendering: a view has none or several, or two views have the same.
        TurntableError: a file lies outside of ``out``.
    """
    found: dict[str, Path] = {}
    views_of: dict[Path, str] = {}
    wrong: list[str] = []
    for index, view in enumerate(capture.held_out):
        wanted = _wanted(pattern, out, view, index)
        matches = map(Path, glob.glob(wanted))  # noqa: PTH207 (Path.glob would take hidden files too)
        files = sorted(path for path in matches if path.is_file())
        for path in files:
            _check_inside(path, out)
        if len(files) != 1:
            several = f"{len(files)}: {_listed([_below(path, out) for path in files])}"
            wrong.append(f"{view.name} ({several if files else 'none'})")
        elif (other := views_of.setdefault(files[0].resolve(), view.name)) != view.name:
            wrong.append(f"{view.name} (the same as {other}: {_below(files[0], out)})")
        else:
            found[view.name] = files[0]
    if wrong:
        raise MissingRendering(
            f"Every held-out view needs one rendering of its own at {pattern}; of {len(capture.held_out)} views "
            f"{len(wrong)} lack it: {_listed(wrong)}. {_what_is_there(pattern, out)}"
        )
    return found


def read_rendering(path: Path, width: int, height: int) -> np.ndarray:
    """A program's rendering, exactly as it stands in the file: ``uint8[H, W, 3]``; grey becomes three equal channels.

    Args:
        path: a PNG or BMP file.
        width, height: the view's size in pixels.

    Raises:
        TurntableError: it can't be read, may be lossy, has transparency, other than 8 bits a channel, or another size.
    """
    try:
        with Image.open(path) as picture:
            _check_rendering(picture, path, width, height)
            picture.load()
            return np.array(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise TurntableError(
            f"A rendering must be a whole PNG file, but {path} can't be read: {error}."
        ) from None


def _check_rendering(picture: ImageFile.ImageFile, path: Path, width: int, height: int) -> None:
    if picture.format not in _EXACT:
        raise TurntableError(
            f"A rendering must be a PNG (or BMP) file, because a lossy copy is never scored; {path} is "
            f"{picture.format}. Have the program write PNGs."
        )
    if picture.size != (width, height):
        raise TurntableError(
            f"A rendering has its view's size, {width}×{height}, but {path} is {picture.width}×{picture.height}."
        )
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        raise TurntableError(
            f"A rendering has no transparency, because a score would depend on what lies behind it; {path} is "
            f"{picture.mode} with alpha. Have the program composite onto the capture's background."
        )
    # Pillow calls 16 bits a channel RGB too, and drops the lower 8; only the raw mode (RGB;16B) tells.
    raw = " ".join(str(tile[3]) for tile in picture.tile)
    if picture.mode not in ("RGB", "L") or ";" in raw:
        raise TurntableError(
            f"A rendering has 8 bits for each of red, green and blue (or for grey), but {path} has mode "
            f"{picture.mode}, stored as {raw}. Have the program write 8-bit RGB."
        )


def _frame(view: CaptureView) -> dict[str, Any]:
    camera = view.camera
    return {
        "file_path": f"images/{view.image_path.name}",
        "fl_x": camera.fx,
        "fl_y": camera.fy,
        "cx": camera.cx,
        "cy": camera.cy,
        "w": camera.width,
        "h": camera.height,
        "transform_matrix": opengl_matrix(camera.R, camera.t).tolist(),
    }


def _link(source: Path, target: Path) -> None:
    source = source.resolve()  # a link to a link would be a symbolic one
    try:
        os.link(source, target)
    except OSError:  # another file system, one without hard links, or somebody else's file
        write_bytes(target, source.read_bytes())


def _remove(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _wanted(pattern: str, out: Path, view: CaptureView, index: int) -> str:
    """What to look for, in :mod:`glob`'s words: ``*`` and ``?`` are the pattern's own, all else is literal."""
    name = view.image_path.name.removesuffix(".png")
    values = {"out": str(out), "name": name, "stem": PurePosixPath(name).stem, "index": index}
    wanted = ""
    for literal, field, spec, _ in Formatter().parse(pattern):
        wanted += literal.replace("[", "[[]")
        if field is not None:
            wanted += glob.escape(format(values[field], spec or ""))
    return wanted


def _check_inside(path: Path, out: Path) -> None:
    if not path.resolve().is_relative_to(out.resolve()):
        raise TurntableError(f"A rendering must lie in {out}, but {path} leads to {path.resolve()}.")


def _what_is_there(pattern: str, out: Path) -> str:
    files = [path for path in sorted(out.rglob("*")) if path.is_file()]
    alike = [path for path in files if path.suffix == PurePosixPath(pattern).suffix] or files
    there = _listed([_below(path, out) for path in alike])
    return f"In {out} there is {there or 'nothing'}."


def _below(path: Path, out: Path) -> str:
    return os.path.relpath(path, out)


def _listed(items: Sequence[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more
