"""The Gaussians with Adam's moments, as the kernels want them: sixteen neighbours lie together in memory.

Rows are as in :mod:`.kernels`: means, logarithms of scales, quaternions, logit of the opacity, harmonics.
"""

from __future__ import annotations

import numpy as np

from .kernels import GROUP, HARMONIC, MEAN, OPACITY, QUATERNION, RECORD, ROWS, SCALE
from .start import Start

FLAT = 0.28209479177387814
"""The harmonic of degree 0: a colour c is 0.5 + FLAT times its coefficient."""

BYTES_OF_PARAMETERS = 4 * RECORD
"""Of one Gaussian: 59 parameters, 29 moments, a sum for densification."""

BYTES_PER_GAUSSIAN = BYTES_OF_PARAMETERS + 5 * (BYTES_OF_PARAMETERS + 89 + 4 * 68) // 4
"""Of all memory that grows with the Gaussians: parameters, the kernels' tables (89 bytes), and 4 pairs of Gaussian and
tile (68 bytes each: who touches what, and gradients), everything with a quarter to spare for growth; and the
parameters once more while they are saved or moved to a larger place.
"""


def blocks(count: int) -> np.ndarray:
    """``float32[B, 89, 16]`` of zeros for ``count`` Gaussians or more, on a line of cache (64 bytes)."""
    size = max(-(-count // GROUP), 1) * RECORD * GROUP
    memory = np.zeros(size + 16, np.float32)
    offset = (-memory.ctypes.data // 4) % 16
    return memory[offset : offset + size].reshape(-1, RECORD, GROUP)


class Model:
    """``count`` Gaussians.

    Args:
        values: ``float32[59, N]``, their parameters.

    Attributes:
        records: ``float32[B, 89, 16]``: the kernels' own layout; 16 B ≥ count.
    """

    def __init__(self, values: np.ndarray) -> None:
        self.count = 0
        self.records = blocks(0)
        self.add(values)

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

    @classmethod
    def from_table(cls, table: np.ndarray) -> Model:
        """What :meth:`table` gave."""
        model = cls(table[:ROWS])
        at = np.arange(model.count)
        model.records[at // GROUP, :, at % GROUP] = table.T
        return model

    def table(self) -> np.ndarray:
        """``float32[89, N]``: everything, a copy."""
        return self.records.transpose(1, 0, 2).reshape(RECORD, -1)[:, : self.count].copy()

    @property
    def values(self) -> np.ndarray:
        """``float32[59, N]``: the parameters, a copy."""
        return self.table()[:ROWS]

    def row(self, row: int) -> np.ndarray:
        """``float32[N]``: one of the 89 numbers of every Gaussian, a copy."""
        return self.records[:, row].reshape(-1)[: self.count].copy()

    def take(self, at: np.ndarray) -> np.ndarray:
        """``float32[59, M]``: parameters of the Gaussians ``at``."""
        return self.records[at // GROUP, :ROWS, at % GROUP].T

    def put(self, at: np.ndarray, values: np.ndarray) -> None:
        """Put other Gaussians, ``float32[59, M]``, in the places ``at``; their moments become zero."""
        self.records[at // GROUP, :ROWS, at % GROUP] = values.T
        self.records[at // GROUP, ROWS:, at % GROUP] = 0

    def forget(self, row: int) -> None:
        """Set one of the 89 numbers of every Gaussian to 0."""
        self.records[:, row] = 0

    def opacities(self) -> np.ndarray:
        """``float64[N]`` in (0, 1)."""
        return 1 / (1 + np.exp(-self.row(OPACITY).astype(np.float64)))

    def add(self, values: np.ndarray) -> None:
        """Append Gaussians, ``float32[59, M]``, with moments of zero."""
        first, self.count = self.count, self.count + values.shape[1]
        if self.count > len(self.records) * GROUP:
            records = blocks(self.count + self.count // 4)
            records[: len(self.records)] = self.records
            self.records = records
        self.put(np.arange(first, self.count), values)

    def remove(self, gone: np.ndarray) -> None:
        """Drop the Gaussians where ``gone``, ``bool[N]``; the last ones take their places."""
        left = self.count - int(gone.sum())
        holes = np.flatnonzero(gone[:left])
        movers = left + np.flatnonzero(~gone[left:])
        self.records[holes // GROUP, :, holes % GROUP] = self.records[movers // GROUP, :, movers % GROUP]
        self.count = left

    def sort(self) -> None:
        """Bring Gaussians that lie near each other in space together in memory, along Morton's curve: what a view doesn't
        show, it then mostly needn't read.
        """
        if not self.count:
            return
        means = np.stack([self.row(row) for row in range(MEAN.start, MEAN.stop)])
        spare = np.arange(self.count, len(self.records) * GROUP)
        order = np.concatenate([np.argsort(morton(means), kind="stable"), spare])
        for row in range(RECORD):
            self.records[:, row] = self.records[:, row].reshape(-1)[order].reshape(-1, GROUP)


def morton(means: np.ndarray) -> np.ndarray:
    """Places along Morton's curve, ``uint32[N]``, of ``float32[3, N]``: the bits of three coordinates in turn, 10 each,
    between the 2nd and the 98th percentile; what lies farther out counts as lying there, NaN as lying lowest.
    """
    codes = np.zeros(means.shape[1], np.uint32)
    for axis, values in enumerate(means):
        finite = values[np.isfinite(values)]
        low, high = np.percentile(finite, (2, 98)) if len(finite) else (0.0, 1.0)
        cells = np.nan_to_num((values - low) / max(high - low, 1e-30) * 1023, posinf=1023, neginf=0)
        bits = np.clip(cells, 0, 1023).astype(np.uint32)
        for shift, mask in ((16, 0x030000FF), (8, 0x0300F00F), (4, 0x030C30C3), (2, 0x09249249)):
            bits = (bits | bits << np.uint32(shift)) & np.uint32(mask)
        codes |= bits << np.uint32(axis)
    return codes
