"""From a source's photo to a capture's: upright, composited, undistorted, and resized once.

The order: EXIF orientation; alpha onto the background at full size; undistortion to a pinhole camera, cropped
so that no invented pixel is left (where a lens leaves one all the same, a mask says that it doesn't count);
then one resize with an area filter (every source pixel counts by the area that it covers).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
from PIL import Image, UnidentifiedImageError

from ..worker.contract import Camera
from .cameras import pinhole, resized
from .source import SourceCamera, SourceView

PICTURES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".heic", ".heif"}

SSIM_BORDER = 5
"""Pixels: nearer to the border no whole SSIM window has its centre."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What EXIF's orientation asks for, by its number (Exif 2.32, 4.6.4.A)."""

SMALLEST_SIDE = 16
"""Pixels; below this no SSIM window has room to move."""

pillow_heif.register_heif_opener()  # phones' photos
Image.MAX_IMAGE_PIXELS = 400_000_000  # Pillow's own limit of 89 megapixels refuses photos of today's cameras


class Unusable(Exception):
    """This photo can't be used; the message says why, for a person."""


@dataclass(frozen=True)
class Prepared:
    """A photo ready for a capture.

    Args:
        image: ``uint8[H, W, 3]``.
        mask: ``uint8[H, W]``, 0 or 255, or None.
        camera: pinhole, for this size.
        has_alpha: whether the photo had transparency.
        original: its upright size in pixels before anything.
    """

    image: np.ndarray
    mask: np.ndarray | None
    camera: Camera
    has_alpha: bool
    original: tuple[int, int]


def is_picture(path: Path) -> bool:
    """Whether a file is a photo by its name; what begins with a dot is some system's shadow of one."""
    return path.suffix.lower() in PICTURES and not path.name.startswith(".")


def upright_size(path: Path) -> tuple[int, int] | None:
    """Width and height of a picture held as EXIF says, from its header; None if it can't be read."""
    if (found := _size_and_turn(path)) is None:
        return None
    (width, height), turned = found
    return (height, width) if turned else (width, height)


def size_in_file(path: Path) -> tuple[int, int] | None:
    """Width and height of a picture as its pixels lie in the file, from its header; None if it can't be read."""
    found = _size_and_turn(path)
    return None if found is None else found[0]


def _size_and_turn(path: Path) -> tuple[tuple[int, int], bool] | None:
    try:
        with Image.open(path) as picture:
            return picture.size, picture.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def read_rgba(path: Path, size: tuple[int, int] | None = None, upright: bool = True) -> np.ndarray:
    """A picture: ``uint8[H, W, 3]``, or ``uint8[H, W, 4]`` where it has transparency.

    Args:
        path: whatever Pillow reads: 8 or 16 bits, grey, palette, CMYK …
        size: width and height in pixels that decide how the picture is held, where only one way gives them.
        upright: else, whether it is held as its EXIF orientation says, or as its pixels lie in the file.

    Raises:
        Unusable: it is missing, unreadable, or cut short, or has no 8- or 16-bit pixels.
    """
    try:
        with Image.open(path) as picture:
            picture.load()
            held = _hold(picture, size, upright)
    except FileNotFoundError:
        raise Unusable("the file is missing") from None
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise Unusable(f"the file can't be read: {error}") from None
    if held.mode.startswith("I"):  # 16 bits a pixel: Pillow's own conversion to 8 clips instead of scaling
        values = np.asarray(held).astype(np.float64)
        if values.min() < 0 or values.max() > 65535:
            raise Unusable("its pixels have 32 bits; only 8 and 16 are read")
        return np.repeat((values / 257).round().astype(np.uint8)[..., None], 3, axis=2)
    if held.mode == "F":
        raise Unusable("its pixels are floating-point numbers; only 8 and 16 bits are read")
    alpha = held.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in held.info
    return np.asarray(held.convert("RGBA" if alpha else "RGB"))


def _hold(picture: Image.Image, size: tuple[int, int] | None, upright: bool) -> Image.Image:
    # Not ImageOps.exif_transpose: it writes EXIF anew, which fails on photos whose EXIF is slightly broken.
    turn = _TURNS.get(picture.getexif().get(0x0112, 1))
    turned = picture if turn is None else picture.transpose(turn)
    first, second = (turned, picture) if upright else (picture, turned)
    return second if size is not None and first.size != size and second.size == size else first


def composite(rgba: np.ndarray, background: tuple[float, float, float]) -> np.ndarray:
    """``uint8[H, W, 3]``: colour over ``background`` (sRGB in [0, 1]), mixed in sRGB as NeRF-synthetic is."""
    alpha = rgba[..., 3:].astype(np.float32) / np.float32(255)
    under = np.array(background, np.float32) * np.float32(255)
    mixed = rgba[..., :3] * alpha + under * (1 - alpha)
    return (mixed + np.float32(0.5)).astype(np.uint8)


def prepare(view: SourceView, background: tuple[float, float, float], long_side: int | None) -> Prepared:
    """Make a capture's photo of a source's.

    Raises:
        Unusable: missing, unreadable, of another shape than its camera says, or too small.
    """
    pixels = read_rgba(view.image_path, (view.camera.width, view.camera.height), view.upright)
    height, width = pixels.shape[:2]
    if (width, height) != (view.camera.width, view.camera.height):
        raise Unusable(
            f"the picture is {width}×{height}, but its camera says {view.camera.width}×{view.camera.height}"
        )
    has_alpha = pixels.shape[2] == 4 and bool((pixels[..., 3] < 255).any())
    image = composite(pixels, background) if pixels.shape[2] == 4 else pixels
    mask = _read_mask(view, width, height)
    camera = pinhole(view.camera, view.R, view.t)
    if camera is None:
        image, mask, camera = _undistort(view, image, mask)
    new_width, new_height = target_size(camera.width, camera.height, long_side)
    if min(new_width, new_height) < SMALLEST_SIDE:
        raise Unusable(
            f"{new_width}×{new_height} is too small: each side must have at least {SMALLEST_SIDE} pixels"
        )
    if (new_width, new_height) != (camera.width, camera.height):
        image = _resize(image, new_width, new_height)
        mask = None if mask is None else _resize(mask, new_width, new_height)
    if mask is not None:
        # A pixel counts only where it is wholly inside: one mixed from both sides is right for neither.
        mask = np.where(mask >= 250, 255, 0).astype(np.uint8)
        if not mask[SSIM_BORDER:-SSIM_BORDER, SSIM_BORDER:-SSIM_BORDER].any():
            raise Unusable(
                f"at this size its mask counts no pixel {SSIM_BORDER} or more from the border, as SSIM needs"
            )
    return Prepared(image, mask, resized(camera, new_width, new_height), has_alpha, (width, height))


def target_size(width: int, height: int, long_side: int | None) -> tuple[int, int]:
    """The size with ``long_side`` pixels as its longer side, the shorter one rounded; never larger."""
    if long_side is None or max(width, height) <= long_side:
        return width, height
    scale = long_side / max(width, height)
    return max(1, math.floor(width * scale + 0.5)), max(1, math.floor(height * scale + 0.5))


def _resize(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize with an area filter, to the nearest 8-bit value.

    Pillow's BOX isn't one: it takes or leaves whole pixels, which at a ratio like 2.5 shifts every other
    pixel by a quarter of a source pixel."""
    rows = _area(pixels.reshape(pixels.shape[0], -1), height).reshape(height, *pixels.shape[1:])
    columns = _area(np.swapaxes(rows, 0, 1).reshape(pixels.shape[1], -1), width)
    pixels = np.swapaxes(columns.reshape(width, height, *pixels.shape[2:]), 0, 1)
    return (pixels + 0.5).astype(np.uint8)


def _area(values: np.ndarray, count: int) -> np.ndarray:
    """The means of ``values``, ``[N, …]``, over ``count`` ≤ N equal stretches of its first axis: ``float64``.

    The integral of the pixels, each constant over its own width, is a running sum with straight lines
    between.
    """
    length = len(values)
    edges = np.arange(count + 1) * (length / count)
    whole = np.minimum(edges.astype(np.int64), length - 1)
    exact = np.float64 if values.dtype.kind == "f" else np.int32
    sums = np.zeros((length, *values.shape[1:]), exact)
    np.cumsum(values[:-1], axis=0, out=sums[1:])
    integral = sums[whole] + (edges - whole)[:, None] * values[whole]
    return np.diff(integral, axis=0) * (count / length)


def _read_mask(view: SourceView, width: int, height: int) -> np.ndarray | None:
    if view.mask_path is None:
        return None
    try:
        mask = read_rgba(view.mask_path, (width, height), view.upright)
    except Unusable as error:
        raise Unusable(f"its mask {view.mask_path.name}: {error}") from None
    if mask.shape[:2] != (height, width):
        raise Unusable(f"its mask is {mask.shape[1]}×{mask.shape[0]}, the picture {width}×{height}")
    bright = mask[..., :3].max(2)
    if not (bright > 127).any():
        raise Unusable("its mask counts no pixel")
    return np.where(bright > 127, 255, 0).astype(np.uint8)


def _undistort(
    view: SourceView, image: np.ndarray, mask: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None, Camera]:
    try:
        straight, model = _straighten(view.camera, image)
        seen = _seen(view.camera)
    except (ValueError, RuntimeError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Unusable(f"a {view.camera.model} camera like this one can't be undistorted ({first})") from None
    fx, fy, cx, cy = model.params
    camera = Camera(model.width, model.height, fx, fy, cx, cy, view.R, view.t)
    if mask is not None:
        mask = _straighten(view.camera, np.repeat(mask[..., None], 3, axis=2))[0][..., 0]
    if seen is not None:
        mask = seen if mask is None else np.minimum(mask, seen)
    return straight, mask, camera


def _straighten(camera: SourceCamera, image: np.ndarray) -> tuple[np.ndarray, Any]:
    import pycolmap

    options = pycolmap.UndistortCameraOptions()  # blank_pixels is 0: cropped until every pixel was seen
    bitmap = pycolmap.Bitmap.from_array(np.ascontiguousarray(image))
    straight, model = pycolmap.undistort_image(options, bitmap, as_pycolmap(camera))
    return straight.to_array(), model


@lru_cache(maxsize=4)
def _seen(camera: SourceCamera) -> np.ndarray | None:
    """``uint8[H, W]``, 255 where the undistorted picture shows what the photo saw; None if everywhere.

    pycolmap crops by following the photo's border; with strong tangential or prism terms single pixels stay
    blank.
    """
    white = np.full((camera.height, camera.width, 3), 255, np.uint8)
    straight = _straighten(camera, white)[0][..., 0]
    return None if (straight == 255).all() else np.where(straight == 255, 255, 0).astype(np.uint8)


def as_pycolmap(camera: SourceCamera) -> Any:
    """The camera as pycolmap has it."""
    import pycolmap

    return pycolmap.Camera(
        model=camera.model, width=camera.width, height=camera.height, params=list(camera.params)
    )
