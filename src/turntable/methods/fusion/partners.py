"""Which photos are compared, and between which depths: pure functions of cameras and sparse points."""

from __future__ import annotations

from typing import List, Sequence, Tuple

import numpy as np

from .geometry import Pinhole, rectify

BEST_ANGLE = np.deg2rad(7.0)
"""Between two rays to a point, where stereo does best: below it depth grows inexact, above it the photos grow unlike."""
NARROWER, WIDER = np.deg2rad(3.0), np.deg2rad(9.0)
"""How fast that falls off on either side, as standard deviations. MVSNet has 1° and 10° about 5°."""
FEWEST_POINTS = 20
"""With fewer sparse points in a photo its depths are guessed from the cameras alone."""
ALIKE = 0.6
"""How much less a partner is worth that stands on the same side as one chosen already: what one hides, another shows."""


def angle_worth(angle: np.ndarray) -> np.ndarray:
    """How good a pair is for stereo, 0 to 1, by the angle (radians) at which it sees a point."""
    spread = np.where(angle < BEST_ANGLE, NARROWER, WIDER)
    return np.exp(-0.5 * ((angle - BEST_ANGLE) / spread) ** 2)


def depth_ranges(cameras: Sequence[Pinhole], points: np.ndarray) -> "List[Tuple[float, float, float]]":
    """Nearest, middle and farthest depth that each photo may show.

    From the sparse points in the photo, the outermost 2 % left out and the range doubled; where there are too few, from
    a fifth to eight times the distance to the focus, the point nearest to all optical axes. Where these nearly meet nowhere
    (parallel, or looking outward) the distance is four times the cameras' spread, and 1 for a single camera.
    """
    centres = np.stack([camera.centre for camera in cameras])
    axes = np.stack([camera.R[2] for camera in cameras])
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    normal = across.sum(0)
    distances = np.full(len(cameras), -1.0)
    if np.linalg.eigvalsh(normal)[0] > 1e-3 * len(cameras):
        focus = np.linalg.solve(normal, (across @ centres[:, :, None]).sum(0))[:, 0]
        distances = ((focus - centres) * axes).sum(1)
    spread = float(np.linalg.norm(centres - centres.mean(0), axis=1).max())
    typical = float(np.median(distances))
    if not typical > 0:
        typical = 4 * spread if spread > 0 else 1.0
    ranges = []
    for camera, distance in zip(cameras, distances):
        middle = float(distance) if distance > 0.1 * typical else typical
        near, far = 0.2 * middle, 8 * middle
        if len(points):
            column, row, z = camera.project(np.asarray(points, np.float64))
            with np.errstate(invalid="ignore"):
                seen = (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height) & (z > 0)
            if seen.sum() >= FEWEST_POINTS:
                low, middle, high = (float(one) for one in np.percentile(z[seen], [2, 50, 98]))
                near, far = 0.5 * low, 2 * high
        ranges.append((near, middle, far))
    return ranges


def worths(cameras: Sequence[Pinhole], index: int, depth: float) -> np.ndarray:
    """``float64[N]``: how good each photo is as a partner of photo ``index``; 0 for itself.

    The mean, over a grid of points at ``depth`` in the photo, of :func:`angle_worth` where the other photo shows the point;
    times how alike the two sizes of the point are.
    """
    camera = cameras[index]
    u, v = np.meshgrid((np.arange(5) + 0.5) / 5 * camera.width, (np.arange(5) + 0.5) / 5 * camera.height)
    rays = np.stack([u.ravel(), v.ravel(), np.ones(25)], 1) @ np.linalg.inv(camera.K).T
    points = depth * rays @ camera.R + camera.centre
    towards = points - camera.centre
    worth = np.zeros(len(cameras))
    for number, other in enumerate(cameras):
        if number == index:
            continue
        column, row, z = other.project(points)
        with np.errstate(invalid="ignore"):
            seen = (column >= 0) & (column < other.width) & (row >= 0) & (row < other.height)
        from_there = points - other.centre
        lengths = np.linalg.norm(towards, axis=1) * np.linalg.norm(from_there, axis=1)
        angle = np.arccos(np.clip((towards * from_there).sum(1) / np.maximum(lengths, 1e-300), -1, 1))
        # Sizes are compared by how much of the field of view a point takes: the photos' own sizes in pixels may differ.
        size = np.where(seen, depth * other.K[0, 0] * camera.width / (other.width * camera.K[0, 0]), 1.0)
        ratio = size / np.where(seen, z, size)
        likeness = np.minimum(ratio, 1 / ratio) ** 2
        worth[number] = float((seen * angle_worth(angle) * likeness).mean())
    return worth


def choose_partners(cameras: Sequence[Pinhole], index: int, depth: float, count: int) -> List[int]:
    """The photos that photo ``index`` is compared with, best first; at most ``count``, and none that is worth nothing.

    Each is the best by :func:`worths`, less for standing on the same side as one chosen before; only those are
    taken that can be rectified with the photo.
    """
    worth = worths(cameras, index, depth)
    centre = cameras[index].centre
    away = np.stack([camera.centre for camera in cameras]) - centre
    away /= np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-300)
    chosen: List[int] = []
    while len(chosen) < count:
        best = int(np.argmax(worth))
        if not worth[best] > 1e-3:
            break
        if rectify(cameras[index], cameras[best], 0.5 * depth, 2 * depth) is not None:
            chosen.append(best)
            worth *= 1 - ALIKE * np.clip(away @ away[best], 0, 1) ** 2
        worth[best] = 0
    return chosen
