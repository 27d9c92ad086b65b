"""Training photos in memory: 8 bits a channel, and halved twice for coarse-to-fine training."""

from __future__ import annotations

from typing import Any

import numpy as np

LEVELS = 3


def halved(photo: np.ndarray) -> np.ndarray:
    """``uint8[H // 2, W // 2, …]``: means of 2×2 pixels, rounded; an odd last row or column is dropped."""
    height, width = max(photo.shape[0] // 2, 1), max(photo.shape[1] // 2, 1)
    if photo.shape[0] < 2 or photo.shape[1] < 2:
        return photo[:height, :width].copy()
    even = photo[: 2 * height, : 2 * width].astype(np.uint16)
    return ((even[0::2, 0::2] + even[1::2, 0::2] + even[0::2, 1::2] + even[1::2, 1::2] + 2) // 4).astype(
        np.uint8
    )


class Photos:
    """Photos and masks of the training views at each level: level 0 is full size, each further one is half.

    Args:
        views: the training views.
        levels: how many sizes to keep.
    """

    def __init__(self, views: Any, levels: int = LEVELS) -> None:
        self.cameras = [view.camera for view in views]
        self._photos: list[list[np.ndarray]] = []
        self._masks: list[list[np.ndarray] | None] = []
        for view in views:
            photos = [np.ascontiguousarray(view.image_u8)]
            mask = view.mask
            masks = None if mask is None else [np.ascontiguousarray((mask > 0.5).astype(np.uint8))]
            for _ in range(levels - 1):
                photos.append(halved(photos[-1]))
                if masks is not None:  # a pixel counts where all four of its pixels do
                    masks.append((halved(masks[-1] * np.uint8(4)) == 4).astype(np.uint8))
            self._photos.append(photos)
            self._masks.append(masks)

    def __len__(self) -> int:
        return len(self._photos)

    def photo(self, index: int, level: int = 0) -> np.ndarray:
        """``uint8[H, W, 3]``."""
        return self._photos[index][level]

    def mask(self, index: int, level: int = 0) -> np.ndarray | None:
        """``uint8[H, W]``, 1 where a pixel counts, or None where every pixel does."""
        masks = self._masks[index]
        return None if masks is None else masks[level]

    @property
    def mean_pixels(self) -> float:
        """Pixels of a photo, on average."""
        return float(np.mean([camera.width * camera.height for camera in self.cameras]))

    def border_colour(self) -> np.ndarray:
        """``float32[3]`` in [0, 1]: the median colour of the outermost pixels of all photos that count; of all that
        count, where none of those does.
        """
        border, inside = [], []
        for index in range(len(self)):
            photo, mask = self.photo(index, LEVELS - 1), self.mask(index, LEVELS - 1)
            edge = np.ones(photo.shape[:2], bool)
            edge[1:-1, 1:-1] = False
            border.append(photo[edge if mask is None else edge & (mask > 0)])
            inside.append(photo.reshape(-1, 3) if mask is None else photo[mask > 0])
        colours = np.concatenate(border)
        if not len(colours):
            colours = np.concatenate(inside)
        return (
            np.median(colours, axis=0).astype(np.float32) / 255 if len(colours) else np.zeros(3, np.float32)
        )
