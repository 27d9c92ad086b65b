"""The renderings that a program leaves: nothing is guessed."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import make_capture
from turntable.errors import TurntableError
from turntable.tasks.renderings import MissingRendering, find_renderings, read_answer, read_rendering
from turntable.worker.png import write_png


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


@pytest.mark.parametrize("kind", ["link", "link of a folder", "pipe", "huge", "another size"])
def test_an_answer_is_a_plain_file_of_its_size(tmp_path: Path, kind: str) -> None:
    """A link could lead to the held-out photo itself, and score as well as that."""
    (run := tmp_path / "run").mkdir()
    (elsewhere := tmp_path / "captures").mkdir()
    write_png(elsewhere / "a.png", np.zeros((4, 6, 3), np.uint8))
    (run / "views").mkdir()
    path = run / "views" / "a.png"
    if kind == "link":
        path.symlink_to(elsewhere / "a.png")
    elif kind == "link of a folder":
        (run / "views").rmdir()
        (run / "views").symlink_to(elsewhere)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    else:
        write_png(path, np.zeros((4, 7, 3), np.uint8))
    with pytest.raises(
        ValueError, match=r"is no plain file|is larger than any picture|is 7×4, and should be 6×4"
    ):
        read_answer(run, "views/a.png", 6, 4)


def test_an_answer_that_is_one_is_read(tmp_path: Path) -> None:
    (tmp_path / "views").mkdir()
    image = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)
    write_png(tmp_path / "views" / "a.png", image)
    np.testing.assert_array_equal(read_answer(tmp_path, "views/a.png", 6, 4), image)
    with pytest.raises(FileNotFoundError):
        read_answer(tmp_path, "views/b.png", 6, 4)
