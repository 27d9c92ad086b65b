"""Photos of a room's textured corner, rendered by hand: what structure from motion can really work on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from conftest import look_at
from turntable.worker.contract import Camera

WIDTH, HEIGHT, FOCAL = 320, 240, 300.0


def cameras(count: int = 8) -> list[Camera]:
    """On an arc before the corner at the origin, at changing heights."""
    made = []
    for index in range(count):
        angle = np.radians(25 + 40 * index / (count - 1))
        eye = np.array([6 * np.cos(angle), 6 * np.sin(angle), 2.5 + 0.4 * (index % 3)])
        made.append(look_at(eye, np.array([0.8, 0.8, 0.9]), WIDTH, HEIGHT, FOCAL))
    return made


def photo(camera: Camera, seed: int = 0) -> np.ndarray:
    """``uint8[H, W, 3]``: the walls x = 0 and y = 0 and the floor z = 0, each with a texture of its own."""
    generator = np.random.default_rng(seed)
    x, y = np.meshgrid(
        (np.arange(camera.width) + 0.5 - camera.cx) / camera.fx,
        (np.arange(camera.height) + 0.5 - camera.cy) / camera.fy,
    )
    rays = np.stack([x, y, np.ones_like(x)], -1) @ camera.R
    distance = np.full(x.shape, np.inf)
    image = np.zeros((*x.shape, 3))
    for axis in range(3):
        texture = sum(
            np.asarray(
                Image.fromarray(generator.uniform(0, 255 / 3, (size, size)).astype(np.float32)).resize(
                    (512, 512)
                )
            )
            for size in (16, 48, 160)
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            along = -camera.centre[axis] / rays[..., axis]
        hit = (along > 0) & (along < distance)
        point = camera.centre + np.where(hit, along, 0)[..., None] * rays
        u, v = (point[..., other] for other in range(3) if other != axis)
        value = texture[(v * 60).astype(int) % 512, (u * 60).astype(int) % 512]
        image[hit] = value[hit, None] * [1.0, 0.9 - 0.1 * axis, 0.8]
        distance = np.where(hit, along, distance)
    return image.clip(0, 255).astype(np.uint8)


def write_room(folder: Path, count: int = 8, seed: int = 0, prefix: str = "") -> list[Camera]:
    """Photos of one room as JPEGs; the cameras they were taken with."""
    folder.mkdir(exist_ok=True)
    made = cameras(count)
    for index, camera in enumerate(made):
        Image.fromarray(photo(camera, seed)).save(folder / f"{prefix}{index:02d}.jpg", quality=95)
    return made


def aligned_error(found: np.ndarray, truth: np.ndarray) -> float:
    """How far camera centres ``float64[N, 3]`` lie from the truth after the best similarity (Umeyama 1991), as a share of
    the truth's spread.
    """
    a, b = found - found.mean(0), truth - truth.mean(0)
    u, scales, vt = np.linalg.svd(b.T @ a)
    sign = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ sign @ vt
    scale = (scales * np.diag(sign)).sum() / (a**2).sum()
    return float(np.abs(scale * a @ rotation.T - b).max() / np.linalg.norm(b, axis=1).max())
