"""Structural similarity (Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment", 2004, eq. 13).

Edges: a window that reaches over the picture's edge would need invented pixels. Implementations differ in
what they invent (the original 3DGS pads with zeros; torchmetrics and scikit-image reflect) and in whether
they average it in (torchmetrics 1.9 does) or crop it (scikit-image does). Here only windows that lie wholly
inside count, as in the original paper: the map is 10 pixels smaller along each side. scikit-image agrees
where it is told the window, the range and population variances, none of which is its default; torchmetrics
agrees where it is told the range and its map is cropped by 5 pixels on every side.
"""

from __future__ import annotations

import numpy as np

WINDOW = 11
SIGMA = 1.5
K1, K2 = 0.01, 0.03

DEFINITION = (
    "SSIM per view: Gaussian window 11×11, σ 1.5, K1 0.01, K2 0.03, range 1, population variances, per RGB "
    "channel on 8-bit sRGB values; mean over channels and over the windows that lie wholly inside the "
    "picture; under a mask over those whose centre it counts, with the rendering taken to be the photo outside of it."
)


def _window() -> np.ndarray:
    offsets = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-(offsets**2) / (2 * SIGMA**2))
    return weights / weights.sum()


def _blur(planes: np.ndarray) -> np.ndarray:
    """The Gaussian mean of every whole window of ``[H, W, …]``: ``[H − 10, W − 10, …]``."""
    weights = _window()
    height, width = planes.shape[0] - WINDOW + 1, planes.shape[1] - WINDOW + 1
    rows = sum(weight * planes[i : i + height] for i, weight in enumerate(weights))
    return sum(weight * rows[:, i : i + width] for i, weight in enumerate(weights))  # type: ignore[index, return-value]


def ssim_map(photo: np.ndarray, rendering: np.ndarray) -> np.ndarray:
    """SSIM of every whole window, ``float64[H − 10, W − 10, 3]``, of two ``uint8[H, W, 3]``.

    Raises:
        ValueError: the shapes differ, or a side is shorter than the window's 11 pixels.
    """
    if photo.shape != rendering.shape:
        raise ValueError(f"pictures of one shape are compared, not {photo.shape} and {rendering.shape}")
    if min(photo.shape[:2]) < WINDOW:
        raise ValueError(f"SSIM needs pictures of at least {WINDOW}×{WINDOW} pixels, not {photo.shape[:2]}")
    x, y = photo / 255.0, rendering / 255.0
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x = _blur(x * x) - mean_x**2
    variance_y = _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = K1**2, K2**2
    numerator = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return numerator / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))


def ssim(photo: np.ndarray, rendering: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Mean SSIM of two ``uint8[H, W, 3]``, under ``bool[H, W]`` where given.

    Raises:
        ValueError: as :func:`ssim_map`, or the mask counts the centre of no whole window.
    """
    if mask is not None:
        # Windows reach beyond the mask; there the rendering is taken to be the photo, so that nothing it shows there counts.
        rendering = np.where(mask[..., None], rendering, photo)
    values = ssim_map(photo, rendering)
    if mask is not None:
        border = WINDOW // 2
        values = values[mask[border:-border, border:-border]]
        if values.size == 0:
            raise ValueError("the mask counts the centre of no whole SSIM window")
    return float(values.mean())
