"""``method check``: whether a method keeps the contract, tried on a small capture; a table of what was found.

Every check is a worker process of its own, walled in as a run's is. What one finds wrong doesn't stop the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from .bench import Bench
from .captures.capture import Capture
from .environments import Place, place_of
from .errors import TurntableError
from .methods.spec import Method, Value
from .run import Asked, Budget
from .tasks.views import ViewsTask
from .turns.checkpoint import Checkpoint
from .turns.identity import started
from .turns.process import GRACE_S, Quarters, WorkerFailed, WorkerProcess
from .turns.python_run import start_method
from .worker.png import read_png

STEPS = 6
PATIENCE_S = 120.0
ODD_SIZES = ((37, 23), (1, 1), (64, 3))


@dataclass(frozen=True)
class Check:
    """One thing that was tried.

    Args:
        what: the rule.
        good: whether the method keeps it; None where that can't be told.
        text: what was seen.
    """

    what: str
    good: bool | None
    text: str


def check(
    bench: Bench,
    method: Method,
    capture: Capture,
    device: str,
    walls: bool,
    say: Callable[[str], None],
    settings: Mapping[str, Value] | None = None,
) -> list[Check]:
    """Try a method on a capture.

    Args:
        bench: where its environment is.
        method: which; a program's runs are checked by comparing them, not here.
        capture: small, or this takes long.
        device: where it trains.
        walls: whether it is walled in, where that can be done.
        say: told what is being done, a line each.
        settings: all of the method's; else their defaults.

    Raises:
        TurntableError: it is a program, or its environment can't be built.
    """
    if method.is_program:
        raise TurntableError(
            f"Only Python methods are checked; {method.name} is a program: turntable compare on a small capture tries it."
        )
    place = place_of(bench, method, walls, say)
    with TemporaryDirectory(prefix="turntable-check-") as scratch:
        chosen = dict(method.configure({}) if settings is None else settings)
        trial = _Trial(method, capture, place, device, chosen, Path(scratch).resolve())
        found = []
        for what, look in (
            ("starts, trains and renders every held-out view", trial.works),
            ("the same seed gives the same bits", trial.same_seed),
            ("saved and loaded, it ends with the bits of an unbroken run", trial.resumes),
            ("renders any size", trial.odd_sizes),
            ("works with one training view", trial.one_view),
            ("reports no loss that is NaN or infinite", trial.finite),
            ("ends when it is told to, with all that it started", trial.cancels),
        ):
            say(f"{method.name}: {what} …")
            try:
                found.append(Check(what, *look()))
            except WorkerFailed as failure:
                found.append(Check(what, False, str(failure)))
        if place.no_walls is not None:
            found.append(Check("stays inside of its walls", None, place.no_walls))
        log = trial.log.read_text(errors="replace") if trial.log.exists() else ""
        if any(one.good is False for one in found) and log:
            say("The end of what it printed:\n" + "\n".join(log.splitlines()[-20:]))
        return found


class _Trial:
    """A method that is being tried."""

    def __init__(
        self,
        method: Method,
        capture: Capture,
        place: Place,
        device: str,
        settings: dict[str, Value],
        scratch: Path,
    ) -> None:
        self.method = method
        self.task = ViewsTask(capture, {})
        self.place = place
        self.device = device
        self.scratch = scratch
        self.log = scratch / "log.txt"
        self.counted = 0
        self.asked = Asked(
            id="", capture=capture.name, capture_hash=capture.hash, task="views", method=method.name,
            method_folder=str(method.folder), method_fingerprint="", settings=settings, seed=0,
            budget=Budget(steps=STEPS), device=device, created=time.time(), command="", versions={},
        )  # fmt: skip

    def _start(
        self, seed: int = 0, saved: Checkpoint | None = None, views: int | None = None, steps: int = STEPS
    ) -> _Worker:
        self.counted += 1
        folder = self.scratch / f"worker-{self.counted}"
        folder.mkdir()
        inputs = self.task.inputs()
        if views is not None:
            inputs["views"] = inputs["views"][:views]
        read = (self.task.folder, *((saved.folder,) if saved else ()))
        quarters = Quarters(folder, self.place, read, (folder,), self.task.held_out_files(), self.device)
        asked = replace(self.asked, seed=seed, budget=Budget(steps=steps))
        return _Worker(self, quarters, asked, saved, inputs)

    def works(self) -> tuple[bool, str]:
        with self._start() as worker:
            state = worker.train(STEPS)
            count = len(worker.render(self._cameras()))
        seconds = state["device_seconds"] / max(state["steps"], 1)
        return (
            True,
            f"{state['steps']} steps of {seconds:.3f} s, {count} views, {state['memory_bytes'] / 1e6:.0f} MB",
        )

    def same_seed(self) -> tuple[bool | None, str]:
        pictures = [self._trained(seed) for seed in (0, 0, 1)]
        if not _equal(pictures[0], pictures[1]):
            return False, f"two runs of seed 0 differ by up to {_apart(pictures[0], pictures[1])} of 255"
        if _equal(pictures[0], pictures[2]):
            return True, "equal; seed 1 gives the same too: the method has no randomness"
        return True, f"equal; seed 1 differs by up to {_apart(pictures[0], pictures[2])} of 255"

    def _trained(self, seed: int) -> list[np.ndarray]:
        with self._start(seed) as worker:
            worker.train(STEPS)
            return worker.render(self._cameras())

    def resumes(self) -> tuple[bool, str]:
        whole = self._trained(0)
        folder = self.scratch / f"saved-{self.counted}"
        with self._start() as worker:
            worker.train(STEPS // 2)
            state = worker.save(folder)
        with self._start(saved=Checkpoint(folder, state)) as worker:
            worker.train(STEPS)
            again = worker.render(self._cameras())
        if _equal(whole, again):
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            return True, f"equal; a checkpoint has {size / 1e6:.1f} MB"
        return False, f"it differs by up to {_apart(whole, again)} of 255: something that changes isn't saved"

    def odd_sizes(self) -> tuple[bool, str]:
        camera = self.task.capture.held_out[0].camera.to_json()
        cameras = []
        for width, height in ODD_SIZES:
            across, down = width / camera["width"], height / camera["height"]
            sizes = {"width": width, "height": height, "fx": camera["fx"] * across, "fy": camera["fy"] * down}
            cameras.append({**camera, **sizes, "cx": camera["cx"] * across, "cy": camera["cy"] * down})
        with self._start() as worker:
            worker.train(1)
            pictures = worker.render(cameras)
        sizes = [picture.shape[1::-1] for picture in pictures]
        return sizes == list(ODD_SIZES), ", ".join(f"{width}×{height}" for width, height in sizes)

    def one_view(self) -> tuple[bool, str]:
        with self._start(views=1) as worker:
            worker.train(2)
            worker.render(self._cameras()[:1])
        return True, "trained and rendered"

    def finite(self) -> tuple[bool, str]:
        with self._start(steps=4 * STEPS) as worker:
            state = worker.train(4 * STEPS)  # the worker fails at a loss that isn't finite
        return True, f"{state['steps']} steps"

    def cancels(self) -> tuple[bool, str]:
        worker = self._start()
        worker.begin_training(10**9)
        time.sleep(0.3)
        pids = worker.process.pids()
        began = time.monotonic()
        worker.process.end()
        took = time.monotonic() - began
        left = [pid for pid in pids if started(pid) is not None]
        if left:
            return False, f"{len(left)} processes were left"
        return took < GRACE_S, f"gone after {took:.1f} s"

    def _cameras(self) -> list[dict[str, Any]]:
        return [view.camera.to_json() for view in self.task.capture.held_out]


class _Worker:
    """A worker with the method in it."""

    def __init__(
        self,
        trial: _Trial,
        quarters: Quarters,
        asked: Asked,
        saved: Checkpoint | None,
        inputs: dict[str, Any],
    ) -> None:
        self.folder = quarters.folder
        with trial.log.open("ab") as log:
            self.process = WorkerProcess(quarters, log, (), PATIENCE_S)
        try:
            self.process.greet()
            start_method(self.process, asked, trial.method, trial.device, saved, inputs)
        except BaseException:
            self.process.end()
            raise

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        if kind is None:
            self.process.stop()
        else:
            self.process.end()

    def begin_training(self, steps: int) -> None:
        self.process.send("train", until={"steps": steps, "device_seconds": None})

    def train(self, steps: int) -> dict[str, Any]:
        """Train until so many steps have been done; the worker's state."""
        self.begin_training(steps)
        while (message := self.process.receive())["type"] == "progress":
            pass
        return message["state"]

    def render(self, cameras: list[dict[str, Any]]) -> list[np.ndarray]:
        """What each camera sees, ``uint8[H, W, 3]``."""
        files = [self.folder / f"{number}.png" for number in range(len(cameras))]
        views = [
            {"name": file.stem, "camera": camera, "image": str(file), "depth": None}
            for file, camera in zip(files, cameras, strict=True)
        ]
        self.process.send("render", views=views)
        while self.process.receive()["type"] == "rendering":
            pass
        return [np.asarray(read_png(file)) for file in files]

    def save(self, folder: Path) -> dict[str, Any]:
        """Save into a folder outside of the worker's own; the state."""
        (inside := self.folder / "saved").mkdir()
        self.process.send("save", folder=str(inside))
        state = self.process.await_("saved")["state"]
        self.process.end()  # what it saved is looked at when nothing can change it any more
        if any(path.is_symlink() for path in (inside, *inside.rglob("*"))):
            raise WorkerFailed("what is saved holds a link; a checkpoint holds plain files and folders only")
        inside.rename(folder)
        return state


def _equal(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


def _apart(first: list[np.ndarray], second: list[np.ndarray]) -> int:
    pairs = zip(first, second, strict=True)
    return max(int(np.abs(one.astype(int) - other.astype(int)).max()) for one, other in pairs)
