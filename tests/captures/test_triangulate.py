"""Points from known poses, in a corner of three textured walls whose every surface point has a coordinate of 0."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from captures.rooms import cameras, photo
from conftest import look_at
from turntable.captures.build import CaptureOptions, add_capture
from turntable.captures.capture import CaptureView
from turntable.captures.source import Progress
from turntable.captures.transforms import opengl_matrix
from turntable.captures.triangulate import NEIGHBOURS, Triangulation, near_pairs, triangulate
from turntable.worker.contract import Camera
from turntable.worker.png import write_png

Picture = Callable[[Camera], np.ndarray]


def views_of(folder: Path, picture: Picture = photo, mask: Picture | None = None) -> list[CaptureView]:
    folder.mkdir()
    views = []
    for index, camera in enumerate(cameras(6)):
        write_png(folder / f"{index}.png", picture(camera))
        mask_path = None if mask is None else folder / f"{index}.mask.png"
        if mask is not None and mask_path is not None:
            write_png(mask_path, mask(camera))
        views.append(CaptureView(f"{index}.jpg", camera, folder / f"{index}.png", mask_path, False, {}))
    return views


def find(views: list[CaptureView], scratch: Path) -> Triangulation:
    scratch.mkdir()
    found = triangulate(views, scratch, 0, Progress())
    shutil.rmtree(scratch)
    return found


def grey(camera: Camera) -> np.ndarray:
    return np.full((camera.height, camera.width, 3), 128, np.uint8)


def floor_left_out(camera: Camera) -> np.ndarray:
    """255 where a pixel doesn't see the floor z = 0."""
    x = (np.arange(camera.width) + 0.5 - camera.cx) / camera.fx
    y = (np.arange(camera.height) + 0.5 - camera.cy) / camera.fy
    rays = np.stack([*np.meshgrid(x, y), np.ones((camera.height, camera.width))], -1) @ camera.R
    with np.errstate(divide="ignore"):
        along = -camera.centre / rays
    first = np.where(along > 0, along, np.inf).argmin(-1)
    return np.where(first == 2, 0, 255).astype(np.uint8)


def test_points_lie_on_the_walls_with_their_colours(tmp_path: Path) -> None:
    found = find(views_of(tmp_path / "views"), tmp_path / "scratch")
    assert len(found.points) > 300 and found.note == ""
    off = np.abs(found.points).min(1)
    assert np.median(off) < 0.01, "the room is 6 across and a pixel 0.02"
    assert (off < 0.1).mean() > 0.95
    assert found.reprojection_px < 1 and found.track_length >= 2
    assert found.points.dtype == np.float64 and found.colours.dtype == np.uint8
    # every wall's red is brighter than its blue
    assert (found.colours[:, 0] >= found.colours[:, 2]).mean() > 0.95


def test_the_same_views_give_the_same_bits(tmp_path: Path) -> None:
    views = views_of(tmp_path / "views")
    first, second = find(views, tmp_path / "a"), find(views, tmp_path / "b")
    assert np.array_equal(first.points, second.points) and np.array_equal(first.colours, second.colours)


def test_masked_pixels_give_no_points(tmp_path: Path) -> None:
    everywhere = find(views_of(tmp_path / "all"), tmp_path / "a").points
    walls = find(views_of(tmp_path / "masked", mask=floor_left_out), tmp_path / "b").points

    def on_floor(points: np.ndarray) -> int:
        return int(((np.abs(points[:, 2]) < 0.02) & (points[:, :2].min(1) > 0.1)).sum())

    assert on_floor(everywhere) > 50 and on_floor(walls) == 0
    assert len(walls) > 50


@pytest.mark.parametrize("count", [0, 1, 6])
def test_no_points_are_a_note_and_no_error(tmp_path: Path, count: int) -> None:
    found = find(views_of(tmp_path / "views", grey)[:count], tmp_path / "scratch")
    assert found.points.shape == (0, 3) and found.colours.shape == (0, 3)
    assert "No sparse points" in found.note and np.isnan(found.reprojection_px)


def test_held_out_views_have_no_part_in_a_captures_points(tmp_path: Path) -> None:
    views = views_of(tmp_path / "views")
    frames = [
        {
            "file_path": view.image_path.name,
            "transform_matrix": opengl_matrix(view.camera.R, view.camera.t).tolist(),
        }
        for view in views
    ]
    one = views[0].camera
    document = {"w": one.width, "h": one.height, "fl_x": one.fx, "cx": one.cx, "cy": one.cy, "frames": frames}
    (tmp_path / "views" / "transforms.json").write_text(json.dumps(document))
    (tmp_path / "captures").mkdir()
    capture = add_capture(tmp_path / "views", tmp_path / "captures", CaptureOptions())
    assert len(capture.held_out) == 1
    alone = find(list(capture.training), tmp_path / "scratch")
    assert np.array_equal(np.float32(alone.points), np.float32(capture.points()[0]))


def test_views_are_matched_with_those_beside_them_and_never_with_those_across() -> None:
    around = [
        look_at(np.array([np.cos(a), np.sin(a), 0.3]) * 4, np.zeros(3), 32, 24, 30.0)
        for a in np.arange(40) * 0.157
    ]
    pairs = near_pairs(around)
    assert all(first < second for first, second in pairs) and len(set(pairs)) == len(pairs)
    steps = {min(second - first, 40 - second + first) for first, second in pairs}
    assert steps == set(range(1, NEIGHBOURS // 2 + 1)), "a full circle has as many on either side"


def test_few_views_are_matched_each_with_every_other_that_looks_the_same_way() -> None:
    assert near_pairs(cameras(4)) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    facing = [look_at(np.array([x, 0.0, 1.0]), np.zeros(3), 32, 24, 30.0) for x in (4.0, -4.0)]
    assert near_pairs(facing) == []
