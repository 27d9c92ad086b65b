"""Camera paths are smooth, closed where they should be, and stay where photos were taken."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import look_at, make_capture
from turntable.captures.capture import Capture
from turntable.captures.paths import Film, along_views, check_film, orbit, read_path
from turntable.captures.transforms import opengl_matrix
from turntable.errors import TurntableError
from turntable.worker.contract import Camera


def capture_of(folder: Path, cameras: list[Camera]) -> Capture:
    """A capture with these cameras; nobody looks at its photos."""
    capture = make_capture(folder, views=len(cameras))
    for view, camera in zip(capture.document["views"], cameras, strict=True):
        view["camera"] = camera.to_json()
    return Capture(capture.folder, capture.document)


def around(
    start: float, end: float, count: int, target: tuple[float, float, float] = (0, 0, 0)
) -> list[Camera]:
    """Cameras on an arc around ``target``, 3 away from it and 1 above, from angle to angle."""
    angles = np.linspace(start, end, count, endpoint=end - start < 6)
    places = [np.array([3 * np.cos(a), 3 * np.sin(a), 1.0]) + target for a in angles]
    return [look_at(place, np.array(target, float), 32, 20, 30.0) for place in places]


def centres(cameras: list[Camera]) -> np.ndarray:
    return np.array([camera.centre for camera in cameras])


def check_rotations(cameras: list[Camera]) -> None:
    for camera in cameras:
        assert np.allclose(camera.R @ camera.R.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(camera.R) == pytest.approx(1)


def check_even_speed(places: np.ndarray, closed: bool) -> None:
    steps = np.linalg.norm(
        np.diff(np.concatenate([places, places[:1]]) if closed else places, axis=0), axis=1
    )
    assert steps.max() < 1.1 * steps.min()


def test_photos_all_around_make_a_whole_circle_that_looks_at_the_middle(tmp_path: Path) -> None:
    target = (5.0, -2.0, 1.0)
    path = orbit(capture_of(tmp_path / "c", around(0, 2 * np.pi, 12, target)), Film(60))
    offsets = centres(path) - target
    check_rotations(path)
    check_even_speed(centres(path), closed=True)
    assert np.allclose(np.linalg.norm(offsets, axis=1), np.sqrt(10), rtol=0.01)
    assert len(np.unique(np.round(np.degrees(np.arctan2(offsets[:, 1], offsets[:, 0])) / 30))) >= 12
    for camera in path:
        pixel, depth = camera.project(np.array([target]))
        assert depth[0] > 0
        assert np.allclose(pixel[0], (camera.width / 2, camera.height / 2), atol=0.01)
        assert camera.R[1] @ [0, 0, 1] < 0  # the picture's up is the scene's


def test_photos_of_one_side_make_a_path_within_their_arc(tmp_path: Path) -> None:
    path = orbit(capture_of(tmp_path / "c", around(0, np.pi / 2, 9)), Film(48))
    angles = np.arctan2(centres(path)[:, 1], centres(path)[:, 0])
    check_rotations(path)
    assert angles.min() > 0 and angles.max() < np.pi / 2
    assert angles.max() - angles.min() > 0.8 * np.pi / 2
    step = np.linalg.norm(np.diff(centres(path), axis=0), axis=1).max()
    assert np.linalg.norm(centres(path)[0] - centres(path)[-1]) < 2 * step  # it closes


def test_parallel_cameras_look_at_what_the_sparse_points_say_or_ahead(tmp_path: Path) -> None:
    cameras = [
        replace(look_at(np.array([x, -4.0, 0]), np.array([x, 0, 0]), 32, 20, 30.0))
        for x in np.linspace(-1, 1, 7)
    ]
    path = orbit(capture_of(tmp_path / "c", cameras), Film(20))
    check_rotations(path)
    assert all(camera.forward @ [0, 1, 0] > 0.8 for camera in path)


def test_cameras_that_look_outwards_are_followed_there_and_back(tmp_path: Path) -> None:
    outwards = [
        look_at(
            np.array([0.1 * np.cos(a), 0.1 * np.sin(a), 0]),
            np.array([5 * np.cos(a), 5 * np.sin(a), 0]),
            32,
            20,
            30.0,
        )
        for a in np.linspace(0, 3, 9)
    ]
    path = orbit(capture_of(tmp_path / "c", outwards), Film(40))
    check_rotations(path)
    assert np.allclose(path[0].forward, outwards[0].forward, atol=1e-6)
    assert np.allclose(path[20].forward, outwards[-1].forward, atol=1e-6)
    assert np.linalg.norm(centres(path), axis=1).max() < 0.2


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 9), st.integers(0, 2**31 - 1))
def test_any_cameras_make_a_path_of_valid_ones(
    tmp_path_factory: pytest.TempPathFactory, count: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    cameras = [
        look_at(generator.normal(0, 3, 3), generator.normal(0, 1, 3), 32, 20, 30.0) for _ in range(count)
    ]
    capture = capture_of(tmp_path_factory.mktemp("any") / "c", cameras)
    for path in (orbit(capture, Film(16)), along_views(capture, Film(16))):
        assert len(path) == 16
        check_rotations(path)
        assert np.isfinite(centres(path)).all()


def test_the_way_along_the_views_begins_and_ends_at_theirs_at_one_speed(tmp_path: Path) -> None:
    cameras = around(0, 2.0, 7)
    path = along_views(capture_of(tmp_path / "c", cameras), Film(50))
    check_rotations(path)
    check_even_speed(centres(path), closed=False)
    for made, own in ((path[0], cameras[0]), (path[-1], cameras[-1])):
        assert np.allclose(made.centre, own.centre) and np.allclose(made.R, own.R)


def test_views_at_one_place_are_no_fault(tmp_path: Path) -> None:
    path = along_views(capture_of(tmp_path / "c", [around(0, 1, 2)[0]] * 4), Film(8))
    assert np.isfinite(centres(path)).all()


def test_sizes_are_even_and_keep_the_field_of_view(tmp_path: Path) -> None:
    capture = capture_of(tmp_path / "c", around(0, 2 * np.pi, 8))
    own, small = orbit(capture, Film(4))[0], orbit(capture, Film(4, long_side=19))[0]
    assert (own.width, own.height) == (32, 20) and own.fx == pytest.approx(30)
    assert (small.width, small.height) == (20, 12)  # 19 is odd
    assert small.fx / small.width == pytest.approx(own.fx / own.width)


def test_a_path_of_ones_own_comes_back_whether_opencv_or_opengl(tmp_path: Path) -> None:
    capture = capture_of(tmp_path / "c", around(0, 2 * np.pi, 8))
    wanted = around(0, 1, 5)
    ours, theirs = tmp_path / "ours.json", tmp_path / "theirs.json"
    ours.write_text(json.dumps({"cameras": [camera.to_json() for camera in wanted]}))
    theirs.write_text(
        json.dumps({"frames": [{"transform_matrix": opengl_matrix(one.R, one.t).tolist()} for one in wanted]})
    )
    for file in (ours, theirs):
        path = read_path(file, capture, Film())
        assert np.allclose(centres(path), centres(wanted))
        assert all(np.allclose(made.R, one.R) for made, one in zip(path, wanted, strict=True))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "takes orbit, views or a JSON file"),
        ("[]", "from 2 to"),
        ('{"frames": []}', "from 2 to"),
        ('{"frames": [{}, {}]}', "frame 0"),
        ('{"cameras": [{"width": 3}, {}]}', "needs width, height"),
        ('{"cameras": [3, 4]}', "needs width, height"),
        ('{"frames": [{"transform_matrix": [[1,0,0,0],[0,1,0,0],[0,0,-1,0]]}, 3]}', "mirrors"),
    ],
)
def test_a_file_that_is_no_path_is_refused_in_one_line(tmp_path: Path, content: str, message: str) -> None:
    capture = capture_of(tmp_path / "c", around(0, 2 * np.pi, 8))
    (file := tmp_path / "path.json").write_text(content)
    with pytest.raises(TurntableError, match=message) as caught:
        read_path(file, capture, Film())
    assert "\n" not in str(caught.value)
    with pytest.raises(TurntableError, match="takes orbit, views or a JSON file"):
        read_path(tmp_path / "gone.json", capture, Film())


@pytest.mark.parametrize("film", [Film(1), Film(10**9), Film(long_side=1), Film(long_side=10**6)])
def test_films_that_cannot_be_meant_are_refused(film: Film) -> None:
    with pytest.raises(TurntableError):
        check_film(film)


@pytest.mark.parametrize("name", ["fox", "temple"])
def test_the_orbit_of_a_real_capture_stays_near_its_photos(data: Path, tmp_path: Path, name: str) -> None:
    from turntable import CaptureOptions
    from turntable.captures.build import add_capture

    capture = add_capture(data / name, tmp_path, CaptureOptions(long_side=64))
    photos = centres([view.camera for view in capture.views])
    path = orbit(capture, Film(60))
    check_rotations(path)
    away = np.linalg.norm(centres(path)[:, None] - photos, axis=-1).min(1)
    assert away.max() < 0.6 * np.linalg.norm(photos - photos.mean(0), axis=1).max()
