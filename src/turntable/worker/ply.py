"""Point clouds as binary PLY files, with NumPy alone."""

from __future__ import annotations

from pathlib import Path
from typing import List, NamedTuple, Tuple

import numpy as np

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip


def encode_vertices(vertices: np.ndarray, comment: str = "") -> bytes:
    """A binary little-endian PLY file with one element ``vertex``.

    Args:
        vertices: a structured array; its fields, in order, become the properties.
        comment: one line for the header.
    """
    names = {"i1": "char", "u1": "uchar", "i2": "short", "u2": "ushort", "i4": "int", "u4": "uint"}
    names.update({"f4": "float", "f8": "double"})
    lines = ["ply", "format binary_little_endian 1.0"]
    if comment:
        lines.append("comment " + comment)
    lines.append("element vertex {}".format(len(vertices)))
    fields = vertices.dtype.names or ()
    lines += ["property {} {}".format(names[vertices.dtype[field].str[1:]], field) for field in fields]
    lines.append("end_header\n")
    little = vertices.astype(vertices.dtype.newbyteorder("<"), copy=False)
    return "\n".join(lines).encode("ascii") + little.tobytes()


class Element(NamedTuple):
    """One element of a PLY file's header: its name, how many there are, and its properties' names and types.

    A type is NumPy's, or ``"list COUNT ITEM"`` with NumPy's two.
    """

    name: str
    number: int
    properties: List[Tuple[str, str]]


def read_header(data: bytes, path: Path) -> Tuple[str, List[Element], int]:
    """A PLY file's format (``ascii``, ``binary_little_endian`` …), its elements, and where their data begin.

    Args:
        data: the file's content, or as much of its beginning as holds the header.
        path: what it is called in errors.

    Raises:
        ValueError: not such a file, or a line of its header is damaged.
    """
    end = data.find(b"end_header")
    if not data.startswith(b"ply") or end < 0:
        raise ValueError("{}: not a PLY file".format(path))
    start = data.index(b"\n", end) + 1
    layout = ""
    elements: List[Element] = []
    for line in data[:end].decode("ascii", "replace").splitlines():
        words = line.split()
        needed = {"format": 2, "element": 3, "property": 3}.get(words[0] if words else "", 0)
        damaged = ValueError("{}: damaged header, line {!r}".format(path, line))
        if len(words) < needed:
            raise damaged
        if words[:1] == ["format"]:
            layout = words[1]
        elif words[:1] == ["element"]:
            if not words[2].isdigit():
                raise damaged
            elements.append(Element(words[1], int(words[2]), []))
        elif words[:1] == ["property"] and elements:
            kinds = words[2:4] if words[1] == "list" else words[1:2]
            if not all(kind in _TYPES for kind in kinds):
                raise ValueError("{}: property {} is not a number".format(path, words[-1]))
            types = ["<" + _TYPES[kind] for kind in kinds]
            elements[-1].properties.append((words[-1], " ".join(["list"] * (words[1] == "list") + types)))
    return layout, elements, start


def read_vertices(path: Path) -> np.ndarray:
    """The element ``vertex`` of a PLY file (ASCII or binary little-endian), as a structured array.

    Raises:
        ValueError: not such a file, vertices are not its first element, or it is cut short.
    """
    return decode_vertices(Path(path).read_bytes(), path)


def decode_vertices(data: bytes, path: Path) -> np.ndarray:
    """As :func:`read_vertices`, of a file's content; ``path`` is what it is called in errors."""
    layout, elements, start = read_header(data, path)
    first = elements[0] if elements else Element("vertex", 0, [])
    if first.name != "vertex":
        raise ValueError("{}: its first element must be vertex, not {}".format(path, first.name))
    for name, kind in first.properties:
        if kind.startswith("list"):
            raise ValueError("{}: property {} of its vertices is not a number".format(path, name))
    dtype, count = np.dtype(first.properties), first.number
    if layout == "binary_little_endian":
        if len(data) - start < count * dtype.itemsize:
            raise ValueError("{}: cut short, {} vertices announced".format(path, count))
        return np.frombuffer(data, dtype, count, start)
    if layout == "ascii":
        rows = data[start:].split(b"\n")[:count]
        fields = len(first.properties)
        return np.array([tuple(float(word) for word in row.split()[:fields]) for row in rows], dtype)
    raise ValueError("{}: format {!r} is not read here".format(path, layout))


def decode_triangles(data: bytes, path: Path) -> np.ndarray:
    """The element ``face`` of a binary PLY file's content: ``int64[F, 3]``, the numbers of each triangle's vertices.

    Raises:
        ValueError: there is none right after the vertices, it holds anything but triangles, is cut short, or names vertices
            that there are not.
    """
    vertices = decode_vertices(data, path)
    layout, elements, start = read_header(data, path)
    kinds = [kind.split() for _, kind in elements[1].properties] if len(elements) > 1 else []
    if layout != "binary_little_endian" or len(kinds) != 1 or kinds[0][0] != "list":
        raise ValueError("{}: needs binary faces right after the vertices, of one list each".format(path))
    count = elements[1].number
    dtype = np.dtype([("corners", kinds[0][1]), ("vertices", kinds[0][2], 3)])
    start += vertices.nbytes
    if len(data) - start < count * dtype.itemsize:
        raise ValueError("{}: cut short, {} triangles announced".format(path, count))
    faces = np.frombuffer(data, dtype, count, start)
    if (faces["corners"] != 3).any():
        raise ValueError("{}: has faces that are no triangles".format(path))
    triangles = faces["vertices"].astype(np.int64)
    if count and (triangles.min() < 0 or triangles.max() >= len(vertices)):
        raise ValueError("{}: has faces whose vertices are not there".format(path))
    return triangles


def encode_points(points: np.ndarray, colours: np.ndarray) -> bytes:
    """A PLY file of ``float64[P, 3]`` points with ``uint8[P, 3]`` colours (positions kept in double)."""
    fields = [(axis, "<f8") for axis in "xyz"] + [(name, "u1") for name in ("red", "green", "blue")]
    vertices = np.zeros(len(points), np.dtype(fields))
    for i, axis in enumerate("xyz"):
        vertices[axis] = points[:, i]
    for i, name in enumerate(("red", "green", "blue")):
        vertices[name] = colours[:, i]
    return encode_vertices(vertices)


def read_points(path: Path) -> Tuple[np.ndarray, np.ndarray]:
    """``float64[P, 3]`` positions and ``uint8[P, 3]`` colours of a PLY file; grey where it has none."""
    vertices = read_vertices(path)
    names = vertices.dtype.names or ()
    missing = [axis for axis in "xyz" if axis not in names]
    if missing:
        raise ValueError("{}: vertices without {}".format(path, ", ".join(missing)))
    points = np.stack([vertices[axis].astype(np.float64) for axis in "xyz"], 1)
    if all(name in names for name in ("red", "green", "blue")):
        colours = np.stack([vertices[name].astype(np.uint8) for name in ("red", "green", "blue")], 1)
    else:
        colours = np.full((len(points), 3), 128, np.uint8)
    return points, colours
