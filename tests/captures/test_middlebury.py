"""Middlebury's calibration: axes, signs, the half pixel, and the real temple."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from captures.scenes import (
    CX,
    CY,
    FOCAL,
    POINTS,
    assert_spots_where_cameras_say,
    poses,
    save,
    source_options,
    spots,
)
from turntable.captures import middlebury
from turntable.captures.build import CaptureOptions, add_capture
from turntable.captures.source import Progress
from turntable.captures.triangulate import triangulate
from turntable.errors import TurntableError

LOW, HIGH = np.array([-0.073568, 0.021728, -0.012445]), np.array([0.028855, 0.181892, 0.062736])
"""The temple's tight bounding box, from the data set's README."""


def scene(folder: Path) -> Path:
    folder.mkdir(parents=True)
    lines = [str(len(poses()))]
    for pose in poses():
        save(spots(pose.pixels()), folder / pose.name)
        # K gives indices of pixels: the first pixel's centre is 0 here, and 0.5 in the house.
        k = [FOCAL, 0, CX - 0.5, 0, FOCAL, CY - 0.5, 0, 0, 1]
        r = np.stack([pose.right, -pose.up, pose.forward])
        numbers = [*k, *r.ravel(), *(-r @ pose.centre)]
        lines.append(" ".join([pose.name, *(repr(float(number)) for number in numbers)]))
    (folder / "s_par.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_points_project_where_they_were_seen(tmp_path: Path) -> None:
    (tmp_path / "captures").mkdir()
    capture = add_capture(scene(tmp_path / "s"), tmp_path / "captures", CaptureOptions())
    for view, pose in zip(capture.views, poses(), strict=True):
        np.testing.assert_allclose(view.camera.project(POINTS)[0], pose.pixels(), atol=1e-9)
    assert_spots_where_cameras_say(capture, enough=20)


def spoil(folder: Path, change: object) -> None:
    path = folder / "s_par.txt"
    lines = [line.split() for line in path.read_text().splitlines()]
    change(lines)  # type: ignore[operator]
    path.write_text("\n".join(" ".join(line) for line in lines))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda lines: lines[3].__setitem__(10, "nan"), "02.png .*finite"),
        (lambda lines: lines[3].__setitem__(19, "inf"), "02.png .*finite"),
        (lambda lines: lines[3].__setitem__(2, "7.5"), "02.png: pixels must not be skewed.*7.5"),
        (lambda lines: lines[3].pop(), "02.png must be a name and 21 numbers"),
        (lambda lines: lines[3].__setitem__(4, "x"), "02.png must be a name and 21 numbers"),
        (lambda lines: lines.pop(), "must begin with the number of its lines; it has 8"),
        (lambda lines: lines[3].__setitem__(1, "-100"), "positive"),
        (lambda lines: lines[3].__setitem__(10, "55"), "rotation"),
    ],
)
def test_what_cant_be_a_camera_is_refused_in_one_line(tmp_path: Path, change: object, says: str) -> None:
    folder = scene(tmp_path / "s")
    spoil(folder, change)
    with pytest.raises(TurntableError, match=says) as caught:
        middlebury.load(folder, source_options(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_missing_photo_is_left_out_by_name(tmp_path: Path) -> None:
    folder = scene(tmp_path / "s")
    (folder / "02.png").unlink()
    loaded = middlebury.load(folder, source_options(tmp_path))
    assert [(entry.name, entry.why) for entry in loaded.left_out] == [("02.png", "the file is missing")]


def test_temples_points_fall_on_its_photos_and_half_a_pixel_more_fits_better(
    data: Path, tmp_path: Path
) -> None:
    (tmp_path / "captures").mkdir()
    capture = add_capture(data / "temple", tmp_path / "captures", CaptureOptions())
    assert len(capture.views) == 16 and len(capture.held_out) == 2
    points, _ = capture.points()
    inside = ((points > LOW - 0.003) & (points < HIGH + 0.003)).all(1)
    assert len(points) > 500 and inside.mean() > 0.95
    for view in capture.views:  # the held-out ones too, which the points were not made from
        pixels, depth = view.camera.project(points[inside])
        assert (depth > 0).all()
        column, row = np.floor(pixels).astype(int).T
        ok = (pixels >= 0).all(1) & (column < 640) & (row < 480)
        assert ok.mean() > 0.99
        bright = view.image()[row[ok], column[ok]].max(1) > 25  # the plaster, before a black background
        assert bright.mean() > 0.97, view.name
    # Some photos are upside down to the others, so a shifted principal point can't hide in the poses.
    less = [
        replace(view, camera=replace(view.camera, cx=view.camera.cx - 0.5, cy=view.camera.cy - 0.5))
        for view in capture.training
    ]
    (tmp_path / "scratch").mkdir()
    without = triangulate(less, tmp_path / "scratch", 0, Progress())
    assert capture.document["points"]["median_reprojection_px"] < without.reprojection_px
