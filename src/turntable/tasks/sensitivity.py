"""Does the ranking hold under another metric, size or quantisation that a paper could as well have chosen?

Everything is computed from the stored renderings and scores: nothing is trained or rendered again. What Turntable's own
scores are is fixed in :mod:`.metrics`; the variants here are never a contestant's score, they only show what a choice moves.

Notation: pictures are ``uint8[H, W, 3]``, a mask is ``bool[H, W]``, True where a pixel counts.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from .metrics import higher_is_better
from .metrics.psnr import IDENTICAL_DB
from .metrics.ssim import WINDOW, ssim

if TYPE_CHECKING:  # SciPy, which takes 0.2 s, and no run that is scored needs it
    from .statistics import Ranking, Sample

Kind = Literal["metric", "summary", "size", "quantisation", "crop"]

JPEG_QUALITY = 90
BITS = 6
BORDER = 0.1
"""The share of width and height that is cut off on each side."""

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""ITU-R BT.601, as most programs turn RGB to grey."""


@dataclass(frozen=True)
class Variant:
    """Another way to score, or to sum up, the same renderings.

    Args:
        name: as in JSON and files; never changes.
        kind: what is chosen otherwise.
        higher_is_better: which way is good.
        definition: what exactly is computed.
    """

    name: str
    kind: Kind
    higher_is_better: bool
    definition: str


@dataclass(frozen=True)
class Swap:
    """Two contestants that change places.

    Args:
        ahead: the better one of the two by the first metric.
        behind: the other, which is ahead of it here.
        decided: by the first metric, the data tell the two apart. If not, a swap is no surprise.
    """

    ahead: str
    behind: str
    decided: bool


@dataclass(frozen=True)
class Shift:
    """What one variant does to the order.

    Args:
        variant: which.
        means: by contestant, those that have a value.
        order: of them, the best first; equals as the first metric has them.
        swaps: whom it turns around, in the first metric's order.
    """

    variant: Variant
    means: dict[str, float]
    order: tuple[str, ...]
    swaps: tuple[Swap, ...]


VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant(
            "psnr-half", "size", True,
            "PSNR as psnr, of both pictures at half size: each pixel the mean of 2×2 (fewer at an edge that doesn't divide; "
            "under a mask of those that count), weighted by how many they are, not rounded again.",
        ),
        Variant("psnr-quarter", "size", True, "As psnr-half, at a quarter of the size: means of 4×4."),
        Variant(
            "ssim-half", "size", True,
            "SSIM as ssim, of both pictures at half size: means of 2×2 (fewer at an edge), rounded to 8 bits; under a mask "
            "the rendering is taken to be the photo outside of it, and a pixel counts where at least half of its pixels do.",
        ),
        Variant(
            "psnr-6bit", "quantisation", True,
            "PSNR as psnr, of both pictures rounded to the nearest of 64 levels per channel.",
        ),
        Variant(
            "psnr-jpeg90", "quantisation", True,
            "PSNR as psnr, of a lossy copy of the rendering (JPEG, quality 90, chroma at half size) against the photo: what "
            "is measured where a saved video or JPEG is scored.",
        ),
        Variant(
            "psnr-cropped", "crop", True,
            "PSNR as psnr, without the outer tenth of the width and of the height on each side.",
        ),
        Variant(
            "psnr-luma", "metric", True,
            "PSNR of the luma alone (0.299 R + 0.587 G + 0.114 B of the sRGB values), as papers on restoration have it.",
        ),
    )
}  # fmt: skip
"""What :func:`variants` computes, by name."""


def variants(photo: np.ndarray, rendering: np.ndarray, mask: np.ndarray | None = None) -> dict[str, float]:
    """The values of :data:`VARIANTS` for one view.

    A variant is missing where it has no value, whatever the rendering: ``ssim-half`` of a picture that is too small or whose
    mask holds no whole window, ``psnr-cropped`` where the mask counts nothing but the border.

    Raises:
        ValueError: the shapes differ, or the mask counts no pixel.
    """
    if photo.shape != rendering.shape:
        raise ValueError(f"pictures of one shape are compared, not {photo.shape} and {rendering.shape}")
    if mask is not None and not mask.any():
        raise ValueError("the mask counts no pixel")
    counted = np.ones(photo.shape[:2], np.int16) if mask is None else mask.astype(np.int16)
    difference = _difference(photo, rendering, counted)
    half, half_counted = _sums_of_four(difference), _sums_of_four(counted)
    quarter, quarter_counted = _sums_of_four(half), _sums_of_four(half_counted)
    found = {
        "psnr-half": _psnr_of_means(half, half_counted),
        "psnr-quarter": _psnr_of_means(quarter, quarter_counted),
        "psnr-6bit": _psnr(_difference(_levels(photo), _levels(rendering), counted), counted, 2**BITS - 1),
        "psnr-jpeg90": _psnr(_difference(photo, _jpeg(rendering), counted), counted),
        "psnr-luma": _psnr((difference.astype(np.float32) @ LUMA)[..., None], counted),
    }
    inside = tuple(slice(int(side * BORDER), side - int(side * BORDER)) for side in photo.shape[:2])
    if counted[inside].any():
        found["psnr-cropped"] = _psnr(difference[inside], counted[inside])
    structure = _ssim_at_half_size(photo, rendering, mask)
    if structure is not None:
        found["ssim-half"] = structure
    return {name: found[name] for name in VARIANTS if name in found}


def sensitivity(
    samples: Mapping[str, Sequence[Sample]],
    ranking: Ranking,
    means: Mapping[str, Mapping[str, float]],
) -> list[Shift]:
    """What each other metric, way to sum up, size and quantisation does to the order by the first metric.

    Args:
        samples: by metric the contestants' scores; the first metric is the one that all is held against.
        ranking: of the first metric's samples.
        means: by name in :data:`VARIANTS`, each contestant's mean over views and runs.

    Returns:
        First the other metrics, then medians, worst views and, for PSNR, the pooled error, then the variants. Contestants
        without a value are left out of that order.
    """
    main = next(iter(samples))
    upwards = higher_is_better(main)
    finished = [one for one in samples[main] if len(one.scores)]
    shifts = []
    for metric in list(samples)[1:]:
        variant = Variant(metric, "metric", higher_is_better(metric), "The mean by this metric.")
        values = {one.name: float(one.scores.mean()) for one in samples[metric] if len(one.scores)}
        shifts.append(_shift(variant, values, ranking))
    for variant, summed in _summaries(main, upwards):
        shifts.append(_shift(variant, {one.name: summed(one.scores) for one in finished}, ranking))
    return shifts + [_shift(VARIANTS[name], values, ranking) for name, values in means.items()]


def _summaries(metric: str, upwards: bool):
    """Other ways to make one number of ``[K, V]``; the mean over runs is last in each."""
    yield (
        Variant(f"{metric}-median", "summary", upwards, "The median over views, then the mean over runs."),
        lambda scores: float(np.median(scores, axis=-1).mean()),
    )
    yield (
        Variant(
            f"{metric}-worst", "summary", upwards, "The worst view of each run, then the mean over runs."
        ),
        lambda scores: float((scores.min(-1) if upwards else scores.max(-1)).mean()),
    )
    if metric == "psnr":
        yield (
            Variant(
                "psnr-pooled", "summary", True,
                "PSNR of the mean squared error over all views, then the mean over runs: bad views weigh more.",
            ),
            lambda scores: float(np.mean(-10 * np.log10(np.mean(10 ** (-scores / 10), axis=-1)))),
        )  # fmt: skip


def _shift(variant: Variant, values: Mapping[str, float], ranking: Ranking) -> Shift:
    there = [name for name in ranking.order if name in values and ranking.seeds[name]]
    sign = 1 if variant.higher_is_better else -1
    swaps = tuple(
        Swap(ahead, behind, ranking.pair(ahead, behind).decided)
        for ahead, behind in combinations(there, 2)
        if sign * values[ahead] < sign * values[behind]
    )
    order = tuple(sorted(there, key=lambda name: -sign * values[name]))
    return Shift(variant, {name: values[name] for name in there}, order, swaps)


def _sums_of_four(values: np.ndarray) -> np.ndarray:
    """``[H, W, …]`` to the sums of its 2×2 blocks, ``[⌈H/2⌉, ⌈W/2⌉, …]``; fewer at an edge that doesn't divide."""
    padding = [(0, side % 2) for side in values.shape[:2]] + [(0, 0)] * (values.ndim - 2)
    if any(after for _, after in padding):
        values = np.pad(values, padding)
    rows = values[0::2] + values[1::2]
    return rows[:, 0::2] + rows[:, 1::2]


def _difference(photo: np.ndarray, rendering: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """``int16[H, W, 3]``, 0 where nothing counts."""
    return (photo.astype(np.int16) - rendering) * counted[..., None]


def _psnr(differences: np.ndarray, counted: np.ndarray, most: int = 255) -> float:
    """PSNR from ``[H, W, C]`` differences that are 0 where ``counted[H, W]`` is, of values up to ``most``."""
    kind = np.float32 if differences.dtype == np.float32 else np.int32
    squares = np.square(differences, dtype=kind).sum(dtype=np.float64)
    return _decibels(float(squares) / (differences.shape[-1] * counted.sum(dtype=np.float64)) / most**2)


def _psnr_of_means(sums: np.ndarray, counted: np.ndarray) -> float:
    """PSNR of block means, from ``[h, w, 3]`` sums of differences over ``[h, w]`` counted pixels."""
    squares = np.square(sums, dtype=np.float32).sum(-1) / np.maximum(counted, 1)
    return _decibels(float(squares.sum(dtype=np.float64) / (3 * counted.sum(dtype=np.float64))) / 255**2)


def _levels(picture: np.ndarray) -> np.ndarray:
    """Rounded to the nearest of ``2**BITS`` levels: 0 to ``2**BITS - 1``."""
    return ((picture.astype(np.uint16) * (2 * (2**BITS - 1)) + 255) // 510).astype(np.uint8)


def _decibels(mean_squared_error: float) -> float:
    return IDENTICAL_DB if mean_squared_error == 0 else -10 * math.log10(mean_squared_error)


def _jpeg(picture: np.ndarray) -> np.ndarray:
    with io.BytesIO() as file:
        Image.fromarray(np.ascontiguousarray(picture)).save(
            file, "JPEG", quality=JPEG_QUALITY, subsampling="4:2:0"
        )
        file.seek(0)
        with Image.open(file) as copy:
            return np.array(copy.convert("RGB"))


def _ssim_at_half_size(photo: np.ndarray, rendering: np.ndarray, mask: np.ndarray | None) -> float | None:
    smaller = [(side + 1) // 2 for side in photo.shape[:2]]
    if min(smaller) < WINDOW:
        return None
    pixels = _sums_of_four(np.ones(photo.shape[:2], np.int16))
    half_mask = None
    if mask is not None:
        rendering = np.where(mask[..., None], rendering, photo)
        half_mask = _sums_of_four(mask.astype(np.int16)) * 2 >= pixels
        border = WINDOW // 2
        if not half_mask[border:-border, border:-border].any():
            return None
    halves = [
        np.rint(_sums_of_four(one.astype(np.int16)) / pixels[..., None]).astype(np.uint8)
        for one in (photo, rendering)
    ]
    # One channel after the other stays in the processor's cache: two thirds of the time.
    channels = ([half[..., [channel]] for half in halves] for channel in range(3))
    return float(np.mean([ssim(one, other, half_mask) for one, other in channels]))
