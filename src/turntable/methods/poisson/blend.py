"""Colours from photos: which photos show a place best, and how much each counts. NumPy only.

Weights are those of the unstructured lumigraph (Buehler et al., SIGGRAPH 2001): of the photos that see a place, the few
that see it from nearly the same direction as the camera does, down to 0 for the first that is left out, so that
nothing jumps where the choice changes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

FARTHER = 0.3
"""Penalty, in radians, of a photo in which a place is half as large as in the picture to be made."""

BORDER = 0.05
"""Share of a photo's width and height, next to its border, in which it is taken less and less gladly."""

AT_BORDER = 1.0
"""Penalty, in radians, at the border itself: photos end without a seam where there are others."""


def penalties(places: np.ndarray, camera: Any, photo: Any) -> np.ndarray:
    """How badly a photo suits to show some places to a camera, ``float64[N]``: the angle between the two lines of
    sight, in radians, more where the photo is coarser and at its border; inf where it doesn't have the place in it.

    Args:
        places: ``float64[N, 3]`` in the world.
        camera: which they are shown to.
        photo: the photo's camera.
    """
    pixels, depth = photo.project(places)
    inside = (depth > 0) & ((pixels >= 0) & (pixels <= [photo.width, photo.height])).all(1)
    mine, its = places - camera.centre, places - photo.centre
    mine_length, its_length = np.linalg.norm(mine, axis=1), np.linalg.norm(its, axis=1)
    both = mine_length * its_length
    cosines = (mine * its).sum(1) / np.where(both > 0, both, 1)
    coarser = (its_length * camera.fx) / np.where(mine_length > 0, mine_length * photo.fx, np.inf)
    penalty = np.arccos(np.clip(cosines, -1, 1)) + FARTHER * np.maximum(np.log2(np.maximum(coarser, 1)), 0)
    size = np.array([photo.width, photo.height], np.float64)
    room = (np.minimum(pixels, size - pixels) / (BORDER * size)).min(1)
    return np.where(inside, penalty + AT_BORDER * (1 - np.clip(room, 0, 1)), np.inf)


def weights(penalty: np.ndarray, most: int) -> np.ndarray:
    """How much each photo counts, ``float64[M, N]``; the columns sum to 1, or to 0 where no photo can be had.

    Args:
        penalty: ``float64[M, N]``, of M photos for N places; inf where a photo can't be had.
        most: so many photos at most count in a place.
    """
    limit = np.full(penalty.shape[1], np.inf)
    if len(penalty) > most:
        limit = np.partition(penalty, most, axis=0)[most]
    # A photo from the very same place would have all the weight there is: so it has, in numbers that stay finite.
    near = np.maximum(penalty, 1e-6)
    with np.errstate(invalid="ignore"):
        weight = np.where(np.isfinite(near), (1 - np.minimum(near / limit, 1)) / near, 0)
    if len(penalty) > most:  # equally bad ones at the limit would leave nothing
        nothing = (weight.sum(0) == 0) & np.isfinite(penalty.min(0))
        weight[penalty.argmin(0)[nothing], nothing] = 1
    total = weight.sum(0)
    return weight / np.where(total > 0, total, 1)


def sample(image: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """``image``, ``uint8[H, W, 3]``, between its pixels, bilinearly: ``float32[N, 3]`` in [0, 1].

    Args:
        image: whose pixel centres lie at half integers.
        pixels: ``float64[N, 2]``, x and y; beyond the border, the border's colour.
    """
    height, width = image.shape[:2]
    x = np.clip(pixels[:, 0] - 0.5, 0, width - 1)
    y = np.clip(pixels[:, 1] - 0.5, 0, height - 1)
    left, top = x.astype(np.int64), y.astype(np.int64)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    across, down = (x - left).astype(np.float32)[:, None], (y - top).astype(np.float32)[:, None]
    upper = image[top, left] * (1 - across) + image[top, right] * across
    lower = image[bottom, left] * (1 - across) + image[bottom, right] * across
    return (upper * (1 - down) + lower * down) / np.float32(255)


def filled(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """``values``, ``float[H, W, C]``, with what isn't ``known`` (``bool[H, W]``) interpolated from what is.

    Pull-push (Gortler et al., The Lumigraph, SIGGRAPH 1996): averages at half the size, filled there, are drawn back up.
    Nothing known: zeros.
    """
    if known.all():
        return values
    height, width = known.shape
    if height == width == 1:
        return np.zeros_like(values)
    weight = np.pad(known.astype(values.dtype), ((0, height % 2), (0, width % 2)))
    padded = np.pad(np.where(known[..., None], values, 0), ((0, height % 2), (0, width % 2), (0, 0)))
    counts = weight.reshape(weight.shape[0] // 2, 2, -1, 2).sum((1, 3))
    sums = padded.reshape(padded.shape[0] // 2, 2, -1, 2, values.shape[2]).sum((1, 3))
    coarse = filled(sums / np.maximum(counts, 1)[..., None], counts > 0)
    return np.where(known[..., None], values, doubled(coarse)[:height, :width])


def doubled(values: np.ndarray) -> np.ndarray:
    """``values``, ``float[H, W, C]``, at twice the size, bilinearly."""
    for axis in (0, 1):
        count = values.shape[axis]
        before = values.take(np.maximum(np.arange(count) - 1, 0), axis)
        after = values.take(np.minimum(np.arange(count) + 1, count - 1), axis)
        pair = np.stack([0.75 * values + 0.25 * before, 0.75 * values + 0.25 * after], axis + 1)
        values = pair.reshape(*values.shape[:axis], 2 * count, *values.shape[axis + 1 :])
    return values
