"""The method ``nearest``: the training photo whose camera is nearest. The floor that any method must beat."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Rendering(NamedTuple):
    """``image``: float32[H, W, 3], sRGB; it has no depth."""

    image: np.ndarray
    depth: None = None
    opacity: None = None


class Nearest:
    """Nothing is learned: ``step`` only says how far the training cameras are from each other."""

    def __init__(self, views: Any, settings: dict[str, Any], seed: int, device: str) -> None:
        self._views = views
        self._angle_weight = float(settings["angle_weight"])
        self._centres = np.stack([view.camera.centre for view in views])
        self._directions = np.stack([view.camera.forward for view in views])
        spread = np.linalg.norm(self._centres - self._centres.mean(0), axis=1)
        self._radius = float(spread.max()) or 1.0
        self.finished = False

    def distances(self, camera: Any) -> np.ndarray:
        """How far each training camera is, float64[V]: distance in capture radii plus weighted angle."""
        apart = np.linalg.norm(self._centres - camera.centre, axis=1) / self._radius
        cosines = np.clip(self._directions @ camera.forward, -1.0, 1.0)
        return apart + self._angle_weight * np.arccos(cosines)

    def step(self) -> dict[str, float]:
        """Finished at once; ``loss`` is the mean distance of a training camera to its nearest other one."""
        self.finished = True
        if len(self._views) == 1:
            return {"loss": 0.0}
        nearest = [np.partition(self.distances(view.camera), 1)[1] for view in self._views]
        return {"loss": float(np.mean(nearest))}

    def render(self, camera: Any) -> Rendering:
        """The nearest training photo, resampled bilinearly where its size is another."""
        photo = self._views[int(np.argmin(self.distances(camera)))].image
        return Rendering(resized(photo, camera.width, camera.height))

    def save(self, folder: Path) -> None:
        """There is nothing to save but that it has finished."""
        (folder / "finished.txt").write_text(str(self.finished))

    def load(self, folder: Path) -> None:
        """What :meth:`save` wrote."""
        self.finished = (folder / "finished.txt").read_text() == "True"


def resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """``float32[height, width, 3]``: ``image`` resampled bilinearly, pixel centres at half integers."""
    if image.shape[:2] == (height, width):
        return image
    rows, columns = (
        np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        for new, old in ((height, image.shape[0]), (width, image.shape[1]))
    )
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    bottom, right = np.minimum(top + 1, image.shape[0] - 1), np.minimum(left + 1, image.shape[1] - 1)
    down = (rows - top).astype(np.float32)[:, None, None]
    across = (columns - left).astype(np.float32)[None, :, None]
    upper = image[top][:, left] * (1 - across) + image[top][:, right] * across
    lower = image[bottom][:, left] * (1 - across) + image[bottom][:, right] * across
    return upper * (1 - down) + lower * down
