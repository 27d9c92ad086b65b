"""Point clouds as binary PLY files, with NumPy alone."""

from __future__ import annotations

from pathlib import Path
from typing import List, Tuple

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


def read_vertices(path: Path) -> np.ndarray:
    """The element ``vertex`` of a PLY file (ASCII or binary little-endian), as a structured array.

    Raises:
        ValueError: not such a file, vertices are not its first element, or it is cut short.
    """
    data = Path(path).read_bytes()
    end = data.find(b"end_header")
    if not data.startswith(b"ply") or end < 0:
        raise ValueError("{}: not a PLY file".format(path))
    start = data.index(b"\n", end) + 1
    layout = ""
    fields: List[Tuple[str, str]] = []
    count, elements = 0, 0
    for line in data[:end].decode("ascii", "replace").splitlines():
        words = line.split()
        needed = {"format": 2, "element": 3, "property": 3}.get(words[0] if words else "", 0)
        if len(words) < needed:
            raise ValueError("{}: damaged header, line {!r}".format(path, line))
        if words[:1] == ["format"]:
            layout = words[1]
        elif words[:1] == ["element"]:
            elements += 1
            if elements == 1:
                if words[1] != "vertex":
                    raise ValueError("{}: its first element must be vertex, not {}".format(path, words[1]))
                count = int(words[2])
        elif words[:1] == ["property"] and elements == 1:
            if words[1] not in _TYPES:
                raise ValueError("{}: property {} of its vertices is not a number".format(path, words[-1]))
            fields.append((words[2], "<" + _TYPES[words[1]]))
    dtype = np.dtype(fields)
    if layout == "binary_little_endian":
        if len(data) - start < count * dtype.itemsize:
            raise ValueError("{}: cut short, {} vertices announced".format(path, count))
        return np.frombuffer(data, dtype, count, start)
    if layout == "ascii":
        rows = data[start:].split(b"\n")[:count]
        return np.array([tuple(float(word) for word in row.split()[: len(fields)]) for row in rows], dtype)
    raise ValueError("{}: format {!r} is not read here".format(path, layout))


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
