"""All pixels of the training photos, from which batches of rays are drawn."""

from __future__ import annotations

from typing import Any

import numpy as np


class Pixels:
    """The pixels that count of all photos; these may be of different sizes.

    Args:
        views: the training views, as the contract has them. Their photos are kept as uint8.
    """

    def __init__(self, views: Any) -> None:
        photos = [view.image_u8 for view in views]
        self._widths = np.array([photo.shape[1] for photo in photos])
        self._starts = np.concatenate([[0], np.cumsum([photo.shape[0] * photo.shape[1] for photo in photos])])
        self._colours = np.concatenate([photo.reshape(-1, 3) for photo in photos])
        masks = [view.mask for view in views]
        self._counting: np.ndarray | None = None
        if any(mask is not None for mask in masks):
            every = [
                np.ones(photo.shape[:2], bool) if mask is None else mask > 0.5
                for photo, mask in zip(photos, masks, strict=True)
            ]
            self._counting = np.flatnonzero(np.concatenate([mask.ravel() for mask in every]))
            if not len(self._counting):
                raise ValueError("no pixel of any training photo counts: every mask is empty")

    def sample(
        self, generator: np.random.Generator, count: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Draw pixels, each as likely as any other.

        Args:
            generator: decides.
            count: how many.

        Returns:
            Photos, rows and columns, int64[count] each, and colours, float32[count, 3] in [0, 1].
        """
        if self._counting is None:
            places = generator.integers(len(self._colours), size=count)
        else:
            places = self._counting[generator.integers(len(self._counting), size=count)]
        photos = np.searchsorted(self._starts, places, side="right") - 1
        rows, columns = np.divmod(places - self._starts[photos], self._widths[photos])
        return photos, rows, columns, self._colours[places].astype(np.float32) / np.float32(255)
