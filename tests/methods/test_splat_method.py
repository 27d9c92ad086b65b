"""The method splat: it learns, goes on with the same bits, and takes whatever captures bring."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from turntable.methods.registry import get_method
from turntable.methods.splat import schedule, start
from turntable.methods.splat.splat import Splat
from turntable.worker.contract import Camera, TrainingViews, View
from turntable.worker.ply import encode_points
from turntable.worker.png import write_png

METHOD = get_method("splat")


def settings(**changed):
    return {**{name: setting.default for name, setting in METHOD.settings.items()}, **changed}


def balls(folder: Path, views=8, size=(64, 48), masked=False, sizes=None) -> list[View]:
    """Photos of seven coloured balls from a ring of cameras."""
    generator = np.random.default_rng(0)
    centres, colours = generator.uniform(-0.8, 0.8, (7, 3)), generator.uniform(0.2, 1, (7, 3))
    out = []
    for index in range(views):
        width, height = sizes[index % len(sizes)] if sizes else size
        angle = 2 * np.pi * index / max(views, 6)
        eye = np.array([4 * np.cos(angle), 4 * np.sin(angle), 0.8])
        forward = -eye / np.linalg.norm(eye)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        camera = Camera(
            width, height, width * 1.2, width * 1.2, width / 2, height / 2, rotation, -rotation @ eye
        )
        photo = np.full((height, width, 3), 255.0)
        rows, columns = np.mgrid[:height, :width] + 0.5
        pixels, depth = camera.project(centres)
        for ball in np.argsort(-depth):
            near = (
                np.hypot(columns - pixels[ball, 0], rows - pixels[ball, 1]) < camera.fx * 0.35 / depth[ball]
            )
            photo[near] = 255 * colours[ball]
        write_png(folder / f"{index}.png", photo.astype(np.uint8))
        mask = None
        if masked:
            mask = folder / f"mask{index}.png"
            counts = np.zeros((height, width), np.uint8)
            counts[height // 4 : -(height // 4), width // 4 : -(width // 4)] = 255
            write_png(mask, counts)
        out.append(View(f"{index}", camera, folder / f"{index}.png", mask))
    return out


def trained(views, steps, points=None, until=1.0, seed=0, **changed) -> Splat:
    method = Splat(TrainingViews(views, points, (1, 1, 1)), settings(**changed), seed, "cpu")
    for step in range(steps):
        method.progress(until * step / steps)
        method.step()
    return method


def psnr(method: Splat, view: View) -> float:
    return -10 * np.log10(np.mean((np.clip(method.render(view.camera).image, 0, 1) - view.image) ** 2))


@pytest.mark.parametrize("densification", ["split", "mcmc", "none"])
def test_it_learns_the_photos(tmp_path, densification):
    views = balls(tmp_path)
    method = trained(views, 400, densification=densification)
    assert np.mean([psnr(method, view) for view in views]) > 24


def test_a_view_that_it_never_saw_is_predicted_better_than_by_any_photo(tmp_path):
    views = balls(tmp_path, views=16)
    method = trained(views[:7] + views[8:], 600)
    held_out = views[7]
    best_photo = max(
        -10 * np.log10(np.mean((view.image - held_out.image) ** 2)) for view in views[:7] + views[8:]
    )
    assert psnr(method, held_out) > best_photo + 3


@pytest.mark.parametrize("densification", ["split", "mcmc"])
@pytest.mark.parametrize("threads", [(1, 1), (1, 2), (2, 3)])
@pytest.mark.parametrize("stop", [77, 120])
def test_stopping_and_going_on_gives_the_same_bits(tmp_path, monkeypatch, densification, threads, stop):
    # densified at 50, 100 and 150, brought into the order of space at 60, 120 and 180: before and after the stop
    monkeypatch.setattr(schedule, "SORT_EVERY", 60)
    views, steps = balls(tmp_path), 260

    def run(count, first, last, method=None):
        changed = settings(densification=densification, threads=count)
        method = method or Splat(TrainingViews(views, None, (1, 1, 1)), changed, 3, "cpu")
        for step in range(first, last):
            method.progress(step / steps)
            method.step()
        return method

    whole = run(threads[0], 0, steps)
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    stopped = run(threads[1], 0, stop)
    stopped.save(checkpoint)
    count_at_stop = stopped._model.count
    assert not [path for path in checkpoint.iterdir() if path.suffix not in (".npy", ".json")]
    changed = settings(densification=densification, threads=threads[1])
    resumed = Splat(TrainingViews(views, None, (1, 1, 1)), changed, 3, "cpu")
    resumed.load(checkpoint)
    run(threads[1], stop, steps, resumed)
    assert resumed._model.count > count_at_stop
    assert np.array_equal(whole._model.table(), resumed._model.table())
    assert whole.render(views[0].camera).image.tobytes() == resumed.render(views[0].camera).image.tobytes()
    a, b = tmp_path / "a", tmp_path / "b"
    for folder, method in ((a, whole), (b, resumed)):
        folder.mkdir()
        method.export(folder)
    assert (a / "point_cloud.ply").read_bytes() == (b / "point_cloud.ply").read_bytes()


def test_another_seed_gives_another_result(tmp_path):
    views = balls(tmp_path)
    images = [trained(views, 20, seed=seed).render(views[0].camera).image for seed in (0, 1)]
    assert not np.array_equal(*images)


def test_it_starts_from_sparse_points_where_there_are_enough(tmp_path):
    views = balls(tmp_path)
    generator = np.random.default_rng(1)
    points = tmp_path / "points.ply"
    points.write_bytes(
        encode_points(generator.normal(0, 0.5, (700, 3)), generator.integers(0, 256, (700, 3), np.uint8))
    )
    method = trained(views, 1, points)
    assert method.step()["gaussians"] == 700


def test_the_cap_holds(tmp_path):
    views = balls(tmp_path)
    for densification in ("split", "mcmc"):
        method = trained(views, 300, max_gaussians=450, start_gaussians=300, densification=densification)
        assert method.step()["gaussians"] <= 450


def test_it_grows_towards_the_cap(tmp_path):
    method = trained(balls(tmp_path), 300, max_gaussians=1500, start_gaussians=300)
    assert method.step()["gaussians"] > 450


def test_one_photo_is_enough_to_begin(tmp_path):
    views = balls(tmp_path, views=1)
    method = trained(views, 200)
    assert psnr(method, views[0]) > 20


def test_no_photo_is_refused():
    with pytest.raises(ValueError, match="at least one training photo"):
        Splat(TrainingViews([], None, (1, 1, 1)), settings(), 0, "cpu")


def test_photos_may_differ_in_size(tmp_path):
    views = balls(tmp_path, sizes=[(64, 48), (33, 47), (80, 20)])
    method = trained(views, 150)
    for view in views:
        assert method.render(view.camera).image.shape == (view.camera.height, view.camera.width, 3)


@pytest.mark.parametrize("size", [(1, 1), (3, 1), (2, 5), (17, 33)])
def test_photos_and_renderings_may_be_tiny_or_odd(tmp_path, size):
    views = balls(tmp_path, views=3, size=size)
    method = trained(views, 10)
    rendering = method.render(views[0].camera)
    assert rendering.image.shape == (size[1], size[0], 3)
    assert rendering.depth.shape == rendering.opacity.shape == (size[1], size[0])
    assert np.isfinite(rendering.image).all()


def test_pixels_that_do_not_count_do_not_matter(tmp_path):
    plain, spoilt = tmp_path / "plain", tmp_path / "spoilt"
    plain.mkdir()
    spoilt.mkdir()
    views = balls(plain, masked=True)
    others = []
    for view in balls(spoilt, masked=True):
        photo, mask = view.image_u8.copy(), view.mask
        assert mask is not None
        photo[mask == 0] = np.random.default_rng(0).integers(0, 256, (int((mask == 0).sum()), 3))
        write_png(view.image_path, photo)
        others.append(view)
    points = tmp_path / "points.ply"
    points.write_bytes(
        encode_points(np.random.default_rng(1).normal(0, 0.5, (600, 3)), np.full((600, 3), 99, np.uint8))
    )
    one, other = (trained(each, 60, points, coarse_to_fine=False) for each in (views, others))
    assert np.array_equal(one.render(views[0].camera).image, other.render(views[0].camera).image)


def test_depth_is_z_in_scene_units(tmp_path):
    views = balls(tmp_path)
    method = trained(views, 400)
    rendering = method.render(views[0].camera)
    solid = rendering.opacity > 0.9
    coloured = (views[0].image_u8 != 255).any(2)
    assert (solid & coloured).sum() > 50
    assert 2.5 < np.median(rendering.depth[solid & coloured]) < 5.0  # the balls lie 4 ± 1.2 from each camera


def test_a_background_is_drawn_where_nothing_is(tmp_path):
    views = balls(tmp_path, views=2)
    method = Splat(TrainingViews(views, None, (0.1, 0.6, 0.3), has_alpha=True), settings(), 0, "cpu")
    camera = views[0].camera
    away = Camera(
        20,
        10,
        camera.fx,
        camera.fy,
        10,
        5,
        np.diag([-1.0, 1.0, -1.0]) @ camera.R,
        np.array([0.0, 0.0, -900.0]),
    )
    assert np.allclose(method.render(away).image, [0.1, 0.6, 0.3], atol=1e-6)


def test_without_alpha_the_photos_border_is_the_background(tmp_path):
    views = balls(tmp_path, views=2)  # on white
    assert np.allclose(
        Splat(TrainingViews(views, None, (0.1, 0.6, 0.3)), settings(), 0, "cpu")._background, 1
    )


def test_looked_at_while_it_trains_on_halved_photos_it_is_drawn_with_their_dilation(tmp_path):
    views = balls(tmp_path)
    method = trained(views, 30, until=0.05)
    assert schedule.level(0.05, 30, True) == 2
    early = method.render(views[0].camera)
    method.progress(1.0)
    late = method.render(views[0].camera)
    assert early.opacity.sum() > 1.05 * late.opacity.sum()  # wider, with the same opacities


def test_schedules_fit_any_budget():
    assert [schedule.level(f, 10, True) for f in (0.0, 0.1, 0.5, 1.0)] == [2, 1, 0, 0]
    assert [schedule.level(0.01, steps, True) for steps in (0, 299, 300, 1499, 1500)] == [2, 2, 1, 1, 0]
    assert schedule.level(0.0, 0, False) == 0
    assert [schedule.degree(f, 3) for f in (0.0, 0.1, 0.2, 1.0)] == [0, 1, 2, 3]
    assert schedule.degree(1.0, 1) == 1
    begin, end = schedule.rates(0.0, 0, 2.0, 1.0), schedule.rates(1.0, 1500, 2.0, 1.0)
    assert end[0] == pytest.approx(0.01 * begin[0])
    assert end[10] == pytest.approx(0.5 * begin[10])
    sizes = [schedule.target(f, 100, 1000) for f in np.linspace(0, 1, 11)]
    assert sizes == sorted(sizes) and sizes[0] == 100 and sizes[-1] == 1000
    assert schedule.target(0.5, 100, 80) == 80


def test_near_neighbours_are_found():
    points = np.random.default_rng(0).normal(size=(2000, 3))
    apart = np.sqrt(((points[:, None] - points[None]) ** 2).sum(2))
    exact = np.sqrt((np.sort(apart, axis=1)[:, 1:4] ** 2).mean(1))
    found = start.neighbour_distance(points)
    assert (found >= exact - 1e-9).all()
    assert np.median(found / exact) < 1.1
    assert np.isfinite(start.neighbour_distance(np.zeros((5, 3)))).all()


def test_identical_cameras_have_an_extent():
    camera = Camera(10, 10, 10, 10, 5, 5, np.eye(3), np.zeros(3))
    layout = start.layout_of([camera, camera], np.zeros((0, 3)))
    assert layout.extent > 0 and layout.distance > 0


def test_the_plane_sweep_finds_surfaces(tmp_path):
    views = TrainingViews(balls(tmp_path, views=12, size=(160, 120)), None, (1, 1, 1))
    from turntable.methods.splat.photos import Photos

    photos = Photos(views)
    layout = start.layout_of(photos.cameras, views.points)
    assert np.linalg.norm(layout.focus) < 0.5
    made = start.from_photos(photos, layout, 2000, np.random.default_rng(0))
    coloured = made.colours.min(1) < 0.9
    assert (
        np.median(np.linalg.norm(made.means[coloured], axis=1)) < 1.6
    )  # the balls lie within 1.4 of the middle
