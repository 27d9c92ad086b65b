"""Whether two pictures are one photo: by what they show, whatever they are called and however they are encoded.

Two pictures of one scene are compared as thumbnails first (one matrix product for all pairs), and those pairs that could be
one photo again on probes, grey pictures of up to :data:`PROBE_PX` pixels. What decides there is the *difference*: the mean
squared residual after brightness and contrast were fitted, in units of the mean squared step from a pixel to its neighbour.
It is about the square of how far the picture has moved, in pixels of the probe, however much texture there is. Where one
tile of the picture has changed and all the rest stands still, as with a small object on a turntable, they are two photos.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

PROBE_PX = 128
"""The longer side of a probe. Small, so that JPEG's blocks and any resizing are averaged away: at 400 pixels a JPEG of
quality 20 differs from its source by 0.66, as much as a shift by a pixel does."""

FEWEST_PX = 64
"""With a shorter longer side, a pixel is too large a part of the picture to tell neighbours from copies."""

ALIKE_BELOW = 0.2
"""Of the difference. Measured on fox, temple and banana: the worst of JPEG (quality 20 and more), resizing to a half (and
back), brightness ±15 %, gamma 1.2 and noise of 5 grey levels came to 0.09; the nearest two neighbours in fox, frames of one
video, to 0.92. It is a shift by 0.4 pixels of the probe, or 0.3 % of the picture's length."""

TILE_PX = 16
"""The side of a tile, in pixels of the probe."""

TILE_BELOW = 1.0
"""A copy's worst tile differs by less. The same copies came to 0.09, a photo that was resized without any smoothing and with
another aspect ratio to 0.95; the nearest two neighbours in fox to 2.7."""

CANDIDATE = 0.98
"""The correlation of thumbnails from which a pair is looked at closely; copies as above had 0.997 and more."""

MOST_CANDIDATES = 8
"""So many, the best ones, are looked at for each picture: in a long video all neighbours' thumbnails correlate."""

GAIN = (0.6, 1.6)
"""A copy's contrast, as a multiple of the original's: further apart, it is another exposure."""

LEAST_TEXTURE = 0.5
"""The mean squared step between neighbours, in squared grey levels, below which rounding is most of what there is."""

SAME_SHAPE = 0.03
"""So much may width ÷ height differ: a few pixels of rounding; more, and one of them is a detail of the other."""

_THUMB = 32


@dataclass(frozen=True)
class Fingerprint:
    """What is kept of a picture to find it again.

    Args:
        digest: the same for pictures of the same size and pixels alone.
        size: width and height in pixels.
        thumb: ``float32[1024]`` of length 1 (or 0, where every pixel is the same) and mean 0.
        probe: ``uint8[h, w]``, grey.
        counts: ``bool[h, w]``, True where the mask counts, or None where everything does.
    """

    digest: bytes
    size: tuple[int, int]
    thumb: np.ndarray
    probe: np.ndarray
    counts: np.ndarray | None = None


def fingerprint(image: np.ndarray, mask: np.ndarray | None = None) -> Fingerprint:
    """The fingerprint of ``uint8[H, W, 3]``; ``mask``, ``uint8[H, W]`` or ``bool[H, W]``, says which pixels count."""
    height, width = image.shape[:2]
    grey = Image.fromarray(np.ascontiguousarray(image)).convert("L")
    scale = min(1.0, PROBE_PX / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    thumb = np.asarray(_resized(grey, (_THUMB, _THUMB)), np.float32).ravel()
    thumb = thumb - thumb.mean()
    length = float(np.linalg.norm(thumb))
    counts = None
    if mask is not None:
        whole = Image.fromarray(np.where(mask > 0, 255, 0).astype(np.uint8))
        counts = np.asarray(_resized(whole, size)) > 127
    pixels = hashlib.sha256(repr(image.shape).encode())
    pixels.update(np.ascontiguousarray(image).data)
    return Fingerprint(
        digest=pixels.digest(),
        size=(width, height),
        thumb=thumb / length if length > 0 else thumb,
        probe=np.asarray(_resized(grey, size)),
        counts=counts,
    )


def difference(one: Fingerprint, other: Fingerprint) -> float:
    """How far two pictures are from being one photo: see the module; infinite where they aren't, or that can't be told.

    Where both have masks, pixels that both count are compared; it is the same in both directions.
    """
    shapes = one.size[0] / one.size[1], other.size[0] / other.size[1]
    if max(shapes) / min(shapes) > 1 + SAME_SHAPE:
        return np.inf
    height, width = min(one.probe.shape, other.probe.shape)
    if max(height, width) < FEWEST_PX:
        return np.inf
    first, second = (_sized(found.probe, width, height).astype(np.float32) for found in (one, other))
    counts = np.ones((height, width), bool)
    for found in (one, other):
        if found.counts is not None:
            counts &= _sized(found.counts, width, height)
    return _residual(first, second, counts)


def _residual(first: np.ndarray, second: np.ndarray, counts: np.ndarray) -> float:
    if not counts.any():
        return np.inf
    here, there = first[counts], second[counts]
    here, there = here - here.mean(), there - there.mean()
    product, own, others = float(here @ there), float(here @ here), float(there @ there)
    if own == 0 or others == 0:
        return np.inf
    # The contrast that fits best where neither is the measure of the other: the geometric mean of both regressions.
    gain = float(np.sqrt(others / own))
    textures = _texture(first, counts), _texture(second, counts)
    if product <= 0 or not GAIN[0] <= gain <= GAIN[1] or min(textures) < LEAST_TEXTURE:
        return np.inf
    squares = np.zeros(counts.shape, np.float32)
    squares[counts] = np.square(there / gain - here)
    texture = min(textures[0], textures[1] / gain**2)
    tiles, numbers = _tiled(squares), _tiled(counts)
    enough = numbers >= TILE_PX**2 / 4
    # Where a part is sharp and the rest is not, a copy differs most in that part, by as much as it has texture.
    own = np.minimum(_tiled(_steps(first, counts)), _tiled(_steps(second, counts)) / gain**2)
    if (tiles[enough] >= TILE_BELOW * np.maximum(texture * numbers, own)[enough]).any():
        return np.inf
    return float(squares[counts].mean()) / texture


def _tiled(of: np.ndarray) -> np.ndarray:
    """The sums over tiles of ``float or bool[H, W]``."""
    height, width = (side + -side % TILE_PX for side in of.shape)
    padded = np.pad(of, ((0, height - of.shape[0]), (0, width - of.shape[1])))
    return padded.reshape(height // TILE_PX, TILE_PX, width // TILE_PX, TILE_PX).sum((1, 3), np.float64)


def _steps(picture: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Half the squared steps to the next pixels, to the right and downward, at each pixel; 0 where one doesn't count."""
    found = np.zeros(picture.shape, np.float32)
    found[:, :-1] += np.square(np.diff(picture, axis=1)) * (counts[:, 1:] & counts[:, :-1])
    found[:-1] += np.square(np.diff(picture, axis=0)) * (counts[1:] & counts[:-1])
    return found / 2


def _texture(picture: np.ndarray, counts: np.ndarray) -> float:
    """The mean squared step to the next pixel, to the right and downward."""
    across = np.square(np.diff(picture, axis=1))[counts[:, 1:] & counts[:, :-1]]
    down = np.square(np.diff(picture, axis=0))[counts[1:] & counts[:-1]]
    steps = len(across) + len(down)
    return float(across.sum() + down.sum()) / steps if steps else 0.0


def pairs_alike(
    some: Sequence[Fingerprint], others: Sequence[Fingerprint], below: float = ALIKE_BELOW
) -> list[tuple[int, int, float]]:
    """Which of ``some`` are the same photo as which of ``others``.

    Returns:
        Places in ``some`` and ``others`` and the difference, 0 where all pixels are the same; the most alike first for each
        of ``some``. A picture with many copies is paired with :data:`MOST_CANDIDATES` or a few more of them.
    """
    if not some or not others:
        return []
    same: dict[bytes, list[int]] = {}
    for place, other in enumerate(others):
        same.setdefault(other.digest, []).append(place)
    thumbs = np.stack([other.thumb for other in others])
    correlations = np.stack([one.thumb for one in some]) @ thumbs.T
    most = min(MOST_CANDIDATES, len(others))
    best = np.argpartition(-correlations, most - 1, axis=1)[:, :most]
    found = []
    for place, one in enumerate(some):
        identical = same.get(one.digest, [])
        close = [
            (int(other), difference(one, others[other]))
            for other in best[place]
            if correlations[place, other] >= CANDIDATE and int(other) not in identical
        ]
        alike = [(other, apart) for other, apart in close if apart < below]
        of_one = [(other, 0.0) for other in identical] + alike
        found += [(place, other, apart) for other, apart in sorted(of_one, key=lambda pair: pair[::-1])]
    return found


def to_size(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """``uint8[H, W, 3]`` at another size, every source pixel counted."""
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(_resized(Image.fromarray(image), (width, height)))


def _resized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    return picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)


def _sized(grey: np.ndarray, width: int, height: int) -> np.ndarray:
    if grey.shape == (height, width):
        return grey
    if grey.dtype == bool:
        return np.asarray(_resized(Image.fromarray(grey.astype(np.uint8) * 255), (width, height))) > 127
    return np.asarray(_resized(Image.fromarray(grey), (width, height)))
