"""Frames from videos: the sharpest of each stretch, and videos that are none or break off."""

from __future__ import annotations

import itertools
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
