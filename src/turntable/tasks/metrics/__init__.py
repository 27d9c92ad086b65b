"""Metrics: how one rendering differs from its photo, in one number.

Notation: both pictures are ``uint8[H, W, 3]``, sRGB; a mask is ``bool[H, W]``, True where a pixel counts.
Every metric's definition is a text that is stored with each of its scores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from . import flip, psnr, ssim
from .flip import error_map, flip_map

__all__ = ["Metric", "error_map", "flip_map", "higher_is_better", "metrics"]

Compute = Callable[[np.ndarray, np.ndarray, "np.ndarray | None"], float]


@dataclass(frozen=True)
class Metric:
    """One metric.

    Args:
        name: as in scores, tables and JSON; for LPIPS it holds net, version and input range.
        title, unit: for people.
        higher_is_better: which way is good.
        definition: what exactly is computed; stored with every score.
        compute: photo, rendering and mask (or None) to the score.
    """

    name: str
    title: str
    unit: str
    higher_is_better: bool
    definition: str
    compute: Compute


def metrics(lpips_weights: Path | None = None) -> dict[str, Metric]:
    """The metrics that every held-out view is scored by, by name.

    Args:
        lpips_weights: a file of LPIPS weights (see :mod:`.lpips`), or None to go without.

    Raises:
        TurntableError: the weights can't be used.
    """
    found = [
        Metric("psnr", "PSNR", "dB", True, psnr.DEFINITION, psnr.psnr),
        Metric("ssim", "SSIM", "", True, ssim.DEFINITION, ssim.ssim),
        Metric("flip", "ꟻLIP", "", False, flip.DEFINITION, flip.flip),
    ]
    if lpips_weights is not None:
        from . import lpips

        network = lpips.load(lpips_weights)
        compute = partial(lpips.lpips, network)
        found.append(Metric(network.name, "LPIPS", "", False, network.definition, compute))
    return {metric.name: metric for metric in found}


def higher_is_better(name: str) -> bool:
    """Which way is good for the metric called ``name``: of all that there are, LPIPS may be absent."""
    known = metrics()
    return known[name].higher_is_better if name in known else not name.startswith("lpips-")
