"""Which triangle is seen through which pixel: a rasteriser in NumPy, for the demo's pictures and shadow maps.

Notation: V vertices, F triangles, a picture of H×W samples at half integers. ``nearness`` is a number per
vertex that is linear over the picture and larger where the surface is nearer: 1/z in perspective, −z in a
parallel projection. Triangles are seen from their front alone, where their corners run counter-clockwise.

Nothing here calls BLAS, whose sums depend on the number of threads: the same input gives the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_CHUNK = 150_000
"""Pairs of triangle and sample that are tested at once: their temporaries then fit a second-level cache."""

_EDGE = -1e-9
"""How far outside of a triangle a sample may lie, as a share of it, so that neighbours leave no crack."""


@dataclass(frozen=True)
class Fragments:
    """What is seen through each sample.

    Args:
        face: ``int64[H, W]``, −1 where nothing is.
        nearness: ``float64[H, W]``, −inf where nothing is.
        weights: ``float64[F, 3, 3]``: corner k of face f weighs ``weights[f, k] · (x, y, 1)`` at (x, y),
            linearly in the picture.
    """

    face: np.ndarray
    nearness: np.ndarray
    weights: np.ndarray


def rasterise(
    pixels: np.ndarray, nearness: np.ndarray, faces: np.ndarray, width: int, height: int
) -> Fragments:
    """Find the nearest triangle of every sample.

    Args:
        pixels: ``float64[V, 2]``; y runs down.
        nearness: ``float64[V]``; triangles with a corner of NaN are not drawn.
        faces: ``int[F, 3]``.
        width, height: size of the picture in samples.
    """
    corners = pixels[faces]
    (x0, y0), (x1, y1), (x2, y2) = (corners[:, k].T for k in range(3))
    area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = np.stack(
            [
                np.stack([y1 - y2, x2 - x1, x1 * y2 - x2 * y1], 1) / area[:, None],
                np.stack([y2 - y0, x0 - x2, x2 * y0 - x0 * y2], 1) / area[:, None],
                np.stack([y0 - y1, x1 - x0, x0 * y1 - x1 * y0], 1) / area[:, None],
            ],
            1,
        )
        left = np.maximum(np.ceil(np.minimum(np.minimum(x0, x1), x2) - 0.5), 0)
        right = np.minimum(np.floor(np.maximum(np.maximum(x0, x1), x2) - 0.5), width - 1)
        top = np.maximum(np.ceil(np.minimum(np.minimum(y0, y1), y2) - 0.5), 0)
        bottom = np.minimum(np.floor(np.maximum(np.maximum(y0, y1), y2) - 0.5), height - 1)
    known = np.isfinite(nearness[faces]).all(1) & np.isfinite(area)
    drawn = np.flatnonzero(known & (area < -1e-12) & (right >= left) & (bottom >= top))
    plane = (weights[drawn] * nearness[faces[drawn]][:, :, None]).sum(1)

    columns = (right - left + 1)[drawn].astype(np.int64)
    counts = columns * (bottom - top + 1)[drawn].astype(np.int64)
    ends = np.cumsum(counts)
    first_x, first_y = left[drawn].astype(np.int64), top[drawn].astype(np.int64)
    best = np.full(height * width, -np.inf)
    face = np.full(height * width, -1, np.int64)
    start = 0
    while start < len(drawn):
        done = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _CHUNK, "right")))
        of = np.repeat(np.arange(start, stop), counts[start:stop])
        within = np.arange(done, int(ends[stop - 1])) - (ends - counts)[of]
        row, column = np.divmod(within, columns[of])
        column += first_x[of]
        row += first_y[of]
        x, y = column + 0.5, row + 0.5
        inside = np.ones(len(of), bool)
        coefficients = weights[drawn[of]]
        for corner in range(3):
            a, b, c = (coefficients[:, corner, k] for k in range(3))
            inside &= a * x + b * y + c >= _EDGE
        of, x, y = of[inside], x[inside], y[inside]
        sample = row[inside] * width + column[inside]
        near = plane[of, 0] * x + plane[of, 1] * y + plane[of, 2]
        np.maximum.at(best, sample, near)
        won = near == best[sample]
        face[sample[won]] = drawn[of[won]]
        start = stop
    return Fragments(face.reshape(height, width), best.reshape(height, width), weights)
