"""The frame that training works in, and where Gaussians begin.

gsplat's published numbers (step sizes, the near plane, the noise of MCMC) are for scenes that were moved and scaled so that
cameras stand at a distance of about 1 from the point that they look at. A capture has units of its own, so the
same is done here, without a rotation: x_frame = (x - centre) / unit. Depths and exported Gaussians are in
the capture's units again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial import KDTree

ENOUGH_POINTS = 500
"""Sparse points from which a scene can grow; fewer leave whole regions empty."""
CUBE = 3.0
"""Half the edge of the cube in which random Gaussians begin, in scene scales (gsplat's ``init_extent``)."""
LEAST_SIZE = 1e-7
"""Of a Gaussian at the start, in the frame: points that coincide would have none, whose logarithm is no number."""


@dataclass(frozen=True, eq=False)
class Frame:
    """How the capture's world lies in the frame that training works in.

    Args:
        centre: the frame's origin in the world, ``float64[3]``: the point nearest to all optical axes.
        unit: the frame's unit in scene units: the cameras' median distance to it.
        scene_scale: 1.1 times the greatest distance of a camera from their mean, in the frame's units, as gsplat
            scales step sizes; at least 0.1, so that a single photo has one too.
    """

    centre: np.ndarray
    unit: float
    scene_scale: float

    def into(self, points: np.ndarray) -> np.ndarray:
        """World points ``float64[N, 3]`` in the frame."""
        return (points - self.centre) / self.unit

    def out_of(self, points: np.ndarray) -> np.ndarray:
        """Points of the frame ``float64[N, 3]`` in the world."""
        return points * self.unit + self.centre

    def world_to_camera(self, camera: Any) -> np.ndarray:
        """``float64[4, 4]``: from the frame to the camera's axes, whose unit is the frame's too.

        R x + t = unit (R x_frame + (R centre + t) / unit), so that z comes out in frame units and pixels stay.
        """
        matrix = np.eye(4)
        matrix[:3, :3] = camera.R
        matrix[:3, 3] = (camera.R @ self.centre + camera.t) / self.unit
        return matrix


def frame_of(cameras: list[Any], points: np.ndarray) -> Frame:
    """The frame of a capture.

    Args:
        cameras: of the training photos; at least one.
        points: ``float64[P, 3]`` sparse points in the world; they say how far a scene is whose cameras' axes don't meet.
    """
    centres = np.stack([camera.centre for camera in cameras])
    axes = np.stack([camera.forward for camera in cameras])
    spread = float(np.linalg.norm(centres - centres.mean(0), axis=1).max())
    distance = 0.0
    # The point x nearest to all axes solves sum (I - a aᵀ) (x - c) = 0.
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    centre = centres.mean(0)
    if np.linalg.eigvalsh(across.sum(0))[0] > 1e-3 * len(cameras):
        centre = np.linalg.solve(across.sum(0), (across @ centres[:, :, None]).sum(0))[:, 0]
        ahead = np.median(((centre - centres) * axes).sum(1))
        distance = float(np.median(np.linalg.norm(centres - centre, axis=1))) if ahead > 0 else 0.0
    if not distance > 0:  # axes that are parallel, or point away from each other
        z = np.concatenate([(points - at) @ axis for at, axis in zip(centres, axes, strict=True)])
        z = z[z > 0]
        distance = float(np.median(z)) if len(z) else (4 * spread if spread > 0 else 1.0)
        centre = (centres + distance * axes).mean(0)
    return Frame(centre, distance, max(1.1 * spread / distance, 0.1))


@dataclass(frozen=True, eq=False)
class Start:
    """Gaussians to begin with, in the frame.

    Args:
        means: ``float64[N, 3]``.
        colours: ``float64[N, 3]`` in [0, 1].
        sizes: ``float64[N]``, standard deviations.
    """

    means: np.ndarray
    colours: np.ndarray
    sizes: np.ndarray


def from_points(points: np.ndarray, colours: np.ndarray) -> Start:
    """One Gaussian at each sparse point, ``float64[P, 3]`` in the frame, of its colour, ``uint8[P, 3]``."""
    return Start(points, colours / 255.0, neighbour_distances(points))


def at_random(count: int, scene_scale: float, generator: np.random.Generator) -> Start:
    """Gaussians anywhere in a cube around the origin, of any colour, as gsplat's ``init_type="random"``."""
    means = CUBE * scene_scale * (generator.random((count, 3)) * 2 - 1)
    return Start(means, generator.random((count, 3)), neighbour_distances(means))


def neighbour_distances(points: np.ndarray) -> np.ndarray:
    """``float64[N]``: root of the mean squared distance to the three nearest other points; 0.01 for one alone."""
    others = min(len(points) - 1, 3)
    if others < 1:
        return np.full(len(points), 0.01)
    distances, _ = KDTree(points).query(points, k=others + 1, workers=-1)
    return np.maximum(np.sqrt((distances[:, 1:] ** 2).mean(1)), LEAST_SIZE)
