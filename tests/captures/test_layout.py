"""A capture laid out for other programs, and the renderings that they leave: nothing leaks, nothing is guessed."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import make_capture
from turntable.captures import layout, transforms
from turntable.captures.capture import Capture, CaptureView
from turntable.captures.layout import MissingRendering, find_renderings, read_rendering, write_transforms
from turntable.captures.source import Source, SourceOptions
from turntable.errors import TurntableError
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


def put(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"a picture")


@pytest.mark.parametrize(
    ("pattern", "files"),
    [
        ("{out}/test/{stem}.png", ["test/0000.png", "test/0005.png"]),
        ("{out}/{name}.png", ["0000.jpg.png", "0005.jpg.png"]),
        ("{out}/test/*/renders/{index:05d}.png", ["test/it_7/renders/00000.png", "test/it_7/renders/00001.png"]),
        ("{out}/{stem}_?.png", ["0000_a.png", "0005_b.png"]),
        ("{out}/[x]/{index}.*", ["[x]/0.png", "[x]/1.png"]),
    ],
)  # fmt: skip
def test_renderings_are_found_by_their_pattern(tmp_path: Path, pattern: str, files: list[str]) -> None:
    capture = make_capture(tmp_path / "ramp")
    out = tmp_path / "out [1]*"
    put(*(out / file for file in files), out / "test" / "other.png", out / "x" / "0.png")
    assert find_renderings(pattern, out, capture) == {
        "0000.jpg": out / files[0],
        "0005.jpg": out / files[1],
    }


def test_folders_in_a_views_name_are_those_of_the_layouts_file(tmp_path: Path) -> None:
    capture = make_capture(tmp_path / "ramp")
    view = capture.document["views"][0]
    view["name"], view["image"] = "left/0000.jpg", "images/left__0000.jpg.png"
    put(tmp_path / "left__0000.png", tmp_path / "0005.png")
    assert set(find_renderings("{out}/{stem}.png", tmp_path, capture)) == {"left/0000.jpg", "0005.jpg"}


def test_missing_renderings_are_listed_with_what_is_there(tmp_path: Path) -> None:
    capture, out = make_capture(tmp_path / "ramp", views=25), tmp_path / "out"
    put(out / "test" / "0000.png", out / "log.txt")
    with pytest.raises(MissingRendering) as caught:
        find_renderings("{out}/test/{stem}.png", out, capture)
    assert str(caught.value) == (
        "Every held-out view needs one rendering of its own at {out}/test/{stem}.png; of 5 views 4 lack it: "
        f"0005.jpg (none), 0010.jpg (none), 0015.jpg (none) and 1 more. In {out} there is test/0000.png."
    )


def test_where_nothing_is_there_it_says_so(tmp_path: Path) -> None:
    capture = make_capture(tmp_path / "ramp")
    with pytest.raises(MissingRendering, match="there is nothing"):
        find_renderings("{out}/{stem}.png", tmp_path / "out", capture)


def test_several_matches_are_refused_and_listed(tmp_path: Path) -> None:
    capture, out = make_capture(tmp_path / "ramp"), tmp_path / "out"
    put(*(out / step / f"{stem}.png" for step in ("ours_7", "ours_30") for stem in ("0000", "0005")))
    with pytest.raises(MissingRendering, match=r"0000.jpg \(2: ours_30/0000.png, ours_7/0000.png\)"):
        find_renderings("{out}/*/{stem}.png", out, capture)


def test_one_file_is_no_rendering_of_two_views(tmp_path: Path) -> None:
    capture, out = make_capture(tmp_path / "ramp"), tmp_path / "out"
    put(out / "0000.png")
    (out / "0005.png").symlink_to("0000.png")
    with pytest.raises(MissingRendering, match=r"0005.jpg \(the same as 0000.jpg: 0005.png\)"):
        find_renderings("{out}/{stem}.png", out, capture)


def test_a_folder_is_no_rendering(tmp_path: Path) -> None:
    capture, out = make_capture(tmp_path / "ramp"), tmp_path / "out"
    (out / "0000.png").mkdir(parents=True)
    with pytest.raises(MissingRendering, match=r"0000.jpg \(none\)"):
        find_renderings("{out}/{stem}.png", out, capture)


def leave_by_link(out: Path, photos: Path) -> str:
    out.mkdir()
    (out / "test").symlink_to(photos)
    return "{out}/test/{name}.png"


def leave_by_dots(out: Path, photos: Path) -> str:
    out.mkdir()
    return "{out}/../ramp/images/{name}.png"


@pytest.mark.parametrize("leave", [leave_by_link, leave_by_dots])
def test_the_photos_themselves_are_no_renderings(tmp_path: Path, leave: Callable[[Path, Path], str]) -> None:
    capture, out = make_capture(tmp_path / "ramp"), tmp_path / "out"
    pattern = leave(out, capture.folder / "images")
    with pytest.raises(TurntableError, match="A rendering must lie in"):
        find_renderings(pattern, out, capture)


PIXELS = np.random.default_rng(2).integers(0, 256, (4, 6, 3), np.uint8)


@pytest.mark.parametrize("suffix", ["png", "bmp"])
def test_a_rendering_is_read_exactly(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(PIXELS).save(path := tmp_path / f"a.{suffix}")
    read = read_rendering(path, 6, 4)
    assert read.dtype == np.uint8 and (read == PIXELS).all()


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    Image.fromarray(PIXELS[..., 0]).save(path := tmp_path / "a.png")
    assert (read_rendering(path, 6, 4) == PIXELS[..., :1]).all()


def test_the_format_is_told_by_the_content(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(path := tmp_path / "a.png", "JPEG")
    with pytest.raises(TurntableError, match=r"a lossy copy is never scored; .*a.png is JPEG"):
        read_rendering(path, 6, 4)


@pytest.mark.parametrize("suffix", ["jpg", "webp", "tiff", "gif"])
def test_formats_that_may_be_lossy_are_refused(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(PIXELS).save(path := tmp_path / f"a.{suffix}")
    with pytest.raises(TurntableError, match="must be a PNG"):
        read_rendering(path, 6, 4)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_refused(tmp_path: Path, mode: str) -> None:
    Image.fromarray(PIXELS).convert(mode).save(path := tmp_path / "a.png")
    with pytest.raises(TurntableError, match=f"has no transparency, .* is {mode} with alpha"):
        read_rendering(path, 6, 4)


def test_a_transparent_colour_is_refused(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(path := tmp_path / "a.png", transparency=(0, 0, 0))
    with pytest.raises(TurntableError, match="has no transparency"):
        read_rendering(path, 6, 4)


@pytest.mark.parametrize("mode", ["1", "P"])
def test_few_colours_are_refused(tmp_path: Path, mode: str) -> None:
    Image.fromarray(PIXELS).convert(mode).save(path := tmp_path / "a.png")
    with pytest.raises(TurntableError, match=f"has 8 bits .* has mode {mode}"):
        read_rendering(path, 6, 4)


def deep_png(colour_type: int, channels: int) -> bytes:
    """6×4 pixels of 16 bits a channel, which Pillow can't write as RGB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 6, 4, 16, colour_type, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\x12\x34" * channels * 6) * 4)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3)])
def test_sixteen_bits_a_channel_are_refused_and_not_cut_down(
    tmp_path: Path, colour_type: int, channels: int
) -> None:
    (path := tmp_path / "a.png").write_bytes(deep_png(colour_type, channels))
    with pytest.raises(TurntableError, match="has 8 bits"):
        read_rendering(path, 6, 4)


def test_another_size_is_refused_with_both(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(path := tmp_path / "a.png")
    with pytest.raises(TurntableError, match=r"its view's size, 12×8, but .*a.png is 6×4"):
        read_rendering(path, 12, 8)


def test_a_damaged_or_missing_file_is_an_error_in_one_line(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(path := tmp_path / "a.png")
    whole = path.read_bytes()
    for length in range(whole.index(b"IDAT") + 24):
        path.write_bytes(whole[:length])
        with pytest.raises(TurntableError, match="must be a whole PNG file"):
            read_rendering(path, 6, 4)
    with pytest.raises(TurntableError, match="No such file"):
        read_rendering(tmp_path / "b.png", 6, 4)
