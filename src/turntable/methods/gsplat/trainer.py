# pyright: reportMissingImports=false
"""The method ``gsplat``: 3D and 2D Gaussian Splatting on the CUDA kernels of the package gsplat.

Kerbl et al. 2023 (arXiv 2308.04079), Kheradmand et al. 2024 (3DGS-MCMC, arXiv 2404.09591), Huang et al. 2024 (2DGS, arXiv
2403.17888), Ye et al. 2024 (gsplat, arXiv 2409.06765). Kernels and strategies are the package's; the trainer is
ours, with the numbers that gsplat's own trainers publish. Schedules follow the share of the budget that is used.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from . import losses, schedule
from .gaussians import Gaussians
from .growth import MCMC_MOST, Growth
from .photos import Photos
from .point_cloud import ply
from .rasterise import Brush, Drawn, Rasterisers, of_card
from .scene import ENOUGH_POINTS, Start, at_random, frame_of, from_points

START = {"default": (0.1, 1.0), "mcmc": (0.5, 0.1)}
"""Opacity, and size in distances to the nearest neighbours, that Gaussians begin with (gsplat's two presets)."""
VISIBLE = 1 / 255
"""Opacity of a pixel below which there is no depth: it is what the kernels take for nothing."""


class Rendering(NamedTuple):
    """``image`` float32[H, W, 3]; ``depth`` float32[H, W], mean z, 0 where nothing is; ``opacity`` float32[H, W]."""

    image: np.ndarray
    depth: np.ndarray
    opacity: np.ndarray


class Gsplat:
    """See the module, and ``method.toml`` for the settings.

    Args:
        views: the training views, as the contract has them.
        settings: all of ``method.toml``'s, by name.
        seed: of everything that chance decides.
        device: a card, ``cuda:0``.
        rasterisers: for tests; a run's are those of the card.
    """

    def __init__(
        self,
        views: Any,
        settings: dict[str, Any],
        seed: int,
        device: str,
        rasterisers: Rasterisers | None = None,
    ) -> None:
        if not len(views):
            raise ValueError("gsplat needs at least one training photo; the capture has none")
        self._settings = settings
        self._kind, self._primitive = settings["strategy"], settings["primitive"]
        if self._kind == "mcmc" and self._primitive == "2dgs":
            raise ValueError("strategy=mcmc moves ellipsoids, not discs: use it with primitive=3dgs")
        self._brush = Brush(rasterisers or of_card(device), self._primitive, settings["antialias"])
        self._device = torch.device(device)
        self._generator = np.random.default_rng(seed)
        torch.manual_seed(seed)  # gsplat's strategies draw from torch's own generators
        self._photos = Photos(views)
        self._cameras = [view.camera for view in views]
        # Without transparency nobody says what lies behind the scene; gsplat takes it for black
        background = views.background if views.has_alpha else np.zeros(3)
        self._background = self._tensor(np.asarray(background, np.float32))
        self._random_background = settings["background"] == "random" and not views.has_alpha
        points, colours = np.asarray(views.points, np.float64), np.asarray(views.point_colours)
        finite = np.isfinite(points).all(1)
        points, colours = points[finite], colours[finite]
        self._frame = frame_of(self._cameras, points)
        most = int(settings["max_gaussians"])
        start = self._start(
            self._frame.into(points), colours, most or (MCMC_MOST if self._kind == "mcmc" else 0)
        )
        scale = self._frame.scene_scale
        self._gaussians = Gaussians.begin(start, *START[self._kind], scale, self._generator, self._device)
        self._growth = Growth(self._kind, self._primitive, scale, most)
        self._fraction = 0.0
        self._step = 0
        self._queue: list[int] = []

    def _start(self, points: np.ndarray, colours: np.ndarray, most: int) -> Start:
        kind = self._settings["start"]
        if kind == "auto":
            kind = "points" if len(points) >= ENOUGH_POINTS else "random"
        if kind == "random":
            count = int(self._settings["start_gaussians"])
            count = min(count, most) if most else count
            return at_random(count, self._frame.scene_scale, self._generator)
        if not len(points):
            raise ValueError("start=points needs sparse points, and the capture has none; use start=random")
        if most and len(points) > most:
            chosen = np.sort(self._generator.permutation(len(points))[:most])
            points, colours = points[chosen], colours[chosen]
        return from_points(points, colours)

    def progress(self, fraction: float) -> None:
        """The share of the budget that is used, 0 to 1: what all schedules follow."""
        self._fraction = float(min(max(fraction, 0.0), 1.0))

    def step(self) -> dict[str, float]:
        """One photo: draw, compare, move. ``loss``, how many ``gaussians`` there are, and 2DGS's two terms."""
        if not self._queue:
            self._queue = self._generator.permutation(len(self._photos)).tolist()
        index = self._queue.pop()
        photo, mask = self._photos.get(index)
        if self._queue:
            self._photos.prefetch(self._queue[-1])
        background = self._background
        if self._random_background:
            background = self._tensor(self._generator.random(3, np.float32))
        self._gaussians.set_rates(self._fraction)
        drawn = self._draw(self._cameras[index], background, with_depth=self._surface_counts())
        terms = self._terms(drawn, photo, mask)
        loss = torch.stack(list(terms.values())).sum()
        self._growth.before_backward(self._gaussians, drawn.info)
        loss.backward()
        self._gaussians.step()
        self._growth.after_step(self._gaussians, drawn.info, self._fraction, self._step)
        self._step += 1
        told = {name: term.item() for name, term in terms.items() if name in ("normals", "distortion")}
        return {"loss": loss.item(), "gaussians": len(self._gaussians), **told}

    def _surface_counts(self) -> bool:
        """Whether a term of 2DGS's needs the depth in this step."""
        return self._primitive == "2dgs" and any(self._surface_weights().values())

    def _surface_weights(self) -> dict[str, float]:
        at = schedule.position(self._fraction)
        return {
            "normals": float(self._settings["normal_weight"]) if at > schedule.NORMALS_BEGIN else 0.0,
            "distortion": float(self._settings["distortion_weight"])
            if at > schedule.DISTORTION_BEGINS
            else 0.0,
        }

    def _terms(self, drawn: Drawn, photo: np.ndarray, mask: np.ndarray | None) -> dict[str, torch.Tensor]:
        """The loss's terms, weighted."""
        settings, params = self._settings, self._gaussians.params
        weights = None if mask is None else self._tensor(mask).float()
        target = self._tensor(photo).float() / 255
        terms = {"photo": losses.photometric(drawn.image, target, weights, float(settings["ssim_weight"]))}
        if self._kind == "mcmc":
            opacity, scale = (
                float(settings["opacity_regularisation"]),
                float(settings["scale_regularisation"]),
            )
            terms["opacity"] = opacity * torch.sigmoid(params["opacities"]).mean()
            terms["scale"] = scale * torch.exp(params["scales"]).mean()
        if self._primitive == "2dgs":
            surface = self._surface_weights()
            if surface["normals"] and drawn.normals is not None and drawn.depth_normals is not None:
                apart = losses.normal_consistency(drawn.normals, drawn.depth_normals, drawn.opacity, weights)
                terms["normals"] = surface["normals"] * apart
            if surface["distortion"] and drawn.distortion is not None:
                terms["distortion"] = surface["distortion"] * losses.mean(drawn.distortion, weights)
        return terms

    def _draw(self, camera: Any, background: torch.Tensor, with_depth: bool) -> Drawn:
        matrix = self._tensor(self._frame.world_to_camera(camera).astype(np.float32))
        degree = schedule.degree(self._fraction, int(self._settings["degree"]))
        return self._brush.draw(self._gaussians.activated(), camera, matrix, degree, background, with_depth)

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device)

    @torch.no_grad()
    def render(self, camera: Any) -> Rendering:
        """The scene as ``camera`` sees it, at any size."""
        drawn = self._draw(camera, self._background, with_depth=True)
        assert drawn.depth is not None
        depth = torch.where(drawn.opacity >= VISIBLE, drawn.depth * self._frame.unit, 0)
        return Rendering(*(part.cpu().numpy() for part in (drawn.image, depth, drawn.opacity)))

    def save(self, folder: Path) -> None:
        """Everything that later steps depend on: ``gaussians.npz``, ``growth.npz``, ``random.npz``, ``state.json``."""
        _save(folder / "gaussians.npz", self._gaussians.arrays())
        _save(folder / "growth.npz", self._growth.arrays())
        random = {"processor": torch.get_rng_state().numpy()}
        if self._device.type == "cuda":
            random["card"] = torch.cuda.get_rng_state(self._device).numpy()
        _save(folder / "random.npz", random)
        state = {
            "step": self._step,
            "fraction": self._fraction,
            "queue": self._queue,
            "generator": self._generator.bit_generator.state,
            "growth": self._growth.numbers(),
        }
        (folder / "state.json").write_text(json.dumps(state))

    def load(self, folder: Path) -> None:
        """What :meth:`save` wrote."""
        scale = self._frame.scene_scale
        self._gaussians = Gaussians.restored(_arrays(folder / "gaussians.npz"), scale, self._device)
        state = json.loads((folder / "state.json").read_text())
        self._step, self._fraction, self._queue = state["step"], state["fraction"], state["queue"]
        self._growth.restore(state["growth"], _arrays(folder / "growth.npz"), self._device)
        self._generator.bit_generator.state = state["generator"]
        random = _arrays(folder / "random.npz")
        torch.set_rng_state(torch.from_numpy(random["processor"]))
        if "card" in random:
            torch.cuda.set_rng_state(torch.from_numpy(random["card"]), self._device)

    def export(self, folder: Path) -> None:
        """``point_cloud.ply``, in 3DGS's layout."""
        flat = self._primitive == "2dgs"
        content = ply(self._gaussians.arrays(), self._frame.centre, self._frame.unit, flat)
        (folder / "point_cloud.ply").write_bytes(content)


def _save(path: Path, arrays: dict[str, Any]) -> None:
    np.savez(path, **arrays)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as opened:
        return dict(opened)
