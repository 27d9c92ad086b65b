"""Meshes: COLMAP's screened Poisson reconstruction of points with normals, and PLY files."""

# pyright: reportMissingImports=false

from __future__ import annotations

import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

FEWEST_POINTS = 50
"""Fewer make no surface that anybody would want to see."""

LEVELS = (6, 12)
"""Fewest and most levels that an octree is given unasked; each more takes four times the cells of a surface."""


class Mesh(NamedTuple):
    """``vertices`` float64[N, 3] in the world, ``colours`` uint8[N, 3], ``faces`` int32[M, 3]."""

    vertices: np.ndarray
    colours: np.ndarray
    faces: np.ndarray


EMPTY = Mesh(np.zeros((0, 3)), np.zeros((0, 3), np.uint8), np.zeros((0, 3), np.int32))


def reconstruct(
    points: np.ndarray, normals: np.ndarray, colours: np.ndarray, depth: int, weight: float
) -> Mesh:
    """The surface whose indicator function's gradient fits the normals best (Kazhdan and Hoppe, TOG 2013).

    It runs on one thread: more would add in another order, and give other bits.

    Args:
        points, normals: ``float64[P, 3]``; normals point out of the surface.
        colours: ``uint8[P, 3]``.
        depth: of the octree; a cell of the finest level is the points' extent / 2^depth, roughly.
        weight: how much the surface is drawn to the points themselves.
    """
    import pycolmap

    if len(points) < FEWEST_POINTS:
        return EMPTY
    # Away from float32's limits, wherever the scene lies and however large it is.
    middle, size = points.mean(0), np.abs(points - points.mean(0)).max()
    if not size > 0:
        return EMPTY
    options = pycolmap.PoissonMeshingOptions()
    options.depth, options.point_weight, options.trim = depth, weight, 0.0
    options.num_threads = 1
    with TemporaryDirectory(prefix="poisson-") as scratch:
        source, target = Path(scratch) / "points.ply", Path(scratch) / "mesh.ply"
        write_points(source, ((points - middle) / size).astype(np.float32), normals, colours)
        pycolmap.poisson_meshing(source, target, options)
        mesh = read_mesh(target)
    return mesh._replace(vertices=mesh.vertices * size + middle)


def octree_depth(points: np.ndarray, spacings: np.ndarray) -> int:
    """Levels at which a cell is half of what is usual between neighbours, ``spacings`` float64[P]; 6 to 12."""
    if not len(points) or not np.median(spacings) > 0:
        return LEVELS[0]
    levels = math.ceil(math.log2(np.ptp(points, axis=0).max() / np.median(spacings))) + 1
    return min(max(levels, LEVELS[0]), LEVELS[1])


def write_points(path: Path, points: np.ndarray, normals: np.ndarray, colours: np.ndarray) -> None:
    """Write points with normals and colours as a binary PLY, with coordinates of as many bits as ``points`` has."""
    fields = [*((name, points.dtype.str) for name in "xyz"), *((name, "<f4") for name in ("nx", "ny", "nz"))]
    rows = np.empty(len(points), [*fields, *((name, "u1") for name in ("red", "green", "blue"))])
    for values, names in (
        (points, "xyz"),
        (normals, ("nx", "ny", "nz")),
        (colours, ("red", "green", "blue")),
    ):
        for axis, name in enumerate(names):
            rows[name] = values[:, axis]
    path.write_bytes(_header(f"vertex {len(rows)}", rows.dtype) + b"end_header\n" + rows.tobytes())


def write_mesh(path: Path, mesh: Mesh) -> None:
    """Write a mesh as a binary PLY with a colour for each vertex."""
    rows = np.empty(len(mesh.vertices), [*((name, "<f8") for name in "xyz"), *_COLOURS])
    for axis, name in enumerate("xyz"):
        rows[name] = mesh.vertices[:, axis]
    for axis, (name, _) in enumerate(_COLOURS):
        rows[name] = mesh.colours[:, axis]
    faces = np.empty(len(mesh.faces), [("count", "u1"), ("rows", "<i4", 3)])
    faces["count"], faces["rows"] = 3, mesh.faces
    list_header = f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    header = _header(f"vertex {len(rows)}", rows.dtype) + list_header.encode()
    path.write_bytes(header + rows.tobytes() + faces.tobytes())


_COLOURS = (("red", "u1"), ("green", "u1"), ("blue", "u1"))
_PLY_NAMES = {np.dtype("f8"): "double", np.dtype("f4"): "float", np.dtype("u1"): "uchar"}
_PLY_TYPES = {"float": "<f4", "double": "<f8", "uchar": "u1", "uint8": "u1", "int": "<i4", "uint": "<u4"}


def _header(element: str, fields: np.dtype) -> bytes:
    lines = ["ply", "format binary_little_endian 1.0", f"element {element}"]
    for name in fields.names or ():
        lines.append(f"property {_PLY_NAMES[fields[name]]} {name}")
    return "\n".join(lines).encode() + b"\n"


def read_mesh(path: Path) -> Mesh:
    """Read the binary PLY of triangles that COLMAP writes.

    Raises:
        ValueError: it is not one.
    """
    head, mark, body = path.read_bytes().partition(b"end_header\n")
    lines = head.decode("ascii").split("\n")
    if not mark or "format binary_little_endian 1.0" not in lines:
        raise ValueError(f"{path} is no binary PLY")
    counts = {words[1]: int(words[2]) for line in lines if (words := line.split())[:1] == ["element"]}
    fields, faces = [], np.dtype("V0")
    for words in (line.split() for line in lines):
        if words[:2] == ["property", "list"]:
            faces = np.dtype([("count", _PLY_TYPES[words[2]]), ("rows", _PLY_TYPES[words[3]], 3)])
        elif words[:1] == ["property"]:
            fields.append((words[2], _PLY_TYPES[words[1]]))
    vertices = np.frombuffer(body, np.dtype(fields), counts["vertex"])
    triangles = np.frombuffer(body, faces, counts["face"], vertices.nbytes)
    if (triangles["count"] != 3).any():
        raise ValueError(f"{path} has faces that are no triangles")
    return Mesh(
        np.stack([vertices[name] for name in "xyz"], 1).astype(np.float64),
        np.stack([vertices[name] for name, _ in _COLOURS], 1).astype(np.uint8),
        triangles["rows"].astype(np.int32),
    )
