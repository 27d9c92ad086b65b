"""PNG files: written and read by NumPy alone, held against Pillow."""

from __future__ import annotations

import contextlib
import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from turntable.worker.png import encode_png, read_png, write_png

shapes = st.tuples(st.integers(1, 24), st.integers(1, 24))
images = st.one_of(
    shapes.flatmap(lambda shape: hnp.arrays(np.uint8, shape)),
    shapes.flatmap(lambda shape: hnp.arrays(np.uint8, (*shape, 3))),
)


@given(images)
def test_pillow_reads_what_is_written(image: np.ndarray) -> None:
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encode_png(image)))), image)


@given(images)
@settings(deadline=None)
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, image: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("png") / "a.png"
    write_png(path, image)
    np.testing.assert_array_equal(read_png(path), image)
    assert [entry.name for entry in path.parent.iterdir()] == ["a.png"]


@given(images, st.booleans())
@settings(deadline=None)
def test_what_pillow_writes_is_read(
    tmp_path_factory: pytest.TempPathFactory, image: np.ndarray, optimise: bool
) -> None:
    path = tmp_path_factory.mktemp("png") / "a.png"
    Image.fromarray(image).save(path, optimize=optimise)
    np.testing.assert_array_equal(read_png(path), image)


def chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


@given(images, st.data())
@settings(deadline=None)
def test_every_filter_is_undone(
    tmp_path_factory: pytest.TempPathFactory, image: np.ndarray, data: st.DataObject
) -> None:
    """Filtered here by the specification's section 9, each row by another filter."""
    bpp = 1 if image.ndim == 2 else 3
    rows = image.reshape(len(image), -1).astype(int)
    above = np.vstack([np.zeros_like(rows[:1]), rows[:-1]])
    left = np.pad(rows, ((0, 0), (bpp, 0)))[:, : rows.shape[1]]
    corner = np.pad(above, ((0, 0), (bpp, 0)))[:, : rows.shape[1]]
    estimate = left + above - corner
    distances = np.stack([abs(estimate - left), abs(estimate - above), abs(estimate - corner)])
    paeth = np.choose(distances.argmin(0), [left, above, corner])
    guesses = [np.zeros_like(rows), left, above, (left + above) // 2, paeth]
    kinds = data.draw(st.lists(st.integers(0, 4), min_size=len(rows), max_size=len(rows)))
    raw = b"".join(
        bytes([kind]) + ((rows[y] - guesses[kind][y]) % 256).astype(np.uint8).tobytes()
        for y, kind in enumerate(kinds)
    )
    size = image.shape[1].to_bytes(4, "big") + len(image).to_bytes(4, "big")
    path = tmp_path_factory.mktemp("png") / "a.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", size + bytes([8, 0 if bpp == 1 else 2, 0, 0, 0]))
        + chunk(b"IDAT", zlib.compress(raw))
        + chunk(b"IEND", b"")
    )
    np.testing.assert_array_equal(np.asarray(Image.open(path)), image)
    np.testing.assert_array_equal(read_png(path), image)


@given(st.data())
@settings(deadline=None, max_examples=200)
def test_a_damaged_file_is_a_value_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = encode_png(np.arange(7 * 5 * 3, dtype=np.uint8).reshape(7, 5, 3))
    path = tmp_path_factory.mktemp("png") / "a.png"
    if data.draw(st.booleans()):
        # The last 16 bytes, a checksum and the chunk IEND, hold no pixels.
        path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 17))])
        with pytest.raises(ValueError, match="PNG"):
            read_png(path)
    else:
        spoiled = bytearray(whole)
        spoiled[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
        path.write_bytes(bytes(spoiled))
        with contextlib.suppress(ValueError):
            assert read_png(path).dtype == np.uint8


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.float32),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((0, 4), np.uint8),
        np.zeros((4, 0, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="a PNG"):
        encode_png(image)


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA", "1", "I;16"])
def test_other_kinds_are_refused(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="only 8-bit"):
        read_png(tmp_path / "a.png")


def test_a_failed_write_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    write_png(path, np.zeros((2, 2), np.uint8))
    before = path.read_bytes()

    def fail(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        write_png(path, np.ones((2, 2), np.uint8))
    assert path.read_bytes() == before and [entry.name for entry in tmp_path.iterdir()] == ["a.png"]
