"""A scene whose every number is known: points, cameras made from directions, and photos with a spot at each
point.

Nothing here uses the code under test. A camera is a ``Pose``: where it stands, and which way its right, up
and forward point in the world. A point is seen ``f · (right · d) / (forward · d)`` to the right of the
principal point and ``f · (up · d) / (forward · d)`` above it, with ``d`` from the camera to the point, pixel
centres at half integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from turntable.captures.source import SourceOptions

WIDTH, HEIGHT, FOCAL = 160, 120, 150.0
CX, CY = 83.5, 57.25  # off the centre, and differently in x and y, so that a swap or a flip shows

POINTS = np.array(
    [
        [0.0, 0.0, 0.0],
        [0.6, 0.1, 0.05],
        [-0.5, 0.3, -0.1],
        [0.1, -0.6, 0.2],
        [0.2, 0.25, 0.5],
        [-0.3, -0.3, -0.45],
    ]
)


@dataclass(frozen=True)
class Pose:
    name: str
    centre: np.ndarray
    right: np.ndarray
    up: np.ndarray
    forward: np.ndarray

    def plane(self, points: np.ndarray) -> np.ndarray:
        """Where points are seen on the plane at depth 1, x to the right and y downward: ``float64[N, 2]``."""
        d = points - self.centre
        depth = d @ self.forward
        return np.stack([d @ self.right / depth, -(d @ self.up) / depth], 1)

    def pixels(self, points: np.ndarray = POINTS) -> np.ndarray:
        return self.plane(points) * FOCAL + [CX, CY]


def poses(count: int = 9) -> list[Pose]:
    """Cameras around the points, each at another height and rolled a little."""
    made = []
    for index in range(count):
        angle = 2 * np.pi * index / count + 0.2
        centre = np.array([3 * np.cos(angle), 3 * np.sin(angle), 0.4 + 0.15 * index])
        forward = -centre / np.linalg.norm(centre)
        flat = np.cross(forward, [0.0, 0.0, 1.0])
        flat /= np.linalg.norm(flat)
        roll = 0.1 * index - 0.3
        right = np.cos(roll) * flat + np.sin(roll) * np.cross(flat, forward)
        made.append(Pose(f"{index:02d}.png", centre, right, np.cross(right, forward), forward))
    return made


def spots(pixels: np.ndarray, width: int = WIDTH, height: int = HEIGHT, sigma: float = 1.6) -> np.ndarray:
    """A grey photo, ``uint8[H, W, 3]``, with a bright spot centred on each pixel position."""
    y, x = np.mgrid[0:height, 0:width] + 0.5
    value = np.full((height, width), 40.0)
    for u, v in pixels:
        value += 200 * np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * sigma**2))
    return np.repeat(value.clip(0, 255).round().astype(np.uint8)[..., None], 3, axis=2)


def spot_near(image: np.ndarray, pixel: np.ndarray, radius: int = 6) -> np.ndarray:
    """The centre of brightness around ``pixel``: where a spot really lies in ``image``."""
    left, top = (int(value) - radius for value in pixel)
    patch = image[max(0, top) : top + 2 * radius + 1, max(0, left) : left + 2 * radius + 1, 0].astype(float)
    weight = (patch - patch.min()) ** 2
    y, x = np.mgrid[0 : patch.shape[0], 0 : patch.shape[1]] + 0.5
    return np.array(
        [(x * weight).sum() / weight.sum() + max(0, left), (y * weight).sum() / weight.sum() + max(0, top)]
    )


def isolated(pixels: np.ndarray, width: int, height: int, apart: float = 14, margin: float = 9) -> np.ndarray:
    """Which spots stand alone and well inside of the photo: those whose centres can be measured."""
    distances = np.linalg.norm(pixels[:, None] - pixels[None], axis=2) + np.eye(len(pixels)) * 1e9
    inside = (pixels > margin).all(1) & (pixels < [width - margin, height - margin]).all(1)
    return inside & (distances.min(1) > apart)


def save(image: np.ndarray, path: Path, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)  # type: ignore[arg-type]
    return path


def source_options(scratch: Path) -> SourceOptions:
    return SourceOptions(scratch=scratch)


def assert_spots_where_cameras_say(capture: object, enough: int, tolerance: float = 0.2) -> None:
    """The photos of a capture show each known point where its camera projects it, to a fraction of a
    pixel.
    """
    seen = 0
    for view in capture.views:  # type: ignore[attr-defined]
        pixels, depth = view.camera.project(POINTS)
        assert (depth > 0).all()
        image = view.image()
        for pixel in pixels[isolated(pixels, view.camera.width, view.camera.height)]:
            found = spot_near(image, pixel)
            assert np.abs(found - pixel).max() < tolerance, (view.name, pixel, found)
            seen += 1
    assert seen >= enough, f"only {seen} spots could be measured"
