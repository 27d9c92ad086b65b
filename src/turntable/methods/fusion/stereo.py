"""Depth of one photo by semi-global matching (Hirschmüller 2008; OpenCV's) with its partners."""

# pyright: reportMissingImports=false
from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import List, NamedTuple, Tuple

import cv2
import numpy as np

from .depthmaps import vote
from .geometry import Pair, Pinhole, depth_from_disparity, rectify, to_photo

COARSE_SIDE = 240
"""Longer side of the pictures on which the range of depths is found, before the search at full size."""
MARGIN = 1.15
"""How much farther than what the coarse search found the fine one looks, either way."""
WINDOW = 5
"""Side of a matched block in pixels; 5 keeps edges sharper than OpenCV's 9 to 11 and is still robust in colour noise."""
MOST_DISPARITIES = 1024
"""More than so many pixels of disparity would take minutes and gigabytes; what is nearer is then not looked for."""


class Photo(NamedTuple):
    """A grey photo ``uint8[H, W]``, which pixels count ``bool[H, W]``, and its camera."""

    grey: np.ndarray
    counts: np.ndarray
    camera: Pinhole

    def shrunk(self, longer_side: int) -> "Photo":
        """The photo with at most so many pixels along its longer side."""
        width, height = shrunk_size(self.camera.width, self.camera.height, longer_side)
        if (width, height) == (self.camera.width, self.camera.height):
            return self
        grey = cv2.resize(self.grey, (width, height), interpolation=cv2.INTER_AREA)
        counts = cv2.resize(self.counts.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
        return Photo(grey, counts > 0, self.camera.scaled(width, height))


def shrunk_size(width: int, height: int, longer_side: int) -> Tuple[int, int]:
    """Width and height of a picture with at most so many pixels along its longer side, at least 1 along the other."""
    share = min(1.0, longer_side / max(width, height))
    return max(1, round(width * share)), max(1, round(height * share))


def find_depth(
    photo: Photo, partners: List[Photo], near: float, far: float, threads: int
) -> Tuple[np.ndarray, np.ndarray]:
    """Depth of each pixel, and how many partners agree on it.

    First the range of depths is found on small pictures, between ``near`` and ``far``; then depths are, within it.

    Args:
        photo: whose depth.
        partners: the photos that it is compared with.
        near, far: depths in the photo's camera.
        threads: pairs that are matched at once.

    Returns:
        ``float32[H, W]``, 0 where unknown, and ``uint8[H, W]``; nothing is known where there are no partners.
    """
    small = photo.shrunk(COARSE_SIDE)
    depth, votes = _by_pairs(small, [one.shrunk(COARSE_SIDE) for one in partners], near, far, threads)
    sure = depth[votes >= min(2, len(partners))] if len(partners) else depth[:0]
    sure = sure[sure > 0]
    if len(sure) > 50:
        low, high = np.percentile(sure, [1, 99])
        near, far = max(near, float(low) / MARGIN), min(far, float(high) * MARGIN)
    if small is photo and len(sure) <= 50:
        return depth, votes
    return _by_pairs(photo, partners, near, far, threads)


def _by_pairs(
    photo: Photo, partners: List[Photo], near: float, far: float, threads: int
) -> Tuple[np.ndarray, np.ndarray]:
    pairs = [(other, rectify(photo.camera, other.camera, near, far)) for other in partners]
    usable = [(other, pair) for other, pair in pairs if pair is not None and pair.width > 2 * WINDOW]
    if not usable:
        return np.zeros(photo.grey.shape, np.float32), np.zeros(photo.grey.shape, np.uint8)

    def depth_by(one: Tuple[Photo, Pair]) -> np.ndarray:
        return depth_from_disparity(one[1], photo.camera, _disparity(photo, one[0], one[1]))

    with ThreadPoolExecutor(threads) as pool:
        depths = np.stack(list(pool.map(depth_by, usable)))
    depths[:, ~photo.counts] = 0
    depths[(depths < near) | (depths > far)] = 0
    return vote(depths, np.array([1 / (pair.focal * pair.baseline) for _, pair in usable]))


def _disparity(photo: Photo, other: Photo, pair: Pair) -> np.ndarray:
    """``float32[height, width]`` of the rectified first picture; NaN where the two directions disagree."""
    first, first_counts = _rectified(photo, pair, False)
    second, second_counts = _rectified(other, pair, True)
    most = min(pair.disparities, MOST_DISPARITIES, pair.width - WINDOW)
    most = max(16, 16 * ((most + 15) // 16))  # the matcher takes multiples of 16
    # It leaves out the first `most` columns, where a match might lie outside: empty ones are put there.
    first, second = (cv2.copyMakeBorder(one, 0, 0, most, 0, cv2.BORDER_CONSTANT) for one in (first, second))
    matcher = cv2.StereoSGBM_create(
        minDisparity=0,
        numDisparities=most,
        blockSize=WINDOW,
        P1=8 * WINDOW**2,
        P2=32 * WINDOW**2,
        disp12MaxDiff=1,  # the left-right check
        preFilterCap=31,
        uniquenessRatio=5,
        speckleWindowSize=60,
        speckleRange=1,
        mode=cv2.STEREO_SGBM_MODE_SGBM,
    )
    disparity = matcher.compute(first, second)[:, most:].astype(np.float32) / 16
    rows, columns = np.indices(disparity.shape)
    match = np.rint(columns - disparity).astype(int)
    met = (match >= 0) & (match < pair.width)
    met &= second_counts[rows, np.clip(match, 0, pair.width - 1)]
    return np.where((disparity >= 0) & first_counts & met, disparity, np.float32(np.nan))


def _rectified(photo: Photo, pair: Pair, second: bool) -> Tuple[np.ndarray, np.ndarray]:
    # OpenCV's pixel centres lie at whole numbers.
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    matrix = np.linalg.inv(half) @ to_photo(pair, photo.camera, second) @ half
    size, inverse = (pair.width, pair.height), cv2.WARP_INVERSE_MAP
    grey = cv2.warpPerspective(photo.grey, matrix, size, flags=cv2.INTER_LINEAR | inverse)
    counts = cv2.warpPerspective(
        photo.counts.astype(np.uint8), matrix, size, flags=cv2.INTER_NEAREST | inverse
    )
    return grey, counts > 0
