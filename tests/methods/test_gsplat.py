"""The method gsplat, as far as it can be tried without a card: its trainer, on slow functions in the kernels' place.

What only a card can show (the kernels themselves, speed, quality) isn't tested here; docs/gsplat.md says so.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from conftest import look_at, make_capture
from turntable.bench import Bench
from turntable.environments import build, probe
from turntable.environments.recipe import read_recipe
from turntable.errors import TurntableError
from turntable.methods.registry import get_method
from turntable.worker.contract import Camera, TrainingViews, View
from turntable.worker.ply import encode_points, read_points
from turntable.worker.png import write_png

torch = pytest.importorskip(
    "torch", reason="torch isn't installed here (it comes with the test extra, on Linux)"
)
pytest.importorskip("gsplat", reason="gsplat isn't installed here (it comes with the test extra, on Linux)")

from methods import gsplat_reference as reference  # noqa: E402
from turntable.methods.gsplat import growth, losses, scene, schedule  # noqa: E402
from turntable.methods.gsplat.photos import Photos  # noqa: E402
from turntable.methods.gsplat.rasterise import Rasterisers, of_card  # noqa: E402
from turntable.methods.gsplat.trainer import Gsplat  # noqa: E402

METHOD = get_method("gsplat")
SLOW = Rasterisers(reference.ellipsoids, reference.discs)
BEGIN = 60
KINDS = [("3dgs", "default"), ("3dgs", "mcmc"), ("2dgs", "default")]


@pytest.fixture(autouse=True)
def no_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """MCMC's two kernels by the same names, and one thread, whose sums have one order."""
    monkeypatch.setattr("gsplat.strategy.ops.compute_relocation", reference.relocation)
    monkeypatch.setattr("gsplat.strategy.ops.quat_scale_to_covar_preci", reference.covariances)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def settings(**changed):
    defaults = {name: setting.default for name, setting in METHOD.settings.items()}
    return {**defaults, "start_gaussians": 100, **changed}


def photos(folder: Path, views=6, size=(24, 18), masked=False) -> list[View]:
    """Photos of three coloured balls from a ring of cameras, 400 scene units away from the world's origin."""
    folder.mkdir(exist_ok=True)
    middle = np.array([400.0, 0, 0])
    centres = middle + np.array([[-4.0, 0, 0], [4, 3, 1], [0, -4, 2]])
    colours = np.array([[1.0, 0.2, 0.1], [0.1, 0.8, 0.3], [0.2, 0.3, 1.0]])
    out = []
    for index in range(views):
        width, height = size
        angle = 2 * np.pi * index / max(views, 5)
        eye = middle + np.array([30 * np.cos(angle), 30 * np.sin(angle), 6])
        camera = look_at(eye, middle, width, height, width * 1.2)
        photo = np.zeros((height, width, 3))
        rows, columns = np.mgrid[:height, :width] + 0.5
        pixels, depth = camera.project(centres)
        for ball in np.argsort(-depth):
            near = np.hypot(columns - pixels[ball, 0], rows - pixels[ball, 1]) < camera.fx * 3.5 / depth[ball]
            photo[near] = 255 * colours[ball]
        write_png(folder / f"{index}.png", photo.astype(np.uint8))
        mask = None
        if masked:
            mask = folder / f"mask{index}.png"
            counts = np.zeros((height, width), np.uint8)
            counts[:, : width // 2] = 255
            write_png(mask, counts)
        out.append(View(f"{index}", camera, folder / f"{index}.png", mask))
    return out


def sparse(path: Path, count=BEGIN) -> Path:
    """Sparse points of any colour where the balls are."""
    generator = np.random.default_rng(1)
    places = np.array([400.0, 0, 0]) + generator.normal(0, 4, (count, 3))
    path.write_bytes(encode_points(places, generator.integers(0, 256, (count, 3), np.uint8)))
    return path


def made(views, points=None, behind=(0, 0, 0), has_alpha=False, seed=0, **changed) -> Gsplat:
    """The trainer on the slow functions; it begins at a few sparse points unless ``start`` says otherwise."""
    points = points or sparse(views[0].image_path.with_name("points.ply"))
    training = TrainingViews(views, points, behind, has_alpha)
    return Gsplat(training, settings(**{"start": "points", **changed}), seed, "cpu", rasterisers=SLOW)


def train(method: Gsplat, first: int, last: int, of: int) -> list[dict[str, float]]:
    told = []
    for step in range(first, last):
        method.progress(step / of)
        told.append(method.step())
    return told


def bytes_of(method: Gsplat, folder: Path) -> dict[str, bytes]:
    """All that a method would save, byte by byte."""
    folder.mkdir()
    method.save(folder)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize(("primitive", "strategy"), KINDS)
def test_it_learns_the_photos(tmp_path, primitive, strategy):
    views = photos(tmp_path)
    method = made(views, primitive=primitive, strategy=strategy)
    before = [float(np.mean((method.render(view.camera).image - view.image) ** 2)) for view in views]
    told = train(method, 0, 200, 200)
    after = [float(np.mean((method.render(view.camera).image - view.image) ** 2)) for view in views]
    assert np.mean([one["loss"] for one in told[-20:]]) < 0.8 * np.mean([one["loss"] for one in told[:20]])
    assert np.mean(after) < 0.7 * np.mean(before)
    assert any(one["gaussians"] != BEGIN for one in told), "rounds of growth happened"
    assert all(np.isfinite(list(one.values())).all() for one in told)


@pytest.mark.parametrize(("primitive", "strategy"), KINDS)
@pytest.mark.parametrize("stop", [0, 30, 80])
def test_stopping_and_going_on_gives_the_same_bits(tmp_path, primitive, strategy, stop):
    views, steps = photos(tmp_path / "photos"), 120

    def new():
        return made(views, seed=3, primitive=primitive, strategy=strategy, background="random")

    whole = new()
    train(whole, 0, steps, steps)
    expected = bytes_of(whole, tmp_path / "whole")
    stopped = new()
    train(stopped, 0, stop, steps)
    saved = bytes_of(stopped, tmp_path / "saved")
    assert {Path(name).suffix for name in saved} == {".npz", ".json"}, "nothing is pickled"
    resumed = new()
    torch.manual_seed(99)  # whatever happened in between
    resumed.load(tmp_path / "saved")
    assert bytes_of(resumed, tmp_path / "again") == saved
    train(resumed, stop, steps, steps)
    assert bytes_of(resumed, tmp_path / "resumed") == expected
    one, other = whole.render(views[0].camera), resumed.render(views[0].camera)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))


def test_the_same_seed_gives_the_same_bits_and_another_gives_others(tmp_path):
    views = photos(tmp_path / "photos")
    results = []
    for number, seed in enumerate((0, 0, 1)):
        method = made(views, seed=seed)
        train(method, 0, 60, 60)
        results.append(bytes_of(method, tmp_path / f"{number}")["gaussians.npz"])
    assert results[0] == results[1] != results[2]


@pytest.mark.parametrize("primitive", ["3dgs", "2dgs"])
def test_cameras_agree_with_the_contract(tmp_path, primitive):
    """One small Gaussian far from the world's origin is seen in the pixel where the contract projects it, at its depth."""
    views = photos(tmp_path)
    method = made(views, primitive=primitive)
    place = np.array([[402.0, 3.0, -2.0]])
    with torch.no_grad():
        method._gaussians.params["scales"].fill_(-7.0)
        method._gaussians.params["opacities"].fill_(-30.0)
        method._gaussians.params["opacities"][0] = 9.0
        method._gaussians.params["means"].copy_(torch.from_numpy(method._frame.into(place)))
        facing = views[
            0
        ].camera.R.T  # a disc that the camera sees from the front: columns are its axes in the world
        method._gaussians.params["quats"].copy_(torch.from_numpy(quaternion(facing)))
    seen = views[0].camera
    for camera in (seen, Camera(41, 33, 70.0, 55.0, 17.3, 20.8, seen.R, seen.t)):
        pixels, depths = camera.project(place)
        rendering = method.render(camera)
        row, column = np.unravel_index(rendering.opacity.argmax(), rendering.opacity.shape)
        assert (column, row) == tuple(np.floor(pixels[0]).astype(int))
        assert rendering.depth[row, column] == pytest.approx(depths[0], rel=1e-4)
        # The centre of mass of so small a blob is where the point is, to a fraction of a pixel
        weights = -np.log1p(-np.minimum(rendering.opacity.astype(np.float64), 0.999))
        rows, columns = np.mgrid[: camera.height, : camera.width] + 0.5
        centre = [(weights * axis).sum() / weights.sum() for axis in (columns, rows)]
        assert np.abs(np.array(centre) - pixels[0]).max() < 0.25


def quaternion(matrix: np.ndarray) -> np.ndarray:
    """w, x, y, z of a rotation matrix, by its eigenvector (Bar-Itzhack 2000)."""
    m = matrix
    k = np.array(
        [
            [m[0, 0] + m[1, 1] + m[2, 2], m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]],
            [m[2, 1] - m[1, 2], m[0, 0] - m[1, 1] - m[2, 2], m[0, 1] + m[1, 0], m[0, 2] + m[2, 0]],
            [m[0, 2] - m[2, 0], m[0, 1] + m[1, 0], m[1, 1] - m[0, 0] - m[2, 2], m[1, 2] + m[2, 1]],
            [m[1, 0] - m[0, 1], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], m[2, 2] - m[0, 0] - m[1, 1]],
        ]
    )
    return np.linalg.eigh(k)[1][:, -1]


@pytest.mark.parametrize("primitive", ["3dgs", "2dgs"])
@pytest.mark.parametrize("size", [(37, 23), (1, 1), (64, 3), (2, 5)])
def test_any_size_is_rendered_and_trained_on(tmp_path, primitive, size):
    views = photos(tmp_path, views=2, size=size)
    method = made(views, primitive=primitive)
    train(method, 0, 12, 12)
    rendering = method.render(views[0].camera)
    assert rendering.image.shape == (size[1], size[0], 3) and rendering.image.dtype == np.float32
    assert rendering.depth.shape == rendering.opacity.shape == (size[1], size[0])
    assert all(np.isfinite(part).all() for part in rendering)


@pytest.mark.parametrize(("primitive", "strategy"), KINDS)
def test_one_view_without_points_is_enough(tmp_path, primitive, strategy):
    views = photos(tmp_path, views=1)
    training = TrainingViews(views, None, (0, 0, 0))
    method = Gsplat(training, settings(primitive=primitive, strategy=strategy), 0, "cpu", rasterisers=SLOW)
    told = train(method, 0, 120, 120)
    assert told[0]["gaussians"] == 100
    assert all(np.isfinite(one["loss"]) for one in told) and told[-1]["loss"] < told[0]["loss"]


def test_a_black_capture_does_not_lose_its_last_gaussian(tmp_path):
    views = photos(tmp_path, views=2, size=(16, 16))
    for view in views:
        write_png(view.image_path, np.zeros((16, 16, 3), np.uint8))
    told = train(made(views), 0, 130, 130)
    assert told[-1]["gaussians"] > 0
    told = train(made(views, strategy="mcmc", opacity_regularisation=10.0), 0, 130, 130)
    assert told[-1]["gaussians"] > 0


def test_pixels_that_a_mask_leaves_out_do_not_count(tmp_path):
    views = photos(tmp_path / "a", masked=True)
    other = photos(tmp_path / "b", masked=True)
    for view in other:  # the same capture, but for what the masks leave out
        image = view.image_u8.copy()
        image[:, image.shape[1] // 2 :] = 255
        write_png(view.image_path, image)
    methods = [made(views), made(other)]
    for method in methods:
        train(method, 0, 20, 20)
    assert (
        methods[0].render(views[0].camera).image.tobytes()
        == methods[1].render(views[0].camera).image.tobytes()
    )


def test_a_photo_that_a_mask_leaves_out_whole_teaches_nothing(tmp_path):
    views = photos(tmp_path, views=1, masked=True)
    write_png(views[0].mask_path, np.zeros((18, 24), np.uint8))
    assert made(views).step()["loss"] == 0.0


@pytest.mark.parametrize(("has_alpha", "expected"), [(True, [1.0, 0.5, 0.25]), (False, [0.0, 0.0, 0.0])])
def test_behind_the_scene_lies_the_captures_colour_where_photos_had_transparency(
    tmp_path, has_alpha, expected
):
    views = photos(tmp_path)
    method = made(views, behind=(1, 0.5, 0.25), has_alpha=has_alpha)
    away = views[0].camera
    turn = np.diag([-1.0, 1.0, -1.0])
    camera = Camera(20, 10, 60.0, 60.0, 10.0, 5.0, turn @ away.R, turn @ away.t)
    rendering = method.render(camera)
    assert rendering.opacity.max() < 0.01 and np.allclose(rendering.image, expected, atol=0.01)
    assert not rendering.depth.any(), "where nothing is, there is no depth"


def test_gaussians_begin_at_sparse_points_if_there_are_enough(tmp_path):
    views = photos(tmp_path)
    for count, expected in ((scene.ENOUGH_POINTS, scene.ENOUGH_POINTS), (scene.ENOUGH_POINTS - 1, 100)):
        training = TrainingViews(views, sparse(tmp_path / f"{count}.ply", count), (0, 0, 0))
        assert len(Gsplat(training, settings(), 0, "cpu", rasterisers=SLOW)._gaussians) == expected
        fewer = Gsplat(training, settings(max_gaussians=70), 0, "cpu", rasterisers=SLOW)
        assert len(fewer._gaussians) == 70
    with pytest.raises(ValueError, match="start=points needs sparse points"):
        Gsplat(TrainingViews(views, None, (0, 0, 0)), settings(start="points"), 0, "cpu", rasterisers=SLOW)


def test_points_that_coincide_and_points_that_are_alone_have_sizes():
    many = np.repeat([[1.0, 2, 3]], 9, axis=0)
    for points in (many, many[:1], many[:2], np.array([[0.0, 0, 0], [3, 0, 0]])):
        sizes = scene.neighbour_distances(points)
        assert sizes.shape == (len(points),) and (sizes > 0).all() and np.isfinite(np.log(sizes)).all()
    grid = np.array([[0.0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3], [9, 9, 9]])
    assert scene.neighbour_distances(grid)[0] == pytest.approx(np.sqrt((1 + 4 + 9) / 3))


def test_units_of_the_capture_do_not_matter(tmp_path):
    """The same photos in millimetres, far from the origin: the same pictures but for rounding, and depths in millimetres."""
    views = photos(tmp_path)
    scaled, shift = [], np.array([5.0, -7.0, 2.0])
    for view in views:
        camera = view.camera
        t = 1000 * camera.t - camera.R @ shift
        moved = Camera(camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy, camera.R, t)
        scaled.append(View(view.name, moved, view.image_path))
    places, colours = read_points(sparse(tmp_path / "points.ply"))
    (moved_points := tmp_path / "moved.ply").write_bytes(encode_points(1000 * places + shift, colours))
    methods = [made(views, strategy="mcmc"), made(scaled, moved_points, strategy="mcmc")]
    for method in methods:
        train(method, 0, 5, 3000)
    one, other = (m.render(v[0].camera) for m, v in zip(methods, (views, scaled), strict=True))
    assert np.allclose(one.image, other.image, atol=2e-3)
    seen = one.opacity > 0.5
    assert np.allclose(1000 * one.depth[seen], other.depth[seen], rtol=1e-2)


def test_frames_of_odd_captures_have_a_size(tmp_path):
    camera = look_at(np.array([3.0, 0, 0]), np.zeros(3), 8, 8, 8.0)
    none = np.zeros((0, 3))
    alone = scene.frame_of([camera], none)
    assert alone.unit == 1.0 and alone.scene_scale == 0.1
    far = scene.frame_of([camera], np.array([[-7.0, 0, 0]]))
    assert far.unit == pytest.approx(10.0) and np.allclose(far.centre, [-7, 0, 0])
    beside = Camera(8, 8, 8.0, 8.0, 4.0, 4.0, camera.R, camera.t + np.eye(3)[0])
    parallel = scene.frame_of([camera, beside], none)
    assert parallel.unit == pytest.approx(2.0)  # four times the spread of 0.5
    outward = [look_at(np.zeros(3) + d, 5 * d, 8, 8, 8.0) for d in np.eye(3)[:2]]
    assert scene.frame_of([*outward, look_at(-np.eye(3)[0], -5 * np.eye(3)[0], 8, 8, 8.0)], none).unit > 0


def test_with_the_published_budget_rounds_are_where_gsplat_has_them():
    """A strategy that is told our steps acts at the very steps at which gsplat's trainer would have it act."""
    for kind, last in (("default", 14_900), ("mcmc", 24_900)):
        window, done, at_step = schedule.ROUNDS[kind], schedule.ROUNDS[kind].begin, 0
        acted = []
        for step in range(schedule.PUBLISHED_STEPS):
            at = schedule.position(step / schedule.PUBLISHED_STEPS)
            due = window.due(at, done, step - at_step)
            if due:
                done, at_step = at, step
            told = growth.told_step(at, window.every, due)
            assert (told < window.end) == (step < window.end), "gradients are summed up to the same step"
            if window.begin < told < window.end and told % window.every == 0:
                acted.append(step)
        assert acted == list(range(600, last + 1, 100))
    reset, at_step, acted = 0.0, 0, []
    for step in range(schedule.PUBLISHED_STEPS):
        at = schedule.position(step / schedule.PUBLISHED_STEPS)
        if schedule.RESETS.due(at, reset, step - at_step):
            reset, at_step = at, step
            acted.append(step)
    assert acted == [3000, 6000, 9000, 12000]


@pytest.mark.parametrize("steps", [40, 1000, 7000, 100_000])
def test_other_budgets_walk_through_the_same_schedule(steps):
    window = schedule.ROUNDS["default"]
    done, at_step, acted = window.begin, 0, []
    for step in range(steps):
        at = schedule.position(step / steps)
        if window.due(at, done, step - at_step):
            done, at_step = at, step
            acted.append(step)
    assert all(later - sooner >= schedule.LEAST_BETWEEN_ROUNDS for sooner, later in pairwise(acted))
    assert all(window.begin < schedule.position(step / steps) < window.end for step in acted)
    assert len(acted) == {40: 0, 1000: 9, 7000: 68, 100_000: 144}[steps]
    assert [schedule.degree(f, 3) for f in (0, 0.0334, 0.0667, 0.1001, 1)] == [0, 1, 2, 3, 3]
    assert schedule.means_decay(1.0) == pytest.approx(0.01) and schedule.means_decay(0.0) == 1.0


def test_opacities_are_reset_though_gsplat_forgets_to(tmp_path):
    """gsplat 1.5.3 writes `0 & step > 0`, so that its own reset never comes (its pull request 776)."""
    method = made(photos(tmp_path))
    method.progress(0.2)
    method._step = 1000
    with torch.no_grad():
        method._gaussians.params["opacities"].fill_(5.0)
    method.step()
    assert torch.sigmoid(method._gaussians.params["opacities"]).max() <= 0.0100001
    state = method._gaussians.optimisers["opacities"].state[method._gaussians.params["opacities"]]
    assert not state["exp_avg"].any()


def test_growth_ends_at_the_limit(tmp_path):
    views = photos(tmp_path)
    mcmc = made(views, strategy="mcmc", max_gaussians=63)
    assert max(one["gaussians"] for one in train(mcmc, 0, 150, 150)) == 63
    most = {}
    for limit in (61, 100_000):
        method = made(views, strategy="default", max_gaussians=limit)
        counts = [one["gaussians"] for one in train(method, 0, 300, 300)]
        full = next(i for i, count in enumerate(counts) if count >= 61)
        most[limit] = (counts[full], max(counts))
    assert most[61][0] == most[61][1], "a last round may pass the limit, and then none adds anything"
    assert most[100_000][1] > most[61][1]


def test_surface_terms_are_there_from_where_gsplat_begins_them(tmp_path):
    method = made(photos(tmp_path), primitive="2dgs")
    told = train(method, 0, 40, 40)
    assert all(("distortion" in one) == (step / 40 > 0.1) for step, one in enumerate(told))
    assert all(("normals" in one) == (step / 40 > 7 / 30) for step, one in enumerate(told))
    assert all(one.get("distortion", 0) >= 0 and one.get("normals", 0) >= 0 for one in told)
    plain = made(photos(tmp_path), primitive="2dgs", normal_weight=0.0, distortion_weight=0.0)
    assert set(train(plain, 0, 40, 40)[-1]) == {"loss", "gaussians"}


def test_mcmc_does_not_move_discs(tmp_path):
    with pytest.raises(ValueError, match="use it with primitive=3dgs"):
        made(photos(tmp_path), strategy="mcmc", primitive="2dgs")


def test_ssim_is_that_of_an_independent_implementation():
    metrics = pytest.importorskip(
        "torchmetrics.functional.image", reason="torchmetrics comes with the test extra"
    )
    generator = torch.Generator().manual_seed(0)
    first = torch.rand((40, 31, 3), generator=generator)
    second = (first + 0.2 * torch.randn(first.shape, generator=generator)).clamp(0, 1)
    ours = losses.ssim(first, second)
    assert ours.shape == (30, 21)
    pair = [image.permute(2, 0, 1)[None] for image in (second, first)]
    theirs = metrics.structural_similarity_index_measure(*pair, data_range=1.0, return_full_image=True)[1]
    assert torch.allclose(ours, theirs.mean(1)[0, 5:-5, 5:-5], atol=2e-5)
    assert torch.allclose(losses.ssim(first, first), torch.ones(30, 21), atol=1e-5)


def test_the_losss_gradient_is_that_of_differences():
    generator = torch.Generator().manual_seed(1)
    image = torch.rand((14, 13, 3), generator=generator, dtype=torch.float64, requires_grad=True)
    photo = torch.rand((14, 13, 3), generator=generator, dtype=torch.float64)
    weights = (torch.rand((14, 13), generator=generator) > 0.3).double()
    for mask in (None, weights):
        assert torch.autograd.gradcheck(lambda x, m=mask: losses.photometric(x, photo, m, 0.2), image)


def test_what_is_exported_is_the_scene_in_the_captures_units(tmp_path):
    views = photos(tmp_path)
    for primitive in ("3dgs", "2dgs"):
        method = made(views, primitive=primitive)
        train(method, 0, 5, 5)
        method.export(tmp_path)
        content = (tmp_path / "point_cloud.ply").read_bytes()
        header, _, body = content.partition(b"end_header\n")
        names = [
            line.split()[2].decode() for line in header.splitlines() if line.startswith(b"property float")
        ]
        table = np.frombuffer(body, "<f4").reshape(-1, len(names))
        rows = dict(zip(names, table.T, strict=True))
        params = {name: value.detach().numpy() for name, value in method._gaussians.params.items()}
        assert len(table) == BEGIN and len(names) == 62 and f"element vertex {len(table)}".encode() in header
        means = np.stack([rows["x"], rows["y"], rows["z"]], 1)
        assert np.allclose(means, method._frame.out_of(params["means"].astype(np.float64)), atol=1e-3)
        assert np.allclose(
            np.exp(rows["scale_1"]), method._frame.unit * np.exp(params["scales"][:, 1]), rtol=1e-5
        )
        assert np.array_equal(rows["f_rest_16"], params["shN"][:, 1, 1]), "all of red, then all of green"
        assert np.array_equal(rows["opacity"], params["opacities"])
        assert np.allclose(sum(rows[f"rot_{i}"] ** 2 for i in range(4)), 1, atol=1e-5)
        if primitive == "2dgs":
            assert (rows["scale_2"] < np.minimum(rows["scale_0"], rows["scale_1"]) - 6).all()


@pytest.mark.parametrize("bound", [0, 24 * 18 * 4 * 3, 10**9])
def test_how_much_is_kept_in_memory_changes_nothing(tmp_path, bound):
    views = photos(tmp_path, masked=True)
    kept = Photos(views, bound)
    for index in (4, 1, 0, 5, 4, 4, 2, 3):
        kept.prefetch((index + 1) % 6)
        photo, mask = kept.get(index)
        assert np.array_equal(photo, views[index].image_u8) and np.array_equal(mask, views[index].mask > 0.5)


# Where there is no card, it is refused, and nothing slow takes the kernels' place.


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a card")
def test_without_a_card_the_trainer_refuses_to_start(tmp_path):
    for device, says in (("cpu", "run on NVIDIA cards only, not on cpu"), ("cuda:0", "needs an NVIDIA card")):
        with pytest.raises(RuntimeError, match=says) as caught:
            of_card(device)
        assert "\n" not in str(caught.value)
        with pytest.raises(RuntimeError, match=says):
            Gsplat(TrainingViews(photos(tmp_path), None, (0, 0, 0)), settings(), 0, device)


@pytest.fixture
def no_card(tmp_path, monkeypatch):
    """A machine without NVIDIA's tools: nothing on the PATH but the system's programs."""
    folder = tmp_path / "nothing"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_its_environment_is_refused_without_a_card_in_one_line(tmp_path, no_card):
    bench = Bench(tmp_path / "bench")
    bench.make()
    with pytest.raises(TurntableError, match="it needs an NVIDIA card") as caught:
        build(bench, bench.method("gsplat"), lambda text: None)
    assert "\n" not in str(caught.value) and "or choose a method that runs on the CPU" in str(caught.value)


def test_its_run_is_refused_without_a_card_in_one_line(tmp_path, turntable_command):
    if probe.look().cards:
        pytest.skip("this machine has a card")
    bench = Bench(tmp_path / "bench")
    bench.make()
    make_capture(bench.captures_folder / "small")
    for words, says in (
        (
            ["run", "small", "-m", "gsplat", "--budget", "4steps"],
            "gsplat runs on cuda, not on cpu: --device cuda takes any card",
        ),
        (["run", "small", "-m", "gsplat", "--device", "cuda:0"], "--device cuda:0 needs such a card"),
        (["env", "build", "gsplat"], "it needs an NVIDIA card, and nvidia-smi finds none"),
    ):
        command = [*turntable_command, *words, "--bench", str(bench.folder)]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        assert answer.returncode == 2, answer.stderr
        assert says in answer.stderr.splitlines()[-1] and "Traceback" not in answer.stderr, answer.stderr


def test_its_lock_names_the_public_index_alone_and_one_build_of_torch():
    text = (METHOD.folder / "uv.lock").read_text()
    addresses = {word.split("/")[2] for word in text.split('"') if word.startswith("http")}
    assert addresses == {"pypi.org", "files.pythonhosted.org"}
    names = {package.name: package.version for package in read_recipe(METHOD.folder).packages}
    assert names["gsplat"] == "1.5.3"


def test_published_numbers_say_where_they_are_from():
    assert METHOD.published
    for fact in METHOD.published:
        assert fact["source"].startswith("https://") and fact["protocol"]
    json.dumps(METHOD.published)
