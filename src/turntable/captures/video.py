"""Frames of a video, chosen by sharpness and spacing: the sharpest of each of N equal stretches of time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import TurntableError
from .sharpness import sharpness_of
from .source import Progress

SUFFIXES = {".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v"}

LOOK_WIDTH = 320
"""Pixels: the width at which frames are compared for sharpness."""

REPORT_EVERY = 50
"""Frames between two reports of progress while the whole video is looked at."""


@dataclass(frozen=True)
class Frames:
    """What was taken from a video.

    Args:
        video: the file that they are from.
        paths: the chosen frames, upright, in their order.
        note: what the user should know of the video, or "".
    """

    video: Path
    paths: list[Path]
    note: str


def frames_of(video: Path, count: int, folder: Path, progress: Progress) -> Frames:
    """Write the chosen frames to ``folder`` as ``frame_<number>.png``, upright.

    A video that breaks off gives the frames up to there, and a note.

    Args:
        video: whatever FFmpeg reads.
        count: how many frames are wanted; fewer where the video hasn't as many.
        folder: made here.
        progress: told how far it is.

    Raises:
        TurntableError: no video, no picture in it, or fewer frames than two.
    """
    from av.error import FFmpegError

    folder.mkdir(parents=True)
    sharpness: list[float] = []
    try:
        expected = _frames_promised(video)
        for number, frame in _decoded(video):
            sharpness.append(_sharpness(frame))
            if number % REPORT_EVERY == 0:
                progress("looking at frames", number, expected)
    except FFmpegError as error:
        raise TurntableError(f"A video must be one that FFmpeg reads; {video} is not ({error}).") from None
    if len(sharpness) < 2:
        raise TurntableError(
            f"A video needs at least 2 frames that can be decoded; {video} has {len(sharpness)}."
        )
    chosen = choose(sharpness, count)
    written: list[Path] = []
    for number, frame in _decoded(video):
        if number == chosen[len(written)]:
            path = folder / f"frame_{number:06d}.png"
            _upright(frame).save(path, compress_level=1)
            written.append(path)
            progress("frames", len(written), len(chosen))
            if len(written) == len(chosen):
                break
    note = ""
    if len(sharpness) < expected:
        note = f"The video {video.name} breaks off: {len(sharpness)} of its {expected} frames could be read."
    return Frames(video, written, note)


def choose(sharpness: Sequence[float], count: int) -> list[int]:
    """The number of the sharpest frame in each of ``count`` equal stretches; every frame, if there are no more."""
    edges = np.linspace(0, len(sharpness), min(count, len(sharpness)) + 1).round().astype(int)
    values = np.asarray(sharpness)
    return [int(start + np.argmax(values[start:end])) for start, end in itertools.pairwise(edges)]


def _frames_promised(video: Path) -> int:
    """How many frames the video's header says there are; 0 where it doesn't say.

    Raises:
        TurntableError: it has no pictures.
    """
    import av

    with av.open(str(video)) as container:
        if not container.streams.video:
            raise TurntableError(f"A video needs pictures; {video} has no video stream.")
        return container.streams.video[0].frames


def _decoded(video: Path) -> Iterator[tuple[int, Any]]:
    """Every frame with its number; ends where the file breaks off."""
    import av
    from av.error import FFmpegError

    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        frames = container.decode(stream)
        for number in itertools.count():
            try:
                frame = next(frames)
            except StopIteration:
                return
            except FFmpegError:
                if number == 0:
                    raise
                return
            yield number, frame


def _sharpness(frame: Any) -> float:
    height = max(1, round(frame.height * LOOK_WIDTH / frame.width))
    return sharpness_of(frame.reformat(width=LOOK_WIDTH, height=height, format="gray").to_ndarray())


def _upright(frame: Any) -> Image.Image:
    """The frame as the video's rotation says to hold it: phones write that beside the pixels."""
    picture = frame.to_image()
    turns = round(frame.rotation / 90) % 4  # counter-clockwise, as Pillow turns
    return picture.rotate(90 * turns, expand=True) if turns else picture
