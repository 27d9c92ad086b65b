"""LLFF's poses_bounds.npy: its axes, its scaled folders, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from captures.scenes import FOCAL, HEIGHT, POINTS, WIDTH, poses, save, source_options, spots
from turntable.captures import llff
from turntable.captures.build import CaptureOptions, add_capture
from turntable.errors import TurntableError


def scene(folder: Path, images: str = "images", factor: int = 1) -> Path:
    """Rows are [down | right | backward | centre | (h, w, f)] and 2 bounds; photos are ``factor`` smaller."""
    rows = []
    for pose in poses():
        centred = pose.plane(POINTS) * FOCAL + [WIDTH / 2, HEIGHT / 2]
        save(spots(centred / factor, WIDTH // factor, HEIGHT // factor), folder / images / pose.name)
        hwf = np.array([HEIGHT, WIDTH, FOCAL])
        block = np.stack([-pose.up, pose.right, -pose.forward, pose.centre, hwf], 1)
        rows.append([*block.ravel(), 1.0, 5.0])
    np.save(folder / "poses_bounds.npy", np.array(rows))
    return folder


@pytest.mark.parametrize(("images", "factor"), [("images", 1), ("images_4", 4)])
def test_points_project_where_they_were_seen(tmp_path: Path, images: str, factor: int) -> None:
    loaded = llff.load(scene(tmp_path / "s", images, factor), source_options(tmp_path))
    for view, pose in zip(loaded.views, poses(), strict=True):
        fx, fy, cx, cy = view.camera.params
        camera = POINTS @ view.R.T + view.t
        pixels = camera[:, :2] / camera[:, 2:] * [fx, fy] + [cx, cy]
        np.testing.assert_allclose(
            pixels * factor, pose.plane(POINTS) * FOCAL + [WIDTH / 2, HEIGHT / 2], atol=1e-9
        )


def test_photos_are_taken_from_the_folder_that_is_asked_for(tmp_path: Path) -> None:
    folder = scene(tmp_path / "s", "images_4", 4)
    (folder / "images").mkdir()
    options = replace(source_options(tmp_path), images="images_4")
    assert {view.image_path.parent.name for view in llff.load(folder, options).views} == {"images_4"}
    with pytest.raises(TurntableError, match="--images images_2: there is no such folder"):
        llff.load(folder, replace(options, images="images_2"))


def test_a_photo_of_another_shape_is_left_out_by_name(tmp_path: Path) -> None:
    folder = scene(tmp_path / "s")
    save(np.zeros((100, 160, 3), np.uint8), folder / "images" / "03.png")
    loaded = llff.load(folder, source_options(tmp_path))
    assert [entry.name for entry in loaded.left_out] == ["03.png"]
    assert "160×100" in loaded.left_out[0].why and "160×120" in loaded.left_out[0].why
    assert len(loaded.views) == 8


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda rows: rows[:, :12], r"float\[N, 17\]"),
        (lambda rows: rows[:-1], "8 poses, but .* 9 photos"),
        (lambda rows: np.where(np.arange(17) == 3, np.nan, rows), "finite"),
        (lambda rows: np.where(np.arange(17) == 14, -1.0, rows), "positive"),
        (lambda rows: np.where(np.arange(17) == 0, 9.0, rows), "rotation"),
        (lambda rows: rows.astype(object), "can't be read"),
    ],
)
def test_what_cant_be_poses_is_refused_in_one_line(tmp_path: Path, spoil: object, says: str) -> None:
    folder = scene(tmp_path / "s")
    path = folder / "poses_bounds.npy"
    np.save(path, spoil(np.load(path)), allow_pickle=True)  # type: ignore[operator]
    (tmp_path / "captures").mkdir()
    with pytest.raises(TurntableError, match=says) as caught:
        add_capture(folder, tmp_path / "captures", CaptureOptions())
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "captures").iterdir())


def test_a_cut_file_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = scene(tmp_path / "s")
    path = folder / "poses_bounds.npy"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(TurntableError, match="can't be read") as caught:
        llff.load(folder, source_options(tmp_path))
    assert "\n" not in str(caught.value)
