"""The method ``poisson``: its policies, which need NumPy alone, and all of it in an environment of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from conftest import environments_built, look_at, make_capture
from turntable.bench import Bench
from turntable.captures.capture import Capture, content_hash
from turntable.conformance import check
from turntable.jobs import RunRequest, plan, work
from turntable.methods.poisson import blend, features, mesh, normals, pace, show
from turntable.methods.poisson.poisson import near_pairs
from turntable.record import State
from turntable.run import Budget
from turntable.turns.watcher import Watcher
from turntable.worker.contract import Camera, TrainingViews, View
from turntable.worker.png import write_png

pytestmark = pytest.mark.xdist_group("poisson")  # its environment is built once


def ring(count: int, size: tuple[int, int] = (64, 48), focal: float = 60.0) -> list[Camera]:
    """Cameras around the origin, looking at it."""
    turns = 2 * np.pi * np.arange(count) / count
    eyes = np.stack([3 * np.cos(turns), 3 * np.sin(turns), np.ones(count)], 1)
    return [look_at(eye, np.zeros(3), *size, focal) for eye in eyes]


def ball(count: int, seed: int = 0) -> np.ndarray:
    return normals.unit(np.random.default_rng(seed).normal(size=(count, 3)))


def nearest_rows(points: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    apart = np.linalg.norm(points[:, None] - points, axis=2)
    rows = np.argsort(apart, axis=1)[:, :count]
    return np.take_along_axis(apart, rows, 1), rows


# Normals


def test_normals_of_a_ball_point_outwards_to_the_cameras() -> None:
    points = ball(800)
    found = normals.oriented_normals(points, nearest_rows(points, 12)[1], points)
    assert ((found * points).sum(1) > 0.97).all()


def test_a_normal_lies_on_the_side_of_the_cameras_that_see_the_point() -> None:
    plane = np.random.default_rng(1).uniform(-1, 1, (200, 3)) * [1, 1, 0]
    centres = np.array([[0, 0, 5.0], [1, 0, 5.0], [0, 0, -5.0]])
    seen_points, seen_views = np.repeat(np.arange(200), 2), np.tile([0, 1], 200)
    towards = normals.towards_cameras(plane, seen_points, seen_views, centres)
    np.testing.assert_allclose(
        normals.oriented_normals(plane, nearest_rows(plane, 8)[1], towards), [[0, 0, 1]] * 200, atol=1e-9
    )
    other = normals.towards_cameras(plane, np.arange(200), np.full(200, 2), centres)
    assert (other[:, 2] < 0).all()


def test_points_that_have_no_plane_look_at_their_cameras() -> None:
    line = np.linspace(0, 1, 10)[:, None] * [1.0, 0, 0]
    towards = np.tile([0, 0, 1.0], (10, 1))
    assert np.array_equal(normals.oriented_normals(line, nearest_rows(line, 5)[1], towards), towards)
    alone = np.zeros((1, 1), np.int64)
    assert np.array_equal(normals.oriented_normals(line[:1], alone, towards[:1]), towards[:1])


def test_a_point_that_stands_alone_is_not_believed() -> None:
    points = np.concatenate([ball(300), [[4.0, 0, 0]]])
    good = normals.believed(*nearest_rows(points, 8))
    assert good[:300].mean() > 0.98 and not good[300]


def test_a_point_in_nobodys_picture_looks_nowhere() -> None:
    cameras = ring(4)
    towards = normals.towards_most_probable_camera(np.array([[0.0, 0, 0], [0, 0, 500]]), cameras)
    assert np.isclose(np.linalg.norm(towards[0]), 1) and not towards[1].any()


# Matching


def test_features_match_along_epipolar_lines_and_nowhere_else() -> None:
    generator = np.random.default_rng(3)
    cameras = ring(12, (640, 480), 600.0)[:2]
    points = generator.uniform(-0.5, 0.5, (300, 3))
    lengths = generator.exponential(size=(300, 128))
    lengths *= features.LENGTH / np.linalg.norm(lengths, axis=1, keepdims=True)
    descriptors = lengths.clip(0, 255).astype(np.uint8)
    first, second = (
        features.Features(camera.project(points)[0].astype(np.float32), descriptors) for camera in cameras
    )
    order = generator.permutation(300)
    shuffled = features.Features(second.places[order], second.descriptors[order])
    pairs = features.match(first, shuffled, (cameras[0], cameras[1]))
    assert len(pairs) > 290 and np.array_equal(order[pairs[:, 1]], pairs[:, 0])
    # The same features, moved across their epipolar lines: these look right and can't be.
    moved = features.Features(shuffled.places + np.float32([0, 40]), shuffled.descriptors)
    assert len(features.match(first, moved, (cameras[0], cameras[1]))) < 10


@pytest.mark.parametrize("counts", [(0, 0), (0, 5), (5, 0)])
def test_photos_without_features_have_no_matches(counts: tuple[int, int]) -> None:
    cameras = ring(12)[:2]
    first, second = (
        features.Features(np.ones((count, 2), np.float32), np.ones((count, 128), np.uint8))
        for count in counts
    )
    assert features.match(first, second, (cameras[0], cameras[1])).shape == (0, 2)
    assert features.match(first, second, (cameras[0], cameras[0])).shape == (0, 2)


def test_views_are_matched_with_their_neighbours_and_not_across_the_ring() -> None:
    pairs = near_pairs(ring(12), 2)
    assert set(pairs) == {(min(i, (i + 1) % 12), max(i, (i + 1) % 12)) for i in range(12)}
    assert near_pairs(ring(1), 2) == []


# Pace


@pytest.mark.parametrize("total", [2, 3, 6, 40, 1000])
def test_all_of_the_work_is_done_within_a_budget_of_steps(total: int) -> None:
    left, phase = [43, 26], 0
    for step in range(total - 1):
        fraction = step / total
        assert not pace.is_last(fraction, step) or step == total - 1
        while phase < 2 and not left[phase]:
            phase += 1
        if phase < 2:
            left[phase] -= pace.units(left[phase], phase, fraction, step)
    assert pace.is_last((total - 1) / total, total - 1) or total == 1
    if total >= 6:
        assert left == [0, 0], "the last step is the mesh's"


def test_a_budget_of_time_leaves_out_what_it_has_no_time_for() -> None:
    assert pace.units(10, 0, 0.2718, 7) == 1
    assert pace.units(10, 0, 0.4718, 7) == 0 and pace.units(10, 1, 0.4718, 7) == 1
    assert pace.is_last(0.85123, 7) and not pace.is_last(0.75123, 7)
    assert pace.units(10, 0, None, 7) == 1 and not pace.is_last(None, 7)


# Colours


def test_the_photo_from_the_same_place_has_all_the_weight() -> None:
    cameras = ring(8)
    places = np.random.default_rng(0).uniform(-0.2, 0.2, (50, 3))
    penalty = np.stack([blend.penalties(places, cameras[2], photo) for photo in cameras])
    weights = blend.weights(penalty, 3)
    np.testing.assert_allclose(weights.sum(0), 1)
    assert (weights[2] > 0.999).all() and ((weights > 0).sum(0) <= 3).all()


def test_weights_change_without_a_jump_where_the_choice_changes() -> None:
    t = np.linspace(0, 1, 2001)
    penalty = np.stack([0.2 + 0 * t, 0.3 + 0.3 * t, 0.6 - 0.3 * t, 0.9 + 0 * t])
    assert np.abs(np.diff(blend.weights(penalty, 2), axis=1)).max() < 2e-3


def test_photos_that_cannot_be_had_have_no_weight() -> None:
    penalty = np.array(
        [[np.inf, 0.1, np.inf, 0.5], [0.2, np.inf, np.inf, 0.5], [np.inf, np.inf, np.inf, 0.5]]
    )
    weights = blend.weights(penalty, 2)
    assert weights[:, 0].tolist() == [0, 1, 0] and weights[:, 1].tolist() == [1, 0, 0]
    assert not weights[:, 2].any() and np.isclose(weights[:, 3].sum(), 1)


def test_a_photo_is_sampled_at_half_integers() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    x, y = np.meshgrid(np.arange(7) + 0.5, np.arange(5) + 0.5)
    sampled = blend.sample(image, np.stack([x, y], -1).reshape(-1, 2)).reshape(5, 7, 3)
    np.testing.assert_allclose(sampled, image / 255, atol=1e-6)
    between = blend.sample(image, np.array([[1.0, 0.5]]))
    np.testing.assert_allclose(between[0], (image[0, 0] / 255 + image[0, 1] / 255) / 2, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (23, 37), (16, 16)])
def test_holes_are_filled_from_around(shape: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    known = generator.random(shape) < 0.2
    known[0, 0] = True
    values = np.where(known, 0.25, 77.0)[..., None]
    np.testing.assert_allclose(blend.filled(values, known), 0.25)
    assert not blend.filled(values, np.zeros(shape, bool)).any()


class _Ground:
    """A surface that can be hit without Embree: the plane z = 0."""

    def hits(self, origin: np.ndarray, directions: np.ndarray) -> object:
        from turntable.methods.poisson.rays import Hits

        with np.errstate(divide="ignore"):
            distances = -origin[2] / directions[:, 2]
        return Hits(
            np.where(distances > 0, distances, np.inf),
            np.zeros(directions.shape, np.float32),
            np.zeros(len(directions), int),
        )

    def visible(self, points: np.ndarray, centre: np.ndarray) -> np.ndarray:
        return np.ones(len(points), bool)


def test_a_known_plane_is_shown_as_it_is(tmp_path: Path) -> None:
    def seen(camera: Camera) -> np.ndarray:
        rays = show.pixel_rays(camera)
        x, y = (camera.centre + rays * (-camera.centre[2] / rays[:, 2])[:, None]).T[:2]
        colour = np.stack([0.5 + 0.3 * np.sin(3 * x), 0.5 + 0.3 * np.cos(2 * y), 0.5 + 0 * x], -1)
        return colour.reshape(camera.height, camera.width, 3)

    # Steep enough that every ray meets the ground.
    cameras = [look_at(np.array([np.cos(a), np.sin(a), 4.0]), np.zeros(3), 48, 32, 60.0) for a in range(6)]
    for index, camera in enumerate(cameras):
        write_png(tmp_path / f"{index}.png", np.rint(255 * seen(camera)).astype(np.uint8))
    views = [View(str(i), camera, tmp_path / f"{i}.png") for i, camera in enumerate(cameras[1:], 1)]
    painter = show.Painter(TrainingViews(views, None, [1, 1, 1]), 3)
    rendering = painter.paint(cameras[0], _Ground(), np.zeros((0, 3)))  # type: ignore[arg-type]
    assert np.abs(rendering.image - seen(cameras[0])).mean() < 0.01
    rays = show.pixel_rays(cameras[0])
    np.testing.assert_allclose(rendering.depth.ravel(), -cameras[0].centre[2] / rays[:, 2], rtol=1e-5)
    assert (rendering.opacity == 1).all()


# Files


def test_a_mesh_is_read_as_it_was_written(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    made = mesh.Mesh(
        generator.normal(size=(9, 3)) + 5e6,
        generator.integers(0, 256, (9, 3)).astype(np.uint8),
        generator.integers(0, 9, (5, 3)).astype(np.int32),
    )
    for one in (made, mesh.EMPTY):
        mesh.write_mesh(tmp_path / "mesh.ply", one)
        read = mesh.read_mesh(tmp_path / "mesh.ply")
        assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(one, read, strict=True))


# All of it


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A bench in which the method lives."""
    bench = Bench(tmp_path_factory.mktemp("poisson") / "bench")
    bench.make()
    with environments_built(bench, "poisson"):
        yield bench


def painted_ball(folder: Path) -> Capture:
    """A capture of a ball with blotches all over it on black ground; every fifth view is held out."""
    make_capture(folder, 20, (160, 120))
    document = json.loads((folder / "capture.json").read_text())
    generator = np.random.default_rng(5)
    waves, phases = generator.normal(scale=9, size=(40, 3)), generator.uniform(0, 6, (40, 3))
    for index, view in enumerate(document["views"]):
        turn = 2 * np.pi * index / 20
        eye = np.array([3 * np.cos(turn), 3 * np.sin(turn), 0.8])
        camera = look_at(eye, np.zeros(3), 160, 120, 170.0)
        rays = normals.unit(show.pixel_rays(camera))
        along = -(rays @ eye)
        inside = along**2 - eye @ eye + 1
        places = eye + rays * (along - np.sqrt(np.maximum(inside, 0)))[:, None]
        tones = np.sin((places @ waves.T)[..., None] + phases).sum(1)
        colours = np.where(inside[:, None] > 0, 0.5 + 0.06 * tones, 0).clip(0, 1)
        write_png(folder / view["image"], np.rint(255 * colours).astype(np.uint8).reshape(120, 160, 3))
        view["camera"] = camera.to_json()
    document["hash"] = content_hash(document, folder)
    (folder / "capture.json").write_text(json.dumps(document))
    return Capture.load(folder)


def test_a_ball_becomes_a_mesh_that_beats_the_nearest_photo(bench: Bench) -> None:
    capture = painted_ball(bench.captures_folder / "ball")
    request = RunRequest(("poisson", "nearest"), Budget(steps=200))
    folders = plan(bench, capture, request)
    assert [row.state for row in work(bench, folders, request.handling, Watcher())] == [State.DONE] * 2
    hellos = [next(event for event in run.events() if event["type"] == "hello") for run in folders]
    assert hellos[0]["python"].startswith("3.12.") and hellos[0]["numpy"].startswith("2.")
    psnr = [
        np.mean([score.value for score in bench.record.scores(run.id) if score.metric == "psnr"])
        for run in folders
    ]
    assert psnr[0] > psnr[1] + 3, psnr


def test_the_contract_is_kept_where_there_is_nothing_to_match(bench: Bench) -> None:
    capture = make_capture(bench.captures_folder / "plain", masked=True)
    found = check(bench, bench.method("poisson"), capture, "cpu", True, lambda text: None)
    assert [one for one in found if one.good is False] == []


def test_its_lock_names_the_public_index_alone() -> None:
    lock = Path(pace.__file__).with_name("uv.lock").read_text()
    addresses = [line for line in lock.splitlines() if "://" in line]
    assert addresses
    for line in addresses:
        assert "https://pypi.org/simple" in line or "https://files.pythonhosted.org/" in line
