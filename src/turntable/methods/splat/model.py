"""The Gaussians and Adam's moments: one column each, in matrices that grow.

Rows are as in :mod:`.kernels`: means, logarithms of scales, quaternions, logit of the opacity, harmonics.
"""

from __future__ import annotations

import numpy as np

from .kernels import HARMONIC, MEAN, OPACITY, QUATERNION, ROWS, SCALE
from .start import Start

FLAT = 0.28209479177387814
"""The harmonic of degree 0: a colour c is 0.5 + FLAT times its coefficient."""

BYTES_PER_GAUSSIAN = 4 * ROWS * 3 + 4 * 2 + 150 + 8 * 64
"""Parameters and two moments, activity, the kernels' tables, and pair gradients of 8 tiles."""


def matrix(rows: tuple[int, ...], columns: int) -> np.ndarray:
    """``float32[*rows, columns]`` of zeros that starts on a line of cache (64 bytes)."""
    size = int(np.prod(rows)) * columns
    memory = np.zeros(size + 16, np.float32)
    offset = (-memory.ctypes.data // 4) % 16
    return memory[offset : offset + size].reshape(*rows, columns)


class Model:
    """``count`` Gaussians.

    Attributes:
        values: ``float32[59, S]``; S ≥ count is a multiple of 16.
        moments: ``float32[2, 59, S]``: Adam's first and second.
        activity: ``float32[2, S]``: see :meth:`.kernels.Kernels.update`.
    """

    def __init__(
        self, values: np.ndarray, moments: np.ndarray | None = None, activity: np.ndarray | None = None
    ):
        self.count = values.shape[1]
        self.values = matrix((ROWS,), 16)
        self.moments = matrix((2, ROWS), 16)
        self.activity = matrix((2,), 16)
        self.reserve(self.count)
        self.values[:, : self.count] = values
        if moments is not None:
            self.moments[:, :, : self.count] = moments
        if activity is not None:
            self.activity[:, : self.count] = activity

    @classmethod
    def from_start(cls, start: Start, opacity: float) -> Model:
        """Round Gaussians of one opacity."""
        values = np.zeros((ROWS, len(start.means)), np.float32)
        values[MEAN] = start.means.T
        values[SCALE] = np.log(start.sizes)
        values[QUATERNION.start] = 1
        values[OPACITY] = np.log(opacity / (1 - opacity))
        values[HARMONIC.start : HARMONIC.start + 3] = (start.colours.T - 0.5) / FLAT
        return cls(values)

    def reserve(self, count: int) -> None:
        """Make room for ``count`` Gaussians."""
        if count <= self.values.shape[1]:
            return
        columns = -(-int(count * 1.25) // 16) * 16
        for name in ("values", "moments", "activity"):
            old = getattr(self, name)
            new = matrix(old.shape[:-1], columns)
            new[..., : old.shape[-1]] = old
            setattr(self, name, new)

    def opacities(self) -> np.ndarray:
        """``float64[N]`` in (0, 1)."""
        return 1 / (1 + np.exp(-self.values[OPACITY, : self.count].astype(np.float64)))

    def add(self, values: np.ndarray) -> None:
        """Append Gaussians, ``float32[59, M]``, with moments of zero."""
        end = self.count + values.shape[1]
        self.reserve(end)
        self.values[:, self.count : end] = values
        self.moments[:, :, self.count : end] = 0
        self.activity[:, self.count : end] = 0
        self.count = end

    def replace(self, at: np.ndarray, values: np.ndarray) -> None:
        """Put other Gaussians, ``float32[59, M]``, in the places ``at``; their moments become zero."""
        self.values[:, at] = values
        self.moments[:, :, at] = 0

    def remove(self, gone: np.ndarray) -> None:
        """Drop the Gaussians where ``gone``, ``bool[N]``; the others keep their order."""
        stay = np.flatnonzero(~gone)
        for array in (self.values, self.moments, self.activity):
            array[..., : len(stay)] = array[..., stay]
            array[..., len(stay) : self.count] = 0
        self.count = len(stay)
