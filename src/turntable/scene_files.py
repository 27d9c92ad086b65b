"""What methods export, read back for looking at it: splats, a mesh or points from a PLY file.

A method wrote the file, so nothing in it is believed: its size, its header, its numbers. All is in the capture's world.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .errors import TurntableError
from .files import open_beneath
from .worker.ply import decode_triangles, decode_vertices, read_header

LARGEST_BYTES = 4 << 30
"""Ten million Gaussians with all their harmonics have 2.5 GB."""

HEADER_BYTES = 1 << 16
HARMONIC_0 = 0.28209479177387814
"""The spherical harmonic of degree 0: 1 / (2 √π)."""

GREATEST_EXPONENT = 40.0
"""Logarithms of scales beyond ± this are no sizes; e⁴⁰ squared is still far from float32's end."""


@dataclass(frozen=True, eq=False)
class Splats:
    """Gaussians, each in one colour: of their harmonics, degree 0 alone.

    Args:
        means: ``float64[N, 3]``.
        scales: ``float64[N, 3]``, standard deviations along their axes.
        rotations: ``float64[N, 4]``, quaternions of length 1, w x y z.
        colours: ``float32[N, 3]``, sRGB in [0, 1].
        opacities: ``float32[N]`` in [0, 1].
        total: how many the file holds: more than N where the others are left out.
    """

    means: np.ndarray
    scales: np.ndarray
    rotations: np.ndarray
    colours: np.ndarray
    opacities: np.ndarray
    total: int

    def __len__(self) -> int:
        return len(self.means)

    def covariances(self) -> np.ndarray:
        """``float64[N, 3, 3]``: R diag(s²) Rᵀ."""
        w, x, y, z = self.rotations.T
        rows = [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
        axes = np.array(rows).transpose(2, 0, 1) * self.scales[:, None, :]
        return axes @ axes.transpose(0, 2, 1)

    def most_visible(self, most: int) -> Splats:
        """At most ``most`` of them: those whose opacity × largest cross-section is greatest, in the order that they have.

        Of two that are equal, the first: the same file gives the same splats.
        """
        if len(self) <= most:
            return self
        two_largest = np.sort(self.scales, axis=1)[:, 1:]
        weights = self.opacities * two_largest.prod(1)
        chosen = np.sort(np.argsort(-weights, kind="stable")[:most])
        return self._only(chosen)

    def _only(self, chosen: np.ndarray) -> Splats:
        return replace(
            self,
            means=self.means[chosen],
            scales=self.scales[chosen],
            rotations=self.rotations[chosen],
            colours=self.colours[chosen],
            opacities=self.opacities[chosen],
        )


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles with a colour at each vertex.

    Args:
        vertices: ``float64[V, 3]``.
        triangles: ``int64[F, 3]``.
        colours: ``uint8[V, 3]``, sRGB.
        total: how many triangles the file holds: more than F where it was made coarser.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    colours: np.ndarray
    total: int

    def coarser(self, most: int) -> Mesh:
        """The mesh with at most ``most`` triangles: vertices in one cell of a grid become one, their mean.

        Finer grids are tried first: one of n × n cells over a square leaves 2 n² triangles.
        """
        cells = int(np.sqrt(2 * most)) + 1
        mesh = self
        while len(mesh.triangles) > most:
            mesh = self._snapped(cells)
            cells = int(cells * 0.8)
        return mesh

    def _snapped(self, cells: int) -> Mesh:
        """With vertices merged in a grid that has ``cells`` along the longest side of the mesh."""
        low = self.vertices.min(0)
        size = float((self.vertices.max(0) - low).max()) / max(cells, 1) or 1.0
        places = np.floor((self.vertices - low) / size).astype(np.int64)
        keys = (places[:, 0] * (cells + 2) + places[:, 1]) * (cells + 2) + places[:, 2]
        _, owner = np.unique(keys, return_inverse=True)
        owner = owner.reshape(-1)
        counts = np.bincount(owner)[:, None]
        sums = [
            np.stack([np.bincount(owner, values[:, axis]) for axis in range(3)], 1)
            for values in (self.vertices, self.colours)
        ]
        triangles = owner[self.triangles]
        a, b, c = triangles.T
        triangles = triangles[(a != b) & (b != c) & (c != a)]
        first = np.argmin(triangles, axis=1)  # the same triangle may be there several times now
        turned = np.take_along_axis(triangles, (first[:, None] + np.arange(3)) % 3, axis=1)
        _, pairs = np.unique(turned[:, 0] * len(counts) + turned[:, 1], return_inverse=True)
        _, once = np.unique(pairs.reshape(-1) * len(counts) + turned[:, 2], return_index=True)
        return replace(
            self,
            vertices=sums[0] / counts,
            triangles=turned[np.sort(once)],
            colours=np.rint(sums[1] / counts).astype(np.uint8),
        )


@dataclass(frozen=True, eq=False)
class Points:
    """Points with colours.

    Args:
        positions: ``float64[P, 3]``.
        colours: ``uint8[P, 3]``, sRGB.
        total: how many there are: more than P where the others are left out.
    """

    positions: np.ndarray
    colours: np.ndarray
    total: int

    def fewer(self, most: int) -> Points:
        """At most ``most`` of them, evenly chosen."""
        if len(self.positions) <= most:
            return self
        chosen = np.linspace(0, len(self.positions) - 1, most).round().astype(np.int64)
        return replace(self, positions=self.positions[chosen], colours=self.colours[chosen])


Content = Splats | Mesh | Points


def read_exported(folder: Path, names: Iterable[str]) -> Content | None:
    """What a method exported, as it is looked at: splats before a mesh before points; None where no PLY holds any of them.

    Args:
        folder: where it exported to.
        names: the files in there.

    Raises:
        TurntableError: a file isn't what its header says, or holds nothing.
    """
    readers = {"splats": _splats, "mesh": _mesh, "points": _points}
    found: dict[str, str] = {}
    try:
        for name in sorted(str(name) for name in names if str(name).lower().endswith(".ply")):
            with open_beneath(folder, name) as file:
                found.setdefault(_kind(file.read(HEADER_BYTES), Path(name)), name)
        for kind, read in readers.items():
            if kind in found:
                return read(_content(folder, found[kind]), Path(found[kind]))
    except (ValueError, OSError, MemoryError) as error:
        raise TurntableError(
            f"What the method exported can't be shown: {error or 'out of memory'}."
        ) from error
    return None


def _content(folder: Path, name: str) -> bytes:
    with open_beneath(folder, name) as file:
        data = file.read(LARGEST_BYTES + 1)
    if len(data) > LARGEST_BYTES:
        raise ValueError(f"{name}: at most {LARGEST_BYTES >> 30} GiB are read")
    return data


def _kind(head: bytes, path: Path) -> str:
    _, elements, _ = read_header(head, path)
    vertices = {name for name, _ in elements[0].properties} if elements else set()
    if {"f_dc_0", "opacity", "scale_0", "rot_0"} <= vertices:
        return "splats"
    if len(elements) > 1 and elements[1].name == "face" and elements[1].number:
        return "mesh"
    return "points" if {"x", "y", "z"} <= vertices else "other"


def _columns(vertices: np.ndarray, names: Iterable[str], path: Path) -> np.ndarray:
    """``float64[N, len(names)]``."""
    wanted = list(names)
    if missing := [name for name in wanted if name not in (vertices.dtype.names or ())]:
        raise ValueError(f"{path}: its vertices lack {', '.join(missing)}")
    return np.stack([vertices[name].astype(np.float64) for name in wanted], 1)


def _finite(positions: np.ndarray) -> np.ndarray:
    """``bool[N]``: which of ``float64[N, 3]`` have three numbers."""
    return np.asarray(np.isfinite(positions).all(axis=1))


def _splats(data: bytes, path: Path) -> Splats:
    vertices = decode_vertices(data, path)
    names = [
        *"xyz",
        *(f"f_dc_{i}" for i in range(3)),
        "opacity",
        *(f"scale_{i}" for i in range(3)),
        *(f"rot_{i}" for i in range(4)),
    ]
    table = _columns(vertices, names, path)
    lengths = np.linalg.norm(table[:, 10:], axis=1)
    good = np.isfinite(table).all(1) & (np.abs(table[:, 7:10]) < GREATEST_EXPONENT).all(1) & (lengths > 0)
    if not good.any():
        raise ValueError(f"{path}: none of its {len(table)} splats has finite numbers and a size")
    table, lengths = table[good], lengths[good]
    return Splats(
        means=table[:, :3],
        scales=np.exp(table[:, 7:10]),
        rotations=table[:, 10:] / lengths[:, None],
        colours=(0.5 + HARMONIC_0 * table[:, 3:6]).clip(0, 1).astype(np.float32),
        opacities=(1 / (1 + np.exp(-table[:, 6].clip(-50, 50)))).astype(np.float32),
        total=len(vertices),
    )


def _mesh(data: bytes, path: Path) -> Mesh:
    vertices, triangles = decode_vertices(data, path), decode_triangles(data, path)
    positions = _columns(vertices, "xyz", path)
    good = _finite(positions)
    triangles = triangles[good[triangles].all(axis=1)]
    if not len(triangles):
        raise ValueError(f"{path}: none of its triangles has finite corners")
    return Mesh(np.where(good[:, None], positions, 0.0), triangles, _colours(vertices, path), len(triangles))


def _points(data: bytes, path: Path) -> Points:
    vertices = decode_vertices(data, path)
    positions = _columns(vertices, "xyz", path)
    good = _finite(positions)
    if not good.any():
        raise ValueError(f"{path}: none of its {len(positions)} points is finite")
    return Points(positions[good], _colours(vertices, path)[good], int(good.sum()))


def _colours(vertices: np.ndarray, path: Path) -> np.ndarray:
    if not {"red", "green", "blue"} <= set(vertices.dtype.names or ()):
        return np.full((len(vertices), 3), 128, np.uint8)
    colours = _columns(vertices, ("red", "green", "blue"), path)
    if vertices.dtype["red"].kind == "f":  # from 0 to 1 then
        colours = colours * 255
    return np.nan_to_num(colours).clip(0, 255).round().astype(np.uint8)
