"""The method ``fusion``: its geometry on the host, which has NumPy alone; the whole of it in its own environment."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import environments_built, look_at
from turntable.bench import Bench
from turntable.captures.capture import FORMAT, Capture, content_hash
from turntable.conformance import check
from turntable.files import write_json
from turntable.jobs import RunRequest, plan, work
from turntable.methods.fusion.colour import Source, blend, fill, lowest_around, nearest_cameras
from turntable.methods.fusion.depthmaps import blocks_of, consistent, fitting_voxel, vote
from turntable.methods.fusion.geometry import (
    Frame,
    Pinhole,
    depth_from_disparity,
    lookup,
    rectify,
    to_photo,
)
from turntable.methods.fusion.partners import choose_partners, depth_ranges
from turntable.methods.registry import get_method
from turntable.record import State
from turntable.run import Budget
from turntable.turns.watcher import Watcher
from turntable.worker.contract import Camera
from turntable.worker.png import write_png

pytestmark = pytest.mark.xdist_group("fusion")  # its environment is built once

WORLD = Frame(np.zeros(3), 1.0)
NUMPY_ONLY = ("colour", "depthmaps", "geometry", "partners")
FOLDER = get_method("fusion").folder

PLANE_NORMAL, PLANE_OFFSET = np.array([0.3, 0.8, 0.9]), 0.3
"""The plane ``normal · x = offset`` that the synthetic photos show."""


def pinhole(eye: tuple[float, float, float], target: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Pinhole:
    return WORLD.camera(look_at(np.array(eye), np.array(target), 48, 36, 50.0))


def depth_of_plane(camera: Pinhole) -> np.ndarray:
    """``float64[H, W]``, z at the pixels' middles."""
    directions = camera.rays() @ camera.R
    return (PLANE_OFFSET - PLANE_NORMAL @ camera.centre) / (directions @ PLANE_NORMAL)


@pytest.mark.parametrize(
    "step",
    [(0.3, 0, 0), (-0.3, 0, 0), (0, 0.25, 0.1), (0.2, -0.2, 0.05)],
    ids=["right", "left", "up", "across"],
)
def test_a_points_two_pictures_lie_in_one_row_at_its_disparity(step: tuple[float, float, float]) -> None:
    first = pinhole((0.5, -0.4, 3.0))
    second = pinhole((0.5 + step[0], -0.4 + step[1], 3.0 + step[2]), (0.05, 0.0, 0.1))
    pair = rectify(first, second, 1.0, 8.0)
    assert pair is not None
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (50, 3))
    places = []
    for camera, second_one in ((first, False), (second, True)):
        column, row, _ = camera.project(points)
        back = np.linalg.inv(to_photo(pair, camera, second_one)) @ np.stack([column, row, np.ones(50)])
        places.append(back[:2] / back[2])
    here, there = places
    np.testing.assert_allclose(here[1], there[1], atol=1e-9)
    z = ((points - first.centre) @ pair.R.T)[:, 2]
    np.testing.assert_allclose(here[0] - there[0], pair.focal * pair.baseline / z - pair.shift, atol=1e-9)
    assert (here[0] - there[0] >= 0).all() and (here[0] - there[0] < pair.disparities).all()


def test_the_disparities_of_a_plane_become_its_depth_in_the_photo() -> None:
    first, second = pinhole((0.5, -0.4, 3.0)), pinhole((0.7, -0.2, 2.95), (0.05, 0.0, 0.1))
    pair = rectify(first, second, 1.0, 8.0)
    assert pair is not None
    rectified = Pinhole(pair.width, pair.height, pair.first, pair.R, first.centre)
    disparity = pair.focal * pair.baseline / depth_of_plane(rectified) - pair.shift
    depth = depth_from_disparity(pair, first, disparity.astype(np.float32))
    seen = depth > 0
    assert seen.mean() > 0.8
    np.testing.assert_allclose(depth[seen], depth_of_plane(first)[seen], rtol=2e-3)
    unknown = np.full_like(disparity, np.nan, np.float32)
    assert not depth_from_disparity(pair, first, unknown).any()


@pytest.mark.parametrize(
    ("why", "second"),
    [
        ("they stand at one place", pinhole((0.0, -3.0, 0.0))),
        ("one stands in front of the other", pinhole((0.0, -2.0, 0.0))),
        ("they look at each other", pinhole((0.1, 3.0, 0.0))),
    ],
)
def test_cameras_that_can_not_be_rectified_make_no_pair(why: str, second: Pinhole) -> None:
    assert rectify(pinhole((0.0, -3.0, 0.0)), second, 1.0, 8.0) is None, why


def ring(degrees: list[float], distance: float = 3.0) -> list[Pinhole]:
    """Cameras on a circle around the origin, looking at it."""
    angles = np.deg2rad(degrees)
    return [pinhole((distance * np.sin(a), -distance * np.cos(a), 0.0)) for a in angles]


@pytest.mark.parametrize(
    ("degrees", "count", "expected"),
    [
        ([0, 7], 4, [1]),
        ([0, 1, 7, 30], 1, [2]),
        ([0, 7, 10, -12], 2, [1, 3]),  # -12 shows what 7 hides; 10 stands where 7 does
        ([0, 7, 170], 4, [1]),
        ([0], 4, []),
        ([0, 0, 0], 4, []),
        ([0, 90, 180], 4, []),
    ],
)
def test_partners_are_those_at_a_good_angle_and_on_both_sides(
    degrees: list[float], count: int, expected: list[int]
) -> None:
    assert choose_partners(ring(degrees), 0, 3.0, count) == expected


def test_a_partner_has_to_show_the_same_part_of_the_scene() -> None:
    here = pinhole((0.0, -3.0, 0.0))
    aside = pinhole((0.35, -3.0, 0.0), (6.0, 0.0, 0.0))
    assert choose_partners([here, aside], 0, 3.0, 4) == []


def test_depth_ranges_come_from_points_else_from_where_the_cameras_look() -> None:
    cameras = ring([0, 20, 40])
    for near, middle, far in depth_ranges(cameras, np.zeros((0, 3))):
        assert middle == pytest.approx(3.0, rel=1e-6) and near < 1 < 3 < far
    points = np.random.default_rng(0).uniform(-0.2, 0.2, (500, 3)) + np.array([0, 1, 0])
    near, middle, far = depth_ranges(cameras, points)[0]
    assert middle == pytest.approx(4.0, abs=0.05) and near == pytest.approx(1.9, abs=0.1) and far > 8
    assert depth_ranges(cameras[:1], np.zeros((0, 3))) == [(0.2, 1.0, 8.0)]
    outward = [pinhole((x, -3.0, 0.0), (x, 0.0, 0.0)) for x in (-1.0, 0.0, 1.0)]
    assert depth_ranges(outward, np.zeros((0, 3)))[0][1] == pytest.approx(4.0)


def test_the_depth_that_most_partners_agree_on_wins() -> None:
    depths = np.zeros((3, 1, 4), np.float32)
    depths[:, 0] = np.array([[2.0, 2.0, 0, 0], [4.0, 2.001, 3.0, 0], [4.0, 0, 0, 0]])
    depth, votes = vote(depths, np.full(3, 1e-3))
    np.testing.assert_allclose(depth[0], [4.0, 2.0005, 3.0, 0], rtol=1e-5)
    assert votes[0].tolist() == [2, 2, 1, 0]


def test_depths_that_others_share_stay_and_those_that_others_see_through_go() -> None:
    cameras = ring([-7, 0, 7])
    depths = [depth_of_plane(camera).astype(np.float32) for camera in cameras]
    depths[1][10:20, 10:20] *= 0.5
    votes = [np.full(depth.shape, 2, np.uint8) for depth in depths]
    partners = [[1], [0, 2], [1]]
    kept = consistent(cameras, depths, votes, partners, 0.01)[1]
    assert not kept[12:18, 12:18].any()
    assert (kept[24:, 8:40] > 0).mean() > 0.95
    alone = [np.ones(depth.shape, np.uint8) for depth in depths]
    assert not consistent(cameras[:1], depths[:1], alone[:1], [[]], 0.01)[0].any()


def test_voxels_grow_until_the_volume_fits() -> None:
    cameras = ring([0])
    depths = [depth_of_plane(cameras[0]).astype(np.float32)]
    free = fitting_voxel(cameras, depths, 2.0, 16, 10**9)
    assert free == pytest.approx(2 * np.median(depths[0]) / 50, rel=0.05)
    tight = fitting_voxel(cameras, depths, 0.05, 16, 40)
    assert tight > 0.05 * np.median(depths[0]) / 50
    assert fitting_voxel(cameras, [np.zeros((36, 48), np.float32)], 2.0, 16, 40) == 0.0
    assert (
        blocks_of(np.array([[0.5, 0.5, 0.5]]), 1.0) == 1 and blocks_of(np.array([[0.1, 0.5, 0.5]]), 1.0) == 2
    )


def sources_of(cameras: list[Pinhole], greys: list[int], blocked: bool = False) -> list[Source]:
    depth = np.full((36, 48), 0.5, np.float32) if blocked else None
    return [
        Source(camera, np.full((36, 48, 3), grey, np.uint8), None, depth)
        for camera, grey in zip(cameras, greys, strict=True)
    ]


def test_a_points_colour_is_that_of_the_photo_seen_at_the_least_angle() -> None:
    cameras = ring([0, 20, 40])
    points = np.zeros((1, 3), np.float32)
    for index, grey in enumerate((51, 102, 204)):
        colour, shown = blend(sources_of(cameras, [51, 102, 204]), cameras[index], points, 2)
        assert shown.all() and colour[0] == pytest.approx(grey / 255, abs=0.02)
    middle, _ = blend(sources_of(cameras, [51, 102, 204]), ring([10])[0], points, 2)
    assert middle[0] == pytest.approx(76.5 / 255, abs=0.02)


def test_photos_that_something_stands_in_the_way_of_lend_no_colour() -> None:
    cameras = ring([0, 20])
    points = np.zeros((1, 3), np.float32)
    hidden, free = sources_of(cameras, [51, 102], blocked=True)[0], sources_of(cameras, [51, 102])[1]
    colour, shown = blend([hidden, free], cameras[0], points, 2)
    assert shown.all() and colour[0] == pytest.approx(0.4)
    assert not blend([hidden], cameras[0], points, 2)[1].any()
    assert not blend([], cameras[0], points, 2)[1].any()


def test_the_cameras_nearest_to_a_view_are_those_that_see_its_points_alike() -> None:
    assert nearest_cameras(ring([0, 30, 60, 90]), ring([55])[0], np.zeros((4, 3)), 2) == [2, 1]


@given(st.integers(1, 13), st.integers(1, 13), st.integers(0, 99))
def test_holes_are_filled_within_the_range_of_what_is_known(height: int, width: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    values = generator.random((height, width, 2), np.float32)
    known = generator.random((height, width)) < 0.3
    known[generator.integers(height), generator.integers(width)] = True
    filled = fill(values, known)
    assert np.array_equal(filled[known], values[known])
    assert (filled >= values[known].min(0) - 1e-5).all() and (filled <= values[known].max(0) + 1e-5).all()


def test_lookups_know_the_picture_ends() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3) + 1
    column, row = np.array([0.0, 2.99, 3.0, -0.01, np.nan]), np.array([0.0, 1.99, 0.5, 0.5, 0.5])
    assert lookup(values, column, row).tolist() == [1, 6, 0, 0, 0]
    assert lowest_around(values, 1).tolist() == [[1, 1, 2], [1, 1, 2]]


@pytest.mark.parametrize("module", NUMPY_ONLY)
def test_the_geometry_needs_nothing_but_numpy(module: str) -> None:
    tree = ast.parse((FOLDER / f"{module}.py").read_text(encoding="utf-8"))
    found = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    found |= {
        str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level
    }
    assert found <= {"__future__", "numpy", "typing"}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_every_module_is_in_the_grammar_of_python_3_8(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))


def test_the_lock_names_only_the_public_index() -> None:
    text = (FOLDER / "uv.lock").read_text(encoding="utf-8")
    hosts = {word.split("/")[2] for word in text.replace('"', " ").split() if word.startswith("https://")}
    assert hosts == {"pypi.org", "files.pythonhosted.org"}


def textured_scene(folder: Path) -> Capture:
    """A capture of a textured plane seen by eleven cameras in a row; each photo is exact, and every fourth is held out."""
    generator = np.random.default_rng(3)
    waves = [(generator.uniform(-25, 25, 2), generator.uniform(0, 6, 3)) for _ in range(24)]
    (folder / "images").mkdir(parents=True)
    entries = []
    for index in range(11):
        eye = np.array([0.12 * (index - 5), -2.0, 0.06 * (index % 3)])
        camera = look_at(eye, np.array([0.03 * (index - 5), 0.0, 0.0]), 120, 90, 110.0)
        seen = WORLD.camera(camera)
        directions = seen.rays() @ seen.R
        at = seen.centre + directions * (-seen.centre[1] / directions[..., 1])[..., None]  # the plane y = 0
        photo = (
            sum(np.sin((at[..., [0, 2]] @ k)[..., None] + phase) for k, phase in waves) / np.float64(12) + 0.5
        )
        name = f"{index:02d}.png"
        write_png(folder / "images" / name, (np.clip(photo, 0, 1) * 255).astype(np.uint8))
        entries.append(entry_of(name, camera, index % 4 == 1))
    document = {
        "format": FORMAT, "name": folder.name, "source_hash": "by hand", "settings": {},
        "source": {"format": "test", "path": "nowhere", "files": {}},
        "background": [1.0, 1.0, 1.0], "has_alpha": False, "views": entries, "left_out": [], "points": None,
        "poses": {}, "notes": [], "truth": {}, "versions": {},
    }  # fmt: skip
    document["hash"] = content_hash(document, folder)
    write_json(folder / "capture.json", document)
    return Capture.load(folder)


def entry_of(name: str, camera: Camera, held_out: bool) -> dict[str, object]:
    origin = {"path": name, "sha256": "0" * 64, "width": camera.width, "height": camera.height}
    image = f"images/{name}"
    return {
        "name": name, "camera": camera.to_json(), "image": image, "mask": None, "held_out": held_out, "origin": origin
    }  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A bench with the method's environment, and a capture of a textured plane."""
    bench = Bench(tmp_path_factory.mktemp("fusion") / "bench")
    bench.make()
    textured_scene(bench.captures_folder / "plane")
    with environments_built(bench, "fusion"):
        yield bench


def test_it_keeps_the_contract_on_python_3_8(built: Bench) -> None:
    found = check(built, built.method("fusion"), built.capture("plane"), "cpu", True, lambda text: None)
    assert [one for one in found if one.good is False] == []


def test_views_of_a_plane_and_its_depth_come_out_as_they_are(built: Bench) -> None:
    wanted = RunRequest(("fusion", "nearest"), Budget(steps=40))
    capture = built.capture("plane")
    folders = plan(built, capture, wanted)
    rows = work(built, folders, wanted.handling, Watcher())
    assert [row.state for row in rows] == [State.DONE] * 2
    hello = next(event for event in folders[0].events() if event["type"] == "hello")
    assert hello["python"].startswith("3.8.") and hello["numpy"] == "1.24.4"
    fusion, nearest = (
        np.mean([s.value for s in built.record.scores(f.id) if s.metric == "psnr" and s.mark == 1.0])
        for f in folders
    )
    assert fusion > 30 and fusion > nearest + 6
    for view in capture.held_out:
        camera = WORLD.camera(view.camera)
        true = -camera.centre[1] / (camera.rays() @ camera.R)[..., 1]
        depth = np.load(folders[0].path / "depth" / f"{view.image_path.name}.npy")
        inner = (slice(15, -15), slice(20, -20))
        assert (depth[inner] > 0).mean() > 0.95
        np.testing.assert_allclose(np.median(np.abs(depth / true - 1)[inner][depth[inner] > 0]), 0, atol=5e-3)
