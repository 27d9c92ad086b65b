"""Peak signal-to-noise ratio."""

from __future__ import annotations

import math

import numpy as np

IDENTICAL_DB = 150.0
"""What identical pictures count as: their PSNR is infinite, which neither JSON nor a mean can hold. One step
of one channel in a picture of 100 megapixels is 133 dB, so no other pair comes near."""

DEFINITION = (
    "PSNR in dB per view: −10 log10 of the mean squared error over pixels and channels, sRGB values of 8-bit "
    "pictures scaled to [0, 1]; under a mask over the mask's pixels alone; identical pictures count as "
    "150 dB."
)


def psnr(photo: np.ndarray, rendering: np.ndarray, mask: np.ndarray | None = None) -> float:
    """PSNR in dB of two ``uint8[H, W, 3]``, under ``bool[H, W]`` where given.

    Raises:
        ValueError: the shapes differ, or the mask counts no pixel.
    """
    if photo.shape != rendering.shape:
        raise ValueError(f"pictures of one shape are compared, not {photo.shape} and {rendering.shape}")
    difference = photo.astype(np.int32) - rendering.astype(np.int32)
    if mask is not None:
        difference = difference[mask]
    if difference.size == 0:
        raise ValueError("the mask counts no pixel")
    mean_squared_error = float(np.mean(np.square(difference), dtype=np.float64)) / 255**2
    return IDENTICAL_DB if mean_squared_error == 0 else -10 * math.log10(mean_squared_error)
