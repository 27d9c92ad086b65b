"""What training makes small: the difference to a photo, and what holds 2DGS's discs to a surface.

Images are ``float32[H, W, 3]`` in [0, 1]; weights ``float32[H, W]``, 1 where a pixel counts, 0 where it doesn't.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TAPS, SIGMA = 11, 1.5
"""SSIM's window (Wang et al. 2004)."""
C1, C2 = 0.01**2, 0.03**2


def photometric(image: Tensor, photo: Tensor, weights: Tensor | None, ssim_weight: float) -> Tensor:
    """(1 - w) L1 + w (1 - SSIM), each the mean over the pixels that count; 3DGS's loss with w = 0.2.

    Where pixels don't count, both images are black to SSIM, whose windows reach across the mask's edge.
    """
    difference = (image - photo).abs().mean(2)
    if weights is None:
        return (1 - ssim_weight) * difference.mean() + ssim_weight * (1 - ssim(image, photo).mean())
    l1 = mean(difference, weights)
    unlike = 1 - ssim(image * weights[..., None], photo * weights[..., None])
    rows, columns = ((size - rest) // 2 for size, rest in zip(weights.shape, unlike.shape, strict=True))
    inside = weights[rows : rows + unlike.shape[0], columns : columns + unlike.shape[1]]
    return (1 - ssim_weight) * l1 + ssim_weight * mean(unlike, inside)


def mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """The mean over the pixels that count; 0 where none does."""
    return values.mean() if weights is None else (values * weights).sum() / weights.sum().clamp_min(1)


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """SSIM at each pixel, the mean of the three channels.

    Returns:
        ``float32[H - 10, W - 10]``: where the whole window lies inside, as gsplat's trainer has it. A side of fewer than 11
        pixels keeps its length, with zeros beyond the border.
    """
    height, width = first.shape[:2]
    padding = (0 if height >= TAPS else TAPS // 2, 0 if width >= TAPS else TAPS // 2)
    window = gaussian_window(first)
    stacked = torch.stack([first, second, first * first, second * second, first * second])
    channels = stacked.permute(0, 3, 1, 2).reshape(15, 1, height, width)
    rows = F.conv2d(channels, window.view(1, 1, TAPS, 1), padding=(padding[0], 0))
    blurred = F.conv2d(rows, window.view(1, 1, 1, TAPS), padding=(0, padding[1]))
    a, b, aa, bb, ab = blurred.reshape(5, 3, *blurred.shape[2:])
    likeness = (2 * a * b + C1) * (2 * (ab - a * b) + C2)
    return (likeness / ((a * a + b * b + C1) * (aa - a * a + bb - b * b + C2))).mean(0)


def gaussian_window(like: Tensor) -> Tensor:
    """SSIM's window along one axis, ``float32[11]``, of sum 1; type and device as ``like``."""
    offsets = torch.arange(TAPS, dtype=like.dtype, device=like.device) - TAPS // 2
    window = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    return window / window.sum()


def normal_consistency(normals: Tensor, of_depth: Tensor, opacity: Tensor, weights: Tensor | None) -> Tensor:
    """2DGS's 1 - n · N (arXiv 2403.17888, eq. 14), N weighted by the opacity, to which no gradient flows, as in gsplat.

    Args:
        normals: ``float32[H, W, 3]`` of the discs, composited: shorter than 1 where a ray isn't stopped.
        of_depth: ``float32[H, W, 3]`` of the depth map's own surface; 0 in the outermost pixels, which have none.
        opacity: ``float32[H, W]``.
    """
    return mean(1 - (normals * of_depth).sum(2) * opacity.detach(), weights)
