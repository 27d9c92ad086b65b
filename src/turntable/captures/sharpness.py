"""How sharp a picture is, against another one of the same scene and size."""

from __future__ import annotations

import numpy as np


def sharpness_of(grey: np.ndarray) -> float:
    """The variance of the Laplacian (Pech-Pacheco and others, ICPR 2000), borders left out.

    Args:
        grey: ``uint8[H, W]``.
    """
    if min(grey.shape) < 3:
        return 0.0
    values = grey.astype(np.float64)
    centre = values[1:-1, 1:-1]
    around = values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:]
    return float(np.var(around - 4 * centre))
