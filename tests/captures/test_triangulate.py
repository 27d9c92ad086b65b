"""Sparse points from known poses: in the right places, from training views alone, the same every time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captures.rooms import cameras, photo
from turntable.captures.build import CaptureOptions, add_capture
from turntable.captures.capture import Capture
from turntable.captures.source import Progress
from turntable.captures.transforms import opengl_matrix
from turntable.captures.triangulate import triangulate


def write_source(folder: Path, count: int = 8, plain: bool = False) -> Path:
    (folder / "images").mkdir(parents=True)
    frames = []
    for index, camera in enumerate(cameras(count)):
        name = f"images/{index:02d}.png"
        pixels = np.full((camera.height, camera.width, 3), 128, np.uint8) if plain else photo(camera)
        Image.fromarray(pixels).save(folder / name)
        frames.append({"file_path": name, "transform_matrix": opengl_matrix(camera.R, camera.t).tolist()})
    document = {"w": 320, "h": 240, "fl_x": 300.0, "cx": 160, "cy": 120, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(document))
    return folder


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Capture:
    folder = tmp_path_factory.mktemp("triangulate")
    (folder / "captures").mkdir()
    return add_capture(write_source(folder / "room"), folder / "captures", CaptureOptions())


def test_points_lie_on_the_walls_and_the_floor(capture: Capture) -> None:
    points, colours = capture.points()
    assert len(points) > 200 and colours.std() > 5
    off = np.abs(points).min(1)  # the walls and the floor are where one coordinate is 0
    assert np.median(off) < 0.01 and np.percentile(off, 95) < 0.1
    assert capture.document["points"]["median_reprojection_px"] < 0.5


def test_held_out_views_have_no_part_in_them(capture: Capture, tmp_path: Path) -> None:
    """Without the held-out photos' files at all the same points come out."""
    for view in capture.held_out:
        assert view.name not in {training.name for training in capture.training}
    found = triangulate(list(capture.training), tmp_path, 0, Progress())
    assert np.array_equal(found.points, capture.points()[0])


def test_photos_without_texture_give_no_points_and_a_note(tmp_path: Path) -> None:
    (tmp_path / "captures").mkdir()
    capture = add_capture(
        write_source(tmp_path / "plain", 4, plain=True), tmp_path / "captures", CaptureOptions()
    )
    assert capture.points()[0].shape == (0, 3) and capture.points_path is None
    assert any("No sparse points" in note for note in capture.document["notes"])
