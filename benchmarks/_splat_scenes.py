"""Scenes to measure kernels on, and what can be counted of them without the kernels: for ``benchmarks/splat.py``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from turntable.methods.splat.densify import halves
from turntable.methods.splat.kernels import GROUP, SCALE, Kernels, ViewStruct
from turntable.methods.splat.model import FLAT, Model

LANES = {"baseline": 4, "avx2": 8, "avx512": 16}
TILE_Y = 64
"""As ``kernels/state.h`` has it; the tables print the kernels' own count of pairs beside the one from here."""
OPAQUE = 1e-4
CHUNK = 64


def tile_x(instruction_set: str) -> int:
    """Width of the kernels' tiles in pixels."""
    return max(LANES[instruction_set], 8)


def smeared(
    generator: np.random.Generator, count: int, middle: np.ndarray, size: float, side: float
) -> Model:
    """Random Gaussians in a cube of ``side`` around ``middle``: scales around ``size``, opacities from 0.05 to 0.95."""
    values = np.zeros((59, count), np.float32)
    values[:3] = middle[:, None] + side * (generator.random((3, count), np.float32) - 0.5)
    values[SCALE] = np.log(size) + 0.4 * generator.standard_normal((3, count), np.float32)
    values[6:10] = generator.standard_normal((4, count), np.float32)
    opacity = generator.uniform(0.05, 0.95, count)
    values[10] = np.log(opacity / (1 - opacity))
    values[11:14] = (generator.random((3, count), np.float32) - 0.5) / FLAT
    values[14:] = 0.05 * generator.standard_normal((45, count), np.float32)
    return Model(values)


def sized(model: Model, count: int) -> Model:
    """Exactly ``count`` Gaussians: random ones dropped, or the largest cut in two."""
    values = model.values
    if values.shape[1] > count:
        chosen = np.random.default_rng(0).permutation(values.shape[1])[:count]
        return Model(values[:, np.sort(chosen)])
    while (missing := count - values.shape[1]) > 0:
        largest = np.argsort(values[SCALE].max(0))[-missing:]
        one, other = halves(values[:, largest])
        values[:, largest] = one
        values = np.concatenate([values, other], 1)
    return Model(values)


@dataclass(frozen=True)
class Touched:
    """Rows of pixels, ``first`` to ``last``, that each Gaussian's ellipse of alpha 1/255 reaches in each column of
    tiles: int64[N, columns]; where it reaches none, last < first.
    """

    first: np.ndarray
    last: np.ndarray

    def pairs(self, tile_height: int) -> np.ndarray:
        """Tiles of each Gaussian, ``int64[N]``."""
        tiles = self.last // tile_height - self.first // tile_height + 1
        return np.where(self.last >= self.first, tiles, 0).sum(1)

    def rows(self) -> np.ndarray:
        """Rows of pixels of a column of tiles, ``int64[N]``."""
        return np.maximum(self.last - self.first + 1, 0).sum(1)

    def stretches(self, rows: int) -> np.ndarray:
        """Begun stretches of at most so many rows, ``int64[N]``, as if no tile ended within."""
        return np.maximum(-(-(self.last - self.first + 1) // rows), 0).sum(1)


def touched(projected: np.ndarray, width: int, height: int, tile_width: int) -> Touched:
    """Which rows of which columns of tiles the Gaussians of ``Kernels.projected()`` reach, by their pixels' centres.

    With u and w from the centre across and down, the ellipse is a u² + 2 b u w + c w² = 2 ln(255 opacity).
    """
    x, y, a, b, c, opacity = projected[:, :6].astype(np.float64).T
    drawn = projected[:, 10] > 0
    a, b, c = (np.where(drawn, value, fill) for value, fill in ((a, 1.0), (b, 0.0), (c, 1.0)))
    extent = np.where(drawn, 2 * np.log(np.maximum(255 * opacity, 1)), 0)
    determinant = a * c - b * b
    high = np.sqrt(extent * a / determinant)
    columns = -(-width // tile_width)
    first = np.zeros((len(x), columns), np.int64)
    last = np.full((len(x), columns), -1, np.int64)
    for column in range(columns):
        low = column * tile_width + 0.5 - x
        up = np.clip(-b / a * high, low, low + tile_width - 1)
        down = np.clip(b / a * high, low, low + tile_width - 1)
        under_up, under_down = ((extent * c - determinant * u * u) / (c * c) for u in (up, down))
        bottom = y - b / c * up + np.sqrt(np.maximum(under_up, 0)) - 0.5
        top = y - b / c * down - np.sqrt(np.maximum(under_down, 0)) - 0.5
        reached = drawn & (np.maximum(under_up, under_down) >= 0)
        first[:, column] = np.clip(np.ceil(top), 0, height)
        last[:, column] = np.where(reached, np.clip(np.floor(bottom), -1, height - 1), -1)
    return Touched(first, last)


def mean_pairs(kernels: Kernels, model: Model, views: list[ViewStruct]) -> np.ndarray:
    """Tiles of 16×16 pixels that each Gaussian touches, ``float64[N]``: mean over views."""
    total = np.zeros(model.count)
    for view in views:
        kernels.forward(model.records, model.count, view)
        total += touched(kernels.projected(), view.width, view.height, 16).pairs(16)
    return total / len(views)


def thinned(model: Model, pairs: np.ndarray, load: float) -> Model | None:
    """Random Gaussians dropped until ``load`` pairs are left; None where there are fewer to begin with."""
    order = np.random.default_rng(0).permutation(model.count)
    sums = np.cumsum(pairs[order])
    if sums[-1] < load:
        return None
    kept = np.sort(order[: int(np.argmin(np.abs(sums - load))) + 1])
    return Model(model.take(kept))


def looked_at(projected: np.ndarray, spans: Touched, view: ViewStruct, tile_width: int) -> float:
    """The share of touched rows that lies before its tile is opaque: what is behind is never rasterised."""
    order = np.argsort(np.where(projected[:, 10] > 0, projected[:, 9], np.inf), kind="stable")
    done = 0
    for column in range(spans.first.shape[1]):
        first, last = spans.first[order, column], spans.last[order, column]
        for top in range(0, view.height, TILE_Y):
            here = np.flatnonzero((last >= first) & (last >= top) & (first < top + TILE_Y))
            rows = np.minimum(last[here], top + TILE_Y - 1) - np.maximum(first[here], top) + 1
            corner = column * tile_width, top
            before = _before_opaque(projected[order[here]], view, corner, tile_width)
            done += int(rows[:before].sum())
    return done / max(int(spans.rows().sum()), 1)


def _before_opaque(splats: np.ndarray, view: ViewStruct, corner: tuple[int, int], tile_width: int) -> int:
    """How many of a tile's splats, front to back, are looked at before none of its pixels has light left."""
    across = np.arange(corner[0], min(corner[0] + tile_width, view.width), dtype=np.float32) + 0.5
    down = np.arange(corner[1], min(corner[1] + TILE_Y, view.height), dtype=np.float32)[:, None] + 0.5
    left = np.ones((len(down), len(across)), np.float32)
    for start in range(0, len(splats), CHUNK):
        x, y, a, b, c, opacity = splats[start : start + CHUNK, :6].T[:, :, None, None]
        u, w = across - x, down - y
        alpha = np.minimum(opacity * np.exp(-0.5 * (a * u * u + c * w * w) - b * u * w), 0.99)
        left *= np.prod(1 - np.where(alpha >= 1 / 255, alpha, 0), axis=0)
        if left.max() <= OPAQUE:
            return min(start + CHUNK, len(splats))
    return len(splats)


def groups_of(drawn: np.ndarray) -> int:
    """How many blocks of sixteen neighbours hold at least one that is drawn."""
    padded = np.zeros(-(-len(drawn) // GROUP) * GROUP, bool)
    padded[: len(drawn)] = drawn
    return int(padded.reshape(-1, GROUP).any(1).sum())


def percentiles(values: Any) -> str:
    """10th to 90th percentile."""
    low, high = np.percentile(values, (10, 90))
    return f"{low:.2f} – {high:.2f}"
