"""Films of what a run has made: its method, loaded from the newest checkpoint, renders along a camera path.

A film is for looking: no photo was taken along its path, so nothing of it is scored.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from PIL import Image, ImageDraw, ImageFont

from . import files
from .bench import Bench
from .captures.capture import hash_of
from .captures.paths import Film, along_views, check_film, orbit, read_path
from .errors import TurntableError, disk_error
from .exporting import Loaded, checked_target, loaded, loaded_beside, newest_checkpoint
from .record import RunRow, State
from .tasks.renderings import read_answer
from .turns.process import expect
from .turns.watcher import Watcher
from .worker.contract import Camera

FORMAT = 2
"""Counts the changes of the page's films, so that one that an older Turntable made is made again."""

ENCODERS = ("libx264", "libopenh264", "h264_videotoolbox")
"""H.264 is what browsers, chats and slides all play; the first of these that PyAV was built with makes it."""

QUALITY = "20"
"""x264's constant rate factor: no difference that an eye finds in motion."""

BATCH = 8
"""So many frames are rendered, then encoded; the next ones take the same files: a long film of large pictures needs no room
for all of them."""

LABEL_HEIGHT = 28
"""Of the strip above each run's pictures in a film of several, in pixels: the largest font that names of runs fit in."""

MOST_FPS = 120

PAGE_FILM = Film(frames=96, long_side=480)
"""The page's orbit: four seconds at 24 frames a second, half a megabyte to one."""

PAGE_FPS = 24
FEWEST_FRAMES = 24
"""Fewer would be a slide show."""

PAGE_LIMIT_S = 30.0
"""The longest that rendering a page's film may take; a method that is slower gets fewer frames, or none."""


TIMED = 2
"""So many frames say how long one takes."""

TRY_AGAIN_S = 3600.0

LARGEST_WIDTH = 16384
"""x264's, in pixels."""


@dataclass(frozen=True)
class Shot:
    """What a film is asked to be.

    Args:
        path: ``orbit``, ``views``, or a JSON file of cameras.
        film: frames and size.
        fps: frames a second.
    """

    path: str = "orbit"
    film: Film = field(default_factory=Film)
    fps: int = 30


def film_runs(
    bench: Bench, runs: Sequence[str], shot: Shot, out: Path | None, watcher: Watcher, walls: bool = True
) -> Path:
    """Render a film of some runs, side by side, along one path.

    Args:
        bench: where they are.
        runs: their ids, of one capture.
        shot: path, frames, size and speed.
        out: where to; ``<runs>.mp4`` in the working folder if None.
        watcher: told how it goes.
        walls: whether the methods are walled in, where that can be done.

    Returns:
        The file written: H.264 in MP4.

    Raises:
        TurntableError: the runs are of different captures, one can't be rendered along a path, or the request is wrong.
    """
    check_film(shot.film)
    if not 1 <= shot.fps <= MOST_FPS:
        raise TurntableError(f"--fps is from 1 to {MOST_FPS}, not {shot.fps}.")
    runs = list(dict.fromkeys(runs))
    captures = {newest_checkpoint(bench, run)[0].asked().capture_hash: bench.row(run).capture for run in runs}
    if len(captures) > 1:
        raise TurntableError(
            f"A film shows runs on one capture, along one path; these are on {', '.join(captures.values())}. "
            "Name runs of one of them."
        )
    target = checked_target(out, f"{'-'.join(runs)}.mp4")
    if target.suffix != ".mp4":
        raise TurntableError(f"--out of a film ends with .mp4, not {target.name!r}.")
    cameras = _cameras(bench, bench.row(runs[0]).capture, shot)
    width = cameras[0].width * len(runs)
    if width > LARGEST_WIDTH:
        raise TurntableError(
            f"A film is at most {LARGEST_WIDTH} pixels wide; {len(runs)} runs side by side are {width}. Add --long-side."
        )
    labels = runs if len(runs) > 1 else []
    try:
        with ExitStack() as stack:
            methods = [stack.enter_context(loaded(bench, run, watcher, walls)) for run in runs]
            streams = [
                _frames(method, run, cameras, watcher) for method, run in zip(methods, runs, strict=True)
            ]
            with files.replacing(target) as aside:
                _encode(
                    aside,
                    (_side_by_side(pictures, labels) for pictures in zip(*streams, strict=True)),
                    shot.fps,
                )
    except OSError as error:
        raise disk_error(error, str(target)) from error
    return target


def page_film(bench: Bench, row: RunRow, watcher: Watcher, walls: bool = True) -> Path | str:
    """The orbit video of a run for its capture's page, kept in the run's folder; or why there is none, in words.

    What is said goes on a page that is sent around: it names no folder of this machine.

    Raises:
        OSError: it can't be written.
    """
    if row.state is not State.DONE:
        return f"the run is {row.state.value}"
    try:
        folder, saved = newest_checkpoint(bench, row.id)
    except TurntableError:
        return "only Python methods with a checkpoint are filmed"
    cameras = orbit(bench.capture(row.capture), PAGE_FILM)
    key = hash_of([FORMAT, saved.folder.name, PAGE_FPS, [camera.to_json() for camera in cameras]])
    kept = folder.path / "film"
    if (known := _known(kept / "orbit.json", key)) is not None:
        return kept / "orbit.mp4" if known == "" else known
    kept.mkdir(exist_ok=True)
    try:
        with loaded_beside(bench, row.id, watcher, walls) as method:
            reason = _shoot(method, row.id, cameras, kept / "orbit.mp4", watcher)
    except TurntableError:
        reason = f"it couldn't be made; turntable export {row.id} --as mp4 says why"
    files.write_json(kept / "orbit.json", {"key": key, "reason": reason, "time": time.time()})
    return reason or kept / "orbit.mp4"


def _shoot(method: Loaded, run: str, cameras: Sequence[Camera], target: Path, watcher: Watcher) -> str:
    """Film the page's orbit in no more than :data:`PAGE_LIMIT_S`, with fewer frames if need be; else the reason."""
    _render(method, run, cameras[:1], watcher)  # the first one compiles, loads and warms up
    _, seconds = _render(method, run, cameras[:TIMED], watcher)
    affordable = int(PAGE_LIMIT_S / max(seconds, 1e-6))
    if affordable < FEWEST_FRAMES:
        return f"rendering takes {seconds:.1f} s a frame"
    every = -(-len(cameras) // min(affordable, len(cameras)))
    frames = ((picture,) for picture in _frames(method, run, cameras[::every], watcher))
    with files.replacing(target) as aside:
        _encode(aside, (_side_by_side(pictures, []) for pictures in frames), max(1, PAGE_FPS // every))
    return ""


def _known(path: Path, key: str) -> str | None:
    """Why there is no film, "" where there is one, None where it is to be tried: for the first time, or again after a while,
    because a busy machine renders slowly."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    if document.get("key") != key:
        return None
    if document["reason"]:
        return document["reason"] if time.time() - document["time"] < TRY_AGAIN_S else None
    return "" if path.with_suffix(".mp4").is_file() else None


def _cameras(bench: Bench, capture: str, shot: Shot) -> list[Camera]:
    chosen = bench.capture(capture)
    if shot.path == "orbit":
        return orbit(chosen, shot.film)
    if shot.path == "views":
        return along_views(chosen, shot.film)
    return read_path(Path(shot.path), chosen, shot.film)


def _frames(method: Loaded, run: str, cameras: Sequence[Camera], watcher: Watcher) -> Iterator[np.ndarray]:
    """The pictures ``uint8[H, W, 3]`` along a path; rendered some at a time."""
    rest = iter(cameras)
    done = 0
    while batch := list(islice(rest, BATCH)):
        pictures, _ = _render(method, run, batch, watcher, done, len(cameras))
        done += len(batch)
        yield from pictures


def _render(
    method: Loaded, run: str, cameras: Sequence[Camera], watcher: Watcher, done: int = 0, total: int = 0
) -> tuple[list[np.ndarray], float]:
    """Have a method render some cameras: the pictures, and how many seconds one took on average."""
    names = [f"frame-{number}.png" for number in range(len(cameras))]
    requests: list[dict[str, Any]] = [
        {"name": name, "camera": camera.to_json(), "image": str(method.scratch / name), "depth": None}
        for name, camera in zip(names, cameras, strict=True)
    ]
    method.worker.send("render", views=requests)
    while (message := method.worker.receive())["type"] == "rendering":
        watcher.run_doing(run, "filming", done + message["done"], total)
    expect(message, "rendered")
    pictures = []
    for name, camera in zip(names, cameras, strict=True):
        try:
            picture = read_answer(method.scratch, name, camera.width, camera.height)
        except (ValueError, FileNotFoundError) as error:
            raise TurntableError(f"Run {run} can't be filmed: {error}.") from None
        pictures.append(np.repeat(picture[..., None], 3, -1) if picture.ndim == 2 else picture)
    return pictures, message["seconds"] / len(cameras)


def _side_by_side(pictures: Sequence[np.ndarray], labels: Sequence[str]) -> np.ndarray:
    """Pictures of one size beside each other, each under its label where there are labels."""
    if labels:
        pictures = [
            np.concatenate([_label(label, picture.shape[1]), picture])
            for label, picture in zip(labels, pictures, strict=True)
        ]
    return np.concatenate(pictures, axis=1)


def _label(text: str, width: int) -> np.ndarray:
    strip = Image.new("RGB", (width, LABEL_HEIGHT), (24, 24, 23))
    ImageDraw.Draw(strip).text(
        (8, LABEL_HEIGHT // 2), text, fill=(235, 232, 225), font=ImageFont.load_default(15), anchor="lm"
    )
    return np.asarray(strip)


def _encode(path: Path, frames: Iterator[np.ndarray], fps: int) -> None:
    """Write frames ``uint8[H, W, 3]``, H and W even, as H.264 that every player takes.

    Raises:
        TurntableError: PyAV has no encoder for it.
    """
    encoder = next((name for name in ENCODERS if name in av.codecs_available), None)
    if encoder is None:
        raise TurntableError(
            f"A film needs an H.264 encoder ({', '.join(ENCODERS)}), which this PyAV lacks. Install PyAV's wheel: "
            "pip install av."
        )
    try:
        _encode_with(encoder, path, frames, fps)
    except FFmpegError as error:
        if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
            raise
        raise TurntableError(f"The film can't be encoded: {error}. Try another --long-side.") from error


def _encode_with(encoder: str, path: Path, frames: Iterator[np.ndarray], fps: int) -> None:
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream: Any = None
        for picture in frames:
            if stream is None:
                options = {"crf": QUALITY, "preset": "medium"} if encoder == "libx264" else {}
                stream = container.add_stream(encoder, rate=Fraction(fps), options=options)
                _describe(stream.codec_context, picture)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            # Players take the colours of unnamed video by its size; so they are named, and turned that way.
            container.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace="ITU709")))
        container.mux(stream.encode())


def _describe(context: VideoCodecContext, picture: np.ndarray) -> None:
    context.height, context.width = picture.shape[:2]
    context.pix_fmt = "yuv420p"
    context.colorspace = context.color_primaries = 1  # BT.709
    context.color_trc = 13  # sRGB
    context.color_range = 1  # 16 to 235
