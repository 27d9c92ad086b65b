"""ꟻLIP: the difference that a person sees when flipping between two pictures.

Andersson, Nilsson, Akenine-Möller, Oskarsson, Åström and Fairchild, "FLIP: A Difference Evaluator for
Alternating Images", 2020. Computed by its authors' package.
"""

from __future__ import annotations

import threading

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


_last = threading.local()
"""The pictures that a thread compared last, and their map: a view's score and its picture on the page need the same one."""


def error_map(photo: np.ndarray, rendering: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """The error map ``float32[H, W]`` that :func:`flip` is the mean of; read-only.

    ꟻLIP filters its input, so pixels outside of the mask would reach into it: they are made equal first.

    Raises:
        ValueError: the shapes differ.
    """
    pictures = photo, rendering, mask
    last, found = getattr(_last, "found", ((None, None, None), None))
    if found is not None and all(ours is theirs for ours, theirs in zip(pictures, last, strict=True)):
        return found
    if photo.shape != rendering.shape:
        raise ValueError(f"pictures of one shape are compared, not {photo.shape} and {rendering.shape}")
    if mask is None:
        error = flip_map(photo, rendering)
    else:
        grey = np.uint8(128)
        error = flip_map(
            *(np.where(mask[..., None], picture, grey).astype(np.uint8) for picture in (photo, rendering))
        )
    error.setflags(write=False)
    _last.found = pictures, error
    return error


def flip(photo: np.ndarray, rendering: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Mean ꟻLIP error of two ``uint8[H, W, 3]``, under ``bool[H, W]`` where given.

    Raises:
        ValueError: the shapes differ, or the mask counts no pixel.
    """
    if mask is not None and not mask.any():
        raise ValueError("the mask counts no pixel")
    error = error_map(photo, rendering, mask)
    return float((error if mask is None else error[mask]).mean(dtype=np.float64))
