"""Which features of two photos are the same, by exact nearest neighbours: the same bits on every call.

pycolmap's approximate search is as quick, but now and then gives other matches for the same photos: of 1,225 pairs
3 differed in one of six runs, one of them by half of its matches. Here nothing can: SIFT's descriptors are bytes,
512 long as vectors, so that every dot product is a whole number below 2²⁴, which ``float32`` holds exactly in
whatever order it is summed and by however many threads.
"""

from __future__ import annotations

import numpy as np

LENGTH = 512.0
"""Of every descriptor as COLMAP stores it, but for the rounding of its numbers."""

MAX_ANGLE = 0.7
"""Radians between two descriptors of one thing; COLMAP's limit."""

BLOCK = 1024
"""Rows of the table of all dot products that are held at a time: 50 MB for 12,000 features."""


def match_descriptors(first: np.ndarray, second: np.ndarray, max_ratio: float) -> np.ndarray:
    """Pairs of features that are each other's nearest, and nearer than the second nearest (Lowe, IJCV 2004).

    Args:
        first, second: descriptors, ``uint8[N, 128]`` and ``uint8[M, 128]``.
        max_ratio: of the nearest's angle to the second nearest's, either way.

    Returns:
        ``uint32[K, 2]``: rows of ``first`` and of ``second``, in the order of the former.
    """
    if not len(first) or not len(second):
        return np.zeros((0, 2), np.uint32)
    a, b = first.astype(np.float32), second.astype(np.float32)
    nearest, good = _nearest(a, b, max_ratio)
    rows = np.flatnonzero(good)
    columns, slot = np.unique(nearest[rows], return_inverse=True)
    back, back_good = _nearest(b[columns], a, max_ratio)
    mutual = back_good[slot] & (back[slot] == rows)
    return np.stack([rows[mutual], nearest[rows[mutual]]], axis=1).astype(np.uint32)


def _nearest(a: np.ndarray, b: np.ndarray, max_ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """For each row of ``a`` its nearest row of ``b``, and whether that is near and clearly nearest."""
    nearest = np.zeros(len(a), np.int64)
    good = np.zeros(len(a), bool)
    for start in range(0, len(a), BLOCK):
        products = a[start : start + BLOCK] @ b.T
        row = np.arange(len(products))
        best = products.argmax(1)
        angle = _angle(products[row, best])
        products[row, best] = -1
        second_angle = _angle(products.max(1))
        nearest[start : start + BLOCK] = best
        good[start : start + BLOCK] = (angle < MAX_ANGLE) & (angle < max_ratio * second_angle)
    return nearest, good


def _angle(products: np.ndarray) -> np.ndarray:
    return np.arccos(np.clip(products.astype(np.float64) / LENGTH**2, -1.0, 1.0))
