"""Frames from videos: the sharpest of each stretch, and videos that are none or break off."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from turntable.captures.source import Progress
from turntable.captures.video import choose, frames_of
from turntable.errors import TurntableError


def make_video(
    path: Path, frames: int = 24, sharp: set[int] | None = None, size: tuple[int, int] = (128, 96)
) -> Path:
    """A video of noise whose frames are blurred but for those in ``sharp``; frame i is brighter than frame i − 1."""
    generator = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=12)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 4_000_000
        for index in range(frames):
            noise = generator.integers(0, 120, (size[1], size[0], 3), np.uint8) + np.uint8(4 * index)
            picture = Image.fromarray(noise)
            if sharp is not None and index not in sharp:
                picture = picture.filter(ImageFilter.GaussianBlur(2))
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())
    return path


def numbers(paths: list[Path]) -> list[int]:
    return [int(path.stem.removeprefix("frame_")) for path in paths]


def test_the_sharpest_frame_of_each_stretch_is_taken(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mp4", 24, sharp={2, 11, 13, 23})
    frames = frames_of(video, 4, tmp_path / "frames", Progress())
    assert numbers(frames.paths) == [2, 11, 13, 23] and frames.note == ""
    with Image.open(frames.paths[0]) as picture:
        assert picture.size == (128, 96)


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=200), st.integers(2, 80))
def test_chosen_frames_are_spread_evenly_and_in_order(sharpness: list[float], count: int) -> None:
    chosen = choose(sharpness, count)
    assert len(chosen) == min(count, len(sharpness)) == len(set(chosen))
    assert chosen == sorted(chosen) and chosen[0] >= 0 and chosen[-1] < len(sharpness)
    widest = 2 * (len(sharpness) / len(chosen) + 1)
    assert all(later - earlier <= widest for earlier, later in itertools.pairwise(chosen))


def test_a_video_that_breaks_off_gives_what_there_is_and_a_note(tmp_path: Path) -> None:
    whole = make_video(tmp_path / "whole.avi", 40)
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    frames = frames_of(cut, 5, tmp_path / "frames", Progress())
    assert len(frames.paths) == 5 and max(numbers(frames.paths)) < 30
    assert "breaks off" in frames.note


@pytest.mark.parametrize("content", [b"", b"not a video at all" * 100])
def test_what_is_no_video_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(TurntableError, match=r"A video must be one that FFmpeg reads"):
        frames_of(tmp_path / "a.mp4", 5, tmp_path / "frames", Progress())


def test_one_frame_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(TurntableError, match=r"at least 2 frames"):
        frames_of(make_video(tmp_path / "a.mp4", 1), 5, tmp_path / "frames", Progress())


def turn(video: Path, degrees: int) -> None:
    """Write into an MP4 track's header that it is to be turned counter-clockwise (ISO 14496-12: tkhd's matrix)."""
    data = bytearray(video.read_bytes())
    start = (
        data.index(b"tkhd") + 4 + 40
    )  # version 0: 40 bytes of flags, times, id, duration, layer and volume
    cosine, sine = {90: (0, -1), -90: (0, 1), 180: (-1, 0)}[degrees]
    matrix = [cosine << 16, sine << 16, 0, -sine << 16, cosine << 16, 0, 0, 0, 1 << 30]
    data[start : start + 36] = struct.pack(">9i", *matrix)
    video.write_bytes(data)


@pytest.mark.parametrize(("degrees", "corner"), [(90, (0, -1)), (-90, (-1, 0)), (180, (-1, -1))])
def test_frames_are_held_as_the_phone_was(tmp_path: Path, degrees: int, corner: tuple[int, int]) -> None:
    """A white top left corner lies at the bottom left after a quarter turn counter-clockwise, and so on."""
    picture = Image.new("RGB", (128, 96), "black")
    picture.paste("white", (0, 0, 32, 32))
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=12)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())
    turn(tmp_path / "a.mp4", degrees)
    frames = frames_of(tmp_path / "a.mp4", 2, tmp_path / "frames", Progress())
    with Image.open(frames.paths[0]) as frame:
        assert frame.size == ((96, 128) if abs(degrees) == 90 else (128, 96))
        grey = np.asarray(frame.convert("L"))
    corners = {
        (x, y): int(grey[y * 8 + (y == 0) * 8, x * 8 + (x == 0) * 8]) for x in (0, -1) for y in (0, -1)
    }
    assert max(corners, key=lambda place: corners[place]) == corner and corners[corner] > 200


def test_sound_without_pictures_is_one_line(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(TurntableError, match="no video stream"):
        frames_of(tmp_path / "a.mkv", 5, tmp_path / "frames", Progress())
