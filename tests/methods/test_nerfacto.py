"""nerfacto: what draws its rays, on NumPy alone; all of it, in its own environment, where a torch for CPUs is to be had."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from conftest import make_capture
from turntable.bench import Bench
from turntable.conformance import check
from turntable.environments import build, environments_of
from turntable.errors import TurntableError
from turntable.methods.nerfacto.pixels import Pixels

LIGHT = {"rays_per_batch": "32", "sampling": "0.05"}
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
    try:
        build(bench, bench.method("nerfacto"), lambda text: None)
    except TurntableError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"nerfacto's environment can't be built here: {error}")
    yield bench
    for environment in environments_of(bench).all():
        environments_of(bench).remove(environment.hash)


def test_nerfacto_keeps_the_contract(bench: Bench, tmp_path: Path) -> None:
    method = bench.method("nerfacto")
    capture = make_capture(bench.captures_folder / "small", views=4)
    said: list[str] = []
    found = check(bench, method, capture, "cpu", True, said.append, method.configure(LIGHT))
    assert [one.what for one in found if one.good is False] == [], "\n".join(said)


def test_a_trained_camera_is_nerfstudios_default_and_can_be_asked_for(bench: Bench) -> None:
    settings: dict[str, Any] = bench.method("nerfacto").configure({"camera_optimizer": "SO3xR3"})
    assert settings["camera_optimizer"] == "SO3xR3"
    with pytest.raises(TurntableError, match="off"):
        bench.method("nerfacto").configure({"camera_optimizer": "SE3"})
