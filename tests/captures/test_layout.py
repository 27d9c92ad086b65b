"""A capture laid out for other programs: nothing leaks."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import make_capture
from turntable.captures import layout, transforms
from turntable.captures.capture import Capture, CaptureView
from turntable.captures.layout import write_transforms
from turntable.captures.source import Source, SourceOptions
from turntable.worker.ply import encode_points, read_points


@pytest.fixture
def capture(tmp_path: Path) -> Capture:
    return with_points(make_capture(tmp_path / "captures" / "ramp", masked=True))


def with_points(capture: Capture) -> Capture:
    points = np.random.default_rng(1).normal(size=(7, 3))
    (capture.folder / "points.ply").write_bytes(encode_points(points, np.full((7, 3), 9, np.uint8)))
    return replace(capture, document={**capture.document, "points": {"count": 7}})


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def assert_same_cameras(source: Source, views: tuple[CaptureView, ...]) -> None:
    assert [view.name for view in source.views] == [f"{view.name}.png" for view in views]
    for read, view in zip(source.views, views, strict=True):
        camera = view.camera
        assert (read.camera.width, read.camera.height) == (camera.width, camera.height)
        assert read.camera.params == (camera.fx, camera.fy, camera.cx, camera.cy, 0, 0, 0, 0)
        np.testing.assert_allclose(read.R, camera.R, atol=1e-9)
        np.testing.assert_allclose(read.t, camera.t, atol=1e-9)


def test_the_projects_own_reader_gives_the_same_cameras_masks_and_points(
    tmp_path: Path, capture: Capture
) -> None:
    folder = write_transforms(capture, tmp_path / "layout")
    source = transforms.load(folder, SourceOptions(tmp_path))
    assert_same_cameras(source, capture.training)
    for read, view in zip(source.views, capture.training, strict=True):
        assert read.image_path.read_bytes() == view.image_path.read_bytes()
        assert read.mask_path and view.mask_path
        assert read.mask_path.read_bytes() == view.mask_path.read_bytes()
    assert source.points is not None
    np.testing.assert_array_equal(source.points, capture.points()[0])
    assert (folder / "transforms.json").read_bytes() == (folder / "transforms_train.json").read_bytes()


def test_held_out_cameras_are_the_same_too(tmp_path: Path, capture: Capture) -> None:
    folder = write_transforms(capture, tmp_path / "layout")
    for frame in json.loads((folder / layout.TEST).read_text())["frames"]:
        (
            folder / frame["file_path"]
        ).touch()  # the reader leaves views out whose photos are missing, as these are
    assert_same_cameras(transforms.load(folder / layout.TEST, SourceOptions(tmp_path)), capture.held_out)


def test_no_held_out_photo_or_mask_is_reachable(tmp_path: Path, capture: Capture) -> None:
    folder = write_transforms(capture, tmp_path / "layout")
    there = contents(folder)
    for view in capture.held_out:
        assert hashlib.sha256(view.image_path.read_bytes()).hexdigest() not in there.values()
        assert not {f"images/{view.name}.png", f"masks/{view.name}.png"} & set(there)
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    assert len(there) == 3 + 1 + 2 * len(capture.training)  # documents, points, photos and masks


def test_a_capture_of_symbolic_links_is_not_laid_out_as_such(tmp_path: Path, capture: Capture) -> None:
    photo = capture.training[0].image_path
    photo.rename(tmp_path / "elsewhere.png")
    photo.symlink_to(tmp_path / "elsewhere.png")
    folder = write_transforms(capture, tmp_path / "layout")
    assert not (folder / "images" / photo.name).is_symlink()


def test_photos_are_linked_where_possible_and_else_copied(
    tmp_path: Path, capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked = write_transforms(capture, tmp_path / "linked")
    photo = capture.training[0].image_path
    assert (linked / "images" / photo.name).samefile(photo)

    def refuse(source: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    copied = write_transforms(capture, tmp_path / "copied")
    assert not (copied / "images" / photo.name).samefile(photo)
    assert contents(copied) == contents(linked)


def test_a_layout_is_replaced_whole_and_comes_out_the_same(tmp_path: Path, capture: Capture) -> None:
    folder = write_transforms(capture, tmp_path / "layout")
    before = contents(folder)
    (folder / "images" / "left_by_a_program.png").touch()
    (folder / "transforms.json").write_text("{}")
    assert contents(write_transforms(capture, folder)) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["captures", "layout"]
    assert contents(capture.folder)  # what the links led to is still there
    assert contents(write_transforms(capture, tmp_path / "other")) == before


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path, capture: Capture) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError):
        write_transforms(capture, tmp_path / "mine")
    assert contents(tmp_path / "mine")


def test_nothing_is_left_where_a_photo_is_missing(tmp_path: Path, capture: Capture) -> None:
    capture.training[-1].image_path.unlink()
    with pytest.raises(OSError):
        write_transforms(capture, tmp_path / "layout")
    assert [path.name for path in tmp_path.iterdir()] == ["captures"]


def test_neither_points_nor_masks_are_named_where_there_are_none(tmp_path: Path) -> None:
    folder = write_transforms(make_capture(tmp_path / "plain"), tmp_path / "layout")
    assert sorted(path.name for path in folder.iterdir()) == [
        *("images", "transforms.json", "transforms_test.json", "transforms_train.json")
    ]
    document = json.loads((folder / "transforms.json").read_text())
    assert "ply_file_path" not in document and "mask_path" not in document["frames"][0]


def test_points_lie_where_the_key_says(tmp_path: Path, capture: Capture) -> None:
    folder = write_transforms(capture, tmp_path / "layout")
    name = json.loads((folder / "transforms.json").read_text())["ply_file_path"]
    assert name == "points3D.ply" and len(read_points(folder / name)[0]) == 7
