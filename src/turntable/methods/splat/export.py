"""Writing the Gaussians for other programs: 3DGS's ``point_cloud.ply`` and Niantic's ``.spz``.

Units and axes stay those of the capture in the PLY. SPZ wants right, up, back (OpenGL's camera axes: RUB)
while a capture's world has no axes of its own; like other converters from 3DGS's PLY, the world is taken as
right, down, front (RDF) and turned about x by 180°.
"""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path

import numpy as np

from .kernels import HARMONIC, MEAN, OPACITY, QUATERNION, SCALE

SPZ_MAGIC = 0x5053474E
COLOUR_SCALE = 0.15


def ply(values: np.ndarray) -> bytes:
    """``point_cloud.ply`` as 3DGS's own code writes it, of ``float32[59, N]``.

    Order: x y z, nx ny nz (zeros), f_dc_0..2, f_rest_0..44 (all of red, then green, then blue), opacity
    (logit), scale_0..2 (logarithms), rot_0..3 (w x y z, normalised here).
    """
    names = (
        ["x", "y", "z", "nx", "ny", "nz"]
        + [f"f_dc_{i}" for i in range(3)]
        + [f"f_rest_{i}" for i in range(45)]
    )
    names += ["opacity"] + [f"scale_{i}" for i in range(3)] + [f"rot_{i}" for i in range(4)]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {values.shape[1]}"]
    header += [f"property float {name}" for name in names] + ["end_header", ""]
    colour = values[HARMONIC].reshape(16, 3, -1)
    rest = colour[1:].transpose(1, 0, 2).reshape(45, -1)
    rows = [values[MEAN], np.zeros_like(values[MEAN]), colour[0], rest, values[OPACITY][None], values[SCALE]]
    table = np.concatenate([*rows, normalised(values[QUATERNION])]).T
    return "\n".join(header).encode("ascii") + np.ascontiguousarray(table, "<f4").tobytes()


def normalised(quaternions: np.ndarray) -> np.ndarray:
    """``float32[4, N]`` of length 1."""
    return quaternions / np.maximum(np.linalg.norm(quaternions, axis=0), 1e-12)


def spz(values: np.ndarray, degree: int, antialias: bool) -> bytes:
    """An SPZ file, version 2 (https://github.com/nianticlabs/spz), of ``float32[59, N]``.

    Args:
        degree: of the harmonics to keep.
        antialias: whether the Gaussians were trained with Mip-Splatting's 2D filter.
    """
    count, turn = values.shape[1], np.array([1, -1, -1], np.float64)
    bits = fraction_bits(float(np.abs(values[MEAN]).max(initial=0)))
    header = struct.pack("<IIIBBBB", SPZ_MAGIC, 2, count, degree, bits, int(antialias), 0)
    limit = 2**23 - 1
    fixed = np.rint(values[MEAN].T.astype(np.float64) * turn * 2.0**bits).clip(-limit, limit).astype("<i4")
    positions = fixed.reshape(-1, 1).view(np.uint8).reshape(count, 3, 4)[:, :, :3]
    opacity = 1 / (1 + np.exp(-values[OPACITY].astype(np.float64)))
    colour = values[HARMONIC].reshape(16, 3, -1).astype(np.float64)
    w, x, y, z = normalised(values[QUATERNION].astype(np.float64))
    turned = np.stack([x, -y, -z]) * np.where(w < 0, -1, 1)
    parts = [
        positions,
        to_byte(opacity * 255),
        to_byte(colour[0].T * (COLOUR_SCALE * 255) + 0.5 * 255),
        to_byte((values[SCALE].T.astype(np.float64) + 10) * 16),
        to_byte(turned.T * 127.5 + 127.5),
        harmonics_bytes(colour[1 : (degree + 1) ** 2]),
    ]
    return gzip.compress(
        header + b"".join(np.ascontiguousarray(part).tobytes() for part in parts), 6, mtime=0
    )


def fraction_bits(greatest: float) -> int:
    """Bits after the point of SPZ's 24-bit coordinates: as many as ``greatest`` leaves room for, 0 to 20."""
    return int(np.clip(22 - math.ceil(math.log2(max(greatest, 1e-9))), 0, 20))


def to_byte(values: np.ndarray) -> np.ndarray:
    """Rounded, 0 to 255."""
    return np.rint(values).clip(0, 255).astype(np.uint8)


FLIPS = np.array([-1, -1, 1, -1, 1, 1, -1, 1, -1, 1, -1, -1, 1, -1, 1], np.float64)
"""Signs of the harmonics 1 to 15 when y and z change theirs."""


def harmonics_bytes(coefficients: np.ndarray) -> np.ndarray:
    """``uint8[N, K, 3]`` of ``[K, 3, N]``: 5 bits for degree 1, 4 above, as the reference encoder buckets
    them.
    """
    terms = len(coefficients)
    values = np.rint((coefficients * FLIPS[:terms, None, None]).transpose(2, 0, 1) * 128 + 128)
    bucket = np.where(np.arange(terms) < 3, 8, 16)[None, :, None]
    return (np.floor((values + bucket // 2) / bucket) * bucket).clip(0, 255).astype(np.uint8)


def write(folder: Path, values: np.ndarray, degree: int, antialias: bool) -> None:
    """``point_cloud.ply`` and ``splat.spz`` in ``folder``; Gaussians that are not finite are left out."""
    values = values[:, np.isfinite(values).all(0)]
    folder.joinpath("point_cloud.ply").write_bytes(ply(values))
    folder.joinpath("splat.spz").write_bytes(spz(values, degree, antialias))
