"""Reading a capture back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from conftest import make_capture
from turntable.captures.capture import Capture
from turntable.errors import TurntableError
from turntable.worker.ply import encode_points


def test_a_capture_gives_back_its_photos_masks_and_split(tmp_path: Path) -> None:
    capture = make_capture(tmp_path / "small", views=10, masked=True)
    assert capture.name == "small"
    assert [view.name for view in capture.held_out] == ["0000.jpg", "0005.jpg"]
    assert len(capture.training) == 8
    view = capture.views[0]
    assert view.image().shape == (view.camera.height, view.camera.width, 3)
    mask = view.mask()
    assert mask is not None and mask.dtype == bool and mask.sum() == 8 * 16
    assert capture.background == (1.0, 1.0, 1.0) and not capture.has_alpha and capture.left_out == ()


def test_without_points_there_are_none(tmp_path: Path) -> None:
    capture = make_capture(tmp_path / "small")
    points, colours = capture.points()
    assert capture.points_path is None and points.shape == (0, 3) and colours.shape == (0, 3)


def test_points_come_back(tmp_path: Path) -> None:
    capture = make_capture(tmp_path / "small")
    capture.document["points"] = {"count": 2}
    expected = np.array([[0.1, 2, 3], [4, 5, 6]])
    (capture.folder / "points.ply").write_bytes(
        encode_points(expected, np.array([[1, 2, 3], [4, 5, 6]], np.uint8))
    )
    points, colours = capture.points()
    assert (points == expected).all() and colours.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_a_folder_without_a_capture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TurntableError, match=r"needs a capture\.json"):
        Capture.load(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\xfa"])
def test_a_damaged_capture_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "capture.json").write_bytes(content)
    with pytest.raises(TurntableError, match="is damaged"):
        Capture.load(tmp_path)


def test_a_capture_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    capture = make_capture(tmp_path / "small")
    (capture.folder / "capture.json").write_text(json.dumps({**capture.document, "format": 99}))
    with pytest.raises(TurntableError, match="format 99"):
        Capture.load(capture.folder)
