"""Frames of a video, chosen by sharpness and spacing: the sharpest of each of N equal stretches of time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from ..errors import TurntableError
from .source import Progress

SUFFIXES = {".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v"}

LOOK_WIDTH = 320
"""Pixels: the width at which frames are compared for sharpness."""


def frames_of(video: Path, count: int, folder: Path, progress: Progress) -> list[Path]:
    """Write the chosen frames to ``folder`` as ``frame_<number>.png``, upright; their paths in order.

    A video that breaks off gives the frames up to there.

    Raises:
        TurntableError: no video, no picture in it, or fewer frames than two.
    """
    import av
    from av.error import FFmpegError

    folder.mkdir(parents=True)
    try:
        sharpness = _look(av, video, progress)
    except FFmpegError as error:
        raise TurntableError(f"A video must be one that FFmpeg reads; {video} is not ({error}).") from None
    if len(sharpness) < 2:
        raise TurntableError(
            f"A video needs at least 2 frames that can be decoded; {video} has {len(sharpness)}."
        )
    chosen = choose(sharpness, count)
    written = []
    wanted = set(chosen)
    for number, frame in _decoded(av, video):
        if number in wanted:
            path = folder / f"frame_{number:06d}.png"
            _upright(frame).save(path, compress_level=1)
            written.append(path)
            progress("frames", len(written), len(chosen))
        if number >= chosen[-1]:
            break
    return written


def choose(sharpness: list[float], count: int) -> list[int]:
    """The number of the sharpest frame in each of ``count`` equal stretches (or every frame, if there are no more)."""
    edges = np.linspace(0, len(sharpness), min(count, len(sharpness)) + 1).round().astype(int)
    values = np.asarray(sharpness)
    return [
        int(start + np.argmax(values[start:end])) for start, end in zip(edges[:-1], edges[1:], strict=True)
    ]


def _look(av: Any, video: Path, progress: Progress) -> list[float]:
    sharpness = []
    for number, frame in _decoded(av, video):
        height = max(1, round(frame.height * LOOK_WIDTH / frame.width))
        grey = Image.fromarray(frame.reformat(width=LOOK_WIDTH, height=height, format="gray").to_ndarray())
        laplacian = grey.filter(ImageFilter.Kernel((3, 3), (0, 1, 0, 1, -4, 1, 0, 1, 0), scale=1, offset=128))
        sharpness.append(float(np.var(np.asarray(laplacian, np.float64))))
        if number % 50 == 0:
            progress("looking at frames", number, 0)
    return sharpness


def _decoded(av: Any, video: Path) -> Any:
    """Every frame with its number; ends where the file breaks off."""
    from av.error import FFmpegError

    with av.open(str(video)) as container:
        if not container.streams.video:
            raise TurntableError(f"A video needs pictures; {video} has no video stream.")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        number = 0
        frames = container.decode(stream)
        while True:
            try:
                frame = next(frames)
            except StopIteration:
                return
            except FFmpegError:
                if number == 0:
                    raise
                return
            yield number, frame
            number += 1


def _upright(frame: Any) -> Image.Image:
    picture = frame.to_image()
    turns = round((getattr(frame, "rotation", 0) or 0) / 90) % 4
    return picture.rotate(90 * turns, expand=True) if turns else picture
