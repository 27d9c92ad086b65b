"""Colours of a new view from the training photos, and what stands in where there is no surface: NumPy alone.

Unstructured lumigraph rendering (Buehler et al. 2001): a point's colour is blended from the few photos that see it at the
least angle to the ray that asks for it.
"""

from __future__ import annotations

from typing import List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from .geometry import Pinhole, lookup

OCCLUSION = 0.02
"""A photo sees a point if nothing it sees there is nearer by more than this share of the depth."""
EDGE_PIXELS = 2
"""Beside an edge of a nearer thing a photo's colours may be that thing's, the mesh being no better than this."""
EDGE_COST = 0.3
"""Radians that standing beside such an edge counts for: such a photo is used where no other sees the point."""
BORDER = 0.03
"""Share of a photo's longer side over which its weight falls off towards the border, so that no seam shows."""
LEAST = 1e-3
"""Radians below which one photo is no better than another."""


class Source(NamedTuple):
    """A training photo to take colours from.

    Args:
        camera: where it was taken.
        photo: ``uint8[H, W, 3]``.
        mask: ``float32[H, W]``, 1 where a pixel counts, or None.
        depth: ``float32[H, W]``, what it sees of the mesh, 0: nothing; or None: nothing stands in its way anywhere.
    """

    camera: Pinhole
    photo: np.ndarray
    mask: Optional[np.ndarray]
    depth: Optional[np.ndarray]


def nearest_cameras(cameras: Sequence[Pinhole], camera: Pinhole, points: np.ndarray, count: int) -> List[int]:
    """The training cameras that show most of ``points`` (``float[N, 3]``) at the least angles; best first.

    A camera's cost is the mean angle between its rays to the points and ``camera``'s own; one that doesn't show a point is
    charged π for it.
    """
    ours = unit(points - camera.centre)
    costs = []
    for other in cameras:
        column, row, _ = other.project(points)
        with np.errstate(invalid="ignore"):
            inside = (column >= 0) & (column < other.width) & (row >= 0) & (row < other.height)
        angle = np.arccos(np.clip((ours * unit(points - other.centre)).sum(-1), -1, 1))
        costs.append(float(np.where(inside, angle, np.pi).mean()))
    return [int(one) for one in np.argsort(costs, kind="stable")[:count]]


def unit(vectors: np.ndarray) -> np.ndarray:
    """``vectors[..., 3]`` with length 1; those of length 0 stay."""
    length = np.sqrt((vectors**2).sum(-1, keepdims=True))
    return vectors / np.maximum(length, np.finfo(vectors.dtype).tiny)


def blend(
    sources: "Sequence[Source]", camera: Pinhole, points: np.ndarray, count: int
) -> Tuple[np.ndarray, np.ndarray]:
    """Colours of points as a camera would see them.

    A photo's cost at a point is the angle between its ray and the camera's, more beside an edge; the ``count``
    photos of least cost have weights ``(1 - cost / limit) / cost``, with the first cost beyond them as limit, so
    that none enters or leaves with a jump. They fall to 0 at a photo's border.

    Args:
        sources: photos to take colours from; ``camera``'s and these must use the same coordinates.
        camera: who looks.
        points: ``float32[N, 3]``.
        count: photos to blend.

    Returns:
        ``float32[N, 3]`` in [0, 1], and ``bool[N]``: whether any photo shows the point.
    """
    costs = np.full((len(sources), len(points)), np.inf, np.float32)
    borders = np.zeros_like(costs)
    places = []
    ours = unit(points - camera.centre.astype(np.float32))
    for number, source in enumerate(sources):
        theirs = source.camera
        column, row, z = theirs.project(points)
        places.append((column, row))
        with np.errstate(invalid="ignore"):
            shown = (column >= 0) & (column < theirs.width) & (row >= 0) & (row < theirs.height)
        if source.mask is not None:
            shown &= lookup(source.mask, column, row) > 0.5
        cosine = (ours * unit(points - theirs.centre.astype(np.float32))).sum(-1)
        cost = np.arccos(np.clip(cosine, -1, 1)) + np.float32(LEAST)
        if source.depth is not None:
            there = np.where(source.depth > 0, source.depth, np.float32(np.inf))
            shown &= ~(lookup_or_far(there, column, row) < z * (1 - OCCLUSION))
            nearby = lowest_around(there, EDGE_PIXELS)
            cost += EDGE_COST * (lookup_or_far(nearby, column, row) < z * (1 - 2 * OCCLUSION))
        costs[number] = np.where(shown, cost, np.inf)
        inside = np.minimum(
            np.minimum(column, theirs.width - column), np.minimum(row, theirs.height - row)
        ) / (BORDER * max(theirs.width, theirs.height))
        borders[number] = np.where(shown, np.clip(inside, 0.01, 1), 0)
    if not sources:
        return np.zeros((len(points), 3), np.float32), np.zeros(len(points), bool)
    ranked = np.sort(costs, axis=0)
    # Where no photo lies beyond those that are blended, the limit is what leaves the worst of them a share.
    last = np.max(np.where(np.isfinite(ranked[:count]), ranked[:count], 0), axis=0)
    limit = (
        np.where(np.isfinite(ranked[count]), ranked[count], 1.5 * last) if len(ranked) > count else 1.5 * last
    )
    total = np.zeros((len(points), 3), np.float32)
    weights = np.zeros(len(points), np.float32)
    for number, source in enumerate(sources):
        cost = costs[number]
        with np.errstate(invalid="ignore", divide="ignore"):
            weight = np.where(np.isfinite(cost), np.maximum(1 - cost / limit, 0) / cost, 0) * borders[number]
        used = np.flatnonzero(weight > 0)
        column, row = places[number]
        total[used] += weight[used, None] * bilinear(source.photo, column[used], row[used])
        weights += weight
    shown = weights > 0
    return total / np.where(shown, weights, 1)[:, None], shown


def lookup_or_far(values: np.ndarray, column: np.ndarray, row: np.ndarray) -> np.ndarray:
    """As :func:`geometry.lookup`; infinite outside of the picture."""
    found = lookup(values, column, row)
    return np.where(found > 0, found, np.float32(np.inf))


def lowest_around(values: np.ndarray, reach: int) -> np.ndarray:
    """The least of ``values[H, W]`` in the square that reaches so many pixels around each."""
    for axis in (0, 1):
        padded = np.pad(values, [(reach, reach) if one == axis else (0, 0) for one in (0, 1)], mode="edge")
        length = values.shape[axis]
        values = np.min(
            [np.take(padded, np.arange(start, start + length), axis) for start in range(2 * reach + 1)],
            axis=0,
        )
    return values


def bilinear(photo: np.ndarray, column: np.ndarray, row: np.ndarray) -> np.ndarray:
    """``float32[N, 3]`` in [0, 1]: an ``uint8[H, W, 3]`` photo between its pixels; 0.5 is the middle of the first."""
    height, width = photo.shape[:2]
    column, row = np.clip(column - 0.5, 0, width - 1), np.clip(row - 0.5, 0, height - 1)
    left, top = column.astype(np.int32), row.astype(np.int32)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    across, down = (column - left)[:, None].astype(np.float32), (row - top)[:, None].astype(np.float32)
    upper = photo[top, left] * (1 - across) + photo[top, right] * across
    lower = photo[bottom, left] * (1 - across) + photo[bottom, right] * across
    return (upper * (1 - down) + lower * down) / np.float32(255)


def fill(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Values for the unknown pixels, smooth, from the known ones around them: push and pull (Gortler et al. 1996).

    Args:
        values: ``float32[H, W, C]``.
        known: ``bool[H, W]``, at least one of them True.

    Returns:
        ``float32[H, W, C]``; known pixels are as they were.
    """
    if known.all():
        return values
    height, width = known.shape
    weight = known[..., None].astype(np.float32)
    sums = np.where(known[..., None], values, 0)
    if height == width == 1:
        return values
    even = ((0, height % 2), (0, width % 2), (0, 0))
    weight, sums = (np.pad(one, even) for one in (weight, sums))
    weight, sums = (
        one.reshape(one.shape[0] // 2, 2, one.shape[1] // 2, 2, one.shape[2]).sum((1, 3))
        for one in (weight, sums)
    )
    small = fill(sums / np.maximum(weight, 1), weight[..., 0] > 0)
    return np.where(known[..., None], values, doubled(small)[:height, :width])


def doubled(values: np.ndarray) -> np.ndarray:
    """``values[H, W, C]`` at twice the size, interpolated linearly."""
    for axis in (0, 1):
        before = np.take(values, np.maximum(np.arange(values.shape[axis]) - 1, 0), axis)
        after = np.take(values, np.minimum(np.arange(values.shape[axis]) + 1, values.shape[axis] - 1), axis)
        pairs = np.stack([0.75 * values + 0.25 * before, 0.75 * values + 0.25 * after], axis + 1)
        shape = list(values.shape)
        shape[axis] *= 2
        values = pairs.reshape(shape).astype(np.float32)
    return values
