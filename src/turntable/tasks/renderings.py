"""The renderings that a program of its own leaves: found by a pattern, and read only where they are exact."""

from __future__ import annotations

import glob
import os
import struct
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from string import Formatter

import numpy as np
from PIL import Image, ImageFile

from ..captures.capture import Capture, CaptureView
from ..errors import TurntableError
from ..files import open_beneath
from ..worker.png import decode_png

_SHOWN = 3
"""How many examples a message lists: enough to see what is common to them."""

_EXACT = ("PNG", "BMP")
"""What is read, in Pillow's names: formats that can't be lossy. TIFF and WebP can be, and hide it."""


class MissingRendering(TurntableError):
    """A held-out view has no rendering, or more than one, or shares it with another."""


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


def read_answer(run: Path, name: str, width: int, height: int) -> np.ndarray:
    """A rendering that a worker left in its run's folder, ``uint8[H, W, 3]`` (or grey).

    The method may have put anything there: what isn't a plain file of this size is refused, links above all, since one
    could lead to the very photo that was held out.

    Args:
        run: the run's folder.
        name: the file's path inside of it.
        width, height: the view's size in pixels.

    Raises:
        ValueError: it isn't a whole PNG file of this size.
        FileNotFoundError: it is missing.
    """
    most = 4 * width * height + (1 << 20)  # more than any PNG of so many pixels needs
    try:
        with open_beneath(run, name) as file:
            data = file.read(most + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"{name} is no plain file ({error.strerror})") from None
    if len(data) > most:
        raise ValueError(f"{name} is larger than any picture of {width}×{height} pixels")
    if data.startswith(b"\x89PNG") and len(data) >= 24:
        wide, high = struct.unpack(">II", data[16:24])
        if (wide, high) != (width, height):
            raise ValueError(f"{name} is {wide}×{high}, and should be {width}×{height}")
    return decode_png(data, name)


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
