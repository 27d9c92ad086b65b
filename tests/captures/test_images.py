"""Photos: held upright, reduced to 8-bit RGB, composited, undistorted, resized, masked, and refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from turntable.captures.images import (
    Unusable,
    _area,
    composite,
    prepare,
    read_rgba,
    target_size,
    upright_size,
)
from turntable.captures.source import SourceCamera, SourceView

WHITE = (1.0, 1.0, 1.0)


def view(path: Path, width: int, height: int, mask: Path | None = None, **changes: object) -> SourceView:
    camera = SourceCamera("PINHOLE", (50.0, 50.0, width / 2, height / 2), width, height)
    return SourceView(path.name, path, camera, np.eye(3), np.zeros(3), mask, **changes)  # type: ignore[arg-type]


def corners(height: int = 40, width: int = 60) -> np.ndarray:
    """A picture whose four quarters differ, so that every turn and flip shows."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = (250, 0, 0)
    picture[: height // 2, width // 2 :] = (0, 250, 0)
    picture[height // 2 :, : width // 2] = (0, 0, 250)
    return picture


UNTURNED = {  # what a file with this EXIF orientation holds of an upright picture (EXIF 2.32, tag 274)
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p, -1),
}


@pytest.mark.parametrize("orientation", UNTURNED)
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(UNTURNED[orientation](corners()))
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    assert upright_size(tmp_path / "a.png") == (60, 40)
    prepared = prepare(view(tmp_path / "a.png", 60, 40), WHITE, None)
    np.testing.assert_array_equal(prepared.image, corners())


def kinds() -> dict[str, Image.Image]:
    grey = np.tile(np.arange(60, dtype=np.uint8) * 4, (40, 1))
    rgb = Image.fromarray(np.repeat(grey[..., None], 3, axis=2))
    return {
        "grey": Image.fromarray(grey),
        "rgb": rgb,
        "palette": rgb.quantize(256),
        "16-bit grey": Image.fromarray(grey.astype(np.uint16) * 257),
        "dark 16-bit grey": Image.fromarray(grey.astype(np.uint16)),
        "black and white": Image.fromarray(grey > 128),
        "grey with alpha": Image.fromarray(np.stack([grey, np.full_like(grey, 255)], 2), "LA"),
    }


@pytest.mark.parametrize("kind", kinds())
def test_every_kind_of_pixel_becomes_8_bit_rgb(tmp_path: Path, kind: str) -> None:
    kinds()[kind].save(tmp_path / "a.png")
    image = prepare(view(tmp_path / "a.png", 60, 40), WHITE, None).image
    assert image.dtype == np.uint8 and image.shape == (40, 60, 3)
    expected = np.arange(60) * 4
    if kind == "black and white":
        expected = np.where(expected > 128, 255, 0)
    if kind == "dark 16-bit grey":
        expected = np.round(expected / 257)
    np.testing.assert_allclose(image[0, :, 0], expected, atol=2 if kind == "palette" else 0)


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    Image.new("CMYK", (60, 40), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    red, green, blue = prepare(view(tmp_path / "a.jpg", 60, 40), WHITE, None).image[20, 30].tolist()
    assert red > 200 and green < 50 and blue < 50


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 60), 0.5, np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(Unusable, match="floating-point"):
        read_rgba(tmp_path / "a.tif")


@given(st.integers(0, 255), st.integers(0, 255), st.floats(0, 1))
def test_alpha_mixes_with_the_background(colour: int, alpha: int, under: float) -> None:
    pixel = np.array([[[colour, colour, colour, alpha]]], np.uint8)
    mixed = int(composite(pixel, (under, under, under))[0, 0, 0])
    assert abs(mixed - (colour * alpha / 255 + 255 * under * (1 - alpha / 255))) <= 0.501


def test_alpha_is_composited_before_resizing(tmp_path: Path) -> None:
    # Resized first, the black under the transparent pixels would darken the border.
    pixels = np.zeros((40, 60, 4), np.uint8)
    pixels[:, :31] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    prepared = prepare(view(tmp_path / "a.png", 60, 40), WHITE, 30)
    assert prepared.has_alpha
    assert (prepared.image == 255).all()


def test_opaque_alpha_is_no_transparency(tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 60, 4), 255, np.uint8)).save(tmp_path / "a.png")
    assert not prepare(view(tmp_path / "a.png", 60, 40), WHITE, None).has_alpha


def area_by_definition(values: np.ndarray, count: int) -> np.ndarray:
    """Each output: the mean over its stretch, pixel by pixel, by the length that they share."""
    out = np.zeros((count, *values.shape[1:]))
    step = len(values) / count
    for index in range(count):
        low, high = index * step, (index + 1) * step
        for pixel, value in enumerate(values):
            out[index] += value * max(0.0, min(high, pixel + 1) - max(low, pixel)) / step
    return out


@given(
    st.lists(st.integers(0, 255), min_size=1, max_size=40),
    st.integers(1, 40),
)
def test_the_area_filter_weighs_each_pixel_by_the_length_it_covers(row: list[int], count: int) -> None:
    values = np.array(row, np.uint8)[:, None]
    count = min(count, len(row))
    np.testing.assert_allclose(
        _area(values, count), area_by_definition(values.astype(float), count), atol=1e-9
    )


def test_resizing_keeps_a_ramp_where_it_is(tmp_path: Path) -> None:
    # 2.5 source pixels to one: a filter that takes whole pixels would wobble by a quarter of them.
    ramp = np.tile(np.arange(100, dtype=np.uint8) * 2, (50, 1))
    Image.fromarray(ramp).save(tmp_path / "a.png")
    prepared = prepare(view(tmp_path / "a.png", 100, 50), WHITE, 40)
    centres = (np.arange(40) + 0.5) * 2.5
    np.testing.assert_allclose(prepared.image[10, :, 0], 2 * (centres - 0.5), atol=0.51)
    camera = prepared.camera
    assert (camera.width, camera.height, camera.fx, camera.cx, camera.cy) == (40, 20, 20.0, 20.0, 10.0)


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(16, 2000))
def test_the_long_side_is_what_was_asked_for_and_never_more(width: int, height: int, side: int) -> None:
    new_width, new_height = target_size(width, height, side)
    assert max(new_width, new_height) == min(side, max(width, height))
    assert new_width <= width and new_height <= height
    if min(new_width, new_height) > 1:
        assert abs(new_width / new_height * height - width) <= width / min(new_width, new_height)


def test_a_pixel_counts_only_where_its_mask_is_whole(tmp_path: Path) -> None:
    Image.fromarray(corners()).save(tmp_path / "a.png")
    mask = np.zeros((40, 60), np.uint8)
    mask[:, :31] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    stored = prepare(view(tmp_path / "a.png", 60, 40, tmp_path / "m.png"), WHITE, 30).mask
    assert stored is not None and set(np.unique(stored)) == {0, 255}
    assert (stored[:, :15] == 255).all() and (stored[:, 15:] == 0).all()


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (np.zeros((40, 60), np.uint8), "counts no pixel"),
        (np.full((20, 30), 255, np.uint8), "its mask is 30×20, the picture 60×40"),
        (None, "its mask m.png: the file is missing"),
    ],
)
def test_a_mask_that_cant_be_used_is_said(tmp_path: Path, mask: np.ndarray | None, says: str) -> None:
    Image.fromarray(corners()).save(tmp_path / "a.png")
    if mask is not None:
        Image.fromarray(mask).save(tmp_path / "m.png")
    with pytest.raises(Unusable, match=says):
        prepare(view(tmp_path / "a.png", 60, 40, tmp_path / "m.png"), WHITE, None)


@pytest.mark.parametrize(
    ("model", "params"),
    [
        ("OPENCV", (280, 280, 150, 100, -0.25, 0.08, 0, 0)),
        ("OPENCV", (280, 280, 120, 130, -0.35, 0.1, 0.01, -0.01)),
        ("OPENCV", (280, 280, 150, 100, 0.3, 0.1, 0, 0)),
        ("OPENCV_FISHEYE", (150, 150, 150, 100, 0.02, 0, 0, 0)),
        ("OPENCV_FISHEYE", (95, 95, 150, 100, 0, 0, 0, 0)),
        ("FOV", (200, 200, 150, 100, 0.9)),
        ("THIN_PRISM_FISHEYE", (150, 150, 150, 100, 0.02, 0, 0, 0, 0, 0, 0.01, 0.01)),
    ],
)
def test_no_pixel_counts_that_no_photo_saw(tmp_path: Path, model: str, params: tuple[float, ...]) -> None:
    Image.fromarray(np.full((200, 300, 3), 200, np.uint8)).save(tmp_path / "a.png")
    camera = SourceCamera(model, tuple(float(value) for value in params), 300, 200)
    source = SourceView("a.png", tmp_path / "a.png", camera, np.eye(3), np.zeros(3))
    prepared = prepare(source, WHITE, 150)
    counted = prepared.image if prepared.mask is None else prepared.image[prepared.mask > 0]
    assert (counted == 200).all()
    assert prepared.mask is None or (prepared.mask > 0).mean() > 0.9
    assert (prepared.mask is not None) == (model == "THIN_PRISM_FISHEYE")


def test_another_shape_than_the_camera_says_is_refused(tmp_path: Path) -> None:
    Image.fromarray(corners()).save(tmp_path / "a.png")
    with pytest.raises(Unusable, match="60×40, but its camera says 120×80"):
        prepare(view(tmp_path / "a.png", 120, 80), WHITE, None)


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\xff\xd8\xff\xe0 cut", None])
def test_what_is_no_picture_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(Unusable, match="missing" if content is None else "can't be read"):
        read_rgba(tmp_path / "a.jpg")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_a_cut_picture_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(Unusable, match="can't be read"):
        read_rgba(path)


def test_a_tiny_picture_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((10, 300, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(Unusable, match="too small"):
        prepare(view(tmp_path / "a.png", 300, 10), WHITE, None)
