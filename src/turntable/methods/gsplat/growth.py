# pyright: reportMissingImports=false
"""How Gaussians are added, moved and dropped: gsplat's own strategies, told where in their schedule a run is.

A strategy is told a step of gsplat's 30,000-step schedule, and acts on multiples of 100 of it. It is given such a multiple
when a round is due by :mod:`schedule`, and any other number of the same stretch in between.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from gsplat import DefaultStrategy, MCMCStrategy
from gsplat.strategy.ops import reset_opa

from . import schedule
from .gaussians import Gaussians

PRUNE_OPACITY = {"3dgs": 0.005, "2dgs": 0.05}
"""Opacity below which ``default`` drops a Gaussian, by primitive (gsplat's trainers for 3DGS and 2DGS)."""
GRADIENT: dict[str, Any] = {"3dgs": "means2d", "2dgs": "gradient_2dgs"}
"""Whose gradient says where more Gaussians are wanted."""
MCMC_MOST = 1_000_000
"""Most Gaussians of MCMC unless the user says (``cap_max``)."""
TENSORS = ("grad2d", "count")
"""What ``default`` sums up between two rounds."""


class Growth:
    """A strategy with its state.

    Args:
        kind: ``default`` or ``mcmc``.
        primitive: ``3dgs`` or ``2dgs``.
        scene_scale: of the frame.
        most: Gaussians at which growth ends; 0: gsplat's own limit, which is none for ``default``.
    """

    def __init__(self, kind: str, primitive: str, scene_scale: float, most: int) -> None:
        self._window, self._most = schedule.ROUNDS[kind], most
        self._last_round, self._round_step = float(self._window.begin), 0
        self._last_reset, self._reset_step = 0.0, 0
        if kind == "mcmc":
            self._strategy: Any = MCMCStrategy(cap_max=most or MCMC_MOST)
            self._state: dict[str, Any] = self._strategy.initialize_state()
        else:
            self._strategy = DefaultStrategy(
                prune_opa=PRUNE_OPACITY[primitive], key_for_gradient=GRADIENT[primitive]
            )
            self._state = self._strategy.initialize_state(scene_scale=scene_scale)
        self._grows_above = getattr(self._strategy, "grow_grad2d", math.inf)

    def before_backward(self, gaussians: Gaussians, info: dict[str, Any]) -> None:
        """To be called between drawing and going backward.

        Args:
            gaussians: what was drawn.
            info: what gsplat's rasteriser said about it.
        """
        self._strategy.step_pre_backward(gaussians.params, gaussians.optimisers, self._state, 0, info)

    def after_step(self, gaussians: Gaussians, info: dict[str, Any], fraction: float, step: int) -> None:
        """To be called after the optimisers' step.

        Args:
            gaussians: changed in place.
            info: what gsplat's rasteriser said, with gradients.
            fraction: the share of the budget that is used.
            step: steps done before this one.
        """
        at = schedule.position(fraction)
        due = self._window.due(at, self._last_round, step - self._round_step) and self._any_survive(
            gaussians, at
        )
        if due:
            self._last_round, self._round_step = at, step
        told = told_step(at, self._window.every, due)
        if isinstance(self._strategy, MCMCStrategy):
            self._strategy.step_post_backward(
                gaussians.params, gaussians.optimisers, self._state, told, info, lr=gaussians.means_rate
            )
            return
        full = self._most and len(gaussians) >= self._most
        self._strategy.grow_grad2d = math.inf if full else self._grows_above
        self._strategy.step_post_backward(gaussians.params, gaussians.optimisers, self._state, told, info)
        # gsplat 1.5.3 never resets opacities, since `0 & step > 0` is no `and` (its pull request 776 mends it).
        if schedule.RESETS.due(at, self._last_reset, step - self._reset_step):
            self._last_reset, self._reset_step = at, step
            value = 2 * self._strategy.prune_opa
            reset_opa(gaussians.params, gaussians.optimisers, self._state, value)

    @torch.no_grad()
    def _any_survive(self, gaussians: Gaussians, at: float) -> bool:
        """Whether a round would leave anything: no strategy can begin again from nothing."""
        opacities = torch.sigmoid(gaussians.params["opacities"])
        if isinstance(self._strategy, MCMCStrategy):
            return bool((opacities > self._strategy.min_opacity).any())
        stays = opacities >= self._strategy.prune_opa
        if at > self._strategy.reset_every:
            largest = torch.exp(gaussians.params["scales"]).max(1).values
            stays &= largest <= self._strategy.prune_scale3d * self._state["scene_scale"]
        return bool(stays.any())

    def numbers(self) -> dict[str, float]:
        """What :meth:`restore` needs, besides :meth:`arrays`."""
        return {
            "last_round": self._last_round,
            "round_step": self._round_step,
            "last_reset": self._last_reset,
            "reset_step": self._reset_step,
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """What the strategy has summed up so far."""
        found = {name: self._state.get(name) for name in TENSORS}
        return {name: value.cpu().numpy() for name, value in found.items() if value is not None}

    def restore(self, numbers: dict[str, Any], arrays: dict[str, np.ndarray], device: torch.device) -> None:
        """Take up what :meth:`numbers` and :meth:`arrays` gave."""
        self._last_round, self._round_step = float(numbers["last_round"]), int(numbers["round_step"])
        self._last_reset, self._reset_step = float(numbers["last_reset"]), int(numbers["reset_step"])
        for name in TENSORS:
            if name in self._state:
                self._state[name] = torch.from_numpy(arrays[name]).to(device) if name in arrays else None


def told_step(at: float, every: float, due: bool) -> int:
    """The number of a step that makes a strategy act if a round is due, and not else.

    Args:
        at: the position in gsplat's schedule.
        every: rounds are at multiples of this.
        due: whether a round is due; then ``at`` has passed a multiple since the last.
    """
    if due:
        return int(at // every * every)
    return int(at) + 1 if int(at) % every == 0 else int(at)
