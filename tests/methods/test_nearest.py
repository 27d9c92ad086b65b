"""The method ``nearest``: which photo it shows, at which size, and that it ends at once."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import look_at
from turntable.methods.nearest import nearest
from turntable.methods.nearest.nearest import Nearest, resized
from turntable.methods.registry import get_method
from turntable.worker.contract import Camera, TrainingViews, View
from turntable.worker.png import write_png

SETTINGS = {"angle_weight": 1.0}


def training_views(folder: Path, count: int = 8, width: int = 12, height: int = 8) -> TrainingViews:
    """Photos of one grey each, ``10 × index``, all around."""
    views = []
    for index in range(count):
        angle = 2 * np.pi * index / count
        eye = np.array([3 * np.cos(angle), 3 * np.sin(angle), 1.0])
        path = folder / f"{index}.png"
        write_png(path, np.full((height, width, 3), 10 * index, np.uint8))
        views.append(View(f"{index}.png", look_at(eye, np.zeros(3), width, height, 10.0), path))
    return TrainingViews(views, None, (1.0, 1.0, 1.0))


def shown(method: Nearest, camera: Camera) -> int:
    """The index of the photo that ``method`` shows for ``camera``."""
    return round(float(method.render(camera).image.mean()) * 255 / 10)


def test_a_training_camera_is_answered_with_its_own_photo(tmp_path: Path) -> None:
    views = training_views(tmp_path)
    method = Nearest(views, SETTINGS, 0, "cpu")
    assert [shown(method, view.camera) for view in views] == list(range(8))


def test_a_camera_between_two_is_answered_with_the_nearer(tmp_path: Path) -> None:
    method = Nearest(training_views(tmp_path), SETTINGS, 0, "cpu")
    for share, expected in ((0.4, 2), (0.6, 3)):
        angle = 2 * np.pi * (2 + share) / 8
        camera = look_at(np.array([3 * np.cos(angle), 3 * np.sin(angle), 1.0]), np.zeros(3), 12, 8, 10.0)
        assert shown(method, camera) == expected


def test_the_weight_decides_between_place_and_direction(tmp_path: Path) -> None:
    """A camera that stands where view 0 stands and looks where view 4, opposite, looks."""
    views = training_views(tmp_path)
    here, there = views[0].camera, views[4].camera
    camera = Camera(12, 8, 10.0, 10.0, 6.0, 4.0, there.R, -there.R @ here.centre)
    assert shown(Nearest(views, {"angle_weight": 0.0}, 0, "cpu"), camera) == 0
    assert shown(Nearest(views, {"angle_weight": 100.0}, 0, "cpu"), camera) == 4


def test_the_answer_does_not_depend_on_the_scenes_unit(tmp_path: Path) -> None:
    views = training_views(tmp_path)
    camera = look_at(np.array([1.0, 2.5, 0.4]), np.array([0.1, 0.0, 0.2]), 12, 8, 10.0)

    def scaled(one: Camera) -> Camera:
        return Camera(one.width, one.height, one.fx, one.fy, one.cx, one.cy, one.R, one.t * 1000)

    larger = TrainingViews(
        [View(v.name, scaled(v.camera), v.image_path) for v in views], None, (1.0, 1.0, 1.0)
    )
    metres = Nearest(views, SETTINGS, 0, "cpu").distances(camera)
    millimetres = Nearest(larger, SETTINGS, 0, "cpu").distances(scaled(camera))
    np.testing.assert_allclose(metres, millimetres, rtol=1e-9, atol=1e-9)


def test_the_rendering_has_the_cameras_size_and_no_depth(tmp_path: Path) -> None:
    views = training_views(tmp_path)
    rendering = Nearest(views, SETTINGS, 0, "cpu").render(
        look_at(np.array([3.0, 0, 1]), np.zeros(3), 31, 17, 10.0)
    )
    assert rendering.image.shape == (17, 31, 3)
    assert rendering.image.dtype == np.float32
    assert rendering.depth is None
    assert rendering.opacity is None


def test_it_has_finished_after_one_step_and_says_how_far_the_views_are_apart(tmp_path: Path) -> None:
    views = training_views(tmp_path)
    method = Nearest(views, SETTINGS, 0, "cpu")
    assert not method.finished
    loss = method.step()["loss"]
    assert method.finished
    assert loss == pytest.approx(np.sort(method.distances(views[0].camera))[1])


def test_one_photo_is_enough(tmp_path: Path) -> None:
    views = training_views(tmp_path, count=1)
    method = Nearest(views, SETTINGS, 0, "cpu")
    assert method.step() == {"loss": 0.0}
    assert shown(method, look_at(np.array([-1.0, 2, 3]), np.zeros(3), 12, 8, 10.0)) == 0


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    views = training_views(tmp_path)
    first = Nearest(views, SETTINGS, 0, "cpu")
    (tmp_path / "checkpoint").mkdir()
    for _ in range(2):
        first.save(tmp_path / "checkpoint")
        again = Nearest(views, SETTINGS, 0, "cpu")
        again.load(tmp_path / "checkpoint")
        assert again.finished == first.finished
        first.step()


def test_its_spec_fits_its_class() -> None:
    assert set(get_method("nearest").settings) == set(SETTINGS)


def test_its_code_needs_nothing_but_numpy_and_the_standard_library() -> None:
    """Its environment may hold nothing else."""
    tree = ast.parse(Path(str(nearest.__file__)).read_text(encoding="utf-8"))
    found = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    found |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert found == {"__future__", "numpy", "pathlib", "typing"}


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 12), st.integers(1, 12))
def test_resampling_stays_within_the_photos_range(old_h: int, old_w: int, new_h: int, new_w: int) -> None:
    image = np.random.default_rng(0).random((old_h, old_w, 3), np.float32)
    new = resized(image, new_w, new_h)
    assert new.shape == (new_h, new_w, 3)
    assert image.min() - 1e-6 <= new.min() <= new.max() <= image.max() + 1e-6


def test_resampling_keeps_a_ramp_a_ramp() -> None:
    ramp = (np.arange(8) + 0.5)[None, :, None] * np.ones((4, 1, 3))
    new = resized(ramp.astype(np.float32), 16, 4)
    np.testing.assert_allclose(new[0, 1:-1, 0], ((np.arange(16) + 0.5) / 2)[1:-1], atol=1e-6)
