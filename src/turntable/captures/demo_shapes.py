"""Surfaces of the demo's scene: of planes and of revolution, each a map from (u, v) in [0, 1]² to space.

Notation: the world's z runs up; ``dP/du × dP/dv`` points outward, and so do the normals. A surface of
revolution turns a profile of (radius, height) about its own z axis; the profile has the inside on its left.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


def turned(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """``matrix @ p`` for every p of ``[…, 3]``, without BLAS (whose bits depend on the number of threads)."""
    return (
        points[..., 0, None] * matrix[:, 0]
        + points[..., 1, None] * matrix[:, 1]
        + points[..., 2, None] * matrix[:, 2]
    )


def unit(vectors: np.ndarray) -> np.ndarray:
    """``[…, 3]`` scaled to length 1; zero stays zero."""
    length = np.sqrt((vectors * vectors).sum(-1, keepdims=True))
    return vectors / np.where(length == 0, 1, length)


def about(axis: str, angle: float) -> np.ndarray:
    """The rotation about a coordinate axis by an angle in radians, ``float64[3, 3]``."""
    c, s = np.cos(angle), np.sin(angle)
    rows = {
        "x": [[1, 0, 0], [0, c, -s], [0, s, c]],
        "y": [[c, 0, s], [0, 1, 0], [-s, 0, c]],
        "z": [[c, -s, 0], [s, c, 0], [0, 0, 1]],
    }
    return np.array(rows[axis], np.float64)


@dataclass(frozen=True)
class Quad:
    """The parallelogram ``origin + u·along_u + v·along_v``; it does not close on itself."""

    origin: np.ndarray
    along_u: np.ndarray
    along_v: np.ndarray
    closed: bool = False

    def at(self, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Own coordinates, world positions and normals, each ``float64[…, 3]``."""
        world = self.origin + u[..., None] * self.along_u + v[..., None] * self.along_v
        normal = unit(np.cross(self.along_u, self.along_v))
        return np.stack([u, v, np.zeros_like(u)], -1), world, np.broadcast_to(normal, world.shape)


@dataclass(frozen=True)
class Turned:
    """A profile turned about z, then moved by ``matrix @ p + offset`` (``matrix`` may stretch it)."""

    profile: np.ndarray
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    matrix: np.ndarray = field(default_factory=lambda: np.eye(3))
    closed: bool = True

    def at(self, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Own coordinates (unstretched, about z), world positions and normals, each ``float64[…, 3]``."""
        steps = np.diff(self.profile, axis=0)
        along = np.concatenate([[0.0], np.cumsum(np.hypot(steps[:, 0], steps[:, 1]))])
        along /= along[-1]
        radius, height = (np.interp(v, along, self.profile[:, k]) for k in range(2))
        slope = np.gradient(self.profile, axis=0)
        out, up = np.interp(v, along, slope[:, 1]), np.interp(v, along, -slope[:, 0])
        cos, sin = np.cos(2 * np.pi * u), np.sin(2 * np.pi * u)
        own = np.stack([radius * cos, radius * sin, height], -1)
        normal = turned(np.stack([out * cos, out * sin, up], -1), np.linalg.inv(self.matrix).T)
        return own, turned(own, self.matrix) + np.array(self.offset), unit(normal)


def spline(points: list[tuple[float, float]], count: int = 160) -> np.ndarray:
    """A smooth profile through ``points`` (Catmull–Rom), ``float64[count, 2]``; radii are kept ≥ 0."""
    p = np.array([points[0], *points, points[-1]], np.float64)
    t = np.linspace(0, len(points) - 1, count)
    i = np.minimum(t.astype(int), len(points) - 2)
    s = (t - i)[:, None]
    a, b, c, d = p[i], p[i + 1], p[i + 2], p[i + 3]
    curve = 0.5 * (2 * b + (c - a) * s + (2 * a - 5 * b + 4 * c - d) * s**2 + (3 * b - a - 3 * c + d) * s**3)
    curve[:, 0] = np.maximum(curve[:, 0], 0)
    return curve


def rounded(points: list[tuple[float, float]], bevel: float, count: int = 240) -> np.ndarray:
    """A profile of straight lines whose corners are rounded over ``bevel``, ``float64[count, 2]``."""
    p = np.array(points, np.float64)
    pieces = [p[:1]]
    t = np.linspace(0, 1, 9)[:, None]
    for before, corner, after in zip(p[:-2], p[1:-1], p[2:], strict=True):
        a = corner + (before - corner) * bevel / np.hypot(*(before - corner))
        b = corner + (after - corner) * bevel / np.hypot(*(after - corner))
        pieces.append((1 - t) ** 2 * a + 2 * t * (1 - t) * corner + t**2 * b)
    line = np.concatenate([*pieces, p[-1:]])
    steps = np.diff(line, axis=0)
    along = np.concatenate([[0.0], np.cumsum(np.hypot(steps[:, 0], steps[:, 1]))])
    even = np.union1d(np.linspace(0, along[-1], count), along)
    return np.stack([np.interp(even, along, line[:, k]) for k in range(2)], 1)


def ball(radius: float = 1.0) -> np.ndarray:
    """A half circle from pole to pole: the profile of a ball about the origin."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, 97)
    return radius * np.stack([np.maximum(np.cos(angle), 0), np.sin(angle)], 1)


def ring(radius: float, thickness: float) -> np.ndarray:
    """A circle beside the axis: the profile of a torus."""
    angle = np.linspace(-np.pi, np.pi, 129)
    return np.stack([radius + thickness * np.cos(angle), thickness * np.sin(angle)], 1)


def block(centre: tuple[float, float], bottom: float, size: float, angle: float) -> list[Quad]:
    """The six sides of an upright cube: east, north, west, south in its own axes, top, bottom."""
    x, y, z = (column * size for column in about("z", angle).T)
    middle = np.array([*centre, bottom + size / 2])
    frames = [(y, z, x), (-x, z, y), (-y, z, -x), (x, z, -y), (x, y, z), (y, x, -z)]
    return [Quad(middle + (out - u - v) / 2, u, v) for u, v, out in frames]
