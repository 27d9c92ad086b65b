"""What becomes of a photo that is passed around: encoded anew, resized, brightened."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    data = io.BytesIO()
    Image.fromarray(image).save(data, "JPEG", quality=quality)
    return np.asarray(Image.open(data).convert("RGB"))


def resized(image: np.ndarray, factor: float) -> np.ndarray:
    height, width = image.shape[:2]
    size = round(width * factor), round(height * factor)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def brightened(image: np.ndarray, factor: float, added: float = 0) -> np.ndarray:
    return (image.astype(np.float64) * factor + added).clip(0, 255).round().astype(np.uint8)


def shifted(image: np.ndarray, pixels: int) -> np.ndarray:
    """What a camera that moved to the side sees of something far away; the border is repeated."""
    return np.concatenate([np.repeat(image[:, :1], pixels, 1), image[:, : image.shape[1] - pixels]], 1)


COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "jpeg 90": lambda image: jpeg(image, 90),
    "jpeg 50": lambda image: jpeg(image, 50),
    "jpeg 20": lambda image: jpeg(image, 20),
    "half the size": lambda image: resized(image, 0.5),
    "three quarters of the size, jpeg": lambda image: jpeg(resized(image, 0.75), 75),
    "half the size and back": lambda image: resized(resized(image, 0.5), 2),
}
"""What a copy looks like whose brightness nobody changed."""

BRIGHTENED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "10 % brighter": lambda image: brightened(image, 1.1),
    "15 % darker": lambda image: brightened(image, 0.85),
    "15 grey levels brighter": lambda image: brightened(image, 1, 15),
    "10 % brighter, jpeg": lambda image: jpeg(brightened(image, 1.1), 75),
}
