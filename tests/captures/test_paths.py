"""Camera paths: smooth, at one speed, upright, and only where photos were taken."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from conftest import look_at
from turntable.captures.capture import Capture
from turntable.captures.paths import Film, along_views, check_film, orbit, read_path, up_of
from turntable.captures.transforms import opengl_matrix
from turntable.errors import TurntableError
from turntable.worker.contract import Camera
from turntable.worker.ply import encode_points

FILM = Film(frames=60)


def capture_of(cameras: list[Camera], folder: Path = Path("by hand")) -> Capture:
    """A capture with these cameras and no files."""
    views = [
        {
            "name": f"{number:03d}",
            "camera": camera.to_json(),
            "image": "none",
            "held_out": False,
            "origin": {},
        }
        for number, camera in enumerate(cameras)
    ]
    return Capture(folder, {"views": views, "points": None})


def on_arc(degrees: float, count: int, elevations: tuple[float, ...] = (20.0,)) -> list[Camera]:
    """Cameras around the origin, on an arc of ``degrees`` at a distance of 3, at these elevations (degrees) in turn."""
    made = []
    for index in range(count):
        azimuth = np.radians(degrees) * (index / (count if degrees == 360 else count - 1) - 0.5)
        elevation = np.radians(elevations[index % len(elevations)])
        flat = np.array([np.cos(azimuth), np.sin(azimuth), 0]) * np.cos(elevation)
        made.append(look_at(3 * (flat + np.array([0, 0, np.sin(elevation)])), np.zeros(3), 48, 32, 40.0))
    return made


def rolled(camera: Camera, radians: float) -> Camera:
    """The camera held at an angle."""
    roll = Rotation.from_rotvec([0, 0, radians]).as_matrix()
    return Camera(**{**vars(camera), "R": roll @ camera.R, "t": roll @ camera.t})


def moved(camera: Camera, turn: np.ndarray, scale: float, shift: np.ndarray) -> Camera:
    """The same camera in a world in which x is ``scale · turn · x + shift``."""
    R = camera.R @ turn.T
    return Camera(**{**vars(camera), "R": R, "t": scale * camera.t - R @ shift})


def centres_of(cameras: list[Camera]) -> np.ndarray:
    return np.array([camera.centre for camera in cameras])


def turns_of(cameras: list[Camera]) -> np.ndarray:
    """By how many degrees each camera is turned to the one before it."""
    turned = [Rotation.from_matrix(after.R @ before.R.T).magnitude() for before, after in pairwise(cameras)]
    return np.degrees(turned)


def assert_valid(cameras: list[Camera]) -> None:
    for camera in cameras:
        np.testing.assert_allclose(camera.R @ camera.R.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(camera.R) > 0 and np.isfinite(camera.t).all()


@st.composite
def worlds(draw: st.DrawFn) -> tuple[np.ndarray, float, np.ndarray]:
    """A similarity: which way the axes of a capture's world point, and its unit, mean nothing."""
    turn = Rotation.random(random_state=draw(st.integers(0, 2**31))).as_matrix()
    shift = np.array([draw(st.floats(-50, 50)) for _ in range(3)])
    return turn, 10 ** draw(st.floats(-2, 2)), shift


scenes = st.builds(
    on_arc,
    st.floats(60, 330),
    st.integers(5, 30),
    st.lists(st.floats(-30, 60), min_size=1, max_size=4).map(tuple),
)


def has_one_largest_gap(cameras: list[Camera]) -> bool:
    """Where two gaps are as large, either may be left out."""
    azimuths = np.sort([np.arctan2(camera.centre[1], camera.centre[0]) for camera in cameras])
    gaps = np.sort(np.diff([*azimuths, azimuths[0] + 2 * np.pi]))
    return gaps[-1] > gaps[-2] + 0.01


@settings(deadline=None, max_examples=50)
@given(scenes)
def test_an_orbit_looks_at_what_the_photos_look_at_from_as_far_as_they_do(cameras: list[Camera]) -> None:
    path = orbit(capture_of(cameras), FILM)
    assert len(path) == FILM.frames
    assert_valid(path)
    for camera in path:
        pixel, depth = camera.project(np.zeros((1, 3)))
        np.testing.assert_allclose(pixel[0], [camera.width / 2, camera.height / 2], atol=1e-3)
        assert depth[0] == pytest.approx(3, rel=1e-3)


@settings(deadline=None, max_examples=50)
@given(scenes)
def test_an_orbit_ends_where_it_began_at_one_speed_without_jumps(cameras: list[Camera]) -> None:
    path = orbit(capture_of(cameras), FILM)
    places = centres_of([*path, path[0]])
    steps = np.linalg.norm(np.diff(places, axis=0), axis=1)
    assert steps.max() < 1.2 * np.median(steps)
    assert turns_of([*path, path[0]]).max() < 20


@settings(deadline=None, max_examples=50)
@given(scenes.filter(has_one_largest_gap), worlds())
def test_an_orbit_does_not_depend_on_the_axes_of_the_world(
    cameras: list[Camera], world: tuple[np.ndarray, float, np.ndarray]
) -> None:
    turn, scale, shift = world
    expected = orbit(capture_of(cameras), FILM)
    actual = orbit(capture_of([moved(camera, turn, scale, shift) for camera in cameras]), FILM)
    places = (centres_of(actual) - shift) / scale @ turn
    np.testing.assert_allclose(places, centres_of(expected), atol=1e-4)


def test_photos_all_around_make_a_whole_circle_and_others_stay_on_their_arc() -> None:
    def azimuths(cameras: list[Camera]) -> np.ndarray:
        places = centres_of(orbit(capture_of(cameras), FILM))
        return np.degrees(np.unwrap(np.arctan2(places[:, 1], places[:, 0])))

    around = azimuths(on_arc(360, 8))
    assert np.ptp(around) == pytest.approx(360 * 59 / 60, abs=1)
    for degrees in (60, 120, 180):
        partly = azimuths(on_arc(degrees, 12, (10.0, 30.0)))
        assert 0.8 * degrees < np.ptp(partly) <= degrees
        assert np.abs(partly).max() <= degrees / 2


def test_an_orbit_stays_between_the_lowest_and_the_highest_photos() -> None:
    places = centres_of(orbit(capture_of(on_arc(150, 20, (5.0, 25.0, 45.0))), FILM))
    elevations = np.degrees(np.arcsin(places[:, 2] / 3))
    assert 5 <= elevations.min() < 15 and 35 < elevations.max() <= 45


@pytest.mark.parametrize("degrees", [90, 360])
@pytest.mark.parametrize("quarter", [1, -1])
def test_photos_held_sideways_make_an_upright_film(degrees: float, quarter: int) -> None:
    cameras = [rolled(camera, quarter * np.pi / 2) for camera in on_arc(degrees, 16)]
    for camera in orbit(capture_of(cameras), FILM):
        assert abs(camera.R[0, 2]) < 1e-6 and camera.R[1, 2] < 0  # its rows are level, its columns point down
        assert (camera.width, camera.height) == (32, 48)


def test_photos_held_sideways_both_ways_make_an_upright_film() -> None:
    """The temple's: half of them are upside down beside the other half, and the mean of what is up in them says nothing."""
    cameras = [
        rolled(camera, np.pi / 2 if index < 9 else -np.pi / 2)
        for index, camera in enumerate(on_arc(360, 16, (15.0,)))
    ]
    up, sideways = up_of(capture_of(cameras), np.zeros(3))
    np.testing.assert_allclose(up, [0, 0, 1], atol=1e-6)
    assert sideways
    path = orbit(capture_of(cameras), FILM)
    assert all(camera.R[1, 2] < -0.9 for camera in path)
    assert turns_of(path).max() < 10


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-0.2, 0.2), min_size=12, max_size=12), st.floats(0, 80))
def test_photos_not_quite_level_make_a_level_film(rolls: list[float], elevation: float) -> None:
    cameras = [
        rolled(camera, roll) for camera, roll in zip(on_arc(300, 12, (elevation,)), rolls, strict=True)
    ]
    path = orbit(capture_of(cameras), FILM)
    assert max(abs(camera.R[0, 2]) for camera in path) < 0.3
    assert (path[0].width, path[0].height) == (48, 32)


def test_parallel_axes_are_circled_about_the_middle_of_the_points(tmp_path: Path) -> None:
    forward = look_at(np.array([-4.0, 0, 0]), np.zeros(3), 48, 32, 40.0)
    eyes = [np.array([-4.0, y, z]) for y in (-0.5, 0, 0.5) for z in (-0.3, 0, 0.3)]
    cameras = [Camera(**{**vars(forward), "t": -forward.R @ eye}) for eye in eyes]
    points = np.random.default_rng(0).normal([1.0, 0, 0], 0.3, (101, 3))
    (tmp_path / "points.ply").write_bytes(encode_points(points, np.zeros((101, 3), np.uint8)))
    capture = capture_of(cameras, tmp_path)
    capture.document["points"] = {"count": 101}
    path = orbit(capture, FILM)
    ends = [camera.centre + 5 * camera.forward for camera in path]
    assert np.ptp(ends, axis=0).max() < 0.3
    assert np.linalg.norm(np.mean(ends, 0) - [1, 0, 0]) < 0.3
    assert np.abs(centres_of(path)[:, 1:]).max() < 0.6


@pytest.mark.parametrize("radius", [0.0, 1e-3, 1.0])
def test_a_room_taken_from_its_middle_is_followed_there_and_back(radius: float) -> None:
    directions = [np.array([np.cos(angle), np.sin(angle), 0.0]) for angle in np.linspace(0, 4, 9)]
    cameras = [look_at(radius * one, 5 * one, 48, 32, 40.0) for one in directions]
    path = orbit(capture_of(cameras), Film(frames=61))
    assert_valid(path)
    np.testing.assert_allclose(path[0].R, cameras[0].R, atol=1e-6)
    outward = np.array([camera.forward for camera in path])
    assert np.degrees(np.arccos(np.clip(outward @ directions[-1], -1, 1))).min() < 5
    assert turns_of([*path, path[0]]).max() < 20
    assert np.linalg.norm(centres_of(path), axis=1).max() <= 1.05 * radius + 1e-9


@st.composite
def any_cameras(draw: st.DrawFn) -> list[Camera]:
    """From anywhere, in any direction, some of them twice."""
    seed = draw(st.integers(0, 2**31))
    generator = np.random.default_rng(seed)
    count = draw(st.integers(2, 12))
    cameras = []
    for R in Rotation.random(count, random_state=seed).as_matrix():
        cameras.append(Camera(48, 32, 40.0, 40.0, 24.0, 16.0, R, -R @ generator.normal(size=3)))
    return [camera for camera in cameras for _ in range(draw(st.integers(1, 2)))]


@settings(deadline=None, max_examples=100)
@given(any_cameras())
def test_whatever_the_cameras_are_paths_can_be_gone(cameras: list[Camera]) -> None:
    capture = capture_of(cameras)
    for path in (orbit(capture, FILM), along_views(capture, FILM)):
        assert len(path) == FILM.frames
        assert_valid(path)


@settings(deadline=None, max_examples=100)
@given(any_cameras())
def test_a_path_along_the_views_goes_through_them_and_never_beyond(cameras: list[Camera]) -> None:
    capture = capture_of(cameras)
    path = along_views(capture, Film(frames=2000))
    places, photos = centres_of(path), centres_of(cameras)
    extent = np.linalg.norm(np.ptp(photos, axis=0))
    apart = np.linalg.norm(places[:, None] - photos[None], axis=2).min(0)
    assert apart.max() < 0.01 * extent + 1e-9
    assert (places >= photos.min(0) - 1e-9).all() and (places <= photos.max(0) + 1e-9).all()
    np.testing.assert_allclose(path[0].R, cameras[0].R, atol=1e-6)
    np.testing.assert_allclose(path[-1].R, cameras[-1].R, atol=1e-6)


def test_a_turn_on_the_spot_takes_frames_too() -> None:
    here, there = np.zeros(3), np.array([0.1, 0, 0])
    cameras = [
        look_at(here, np.array([10.0, 0, 0]), 48, 32, 40.0),
        look_at(here, np.array([0.0, 10, 0]), 48, 32, 40.0),
        look_at(there, np.array([0.1, 10, 0]), 48, 32, 40.0),
    ]
    assert turns_of(along_views(capture_of(cameras), FILM)).max() < 5


@pytest.mark.parametrize(("long_side", "size"), [(None, (48, 32)), (101, (100, 68)), (24, (24, 16))])
def test_sides_are_even_and_the_field_of_view_is_kept(long_side: int | None, size: tuple[int, int]) -> None:
    for camera in orbit(capture_of(on_arc(200, 9)), Film(10, long_side)):
        assert (camera.width, camera.height) == size
        assert camera.width / camera.fx == pytest.approx(48 / 40)
        assert camera.height / camera.fy == pytest.approx(32 / 40)


def written(tmp_path: Path, document: Any) -> Path:
    path = tmp_path / "path.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_cameras_of_a_file_come_back_at_the_films_size(tmp_path: Path) -> None:
    cameras = on_arc(90, 5)
    path = written(tmp_path, {"cameras": [camera.to_json() for camera in cameras]})
    for expected, actual in zip(
        cameras, read_path(path, capture_of(cameras), Film(long_side=24)), strict=True
    ):
        np.testing.assert_allclose(actual.R, expected.R, atol=1e-12)
        assert (actual.t == expected.t).all()
        assert (actual.width, actual.height, actual.fx, actual.cy) == (24, 16, 20, 8)


def test_frames_of_a_transforms_json_are_seen_through_the_captures_lens(tmp_path: Path) -> None:
    cameras = on_arc(90, 5)
    frames = [
        {"transform_matrix": opengl_matrix(camera.R, camera.t).tolist(), "file_path": "ignored"}
        for camera in cameras
    ]
    path = written(tmp_path, {"frames": frames, "fl_x": 7})
    for expected, actual in zip(cameras, read_path(path, capture_of(cameras), Film()), strict=True):
        np.testing.assert_allclose(actual.R, expected.R, atol=1e-9)
        np.testing.assert_allclose(actual.t, expected.t, atol=1e-9)
        assert (actual.width, actual.fx) == (48, 40)


GOOD = on_arc(90, 2)[0].to_json()


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("{", "a JSON file of cameras"),
        ([GOOD, GOOD], "from 2 to 20000 cameras or frames, not 0"),
        ({"cameras": [GOOD]}, "not 1"),
        ({"cameras": [GOOD, {**GOOD, "R": None}]}, "camera 1 of"),
        ({"cameras": [GOOD, {**GOOD, "fx": "wide"}]}, "camera 1 of"),
        ({"cameras": [GOOD, {key: GOOD[key] for key in GOOD if key != "fx"}]}, "'fx'"),
        ({"cameras": [GOOD, {**GOOD, "R": [[1, 0, 0], [0, 1, 0], [0, 0, -1]]}]}, "mirrors"),
        ({"cameras": [GOOD, {**GOOD, "R": [[1, 0, 0], [0, 3, 0], [0, 0, 1]]}]}, "rotation"),
        ({"cameras": [GOOD, {**GOOD, "t": [0, 0, float("nan")]}]}, "finite"),
        ({"cameras": [GOOD, {**GOOD, "fx": 0}]}, "above 0"),
        ({"cameras": [GOOD, {**GOOD, "width": 20000}]}, "at most 8192"),
        ({"cameras": [GOOD, {**GOOD, "width": float("inf")}]}, "camera 1 of"),
        ({"cameras": [GOOD, {**GOOD, "width": 96}]}, "one size"),
        ({"frames": [{"transform_matrix": np.eye(4).tolist()}, "second"]}, "frame 1 of"),
        ({"frames": [{"transform_matrix": np.eye(4).tolist()}, {"transform_matrix": [[1]]}]}, "frame 1 of"),
    ],
)
def test_a_file_that_holds_no_path_is_refused_with_the_reason(
    tmp_path: Path, document: Any, said: str
) -> None:
    with pytest.raises(TurntableError) as refused:
        read_path(written(tmp_path, document), capture_of(on_arc(90, 4)), FILM)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_refused_with_what_a_path_can_be(tmp_path: Path) -> None:
    with pytest.raises(TurntableError, match="takes orbit, views or a JSON file"):
        read_path(tmp_path / "orbits", capture_of(on_arc(90, 4)), FILM)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**400), 10**400) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@settings(deadline=None)
@given(
    st.sampled_from(["cameras", "frames"]),
    st.sampled_from([*GOOD, "transform_matrix"]),
    json_values,
)
def test_whatever_a_file_holds_it_is_a_path_or_an_error_of_one_line(
    tmp_path_factory: pytest.TempPathFactory, kind: str, key: str, value: Any
) -> None:
    entry = {**GOOD, "transform_matrix": np.eye(4).tolist()}
    path = written(tmp_path_factory.mktemp("path"), {kind: [entry, {**entry, key: value}]})
    try:
        assert len(read_path(path, capture_of(on_arc(90, 4)), FILM)) == 2
    except TurntableError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "film", [Film(frames=1), Film(frames=20_001), Film(long_side=15), Film(long_side=8193)]
)
def test_films_out_of_bounds_are_refused(film: Film) -> None:
    with pytest.raises(TurntableError, match=r"from .* to .* not"):
        check_film(film)
