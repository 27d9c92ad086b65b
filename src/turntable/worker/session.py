"""The worker's side of a run: it does what the supervisor asks, one message at a time.

``device_seconds`` counts the method's own steps and nothing else; ``setup_seconds`` is what making the
object (and reading the photos) took, which no budget pays for, so it is reported too.
"""

from __future__ import annotations

import math
import os
import platform
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

import numpy as np

from . import protocol
from .contract import Camera, TrainingViews, View
from .launch import die_with_parent
from .loading import load_class
from .png import write_png

PROGRESS_EVERY_S = 0.2


class MethodError(Exception):
    """The method broke its contract; the message says how."""


class Session:
    """One method, from ``init`` to ``stop``."""

    def __init__(self, channel: protocol.Channel) -> None:
        self.channel = channel
        self.method = None  # type: Any
        self.budget = {}  # type: Dict[str, Any]
        self.steps = 0
        self.device_seconds = 0.0
        self.setup_seconds = 0.0
        self.finished = False

    def state(self) -> Dict[str, Any]:
        """What a checkpoint has to remember besides the method's own things, and what progress shows."""
        return {
            "steps": self.steps,
            "device_seconds": self.device_seconds,
            "setup_seconds": self.setup_seconds,
            "finished": self.finished,
            "memory_bytes": peak_memory_bytes(),
        }

    def init(self, message: Dict[str, Any]) -> None:
        """Make the method's object, and load its checkpoint if there is one."""
        start = time.perf_counter()
        views = [
            View(
                view["name"],
                Camera.from_json(view["camera"]),
                Path(view["image"]),
                Path(view["mask"]) if view["mask"] else None,
            )
            for view in message["views"]
        ]
        points = Path(message["points"]) if message["points"] else None
        training = TrainingViews(views, points, message["background"], message["has_alpha"])
        entry = message["method"]["entry"]
        method_class = load_class(Path(message["method"]["folder"]), entry)
        self.method = method_class(training, message["settings"], message["seed"], message["device"])
        self.budget = message["budget"]
        if message["checkpoint"]:
            self.method.load(Path(message["checkpoint"]))
            state = message["state"]
            self.steps = state["steps"]
            self.device_seconds = state["device_seconds"]
            self.finished = state["finished"]
        self.setup_seconds = time.perf_counter() - start
        self.channel.send("ready", state=self.state())

    def fraction(self) -> float:
        """The share of the budget that is used, 0 to 1."""
        if self.budget.get("steps"):
            return min(1.0, self.steps / self.budget["steps"])
        return min(1.0, self.device_seconds / self.budget["device_seconds"])

    def train(self, until: Dict[str, Any]) -> None:
        """Step until ``until`` is reached, the method has finished, or the supervisor says otherwise."""
        steps = math.inf if until["steps"] is None else until["steps"]
        seconds = math.inf if until["device_seconds"] is None else until["device_seconds"]
        info = {}  # type: Dict[str, Any]
        told = time.perf_counter()
        progress = getattr(self.method, "progress", None)
        while self.steps < steps and self.device_seconds < seconds and not self.finished:
            if progress is not None:
                progress(self.fraction())
            start = time.perf_counter()
            result = self.method.step()
            now = time.perf_counter()
            self.device_seconds += now - start
            self.steps += 1
            info = checked_info(result, self.steps)
            self.finished = bool(getattr(self.method, "finished", False))
            if now - told >= PROGRESS_EVERY_S:
                told = now
                self.channel.send("progress", state=self.state(), info=info)
            if self.is_told_to_pause():
                break
        self.channel.send("reached", state=self.state(), info=info)

    def is_told_to_pause(self) -> bool:
        """Whether the supervisor wants what is being done to stop."""
        message = self.channel.receive(timeout=0)
        if message is not None and message["type"] != "pause":
            raise RuntimeError("message {!r} while training or rendering".format(message["type"]))
        return message is not None

    def render(self, views: List[Dict[str, Any]]) -> None:
        """Render each view to its files: 8-bit PNG, and z depth as ``.npy`` where the method has it.

        A pause ends it after the view at hand: whoever sent it will ask for all of them again.
        """
        seconds = 0.0
        for done, view in enumerate(views, 1):
            camera = Camera.from_json(view["camera"])
            start = time.perf_counter()
            rendering = self.method.render(camera)
            seconds += time.perf_counter() - start
            image = to_8_bit(attribute(rendering, "image"), camera, view["name"])
            write_png(Path(view["image"]), image)
            depth = attribute(rendering, "depth")
            if view["depth"] and depth is not None:
                write_depth(Path(view["depth"]), np.asarray(depth, np.float32))
            self.channel.send("rendering", done=done, total=len(views))
            if self.is_told_to_pause():
                break
        self.channel.send("rendered", seconds=seconds)

    def save(self, folder: Path) -> None:
        """Let the method save everything into ``folder``, which exists and is empty."""
        self.method.save(folder)
        self.channel.send("saved", state=self.state())

    def export(self, folder: Path) -> None:
        """Let the method write what other programs open into ``folder``: nothing, if it has no ``export``."""
        if hasattr(self.method, "export"):
            self.method.export(folder)
        files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        self.channel.send("exported", files=files)

    def run(self) -> None:
        """Answer messages until ``stop`` or until the supervisor has gone."""
        while True:
            message = self.channel.receive()
            if message is None:
                continue
            kind = message["type"]
            if kind == "stop":
                return
            if kind == "init":
                self.init(message)
            elif kind == "train":
                self.train(message["until"])
            elif kind == "render":
                self.render(message["views"])
            elif kind == "save":
                self.save(Path(message["folder"]))
            elif kind == "export":
                self.export(Path(message["folder"]))
            elif kind != "pause":  # a pause that came after training had stopped anyway is no news
                raise RuntimeError("unknown message {!r}".format(kind))


def checked_info(result: Any, step: int) -> Dict[str, Any]:
    """What ``step()`` returned, as plain numbers; what is no number is passed over, but for ``loss``.

    Raises:
        MethodError: it is no mapping, ``loss`` is no number, or a number is NaN, infinite or beyond all bounds.
    """
    if not isinstance(result, Mapping):
        raise MethodError("step() must return a mapping, not {}".format(type(result).__name__))
    info = {}
    for key, value in result.items():
        number = value.item() if hasattr(value, "item") and getattr(value, "size", 1) == 1 else value
        if not isinstance(number, (int, float)):
            if key == "loss":
                raise MethodError("loss must be a number, not {!r} (step {})".format(number, step))
            continue
        if not -1e300 < number < 1e300:
            raise MethodError("{} became {} at step {}".format(key, str(number)[:30], step))
        info[str(key)] = number
    return info


def attribute(rendering: Any, name: str) -> Optional[np.ndarray]:
    """``rendering.name``, or ``rendering[name]`` of a mapping; None where it has none."""
    return rendering.get(name) if isinstance(rendering, Mapping) else getattr(rendering, name, None)


def to_8_bit(image: Any, camera: Camera, view: str) -> np.ndarray:
    """``uint8[H, W, 3]`` of a rendered ``float[H, W, 3]``: clipped to [0, 1], rounded to the nearest of 256.

    Raises:
        MethodError: the shape is not the camera's, or a value is NaN or infinite.
    """
    array = np.asarray(image)
    expected = (camera.height, camera.width, 3)
    if array.shape != expected:
        raise MethodError("render() of {} must give shape {}, not {}".format(view, expected, array.shape))
    if array.dtype == np.uint8:
        return array
    array = array.astype(np.float32, copy=False)
    if not np.isfinite(array).all():
        raise MethodError("render() of {} gave NaN or infinite values".format(view))
    return (np.clip(array, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def write_depth(path: Path, depth: np.ndarray) -> None:
    """Write ``float32[H, W]`` as ``.npy``, aside first."""
    temporary = path.with_name(".{}.tmp".format(path.name))
    with temporary.open("wb") as file:
        np.save(file, depth, allow_pickle=False)
    temporary.replace(path)


def peak_memory_bytes() -> int:
    """The most resident memory that this process has had.

    On Linux from the kernel's high-water mark of this program: getrusage's would begin with what the supervisor
    had when it started the worker.
    """
    try:
        with Path("/proc/self/status").open("rb") as status:
            for line in status:
                if line.startswith(b"VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource  # not on every platform that can import this module

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def serve(descriptor: int) -> int:
    """Run a session over the socket ``descriptor``; the exit status of the worker."""
    die_with_parent(os.getppid())  # one that is dead already has closed the socket
    channel = protocol.Channel(socket.socket(fileno=descriptor))
    session = Session(channel)
    try:
        channel.send(
            "hello",
            protocol=protocol.VERSION,
            python=platform.python_version(),
            numpy=np.__version__,
            pid=os.getpid(),
        )
        hello = channel.receive()
        if hello is None or hello["type"] != "hello" or hello.get("protocol") != protocol.VERSION:
            raise RuntimeError("this worker speaks protocol {}, not {!r}".format(protocol.VERSION, hello))
        session.run()
        return 0
    except protocol.Closed:
        print("worker: the supervisor has gone; ending", file=sys.stderr)
        return 1
    except BaseException as error:  # noqa: BLE001  # a child's failure becomes a result, with its traceback
        text = traceback.format_exc()
        print(text, file=sys.stderr, flush=True)
        try:
            number, name = (error.errno, error.filename) if isinstance(error, OSError) else (None, None)
            file = None if name is None else str(name)
            channel.send("failed", cause=describe(error), traceback=text, errno=number, file=file)
        except protocol.Closed:
            pass
        return 1


def describe(error: BaseException) -> str:
    """One line that says what went wrong in the method."""
    if isinstance(error, MemoryError):
        return "out of memory: {}".format(error or "an allocation failed")
    if isinstance(error, MethodError):
        return str(error)
    last = str(error).strip().splitlines() or [""]
    return "{}: {}".format(type(error).__name__, last[0]).rstrip(": ")
