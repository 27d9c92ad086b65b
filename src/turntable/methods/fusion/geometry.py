"""Cameras, rectified pairs and depth maps: what needs NumPy alone.

Notation: ``x_cam = R (x_world - centre)`` with axes x right, y down, z forward; pixel centres lie at half integers; depth is
z, and 0 in a depth map where none is known. A *ray* of a pixel is ``K⁻¹ (u, v, 1)``, so that ``z · ray`` is the point.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Optional, Tuple

import numpy as np

LARGEST_STRETCH = 4.0
"""A photo that takes more than so many times its own pixels when rectified looks along the baseline: mostly smear."""
LEAST_FACING = 0.25
"""Least z, in the rectified axes, of any ray of z 1: that of a ray 75° off, where a photo is stretched fifteen times."""


class Pinhole(NamedTuple):
    """A camera: ``K`` float64[3, 3], ``R`` float64[3, 3], ``centre`` float64[3]; sizes in pixels."""

    width: int
    height: int
    K: np.ndarray
    R: np.ndarray
    centre: np.ndarray

    def scaled(self, width: int, height: int) -> "Pinhole":
        """The same camera with a picture of another size."""
        K = np.diag([width / self.width, height / self.height, 1.0]) @ self.K
        return self._replace(width=width, height=height, K=K)

    def rays(self) -> np.ndarray:
        """The rays of all pixels, ``float64[H, W, 3]``, z = 1, in the camera's axes."""
        u, v = np.meshgrid(np.arange(self.width) + 0.5, np.arange(self.height) + 0.5)
        return np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(self.K).T

    def corners(self) -> np.ndarray:
        """The rays of the picture's corners and of its middle, ``float64[5, 3]``, z = 1."""
        w, h = self.width, self.height
        pixels = np.array([[0, 0, 1], [w, 0, 1], [0, h, 1], [w, h, 1], [w / 2, h / 2, 1]], np.float64)
        return pixels @ np.linalg.inv(self.K).T

    def project(self, points: np.ndarray) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Columns, rows and depths, ``[...]`` each, of world points ``[..., 3]``; NaN pixels where the depth is ≤ 0."""
        # By hand and not by a matrix product: the points are many and keep their precision, float32 or float64.
        kind = points.dtype
        x, y, z = np.moveaxis((points - self.centre.astype(kind)) @ self.R.T.astype(kind), -1, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = np.where(z > 0, 1 / z, kind.type(np.nan))
        K = self.K.astype(kind)
        return K[0, 0] * x * inverse + K[0, 2], K[1, 1] * y * inverse + K[1, 2], z


class Frame(NamedTuple):
    """Coordinates in which single precision is enough: ``(x - origin) / scale``."""

    origin: np.ndarray
    scale: float

    def camera(self, camera: Any) -> Pinhole:
        """A camera of the worker's contract in these coordinates."""
        K = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]], np.float64)
        centre = (np.asarray(camera.centre, np.float64) - self.origin) / self.scale
        return Pinhole(int(camera.width), int(camera.height), K, np.asarray(camera.R, np.float64), centre)


class Pair(NamedTuple):
    """Two photos turned about their cameras so that a point lies in the same row of both.

    In the rectified axes x runs from the first camera to the second; a point at rectified depth z lies, in the first
    picture, ``disparity = focal · baseline / z - shift`` columns right of where it lies in the second.

    Args:
        R: ``float64[3, 3]``, world to rectified axes.
        first, second: ``float64[3, 3]``, intrinsics of the rectified pictures.
        width, height: of both, in pixels.
        focal: in pixels.
        baseline: distance of the cameras.
        shift: whole pixels that the second picture is shifted by, so that the least disparity is about 0.
        disparities: how many there are from 0 on, for the depths that were asked for.
    """

    R: np.ndarray
    first: np.ndarray
    second: np.ndarray
    width: int
    height: int
    focal: float
    baseline: float
    shift: int
    disparities: int


def rectify(first: Pinhole, second: Pinhole, near: float, far: float) -> Optional[Pair]:
    """Turn two cameras into a rectified pair, as Fusiello, Trucco and Verri 2000 do.

    x is the direction of the baseline and z the mean of the viewing directions made orthogonal to it. Unlike OpenCV's
    ``stereoRectify``, which keeps pictures nearly upright and leaves pairs that stand above each other vertical, the first
    camera always comes out at the left: one matcher serves all directions.

    Args:
        first: its picture is kept whole, at its own focal length.
        second: seen only where the first one's points between ``near`` and ``far`` may lie.
        near, far: depths in the first camera.

    Returns:
        The pair; None where the cameras stand at one place, look along their baseline or away from each other.
    """
    across = second.centre - first.centre
    baseline = float(np.linalg.norm(across))
    facing = first.R[2] + second.R[2]
    if not baseline > 1e-9 * far or first.R[2] @ second.R[2] <= 0:
        return None
    x = across / baseline
    z = facing - (facing @ x) * x
    if np.linalg.norm(z) < LEAST_FACING * np.linalg.norm(facing):
        return None
    z /= np.linalg.norm(z)
    R = np.stack([x, np.cross(z, x), z])
    rays = first.corners() @ (R @ first.R.T).T
    others = second.corners() @ (R @ second.R.T).T
    if min(rays[:, 2].min(), others[:, 2].min()) < LEAST_FACING:
        return None
    focal = float(np.sqrt(first.K[0, 0] * first.K[1, 1]))
    left, top = np.floor(focal * (rays[:, :2] / rays[:, 2:]).min(0))
    right, bottom = np.ceil(focal * (rays[:, :2] / rays[:, 2:]).max(0))
    top = max(top, np.floor(focal * (others[:, 1] / others[:, 2]).min()))
    bottom = min(bottom, np.ceil(focal * (others[:, 1] / others[:, 2]).max()))
    width, height = int(right - left), int(bottom - top)
    if width * height > LARGEST_STRETCH * first.width * first.height or height < 1:
        return None
    shift = int(np.floor(focal * baseline / (far * rays[:, 2].max())))
    most = int(np.ceil(focal * baseline / (near * rays[:, 2].min()))) - shift + 1
    intrinsics = np.array([[focal, 0, -left], [0, focal, -top], [0, 0, 1]])
    shifted = intrinsics + np.array([[0, 0, shift], [0, 0, 0], [0, 0, 0]])
    return Pair(R, intrinsics, shifted, width, height, focal, baseline, shift, most)


def to_photo(pair: Pair, camera: Pinhole, second: bool) -> np.ndarray:
    """``float64[3, 3]``: from pixels of a rectified picture to pixels of the photo that it was made of."""
    return camera.K @ camera.R @ pair.R.T @ np.linalg.inv(pair.second if second else pair.first)


def depth_from_disparity(pair: Pair, camera: Pinhole, disparity: np.ndarray) -> np.ndarray:
    """Depths in the first photo itself.

    Args:
        pair: the rectified pair.
        camera: the first photo's.
        disparity: ``float32[height, width]`` of the rectified first picture, NaN where none is known.

    Returns:
        ``float32[H, W]`` at the photo's pixels, 0 where none is known. Between pixels of the rectified picture it is
        interpolated, unless they lie on different surfaces: disparities more than 1 px apart.
    """
    turned = camera.rays() @ (pair.R @ camera.R.T).T
    facing = turned[..., 2]
    column = pair.focal * turned[..., 0] / facing + pair.first[0, 2] - 0.5
    row = pair.focal * turned[..., 1] / facing + pair.first[1, 2] - 0.5
    found = smooth_lookup(disparity, column, row, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = pair.focal * pair.baseline / (found + pair.shift) / facing
    return np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)


def smooth_lookup(values: np.ndarray, column: np.ndarray, row: np.ndarray, apart: float) -> np.ndarray:
    """Values between pixels, bilinear where the four around are known and at most ``apart`` apart; else the nearest.

    Args:
        values: ``float[H, W]``, NaN where unknown.
        column, row: any shape; 0 is the middle of the first pixel. Outside of the picture the answer is NaN.
    """
    height, width = values.shape
    nearest_column, nearest_row = np.rint(column).astype(int), np.rint(row).astype(int)
    inside = (nearest_column >= 0) & (nearest_column < width) & (nearest_row >= 0) & (nearest_row < height)
    nearest = values[np.clip(nearest_row, 0, height - 1), np.clip(nearest_column, 0, width - 1)]
    left = np.clip(np.floor(column).astype(int), 0, max(width - 2, 0))
    top = np.clip(np.floor(row).astype(int), 0, max(height - 2, 0))
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    four = np.stack([values[top, left], values[top, right], values[bottom, left], values[bottom, right]])
    across, down = np.clip(column - left, 0, 1), np.clip(row - top, 0, 1)
    upper = four[0] * (1 - across) + four[1] * across
    lower = four[2] * (1 - across) + four[3] * across
    with np.errstate(invalid="ignore"):
        smooth = four.max(0) - four.min(0) <= apart
    return np.where(inside, np.where(smooth, upper * (1 - down) + lower * down, nearest), np.nan)


def lookup(values: np.ndarray, column: np.ndarray, row: np.ndarray) -> np.ndarray:
    """``values[H, W]`` at the pixels that hold these places (0.5 is the middle of the first); 0 outside, and for NaN."""
    height, width = values.shape
    with np.errstate(invalid="ignore"):
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        at_column = np.where(inside, column, 0).astype(np.int32)
        at_row = np.where(inside, row, 0).astype(np.int32)
    return np.where(inside, values[at_row, at_column], values.dtype.type(0))
