"""Oriented normals of points, and which points are believed. NumPy only: who is whose neighbour is passed in."""

from __future__ import annotations

from typing import Any

import numpy as np

FAR_POINT = 3.0
"""A point whose neighbours are so many times farther than theirs stands alone, most often by a wrong match."""


def towards_cameras(
    points: np.ndarray, seen_points: np.ndarray, seen_views: np.ndarray, centres: np.ndarray
) -> np.ndarray:
    """The mean direction from each point to the cameras that see it, ``float64[P, 3]``, length 1; 0 where none does.

    Args:
        points: ``float64[P, 3]``.
        seen_points, seen_views: ``int64[S]``, an entry for each point in each view that sees it.
        centres: ``float64[V, 3]``, where the cameras stand.
    """
    rays = unit(centres[seen_views] - points[seen_points])
    sums = np.stack([np.bincount(seen_points, rays[:, axis], len(points)) for axis in range(3)], 1)
    return unit(sums)


def towards_most_probable_camera(points: np.ndarray, cameras: Any) -> np.ndarray:
    """For points of which nobody says who sees them: the direction to the nearest camera that has them in its picture.

    Args:
        points: ``float64[P, 3]``.
        cameras: of all views.

    Returns:
        ``float64[P, 3]``, length 1; 0 where no camera has the point in its picture.
    """
    best = np.full(len(points), np.inf)
    found = np.zeros((len(points), 3))
    for camera in cameras:
        pixels, depth = camera.project(points)
        away = camera.centre - points
        distance = np.linalg.norm(away, axis=1)
        inside = (depth > 0) & ((pixels >= 0) & (pixels < [camera.width, camera.height])).all(1)
        nearer = inside & (distance < best)
        best[nearer] = distance[nearer]
        found[nearer] = away[nearer]
    return unit(found)


def oriented_normals(points: np.ndarray, neighbours: np.ndarray, towards: np.ndarray) -> np.ndarray:
    """Normals of points: across the plane that fits their neighbours best (Hoppe et al., SIGGRAPH 1992), on the side of
    the cameras.

    Args:
        points: ``float64[P, 3]``.
        neighbours: ``int64[P, K]``, rows of each point's neighbours, itself among them.
        towards: ``float64[P, 3]``, where a point's cameras are; it is the normal where there is no plane (K < 3, or
            all in a line).

    Returns:
        ``float64[P, 3]``, length 1.
    """
    near = points[neighbours] - points[neighbours].mean(1, keepdims=True)
    variances, directions = np.linalg.eigh(np.einsum("pki,pkj->pij", near, near))
    normals = directions[:, :, 0]
    normals = np.where((normals * towards).sum(1, keepdims=True) < 0, -normals, normals)
    in_a_line = variances[:, 1] <= 1e-6 * variances[:, 2]
    return np.where(in_a_line[:, None] | (neighbours.shape[1] < 3), towards, normals)


def believed(distances: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """Which points have company, ``bool[P]``, by the measure of where they are.

    Args:
        distances: ``float64[P, K]`` to their neighbours.
        neighbours: ``int64[P, K]``.
    """
    mean = distances.mean(1)
    return mean <= FAR_POINT * np.median(mean[neighbours], axis=1)


def unit(vectors: np.ndarray) -> np.ndarray:
    """``vectors``, ``float64[N, 3]``, of length 1; those of length 0 stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)
