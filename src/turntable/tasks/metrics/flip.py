"""ꟻLIP: the difference that a person sees when flipping between two pictures.

Andersson, Nilsson, Akenine-Möller, Oskarsson, Åström and Fairchild, "FLIP: A Difference Evaluator for
Alternating Images", 2020. Computed by its authors' package.
"""

from __future__ import annotations

import numpy as np

PIXELS_PER_DEGREE = 67.02064514160156
"""The authors' default: a 0.7 m wide display of 3840 pixels, seen from 0.7 m."""

DEFINITION = (
    "ꟻLIP (LDR) per view, from the authors' package flip-evaluator, at its default 67 pixels per degree: "
    "mean of the error map, 0 to 1, lower is better; under a mask the mean over the mask's pixels, "
    "both pictures being mid-grey elsewhere."
)


def flip_map(photo: np.ndarray, rendering: np.ndarray) -> np.ndarray:
    """The error map ``float32[H, W]``, 0 to 1, of two ``uint8[H, W, 3]``.

    Raises:
        ValueError: the shapes differ.
    """
    import flip_evaluator  # 0.1 s, and no command but those that score needs it

    if photo.shape != rendering.shape:
        raise ValueError(f"pictures of one shape are compared, not {photo.shape} and {rendering.shape}")
    error, _, _ = flip_evaluator.evaluate(
        np.ascontiguousarray(photo, np.float32) / np.float32(255),
        np.ascontiguousarray(rendering, np.float32) / np.float32(255),
        "LDR",
        applyMagma=False,
        computeMeanError=False,
        parameters={"ppd": PIXELS_PER_DEGREE},
    )
    return np.asarray(error, np.float32).reshape(photo.shape[:2])


def flip(photo: np.ndarray, rendering: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Mean ꟻLIP error of two ``uint8[H, W, 3]``, under ``bool[H, W]`` where given.

    ꟻLIP filters its input, so pixels outside of the mask would reach into it: they are made equal first.

    Raises:
        ValueError: the shapes differ, or the mask counts no pixel.
    """
    if mask is None:
        return float(flip_map(photo, rendering).mean(dtype=np.float64))
    if not mask.any():
        raise ValueError("the mask counts no pixel")
    grey = np.uint8(128)
    error = flip_map(
        np.where(mask[..., None], photo, grey).astype(np.uint8),
        np.where(mask[..., None], rendering, grey).astype(np.uint8),
    )
    return float(error[mask].mean(dtype=np.float64))
