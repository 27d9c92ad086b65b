"""nerfacto: what draws its rays, on NumPy alone; all of it, in its own environment, where a torch for CPUs is to be had."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from conftest import environments_built, make_capture
from turntable.bench import Bench
from turntable.environments import place_of
from turntable.jobs import RunRequest, plan, work
from turntable.methods.nerfacto.pixels import Pixels
from turntable.record import State
from turntable.run import Budget
from turntable.turns.watcher import Watcher
from turntable.worker import contract

pytestmark = pytest.mark.xdist_group("nerfacto")  # its environment is built once

LIGHT = {"rays_per_batch": "32", "sampling": "0.05", "log2_hashmap_size": "12"}
"""Settings with which a step on a CPU takes a fraction of a second."""


class Photo(NamedTuple):
    """As much of a view as rays are drawn from."""

    image_u8: np.ndarray
    mask: np.ndarray | None = None


def photo(value: int, height: int, width: int) -> np.ndarray:
    """A photo whose red says which one it is, green the row, blue the column."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([np.full_like(rows, value), rows, columns], 2).astype(np.uint8)


def test_rays_are_drawn_from_photos_of_any_size_with_their_own_colours() -> None:
    pixels = Pixels([Photo(photo(0, 5, 7)), Photo(photo(1, 30, 2)), Photo(photo(2, 1, 1))])
    photos, rows, columns, colours = pixels.sample(np.random.default_rng(0), 4000)
    told = np.round(colours * 255).astype(int)
    assert np.array_equal(told, np.stack([photos, rows, columns], 1))
    share = np.bincount(photos, minlength=3) / 4000
    assert np.allclose(share, np.array([35, 60, 1]) / 96, atol=0.03), "each pixel is as likely as any other"


def test_rays_are_drawn_from_pixels_that_count() -> None:
    mask = np.zeros((4, 4), np.float32)
    mask[1, 2] = 1
    pixels = Pixels([Photo(photo(0, 4, 4), mask), Photo(photo(1, 2, 2))])
    photos, rows, columns, _ = pixels.sample(np.random.default_rng(0), 500)
    seen = set(zip(photos.tolist(), rows.tolist(), columns.tolist(), strict=True))
    assert seen == {(0, 1, 2), (1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1)}


def test_masks_that_leave_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="every mask is empty"):
        Pixels([Photo(photo(0, 2, 2), np.zeros((2, 2), np.float32))])


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A bench in which nerfacto lives, with this machine's torch for CPUs in place of the lock's."""
    try:
        torch = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        torch = "none"
    if sys.version_info[:2] != (3, 11) or not torch.endswith("+cpu"):
        pytest.skip(f"needs a torch for CPUs on Python 3.11, as the one that pip finds; here: torch {torch}")
    bench = Bench(tmp_path_factory.mktemp("nerfacto") / "bench")
    bench.make()
    (bench.folder / "bench.toml").write_text(
        f'[environments]\nreplace = ["torch=={torch.partition("+")[0]}"]\n'
        'without = ["nvidia-*", "triton", "torchvision", "torch-fidelity", "open3d", "pymeshlab", "wandb", "comet-ml", '
        '"jupyter*"]\n'
    )
    with environments_built(bench, "nerfacto"):
        yield bench


def test_nerfacto_is_run_and_scored(bench: Bench) -> None:
    capture = make_capture(bench.captures_folder / "small", views=5)
    settings = tuple(f"{name}={value}" for name, value in LIGHT.items())
    wanted = RunRequest(("nerfacto",), Budget(steps=2), settings=settings)
    (folder,) = plan(bench, capture, wanted)
    (row,) = work(bench, [folder], wanted.handling, Watcher())
    assert row.state is State.DONE, row.cause
    assert {score.metric for score in bench.record.scores(folder.id)} >= {"psnr", "ssim"}


DRIVER = """
import json, sys, types
from pathlib import Path
sys.path.append(sys.argv[1])
import numpy as np, torch
from worker.contract import Camera
from worker.loading import load_class

made = load_class(Path(sys.argv[2]), "nerfacto:Nerfacto")


class Photo:
    def __init__(self, number, camera):
        self.camera, self.mask, self.name = camera, None, str(number)
        self.image_u8 = np.random.default_rng(number).integers(0, 256, (camera.height, camera.width, 3), np.uint8)


def camera(angle, width=9, height=7):
    turn, tilt = np.radians(angle), 0.3
    z = np.array([-np.cos(turn) * np.cos(tilt), -np.sin(turn) * np.cos(tilt), -np.sin(tilt)])
    x = np.cross(z, [0, 0, 1]); x /= np.linalg.norm(x)
    R = np.stack([x, np.cross(z, x), z])
    return Camera(width, height, 11.0, 12.0, 4.2, 3.1, R, R @ (z * 3 - np.array([5e5, 20, 3])))


class Photos(list):
    background, has_alpha = np.ones(3, np.float32), False


photos = Photos(Photo(number, camera(40 * number)) for number in range(4))
settings = json.loads(sys.argv[3])


def begin():
    return made(photos, settings, 0, "cpu")
"""

RAYS = """
one, seen = begin(), camera(100, 5, 3)
bundle = one._to_nerfstudio([seen]).generate_rays(0, keep_shape=True)
rows, columns = np.mgrid[:3, :5]
there = np.stack([(columns + 0.5 - seen.cx) / seen.fx, (rows + 0.5 - seen.cy) / seen.fy, np.ones((3, 5))], -1) * 2.5
world = (there - seen.t) @ seen.R  # points of depth 2.5 at pixel centres
theirs = one._scale * world @ one._orient.T + one._shift
along = theirs - bundle.origins.numpy()
length = np.linalg.norm(along, axis=-1)
assert np.abs(along / length[..., None] - bundle.directions.numpy()).max() < 1e-4
z = length / one._scale / bundle.metadata["directions_norm"][..., 0].numpy()
assert np.abs(z - 2.5).max() < 1e-3, z
assert np.abs(one._cameras.camera_to_worlds[..., 3]).max() <= 1.0001
"""

BITS = """
import tempfile

folder = Path(tempfile.mkdtemp())


def saved():
    it = begin()
    it._scaler = torch.amp.GradScaler("cpu", enabled=True)  # as on a card
    if (folder / "state.json").exists():
        it.load(folder)
    return it


def losses(it):
    return [it.step()["loss"] for _ in range(6)]


one = saved()
for _ in range(13):
    one.step()
one.save(folder)
picture = one.render(camera(17))
for size in ((1, 1), (64, 3), (37, 23)):
    assert one.render(camera(50, *size)).image.shape == (size[1], size[0], 3)
expected = losses(one)
assert losses(saved()) == expected, "it matters whether there were renderings in between"
again = saved()
for a, b in zip(picture, again.render(camera(17))):
    assert np.array_equal(a, b)
assert losses(again) == expected
alone = made(Photos(photos[:1]), settings, 0, "cpu")
assert np.isfinite(alone.step()["loss"]) and np.isfinite(alone.render(camera(0)).image).all()
"""


@pytest.mark.parametrize(
    "code", [RAYS, BITS], ids=["rays are the contract's", "bits outlast saving and rendering"]
)
def test_in_its_environment(bench: Bench, tmp_path: Path, code: str) -> None:
    method = bench.method("nerfacto")
    place = place_of(bench, method, True, lambda text: None)
    turntable = Path(contract.__file__).parents[1]
    settings = json.dumps({**method.configure(LIGHT), "camera_optimizer": "SO3xR3"})
    words = [
        str(place.python),
        "-W",
        "ignore",
        "-c",
        DRIVER + code,
        str(turntable),
        str(method.folder),
        settings,
    ]
    answer = subprocess.run(
        words, capture_output=True, text=True, check=False, env={**os.environ, **place.variables()}
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
