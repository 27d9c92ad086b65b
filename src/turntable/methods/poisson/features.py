"""SIFT features of a photo, and which of them two photos with known cameras share.

Since the cameras are known, a feature can only match along its epipolar line. Both photos' features are sorted by the
angle of the half-plane, bounded by the line through the two cameras, in which they lie; what may match then lies next
to each other, and there Lowe's test has few rivals to fear. A search for the nearest among all features finds a
fraction of these matches. Every sum is of whole numbers below 2²⁴, exact in float32, so the bits are always the same.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

LARGE_PHOTO = 1600
"""Pixels of the longer side up to which SIFT begins at double the photo's size."""

LENGTH = 512.0
"""Of a descriptor whose entries are bytes."""

MAX_ANGLE = 0.8
"""Radians between two descriptors of one thing. COLMAP has 0.7 where nothing is known of the cameras."""

MAX_RATIO = 0.85
"""Of the nearest's angle to the second nearest's; COLMAP has 0.8 among all features of a photo."""

BAND_PX = 1.0
"""How far from where its epipolar line says a feature may lie, in each of the two photos."""

NEAR_EPIPOLE = 0.03
"""Sine of the angle between a feature's ray and the baseline below which its half-plane is too uncertain."""

BLOCK = 256
"""Features that are compared with their candidates at a time."""


class Features(NamedTuple):
    """Features of one photo: ``places`` float32[N, 2] in pixels, ``descriptors`` uint8[N, 128]."""

    places: np.ndarray
    descriptors: np.ndarray


def detect(photo: np.ndarray, mask: np.ndarray | None, most: int, peak_threshold: float) -> Features:
    """SIFT features of a photo, by COLMAP's code for the CPU.

    Args:
        photo: ``uint8[H, W, 3]``.
        mask: ``float32[H, W]``, 1 where a pixel counts, or None.
        most: of all features the largest so many are kept.
        peak_threshold: least contrast.
    """
    import pycolmap

    options = pycolmap.FeatureExtractionOptions()
    options.use_gpu = False
    options.num_threads = 1
    options.sift.max_num_features = most
    options.sift.peak_threshold = peak_threshold
    options.sift.first_octave = -1 if max(photo.shape) <= LARGE_PHOTO else 0
    grey = (photo @ np.array([0.2126, 0.7152, 0.0722], np.float32) / np.float32(255)).astype(np.float32)
    keypoints, descriptors = pycolmap.Sift(options, pycolmap.Device.cpu).extract(grey)
    places = np.asarray(keypoints, np.float32).reshape(-1, keypoints.shape[-1] if keypoints.size else 4)[
        :, :2
    ]
    whole = (
        np.rint(np.asarray(descriptors, np.float32).reshape(-1, 128) * LENGTH).clip(0, 255).astype(np.uint8)
    )
    if mask is not None and len(places):
        rows = places[:, 1].astype(int).clip(0, mask.shape[0] - 1)
        columns = places[:, 0].astype(int).clip(0, mask.shape[1] - 1)
        inside = mask[rows, columns] > 0
        places, whole = places[inside], whole[inside]
    return Features(np.ascontiguousarray(places), np.ascontiguousarray(whole))


def match(first: Features, second: Features, cameras: tuple[Any, Any]) -> np.ndarray:
    """Features that are each other's nearest along their epipolar lines.

    Args:
        first, second: of two photos.
        cameras: theirs.

    Returns:
        ``uint32[K, 2]``: rows of ``first``, ascending, and of ``second``.
    """
    none = np.zeros((0, 2), np.uint32)
    baseline = cameras[1].centre - cameras[0].centre
    if not np.linalg.norm(baseline) > 0 or not len(first.places) or not len(second.places):
        return none
    baseline = baseline / np.linalg.norm(baseline)
    axes = across(baseline, cameras[0].forward + cameras[1].forward)
    one, other = (
        half_planes(features.places, camera, baseline, axes)
        for features, camera in zip((first, second), cameras, strict=True)
    )
    if not len(one.rows) or not len(other.rows):
        return none
    theirs = second.descriptors[other.rows].astype(np.float32)
    nearest = np.full(len(one.rows), -1)
    back, back_product = np.full(len(other.rows), -1), np.full(len(other.rows), np.float32(0))
    widest = other.tolerances.max()
    for start in range(0, len(one.rows), BLOCK):
        angles, tolerances = one.angles[start : start + BLOCK], one.tolerances[start : start + BLOCK]
        low, high = np.searchsorted(
            other.angles, [(angles - tolerances).min() - widest, (angles + tolerances).max() + widest]
        )
        if low == high:
            continue
        products = first.descriptors[one.rows[start : start + BLOCK]].astype(np.float32) @ theirs[low:high].T
        apart = np.abs(angles[:, None] - other.angles[low:high])
        products[apart > tolerances[:, None] + other.tolerances[low:high]] = 0
        row = np.arange(len(products))
        best_back = products.argmax(0)
        better = products[best_back, np.arange(high - low)] > back_product[low:high]
        back[low:high][better] = start + best_back[better]
        back_product[low:high][better] = products[best_back, np.arange(high - low)][better]
        best = products.argmax(1)
        angle = between(products[row, best])
        products[row, best] = 0
        good = (angle < MAX_ANGLE) & (angle < MAX_RATIO * between(products.max(1)))
        nearest[start : start + BLOCK] = np.where(good, low + best, -1)
    found = np.flatnonzero(nearest >= 0)
    found = found[back[nearest[found]] == found]
    pairs = np.stack([one.rows[found], other.rows[nearest[found]]], 1).astype(np.uint32)
    return pairs[np.argsort(pairs[:, 0], kind="stable")]


class HalfPlanes(NamedTuple):
    """Features by the half-plane in which they lie, ascending: ``rows`` int[M], ``angles`` and ``tolerances`` float64[M],
    in radians."""

    rows: np.ndarray
    angles: np.ndarray
    tolerances: np.ndarray


def half_planes(
    places: np.ndarray, camera: Any, baseline: np.ndarray, axes: tuple[np.ndarray, np.ndarray]
) -> HalfPlanes:
    """In which half-plane around the baseline each feature lies; those too near the epipole are left out.

    Args:
        places: ``float32[N, 2]``, pixels.
        camera: of the photo.
        baseline: ``float64[3]``, length 1.
        axes: two directions across it; the half-plane of the first has the angle 0.
    """
    pixels = (places.astype(np.float64) - [camera.cx, camera.cy]) / [camera.fx, camera.fy]
    rays = np.column_stack([pixels, np.ones(len(pixels))])
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    sines = np.linalg.norm(np.cross(rays @ camera.R, baseline), axis=1)
    angles = np.arctan2(rays @ camera.R @ axes[1], rays @ camera.R @ axes[0])
    rows = np.flatnonzero(sines > NEAR_EPIPOLE)
    rows = rows[np.argsort(angles[rows], kind="stable")]
    return HalfPlanes(rows, angles[rows], BAND_PX / min(camera.fx, camera.fy) / sines[rows])


def across(direction: np.ndarray, towards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two directions at right angles to ``direction`` and to each other, the first as near to ``towards`` as can be."""
    first = towards - direction * (towards @ direction)
    if np.linalg.norm(first) < 1e-9:
        first = np.eye(3)[np.abs(direction).argmin()]
        first = first - direction * (first @ direction)
    first = first / np.linalg.norm(first)
    return first, np.cross(direction, first)


def between(products: np.ndarray) -> np.ndarray:
    """The angle between descriptors, from their dot products, in radians."""
    return np.arccos(np.clip(products.astype(np.float64) / LENGTH**2, -1.0, 1.0))
