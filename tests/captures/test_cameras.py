"""Cameras: poses read back as they were written, whatever they are; impossible ones refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turntable.captures.cameras import (
    check_intrinsics,
    common_names,
    from_opengl,
    matrix_of,
    nearest_rotation,
    pinhole,
    resized,
)
from turntable.captures.source import SourceCamera
from turntable.captures.transforms import opengl_matrix
from turntable.errors import TurntableError
from turntable.worker.contract import Camera


@st.composite
def rotations(draw: st.DrawFn) -> np.ndarray:
    """From a random unit quaternion, by Rodrigues' formula."""
    w, *vector = draw(
        st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: sum(v * v for v in q) > 0.1)
    )
    q = np.array([w, *vector]) / np.linalg.norm([w, *vector])
    x, y, z = q[1:]
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + 2 * q[0] * cross + 2 * cross @ cross


vectors = st.lists(st.floats(-100, 100), min_size=3, max_size=3).map(np.array)


@given(rotations(), vectors)
def test_a_pose_survives_opengl_and_back(rotation: np.ndarray, translation: np.ndarray) -> None:
    back, moved = from_opengl(opengl_matrix(rotation, translation), "pose")
    np.testing.assert_allclose(back, rotation, atol=1e-9)
    np.testing.assert_allclose(moved, translation, atol=1e-9 * (1 + np.abs(translation).max()))


@given(rotations(), st.floats(0.01, 100))
def test_one_scale_is_divided_out(rotation: np.ndarray, scale: float) -> None:
    np.testing.assert_allclose(nearest_rotation(rotation * scale, "pose"), rotation, atol=1e-9)


@given(rotations(), st.floats(1.05, 10), st.integers(0, 2))
def test_a_stretch_is_refused(rotation: np.ndarray, stretch: float, axis: int) -> None:
    scales = np.ones(3)
    scales[axis] = stretch
    with pytest.raises(TurntableError, match="stretches"):
        nearest_rotation(rotation * scales, "pose")


@given(rotations())
def test_a_mirror_is_refused(rotation: np.ndarray) -> None:
    with pytest.raises(TurntableError, match="mirrors"):
        nearest_rotation(-rotation, "pose")


@given(rotations(), vectors, st.integers(20, 2000), st.integers(20, 2000), st.integers(16, 500))
def test_a_resized_camera_sees_each_point_at_the_same_part_of_its_picture(
    rotation: np.ndarray, translation: np.ndarray, width: int, height: int, new: int
) -> None:
    camera = Camera(width, height, 300.0, 310.0, width / 2 + 3, height / 2 - 5, rotation, translation)
    small = resized(camera, new, 2 * new)
    point = camera.R.T @ (np.array([0.3, -0.2, 4.0]) - camera.t)
    before, after = camera.project(point[None])[0][0], small.project(point[None])[0][0]
    np.testing.assert_allclose(after / [new, 2 * new], before / [width, height], atol=1e-9)


@given(rotations(), vectors)
def test_json_keeps_a_camera_bit_for_bit(rotation: np.ndarray, translation: np.ndarray) -> None:
    camera = Camera(64, 48, 51.3, 52.7, 31.1, 24.9, rotation, translation)
    again = Camera.from_json(camera.to_json())
    assert (again.R == camera.R).all() and (again.t == camera.t).all()
    assert again.to_json() == camera.to_json()


@pytest.mark.parametrize(
    ("model", "params"),
    [
        ("PINHOLE", (50.0, 60.0, 31.0, 22.0)),
        ("SIMPLE_PINHOLE", (50.0, 31.0, 22.0)),
        ("OPENCV", (50.0, 60.0, 31.0, 22.0, 0, 0, 0, 0)),
        ("FULL_OPENCV", (50.0, 60.0, 31.0, 22.0, 0, 0, 0, 0, 0, 0, 0, 0)),
        ("SIMPLE_RADIAL", (50.0, 31.0, 22.0, 0)),
        ("RADIAL", (50.0, 31.0, 22.0, 0, 0)),
    ],
)
def test_a_lens_without_distortion_is_a_pinhole(model: str, params: tuple[float, ...]) -> None:
    camera = pinhole(SourceCamera(model, params, 64, 48), np.eye(3), np.zeros(3))
    assert camera is not None
    assert (camera.fx, camera.cx, camera.cy) == (50, 31, 22)
    assert camera.fy == (60 if "OPENCV" in model or model == "PINHOLE" else 50)


@pytest.mark.parametrize("model", ["OPENCV", "SIMPLE_RADIAL", "RADIAL", "OPENCV_FISHEYE", "FOV"])
def test_a_lens_with_distortion_is_none(model: str) -> None:
    count = {"OPENCV": 8, "SIMPLE_RADIAL": 4, "RADIAL": 5, "OPENCV_FISHEYE": 8, "FOV": 5}[model]
    params = (50.0, 50.0, 31.0, 22.0, *[0.1] * 8)[:count]
    assert pinhole(SourceCamera(model, params, 64, 48), np.eye(3), np.zeros(3)) is None


@pytest.mark.parametrize(
    ("camera", "says"),
    [
        (SourceCamera("PINHOLE", (float("nan"), 1, 1, 1), 8, 8), "finite"),
        (SourceCamera("PINHOLE", (1, 1, 1, 1), 0, 8), "size must be positive"),
        (SourceCamera("PINHOLE", (1, 1, 1), 8, 8), "3 parameters"),
        (SourceCamera("PINHOLE", (1, -1, 1, 1), 8, 8), "focal lengths must be positive"),
        (SourceCamera("PINHOLES", (1, 1, 1, 1), 8, 8), "PINHOLES.*Did you mean 'PINHOLE'"),
    ],
)
def test_impossible_intrinsics_are_refused(camera: SourceCamera, says: str) -> None:
    with pytest.raises(TurntableError, match=says):
        check_intrinsics(camera, "camera 1")


@pytest.mark.parametrize("rows", [None, 3, [[1, 2], [3]], [[1, 2, 3, 4]], "abcd", [["a"] * 4] * 4])
def test_what_is_no_matrix_is_refused(rows: object) -> None:
    with pytest.raises(TurntableError, match="4×4"):
        matrix_of(rows, "transform_matrix of a.jpg")


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["images/a.jpg", "images/b.jpg"], ["a.jpg", "b.jpg"]),
        (["./images/a.jpg", "images\\b.jpg"], ["a.jpg", "b.jpg"]),
        (["x/left/a.jpg", "x/right/a.jpg"], ["left/a.jpg", "right/a.jpg"]),
        (["a.jpg", "sub/a.jpg"], ["a.jpg", "sub/a.jpg"]),
        (["images/a.jpg"], ["a.jpg"]),
        ([], []),
    ],
)
def test_names_lose_the_folders_that_all_share(paths: list[str], names: list[str]) -> None:
    assert common_names(paths) == names
