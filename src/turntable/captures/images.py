"""From a source's photo to a capture's: upright, composited, undistorted, and resized once.

The order: EXIF orientation; alpha onto the background at full size; undistortion to a pinhole camera, cropped so that no
invented pixel is left; then one resize with an area filter (every source pixel counts by the area it covers).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..worker.contract import Camera
from .cameras import pinhole, resized
from .source import SourceCamera, SourceView

SMALLEST_SIDE = 16
"""Pixels; below this no SSIM window has room to move."""

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


def upright_size(path: Path) -> tuple[int, int] | None:
    """Width and height of a picture as EXIF says it is to be held, from its header; None if it can't be read."""
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            turned = picture.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    return (height, width) if turned else (width, height)


def read_rgba(path: Path) -> np.ndarray:
    """A picture, upright: ``uint8[H, W, 3]``, or ``uint8[H, W, 4]`` where it has transparency.

    Raises:
        Unusable: it is missing, unreadable, or cut short.
    """
    try:
        with Image.open(path) as picture:
            picture.load()
            upright = ImageOps.exif_transpose(picture)
    except FileNotFoundError:
        raise Unusable("the file is missing") from None
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise Unusable(f"the file can't be read: {error}") from None
    if upright.mode.startswith("I") or upright.mode == "F":  # 16 bits a pixel: Pillow's own conversion clips
        values = np.asarray(upright, np.float64)
        grey = (values / 257 if values.max() > 255 else values).round().clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    alpha = upright.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in upright.info
    return np.asarray(upright.convert("RGBA" if alpha else "RGB"))


def composite(rgba: np.ndarray, background: tuple[float, float, float]) -> np.ndarray:
    """``uint8[H, W, 3]``: colour over ``background`` (sRGB in [0, 1]), mixed in sRGB as NeRF-synthetic's protocol does."""
    alpha = rgba[..., 3:].astype(np.float32) / np.float32(255)
    under = np.array(background, np.float32) * np.float32(255)
    mixed = rgba[..., :3] * alpha + under * (1 - alpha)
    return (mixed + np.float32(0.5)).astype(np.uint8)


def prepare(view: SourceView, background: tuple[float, float, float], long_side: int | None) -> Prepared:
    """Make a capture's photo of a source's.

    Raises:
        Unusable: missing, unreadable, of another shape than its camera says, or too small.
    """
    pixels = read_rgba(view.image_path)
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
        raise Unusable(f"{new_width}×{new_height} is too small: each side must have at least {SMALLEST_SIDE} pixels")
    if (new_width, new_height) != (camera.width, camera.height):
        image = _resize(image, new_width, new_height)
        mask = None if mask is None else _resize(mask, new_width, new_height)
    if mask is not None:
        # A pixel counts only where it is wholly inside: one mixed from both sides is right for neither.
        mask = np.where(mask >= 250, 255, 0).astype(np.uint8)
    return Prepared(image, mask, resized(camera, new_width, new_height), has_alpha, (width, height))


def target_size(width: int, height: int, long_side: int | None) -> tuple[int, int]:
    """The size in pixels with ``long_side`` as its longer side, and the nearest whole shorter one; never larger."""
    if long_side is None or max(width, height) <= long_side:
        return width, height
    scale = long_side / max(width, height)
    return max(1, math.floor(width * scale + 0.5)), max(1, math.floor(height * scale + 0.5))


def _resize(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX))


def _read_mask(view: SourceView, width: int, height: int) -> np.ndarray | None:
    if view.mask_path is None:
        return None
    try:
        mask = read_rgba(view.mask_path)
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
    import pycolmap

    distorted = as_pycolmap(view.camera)
    options = pycolmap.UndistortCameraOptions()  # blank_pixels is 0: cropped until every pixel was seen
    straight, model = pycolmap.undistort_image(options, pycolmap.Bitmap.from_array(np.ascontiguousarray(image)), distorted)
    fx, fy, cx, cy = model.params
    camera = Camera(model.width, model.height, fx, fy, cx, cy, view.R, view.t)
    if mask is not None:
        bitmap = pycolmap.Bitmap.from_array(np.repeat(mask[..., None], 3, axis=2))
        mask = pycolmap.undistort_image(options, bitmap, distorted)[0].to_array()[..., 0]
    return straight.to_array(), mask, camera


def as_pycolmap(camera: SourceCamera) -> Any:
    """The camera as pycolmap has it."""
    import pycolmap

    return pycolmap.Camera(model=camera.model, width=camera.width, height=camera.height, params=list(camera.params))
