"""What the tests share: where the real captures lie, and a small capture made by hand."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from turntable.bench import Bench
from turntable.captures.capture import FORMAT, Capture, content_hash
from turntable.environments import build, environments_of, lock
from turntable.errors import TurntableError
from turntable.worker.contract import Camera
from turntable.worker.png import write_png

# A shell without job control starts what it puts into the background with SIGINT ignored, nohup with SIGHUP, and that is
# inherited: the tests of Ctrl-C and of closed terminals would wait for nothing.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Devices are shared by the whole machine: tests that run side by side would wait for each other, and for its users.
os.environ["TURNTABLE_LOCKS"] = tempfile.mkdtemp(prefix="turntable-locks-")

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
"""Real captures that lie beside a developer's checkout and CI's; see each test's skip."""


@contextlib.contextmanager
def environments_built(bench: Bench, *names: str) -> Iterator[None]:
    """The environments of these methods, locked first where they have no lock; they are removed afterwards.

    Where no index of packages is reached, or no such Python to be had, tests are skipped; not in CI, which promises both.
    """
    try:
        for name in names:
            method = bench.method(name)
            if not (method.folder / "uv.lock").is_file():
                lock(bench, method, lambda text: None)
            build(bench, method, lambda text: None)
    except TurntableError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"an environment can't be built here: {error}")
    yield
    for environment in environments_of(bench).all():
        environments_of(bench).remove(environment.hash)


@pytest.fixture
def data() -> Path:
    """The folder of real captures; skips where it is absent (CI has it)."""
    if not DATA.is_dir():
        pytest.skip("the real captures of ../shared/data are not here")
    return DATA


def look_at(eye: np.ndarray, target: np.ndarray, width: int, height: int, focal: float) -> Camera:
    """A camera at ``eye`` that looks at ``target``, upright where the world's z points up."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    return Camera(width, height, focal, focal, width / 2, height / 2, rotation, -rotation @ eye)


def make_capture(
    folder: Path, views: int = 10, size: tuple[int, int] = (24, 16), masked: bool = False
) -> Capture:
    """A capture of ``views`` photos of a coloured gradient, every fifth held out."""
    width, height = size
    generator = np.random.default_rng(0)
    entries = []
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for index in range(views):
        angle = 2 * np.pi * index / views
        camera = look_at(
            np.array([3 * np.cos(angle), 3 * np.sin(angle), 1.0]), np.zeros(3), width, height, 20.0
        )
        name = f"{index:04d}.jpg"
        ramp = np.linspace(0, 255, width)[None, :, None] * np.ones((height, 1, 3))
        photo = (ramp * [1, 0.5, index / views] + generator.uniform(0, 5, ramp.shape)).clip(0, 255)
        write_png(folder / "images" / f"{name}.png", photo.astype(np.uint8))
        if masked:
            mask = np.zeros((height, width), np.uint8)
            mask[4:12, 4:20] = 255
            write_png(folder / "masks" / f"{name}.png", mask)
        entries.append(
            {
                "name": name,
                "camera": camera.to_json(),
                "image": f"images/{name}.png",
                "mask": f"masks/{name}.png" if masked else None,
                "held_out": index % 5 == 0,
                "origin": {"path": name, "sha256": "0" * 64, "width": width, "height": height},
            }
        )
    document = {
        "format": FORMAT,
        "name": folder.name,
        "source_hash": "by hand",
        "source": {"format": "test", "path": "nowhere", "files": {}},
        "settings": {},
        "background": [1.0, 1.0, 1.0],
        "has_alpha": False,
        "views": entries,
        "left_out": [],
        "points": None,
        "poses": {},
        "notes": [],
        "truth": {},
        "versions": {},
    }
    document["hash"] = content_hash(document, folder)
    (folder / "capture.json").write_text(json.dumps(document))
    return Capture.load(folder)


METHOD_TOML = """
name = "{name}"
task = "views"
title = "A method of the tests"
[environment]
kind = "host"
[run]
kind = "python"
entry = "method:Method"
[settings.amount]
default = 1.0
help = "how much"
min = 0.0
[settings.mode]
default = "plain"
help = "how"
"""

METHOD_CODE = '''
import json, os, signal, sys, time
from pathlib import Path
import numpy as np


class Method:
    """Learns the mean colour slowly and noisily; misbehaves on request."""

    def __init__(self, views, settings, seed, device):
        self.mode, self.amount = settings["mode"], settings["amount"]
        self.mean = np.mean([view.image.mean((0, 1)) for view in views], axis=0)
        self.colour, self.steps = np.zeros(3), 0
        self.generator = np.random.default_rng(seed)
        print("hello from the method", flush=True)
        if self.mode == "child":
            child = os.fork()  # it inherits whatever the worker holds
            if child == 0:
                time.sleep(600)
                os._exit(0)
        if self.mode == "costly":
            time.sleep(0.3)
        if self.mode == "broken":
            raise ValueError("cannot start\\nsecond line")

    def step(self):
        self.steps += 1
        if self.steps == 5:
            if self.mode == "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            if self.mode == "exit":
                os._exit(7)
            if self.mode == "hang":
                time.sleep(1000)
            if self.mode == "nan":
                return {"loss": float("nan")}
            if self.mode == "memory":
                raise MemoryError("too big")
            if self.mode == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
        if self.mode in ("slow", "child", "costly"):
            time.sleep(0.01)
        if self.mode == "text":
            return {"loss": "high"}
        if self.mode == "readonly":
            raise OSError(30, "Read-only file system", "/somewhere/else")
        if self.mode == "surrogate":
            raise ValueError("caf\\udce9")
        self.colour += 0.1 * (self.mean - self.colour) + self.generator.normal(0, 0.01, 3)
        return {"loss": float(np.abs(self.mean - self.colour).mean()), "gaussians": 1}

    def render(self, camera):
        if self.mode == "costly":
            time.sleep(0.2)
        if self.mode == "shape":
            return {"image": np.zeros((3, 3, 3))}
        return {"image": np.ones((camera.height, camera.width, 3)) * self.colour}

    def save(self, folder):
        np.save(folder / "colour.npy", self.colour)
        if self.mode == "slow save":
            time.sleep(1.0)
        state = {"steps": self.steps, "random": self.generator.bit_generator.state}
        (folder / "state.json").write_text(json.dumps(state))

    def load(self, folder):
        self.colour = np.load(folder / "colour.npy")
        state = json.loads((folder / "state.json").read_text())
        self.steps, self.generator.bit_generator.state = state["steps"], state["random"]

    def export(self, folder):
        (folder / "colour.ply").write_text("ply of colour %r" % (self.colour.tolist(),))
'''


def make_method(folder: Path) -> Path:
    """A method in ``folder`` that learns one colour, and misbehaves as its setting ``mode`` says."""
    folder.mkdir(parents=True)
    (folder / "method.toml").write_text(METHOD_TOML.format(name=folder.name))
    (folder / "method.py").write_text(METHOD_CODE)
    return folder


PROGRAM_TOML = '''
name = "{name}"
task = "views"
title = "A program that knows nothing of Turntable"
[environment]
kind = "host"
[run]
kind = "command"
train = """{{python}} train.py --data {{capture}} --out {{out}} \\
    --iterations {{steps}} --seed {{seed}} --mode {{settings.mode}}"""
render = "{{python}} render.py --model {{out}} --cameras {{cameras}}"
views = "{{out}}/test/{{stem}}.png"
[settings.mode]
default = "plain"
help = "how it behaves"
'''

PROGRAM_CODE = """
import argparse, json, os, pathlib, signal, subprocess, sys, time
import numpy as np

parser = argparse.ArgumentParser()
for name in ("data", "out", "iterations", "seed", "mode"):
    parser.add_argument("--" + name)
options = parser.parse_args()
if options.mode == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if options.mode == "fork":
    # A grandchild in a session of its own, with its descriptors closed.
    code = "import os, time; os.closerange(0, 100); time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
if options.mode == "noisy":
    for _ in range(64):
        print("x" * (1 << 20))
if options.mode == "fails":
    sys.exit("no such thing as data")
frames = json.loads((pathlib.Path(options.data) / "transforms_train.json").read_text())["frames"]
generator = np.random.default_rng(int(options.seed))
weights = generator.normal(size=(1000, 1000))
if options.mode == "big":
    ballast = generator.integers(0, 255, 200_000_000, np.uint8)
for iteration in range(int(options.iterations)):
    weights = np.tanh(weights @ weights.T / 1000 + generator.normal(size=(1000, 1000)))
print("trained on", len(frames), "frames")
np.save(pathlib.Path(options.out) / "weights.npy", weights)
"""

PROGRAM_RENDER = """
import argparse, json, pathlib
import numpy as np
from PIL import Image

parser = argparse.ArgumentParser()
parser.add_argument("--model")
parser.add_argument("--cameras")
options = parser.parse_args()
weights = np.load(pathlib.Path(options.model) / "weights.npy")
folder = pathlib.Path(options.model) / "test"
folder.mkdir(exist_ok=True)
for frame in json.loads(pathlib.Path(options.cameras).read_text())["frames"]:
    image = np.uint8(np.clip(weights[: frame["h"], : 3 * frame["w"]] * 127 + 128, 0, 255)).reshape(frame["h"], -1, 3)
    Image.fromarray(image).save(folder / (pathlib.Path(frame["file_path"]).stem.split(".")[0] + ".png"))
"""


def make_program(folder: Path) -> Path:
    """A method in ``folder`` that is two command-line programs: a NumPy training loop, and one that renders."""
    folder.mkdir(parents=True)
    (folder / "method.toml").write_text(PROGRAM_TOML.format(name=folder.name))
    (folder / "train.py").write_text(PROGRAM_CODE)
    (folder / "render.py").write_text(PROGRAM_RENDER)
    return folder


@pytest.fixture
def turntable_command() -> list[str]:
    """How the tests start the command line, as a process of its own."""
    return [sys.executable, "-m", "turntable"]
