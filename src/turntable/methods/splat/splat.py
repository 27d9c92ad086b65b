"""The method ``splat``: 3D Gaussian Splatting on a CPU (Kerbl et al. 2023, arXiv 2308.04079).

A scene is a set of Gaussians with opacity and a colour that depends on the viewing direction. Each step
renders one training photo's view, compares, and moves every Gaussian that was seen a little; schedules
follow the share of the budget that is used. Everything that chance or time decides is in :meth:`Splat.save`,
and no result depends on the number of threads.
"""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import export, schedule
from .densify import densify
from .kernels import DILATION, Kernels, OptimiserStruct, view_struct
from .model import BYTES_PER_GAUSSIAN, Model
from .photos import Photos, available_memory
from .start import Start, from_photos, from_points, layout_of

ENOUGH_POINTS = 500
"""Sparse points from which a scene can grow; fewer leave whole regions empty."""
MOST_AT_START = 50_000
"""Rays through photos to begin with: what a large photo has beyond is better grown where it is wanted."""
START_OPACITY = 0.1
"""As 3DGS: low enough that light reaches what lies behind."""
NOISE = 5e5
"""3DGS-MCMC's factor from the means' step size to the noise on them."""


class Rendering(NamedTuple):
    """``image`` float32[H, W, 3]; ``depth`` float32[H, W], mean z, 0 where nothing is; ``opacity``
    float32[H, W].
    """

    image: np.ndarray
    depth: np.ndarray
    opacity: np.ndarray


class Splat:
    """See the module, and ``method.toml`` for the settings.

    Args:
        views: the training views, as the contract has them.
        settings: all of ``method.toml``'s, by name.
        seed: of everything that chance decides.
        device: ``cpu``, the only one there is.
    """

    def __init__(self, views: Any, settings: dict[str, Any], seed: int, device: str) -> None:
        if not len(views):
            raise ValueError("splat needs at least one training photo; the capture has none")
        self._settings = settings
        self._generator = np.random.default_rng(seed)
        self._seed = seed
        self._kernels = Kernels(int(settings["threads"]), settings["instruction_set"])
        self._photos = Photos(views)
        # Without transparency nobody says what lies behind the scene; the border of the photos does
        self._background = (
            np.asarray(views.background, np.float32) if views.has_alpha else self._photos.border_colour()
        )
        points, colours = np.asarray(views.points, np.float64), np.asarray(views.point_colours)
        finite = np.isfinite(points).all(1)
        points, colours = points[finite], colours[finite]
        self._layout = layout_of(self._photos.cameras, points)
        self._near = 0.01 * self._layout.distance
        self._most = int(settings["max_gaussians"]) or default_cap(self._photos.mean_pixels)
        self._model = Model.from_start(self._start(points, colours), START_OPACITY)
        self._model.sort()
        self._begin = self._model.count
        self._fraction = 0.0
        self._step = 0
        self._queue: list[int] = []

    def _start(self, points: np.ndarray, colours: np.ndarray) -> Start:
        kind = self._settings["start"]
        if kind == "auto":
            kind = "points" if len(points) >= ENOUGH_POINTS else "photos"
        if kind == "points":
            if not len(points):
                raise ValueError(
                    "start=points needs sparse points, and the capture has none; use start=photos"
                )
            start = from_points(points, colours, self._layout)
        else:
            count = int(self._settings["start_gaussians"]) or min(
                int(self._photos.mean_pixels / 8), MOST_AT_START
            )
            start = from_photos(self._photos, self._layout, max(min(count, self._most), 1), self._generator)
        if len(start.means) > self._most:
            chosen = np.sort(self._generator.permutation(len(start.means))[: self._most])
            start = Start(start.means[chosen], start.colours[chosen], start.sizes[chosen])
        return start

    def progress(self, fraction: float) -> None:
        """The share of the budget that is used, 0 to 1: what all schedules follow."""
        self._fraction = float(min(max(fraction, 0.0), 1.0))

    def step(self) -> dict[str, float]:
        """One photo: render, compare, move. ``loss``, and how many ``gaussians`` there are."""
        settings, fraction, model = self._settings, self._fraction, self._model
        if not self._queue:
            self._queue = self._generator.permutation(len(self._photos)).tolist()
        index = self._queue.pop()
        level = schedule.level(fraction, self._step, settings["coarse_to_fine"])
        camera, photo = self._photos.cameras[index], self._photos.photo(index, level)
        degree = schedule.degree(fraction, int(settings["degree"]))
        view = view_struct(camera, self._near, self._background, degree, settings["antialias"], level)
        if self._queue:
            self._photos.prefetch(self._queue[-1], level)
        self._kernels.forward(model.records, model.count, view)
        loss = self._kernels.loss(photo, self._photos.mask(index, level), float(settings["ssim_weight"]))
        self._step += 1
        self._kernels.update(model.records, self._optimiser())
        growing = fraction < schedule.GROWTH_ENDS and settings["densification"] != "none"
        if growing and self._step % schedule.DENSIFY_EVERY == 0:
            target = schedule.target(fraction, self._begin, self._most)
            densify(model, settings["densification"], target, self._generator)
        if self._step % schedule.SORT_EVERY == 0:
            model.sort()
        return {"loss": loss, "gaussians": model.count}

    def _optimiser(self) -> OptimiserStruct:
        settings, optimiser = self._settings, OptimiserStruct()
        rates = schedule.rates(
            self._fraction, self._step, self._layout.extent, float(settings["learning_rate"])
        )
        optimiser.rate[:] = rates.tolist()
        optimiser.first, optimiser.second, optimiser.epsilon = 0.9, 0.999, 1e-30
        optimiser.unbias_first = 1 / (1 - 0.9**self._step)
        optimiser.unbias_second = 1 / (1 - 0.999**self._step)
        optimiser.opacity_weight = float(settings["opacity_regularisation"])
        optimiser.scale_weight = float(settings["scale_regularisation"]) / self._layout.extent
        optimiser.noise = NOISE * float(rates[0]) if settings["densification"] == "mcmc" else 0.0
        optimiser.seed = ctypes.c_uint64(
            self._seed * 0x9E3779B97F4A7C15 + self._step * 0xD1B54A32D192ED03
        ).value
        return optimiser

    def render(self, camera: Any) -> Rendering:
        """The scene as ``camera`` sees it, at any size."""
        degree = schedule.degree(self._fraction, int(self._settings["degree"]))
        # While training on halved photos, Gaussians are learnt with the dilation of larger pixels
        level = schedule.level(self._fraction, self._step, self._settings["coarse_to_fine"])
        dilation = DILATION * 4.0**level
        view = view_struct(
            camera, self._near, self._background, degree, self._settings["antialias"], dilation=dilation
        )
        self._kernels.forward(self._model.records, self._model.count, view, with_depth=True)
        return Rendering(self._kernels.image(), *self._kernels.depth_and_opacity())

    def save(self, folder: Path) -> None:
        """Everything that later steps depend on: ``gaussians.npy`` and ``state.json``."""
        np.save(folder / "gaussians.npy", self._model.table())
        state = {
            "step": self._step,
            "fraction": self._fraction,
            "begin": self._begin,
            "queue": self._queue,
            "generator": self._generator.bit_generator.state,
            "most": self._most,
            "instruction_set": self._kernels.instruction_set,
        }
        (folder / "state.json").write_text(json.dumps(state))

    def load(self, folder: Path) -> None:
        """What :meth:`save` wrote; training goes on with the same bits as if it had never stopped."""
        self._model = Model.from_table(np.load(folder / "gaussians.npy", allow_pickle=False))
        state = json.loads((folder / "state.json").read_text())
        self._step, self._fraction, self._begin = state["step"], state["fraction"], state["begin"]
        self._queue = state["queue"]
        self._most = state["most"]  # not this machine's own default: its memory may be another
        if state["instruction_set"] != self._kernels.instruction_set:
            print(  # into the run's log
                f"splat: saved by kernels for {state['instruction_set']}, going on with those for "
                f"{self._kernels.instruction_set}: the last bits will differ from an unbroken run's",
                flush=True,
            )
        self._generator.bit_generator.state = state["generator"]

    def export(self, folder: Path) -> None:
        """``point_cloud.ply`` (3DGS's layout) and ``splat.spz``."""
        export.write(folder, self._model.values, int(self._settings["degree"]), self._settings["antialias"])


def default_cap(mean_pixels: float) -> int:
    """How many Gaussians at most: seven for ten pixels of a photo, within half of the memory that is left.

    How quality follows it is in docs/performance.md, under "Each trick switched off".
    """
    return max(1000, min(int(0.7 * mean_pixels), available_memory() // 2 // BYTES_PER_GAUSSIAN))
