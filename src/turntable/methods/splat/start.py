"""Where the Gaussians begin: at the capture's sparse points, or at depths found by comparing training photos.

Words: the focus is the point nearest to all optical axes; the extent is how far cameras stand from their
middle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .photos import Photos

DEPTHS = 32
"""Depths tried for each ray: around the focus, neighbours differ by 15 % with the range below."""
AT_ONCE = 20_000
"""Rays whose depths are compared at once: their arrays take some 100 MB."""
NEIGHBOURS = 4
"""Views that a ray is compared with: fewer mistake chance for likeness, more see it hidden."""


@dataclass(frozen=True)
class Layout:
    """How the training cameras stand.

    Args:
        extent: 1.1 times the greatest distance of a camera from their mean, as 3DGS scales its step sizes; at
            least a tenth of the distance to the focus, so that a single photo has one too. Scene units.
        focus: ``float64[3]``.
        distance: median distance of the cameras to the focus, scene units.
    """

    extent: float
    focus: np.ndarray
    distance: float


@dataclass(frozen=True)
class Start:
    """Gaussians to begin with: ``means`` float64[N, 3], ``colours`` float64[N, 3] in [0, 1], ``sizes``
    float64[N].
    """

    means: np.ndarray
    colours: np.ndarray
    sizes: np.ndarray


def layout_of(cameras: list[Any], points: np.ndarray) -> Layout:
    """Extent, focus and distance of the training cameras; sparse points say more of the distance where there
    are any.
    """
    centres = np.stack([camera.centre for camera in cameras])
    axes = np.stack([camera.forward for camera in cameras])
    spread = float(np.linalg.norm(centres - centres.mean(0), axis=1).max())
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    normal = across.sum(0)
    values = np.linalg.eigvalsh(normal)
    if values[0] > 1e-3 * len(cameras):
        focus = np.linalg.solve(normal, (across @ centres[:, :, None]).sum(0))[:, 0]
        depths = ((focus - centres) * axes).sum(1)
        distance = float(np.median(depths))
    else:
        distance = 0.0
    if len(points):
        z = np.concatenate([(points - centre) @ axis for centre, axis in zip(centres, axes, strict=True)])
        z = z[z > 0]
        distance = float(np.median(z)) if len(z) else distance
    if (
        not distance > 0
    ):  # axes nearly parallel, or pointing away from each other: only the spread has a length
        distance = 4 * spread if spread > 0 else 1.0
    focus = (centres + distance * axes).mean(0)
    return Layout(max(1.1 * spread, 0.1 * distance), focus, distance)


def from_points(points: np.ndarray, colours: np.ndarray, layout: Layout) -> Start:
    """One Gaussian for each sparse point, as wide as the three nearest others are away (root of the mean
    square).
    """
    sizes = np.clip(neighbour_distance(points), 1e-4 * layout.extent, 0.1 * layout.distance)
    return Start(points.astype(np.float64), colours / 255.0, sizes)


def neighbour_distance(points: np.ndarray, window: int = 12) -> np.ndarray:
    """``float64[N]``: about how far the three nearest other points are (root of the mean square).

    Points are sorted along three shifted Morton curves; nearest are sought among ``window`` followers on
    each, which finds nearly all true neighbours at a cost that grows only as N log N.
    """
    count = len(points)
    if count < 2:
        return np.full(count, np.inf)
    low, high = points.min(0), points.max(0)
    unit = (points - low) / max(float((high - low).max()), 1e-12)
    best = np.full((count, 3), np.inf)
    for shift in (0.0, 0.17, 0.41):
        order = np.argsort(_morton(unit * 0.5 + shift), kind="stable")
        for step in range(1, min(window, count - 1) + 1):
            ahead, behind = order[step:], order[:-step]
            squared = ((points[ahead] - points[behind]) ** 2).sum(1)
            for at in (ahead, behind):
                best[at] = _with(best[at], squared, points[ahead], points[behind])
    known = np.where(np.isfinite(best), best, np.nan)
    with np.errstate(all="ignore"):
        return np.sqrt(np.nan_to_num(np.nanmean(known, axis=1), nan=np.inf))


def _with(best: np.ndarray, squared: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The three least of ``best`` and ``squared``; a pair met again, on another curve, counts once."""
    fresh = np.where((best == squared[:, None]).any(1), np.inf, squared)
    return np.sort(np.concatenate([best, fresh[:, None]], 1), axis=1)[:, :3]


def _morton(unit: np.ndarray) -> np.ndarray:
    """``uint64[N]``: the bits of three coordinates in [0, 1), 20 of each, interleaved."""
    cells = (unit * (1 << 20)).astype(np.uint64)
    code = np.zeros(len(unit), np.uint64)
    for bit in range(20):
        for axis in range(3):
            code |= ((cells[:, axis] >> np.uint64(bit)) & np.uint64(1)) << np.uint64(3 * bit + axis)
    return code


def from_photos(photos: Photos, layout: Layout, count: int, generator: np.random.Generator) -> Start:
    """Gaussians along rays through random pixels, each at the depth where other training photos look most
    alike.

    Rays go through all photos, or through ``photos.sample`` where they are too many to be read at once. A
    plane sweep: for each ray, points at DEPTHS depths (evenly spaced in 1/z, from a fifth to five times the
    focus's distance) are looked up in NEIGHBOURS other photos of the coarsest level; the likeness of a depth
    is the mean colour difference, and a depth that few photos see counts as unlike. With one photo, depths
    are random.
    """
    sample = photos.sample
    views = len(sample)
    level = photos_level(photos)
    chosen = sample[generator.integers(0, views, count)]
    means, colours, sizes = np.zeros((count, 3)), np.zeros((count, 3)), np.zeros(count)
    near, far = 0.2 * layout.distance, 5.0 * layout.distance
    centres = np.stack([camera.centre for camera in photos.cameras])
    axes = np.stack([camera.forward for camera in photos.cameras])
    for index in sample:
        rays = np.flatnonzero(chosen == index)
        if not len(rays):
            continue
        camera, photo = photos.cameras[index], photos.photo(index, level)
        height, width = photo.shape[:2]
        mask = photos.mask(index, level)
        counted = np.arange(height * width) if mask is None or not mask.any() else np.flatnonzero(mask)
        rows, columns = np.divmod(counted[generator.integers(0, len(counted), len(rays))], width)
        shrink = 0.5**level
        directions = np.stack(
            [
                (columns + generator.random(len(rays)) - camera.cx * shrink) / (camera.fx * shrink),
                (rows + generator.random(len(rays)) - camera.cy * shrink) / (camera.fy * shrink),
                np.ones(len(rays)),
            ],
            1,
        )
        colour = photo[rows, columns] / 255.0
        jitter = generator.random((len(rays), 1))
        disparity = 1 / far + (1 / near - 1 / far) * (np.arange(DEPTHS) + jitter) / DEPTHS
        z = 1 / disparity
        if views > 1:
            away = np.linalg.norm(centres - centres[index], axis=1) / layout.distance
            turned = np.arccos(np.clip(axes @ axes[index], -1, 1))
            order = np.argsort(away + turned, kind="stable")
            others = order[(order != index) & np.isin(order, sample)][:NEIGHBOURS]
            best = np.zeros(len(rays), np.int64)
            for first in range(0, len(rays), AT_ONCE):
                part = slice(first, first + AT_ONCE)
                points = (directions[part, None] * z[part, :, None] - camera.t) @ camera.R
                best[part] = np.argmin(unlikeness(photos, level, others, points, colour[part]), axis=1)
        else:
            best = generator.integers(0, DEPTHS, len(rays))
        z = z[np.arange(len(rays)), best]
        means[rays] = (directions * z[:, None] - camera.t) @ camera.R
        colours[rays] = colour
        # as wide as the spacing of all rays, were they spread over one photo and each seen in a third of them
        spacing = np.sqrt(3 * camera.width * camera.height / count)
        sizes[rays] = np.clip(0.5 * spacing, 0.5, 8.0) * z / camera.fx
    return Start(means, colours, sizes)


def unlikeness(
    photos: Photos, level: int, others: np.ndarray, points: np.ndarray, colour: np.ndarray
) -> np.ndarray:
    """How much the photos ``others`` differ from ``colour`` at ``points``.

    Args:
        points: ``float64[M, D, 3]``.
        colour: ``float64[M, 3]``.

    Returns:
        ``float64[M, D]``: mean absolute difference over the photos that see the point; 0.3, about what chance
        gives, for each that doesn't.
    """
    total = np.zeros(points.shape[:2])
    for other in others:
        camera, photo = photos.cameras[other], photos.photo(int(other), level)
        height, width = photo.shape[:2]
        pixels, depth = camera.project(points.reshape(-1, 3))
        with np.errstate(invalid="ignore"):
            columns = np.floor(np.nan_to_num(pixels[:, 0] * 0.5**level, nan=-1, posinf=-1, neginf=-1))
            rows = np.floor(np.nan_to_num(pixels[:, 1] * 0.5**level, nan=-1, posinf=-1, neginf=-1))
        seen = (depth > 0) & (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
        at = np.where(seen, rows, 0).astype(np.int64), np.where(seen, columns, 0).astype(np.int64)
        mask = photos.mask(int(other), level)
        if mask is not None:  # what doesn't count is not looked at, here either
            seen &= mask[at] > 0
        there = photo[at].reshape(*points.shape[:2], 3) / 255.0
        apart = np.abs(there - colour[:, None]).mean(2)
        total += np.where(seen.reshape(points.shape[:2]), apart, 0.3)
    return total / len(others)


def photos_level(photos: Photos) -> int:
    """The level at which photos are compared: the coarsest, where a pixel stands for its surroundings."""
    return 2 if photos.mean_pixels > 64 * 64 else 0
