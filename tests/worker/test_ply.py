"""PLY files of points: written and read back, and refused when they are damaged."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from turntable.worker.ply import (
    decode_triangles,
    encode_points,
    encode_vertices,
    read_points,
    read_vertices,
)

counts = st.integers(0, 20)
clouds = counts.flatmap(
    lambda count: st.tuples(
        hnp.arrays(np.float64, (count, 3), elements=st.floats(allow_nan=False)),
        hnp.arrays(np.uint8, (count, 3)),
    )
)


@given(clouds)
@settings(deadline=None)
def test_points_come_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, cloud: tuple[np.ndarray, np.ndarray]
) -> None:
    path = tmp_path_factory.mktemp("ply") / "points.ply"
    path.write_bytes(encode_points(*cloud))
    points, colours = read_points(path)
    np.testing.assert_array_equal(points, cloud[0])
    np.testing.assert_array_equal(colours, cloud[1])


names = st.lists(st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True), min_size=1, max_size=6, unique=True)
kinds = ["i1", "u1", "<i2", "<u2", "<i4", "<u4", "<f4", "<f8"]


@given(names, st.data())
@settings(deadline=None)
def test_vertices_with_any_properties_come_back(
    tmp_path_factory: pytest.TempPathFactory, fields: list[str], data: st.DataObject
) -> None:
    dtype = np.dtype([(name, data.draw(st.sampled_from(kinds))) for name in fields])
    count = data.draw(counts)
    raw = data.draw(st.binary(min_size=count * dtype.itemsize, max_size=count * dtype.itemsize))
    path = tmp_path_factory.mktemp("ply") / "v.ply"
    path.write_bytes(encode_vertices(np.frombuffer(raw, dtype), "made by a test"))
    read = read_vertices(path)
    assert read.dtype.names == tuple(fields) and read.tobytes() == raw


def test_ascii_is_read_and_missing_colours_are_grey(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    path.write_text(
        "ply\nformat ascii 1.0\ncomment hand\nelement vertex 2\nproperty float x\nproperty float y\n"
        "property float z\nend_header\n1 2 3\n-0.5 0.25 8\n"
    )
    points, colours = read_points(path)
    assert points.tolist() == [[1, 2, 3], [-0.5, 0.25, 8]] and (colours == 128).all()


def test_elements_after_the_vertices_are_passed_over(tmp_path: Path) -> None:
    vertices = np.array([(1.0, 2.0, 3.0)], [("x", "<f4"), ("y", "<f4"), ("z", "<f4")])
    whole = encode_vertices(vertices)
    faces = b"element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    path = tmp_path / "a.ply"
    path.write_bytes(whole.replace(b"end_header\n", faces) + b"\x03" + bytes(12))
    assert read_points(path)[0].tolist() == [[1, 2, 3]]


HEAD = "ply\nformat binary_little_endian 1.0\nelement vertex 2\nproperty double x\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not a PLY"),
        ("plyers", "not a PLY"),
        (HEAD, "not a PLY"),
        (HEAD + "end_header\n12345678", "cut short, 2 vertices announced"),
        (HEAD.replace("vertex", "face") + "end_header\n", "must be vertex"),
        (HEAD.replace("double", "list uchar") + "end_header\n", "not a number"),
        (HEAD.replace("little", "big") + "end_header\n", "binary_big_endian.* not read"),
        (HEAD + "end_header\n1234567812345678", "without y, z"),
    ],
)
def test_a_damaged_file_is_a_value_error(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "a.ply").write_text(text)
    with pytest.raises(ValueError, match=says):
        read_points(tmp_path / "a.ply")


@given(st.data())
@settings(deadline=None, max_examples=200)
def test_a_spoiled_byte_is_read_or_a_value_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = bytearray(encode_points(np.ones((3, 3)), np.ones((3, 3), np.uint8)))
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("ply") / "a.ply"
    path.write_bytes(bytes(whole))
    with contextlib.suppress(ValueError):
        points, colours = read_points(path)
        assert points.shape[1] == 3 and len(points) == len(colours)


def test_triangles_are_read_after_the_vertices() -> None:
    vertices = np.zeros(3, [("x", "<f4"), ("y", "<f4"), ("z", "<f4")])
    head = b"element face 2\nproperty list uchar uint vertex_indices\nend_header\n"
    faces = np.array([(3, (0, 1, 2)), (3, (2, 1, 0))], [("corners", "u1"), ("vertices", "<u4", 3)])
    data = encode_vertices(vertices).replace(b"end_header\n", head) + faces.tobytes()
    assert decode_triangles(data, Path("mesh.ply")).tolist() == [[0, 1, 2], [2, 1, 0]]
    with pytest.raises(ValueError, match="needs binary faces right after the vertices"):
        decode_triangles(encode_vertices(vertices), Path("mesh.ply"))
