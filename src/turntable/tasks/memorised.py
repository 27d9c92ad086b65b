"""Memorised renderings: those that are a training photo, and no picture of the view that was asked for.

A method that shows the nearest photo, or has learned its photos by heart, can score well where the held-out views lie
close to the training views, and knows nothing of what is between them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..captures.alike import fingerprint, pairs_alike
from ..captures.capture import Capture
from ..captures.leakage import fingerprints, leakage_of, psnr_between

COPY_BELOW = 0.1
"""Of :func:`turntable.captures.alike.difference`. Stricter than for leakage, since nobody changes a rendering's brightness:
JPEG (quality 20 and more), resizing to a half (and back) and noise of 5 grey levels came to 0.067 at most; of a splat of
fox, the rendering most like a training photo has 1.9."""

LEAST_PSNR = 27.0
"""In dB, at the smaller one's full size. The same copies had 28.7 and more; the nearest two neighbours in fox have 25.0 even
as probes, and that splat's renderings 20.8 at most."""


@dataclass(frozen=True)
class Memorised:
    """The training photo that a rendering is.

    Args:
        training: the photo's view.
        psnr: of the rendering against that photo, in dB, at the smaller one's size; ``inf`` where nothing differs.
        identical: whether size and every pixel are the same.
    """

    training: str
    psnr: float
    identical: bool


class TrainingPhotos:
    """The training photos of a capture, to be found again in renderings; all are read once, here.

    Raises:
        TurntableError, OSError: a photo can't be read.
    """

    def __init__(self, capture: Capture) -> None:
        self._views = capture.training
        known = fingerprints(self._views)
        self._prints = [known[view.name] for view in self._views]
        self._leaked: dict[str, set[str]] = {}
        for leak in leakage_of(capture):
            self._leaked.setdefault(leak.held_out, set()).add(leak.training)

    def memorised(self, rendering: np.ndarray, view: str | None = None) -> Memorised | None:
        """The training photo that ``rendering`` is, copied or encoded anew, or None.

        Where a training photo shows a held-out view (leakage), a good rendering of that view looks like the photo: such a
        photo counts only where every pixel is the same.

        Args:
            rendering: ``uint8[H, W, 3]``, of any size.
            view: the held-out view that was asked for; None takes every leaking photo for one that may rightly be shown.
        """
        names = self._leaked if view is None else [view]
        rightly = {training for name in names for training in self._leaked.get(name, ())}
        found = fingerprint(rendering)
        for _, place, _ in pairs_alike([found], self._prints, COPY_BELOW):
            photo = self._views[place]
            identical = found.digest == self._prints[place].digest
            if identical:
                return Memorised(photo.name, np.inf, True)
            psnr = psnr_between(rendering, photo.image())
            if photo.name not in rightly and (psnr is None or psnr >= LEAST_PSNR):
                return Memorised(photo.name, np.inf if psnr is None else psnr, False)
        return None
