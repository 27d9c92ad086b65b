"""A picture of the scene: a surface for the depths, the training photos for the colours."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from . import blend
from .rays import Surface

CANDIDATES = 8
"""Photos that are looked at for a picture; of these, each pixel takes the best few."""

CACHED_BYTES = 1 << 29
"""Of photos that are kept in memory."""

BAND_PIXELS = 1 << 18
"""Pixels whose colours are found at a time: it bounds the memory."""


class Rendering(NamedTuple):
    """``image`` float32[H, W, 3], sRGB; ``depth`` float32[H, W], z, 0 where there is no surface; ``opacity`` float32[H, W],
    1 where there is one."""

    image: np.ndarray
    depth: np.ndarray
    opacity: np.ndarray


class Painter:
    """Shows a surface in the colours of the photos.

    Args:
        views: the training views.
        most: photos that count in a pixel.
    """

    def __init__(self, views: Any, most: int) -> None:
        self._views = views
        self._cameras = [view.camera for view in views]
        self._most = most
        self._middle = focus(self._cameras)
        self._background = np.asarray(views.background, np.float32) if views.has_alpha else None
        first = self._cameras[0]
        keep = max(2, CACHED_BYTES // (3 * first.width * first.height))
        self._photo = lru_cache(maxsize=keep)(lambda index: views[index].image_u8)
        self._mask = lru_cache(maxsize=keep)(lambda index: views[index].mask)

    def paint(self, camera: Any, surface: Surface, points: np.ndarray) -> Rendering:
        """The picture that ``camera`` has of ``surface``.

        Where no surface is, the background is shown if the capture has one. Else the colours are those of the photos
        still, as if something were there at a depth between those around; and where there is no surface at all, at
        the depth of the ``points``, ``float64[P, 3]``, or at last where the cameras look.
        """
        shape = camera.height, camera.width
        rays = pixel_rays(camera)
        hits = surface.hits(camera.centre, rays)
        hit = np.isfinite(hits.distances)
        depth = np.where(hit, hits.distances, 0).reshape(shape)
        if self._background is None:
            known = depth > 0 if hit.any() else point_depths(camera, points) > 0
            guess = depth if hit.any() else point_depths(camera, points)
            inverse = np.where(known, 1 / np.where(known, guess, 1), 0)[..., None]
            inverse = (
                blend.filled(inverse, known)[..., 0] if known.any() else self._inverse_focus(camera, shape)
            )
            wanted = np.arange(len(rays))
        else:
            inverse = np.where(depth > 0, 1 / np.where(depth > 0, depth, 1), 0)
            wanted = np.flatnonzero(hit)
        image = np.zeros((len(rays), 3), np.float32)
        known = np.zeros(len(rays), bool)
        places = camera.centre + rays[wanted] / inverse.reshape(-1, 1)[wanted]
        chosen = self._candidates(camera, places)
        for start in range(0, len(wanted), BAND_PIXELS):
            part = wanted[start : start + BAND_PIXELS]
            colours, found = self._colours(
                camera, chosen, places[start : start + BAND_PIXELS], hit[part], surface
            )
            colours[~found] = hits.colours[part[~found]]
            image[part], known[part] = colours, found | hit[part]
        if self._background is not None:
            image[~hit], known[~hit] = self._background, True
        image, known = image.reshape(*shape, 3), known.reshape(shape)
        image = (
            blend.filled(image, known) if known.any() else np.full_like(image, self._photo(0).mean() / 255)
        )
        return Rendering(image, depth.astype(np.float32), hit.reshape(shape).astype(np.float32))

    def _candidates(self, camera: Any, places: np.ndarray) -> list[int]:
        """The photos that suit best on the whole, by some hundred of the ``places``, ``float64[N, 3]``."""
        if not len(places):
            return []
        some = places[:: max(1, len(places) // 256)]
        penalty = [np.minimum(blend.penalties(some, camera, photo), np.pi).mean() for photo in self._cameras]
        return [int(index) for index in np.argsort(penalty, kind="stable")[:CANDIDATES]]

    def _colours(
        self, camera: Any, chosen: list[int], places: np.ndarray, hit: np.ndarray, surface: Surface
    ) -> tuple[np.ndarray, np.ndarray]:
        """The photos' colours in ``places``, ``float32[N, 3]``, and whether any photo has the place, ``bool[N]``.

        What is no ``hit``, ``bool[N]``, is behind nothing, since it isn't anywhere. What is hidden from every photo is
        most often seen through a gap, where something not far behind its true place is hit: then nothing hides it.
        """
        penalty = np.stack([blend.penalties(places, camera, self._cameras[index]) for index in chosen])
        pixels = [self._cameras[index].project(places)[0] for index in chosen]
        for row, index in enumerate(chosen):
            rows = np.flatnonzero(np.isfinite(penalty[row]))
            if (mask := self._mask(index)) is not None:
                columns, lines = pixels[row][rows].astype(int).T
                counts = mask[lines.clip(0, mask.shape[0] - 1), columns.clip(0, mask.shape[1] - 1)] > 0
                penalty[row, rows[~counts]] = np.inf
        unhidden = penalty.copy()
        for row, index in enumerate(chosen):
            rows = np.flatnonzero(np.isfinite(penalty[row]) & hit)
            seen = surface.visible(places[rows], self._cameras[index].centre)
            penalty[row, rows[~seen]] = np.inf
        penalty = np.where(np.isfinite(penalty).any(0), penalty, unhidden)
        weights = blend.weights(penalty, self._most).astype(np.float32)
        colours = np.zeros((len(places), 3), np.float32)
        for row, index in enumerate(chosen):
            rows = np.flatnonzero(weights[row] > 0)
            if len(rows):
                sampled = blend.sample(self._photo(index), pixels[row][rows])
                colours[rows] += weights[row, rows, None] * sampled
        return colours, np.asarray(np.isfinite(penalty).any(0))

    def _inverse_focus(self, camera: Any, shape: tuple[int, int]) -> np.ndarray:
        depth = (self._middle - camera.centre) @ camera.forward
        return np.full(shape, 1 / depth if depth > 0 else 1.0)


def pixel_rays(camera: Any) -> np.ndarray:
    """Through the centre of each pixel, ``float64[H·W, 3]`` in the world, so long that z grows by 1 along it."""
    x = (np.arange(camera.width) + 0.5 - camera.cx) / camera.fx
    y = (np.arange(camera.height) + 0.5 - camera.cy) / camera.fy
    grid = np.stack([*np.meshgrid(x, y), np.ones((len(y), len(x)))], -1)
    return grid.reshape(-1, 3) @ camera.R


def point_depths(camera: Any, points: np.ndarray) -> np.ndarray:
    """The depth of the nearest of ``points``, ``float64[P, 3]``, in each pixel, ``float64[H, W]``; 0 where none is."""
    depths = np.full(camera.height * camera.width, np.inf)
    if len(points):
        pixels, depth = camera.project(points)
        inside = (depth > 0) & ((pixels >= 0) & (pixels < [camera.width, camera.height])).all(1)
        columns, lines = pixels[inside].astype(np.int64).T
        np.minimum.at(depths, lines * camera.width + columns, depth[inside])
    return np.where(np.isfinite(depths), depths, 0).reshape(camera.height, camera.width)


def focus(cameras: Sequence[Any]) -> np.ndarray:
    """Where the cameras look: the point nearest to all of their axes, ``float64[3]``; one unit in front of the first
    where the axes don't say (a single camera, parallel ones)."""
    across = [np.eye(3) - np.outer(camera.forward, camera.forward) for camera in cameras]
    total = np.sum(across, axis=0)
    if np.linalg.eigvalsh(total)[0] < 1e-4 * len(cameras):
        return cameras[0].centre + cameras[0].forward
    aims = np.sum([flat @ camera.centre for flat, camera in zip(across, cameras, strict=True)], axis=0)
    return np.linalg.solve(total, aims)
