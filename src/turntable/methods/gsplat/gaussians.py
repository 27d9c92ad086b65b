# pyright: reportMissingImports=false
"""The Gaussians: their parameters, each with its own Adam, as gsplat's strategies expect them.

Names and shapes are gsplat's: ``means`` [N, 3], ``scales`` [N, 3] (logarithms), ``quats`` [N, 4] (w, x, y, z; any length),
``opacities`` [N] (logits), ``sh0`` [N, 1, 3] and ``shN`` [N, 15, 3] (spherical harmonics, degree 0 and the others).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from . import schedule
from .scene import Start

RATES = {"means": 1.6e-4, "scales": 5e-3, "quats": 1e-3, "opacities": 5e-2, "sh0": 2.5e-3, "shN": 2.5e-3 / 20}
"""Step sizes that gsplat's trainer publishes; the means' is multiplied by the scene scale."""
MOMENTS = ("exp_avg", "exp_avg_sq")
C0 = 0.5 / math.sqrt(math.pi)
"""The spherical harmonic of degree 0."""


class Gaussians:
    """Parameters and optimisers; both are changed in place by gsplat's strategies.

    Args:
        values: by name, as in the module.
        scene_scale: multiplies the means' step size.
        device: where they lie.
    """

    def __init__(self, values: dict[str, np.ndarray], scene_scale: float, device: torch.device) -> None:
        self._scene_scale = scene_scale
        self.params = torch.nn.ParameterDict(
            {
                name: torch.nn.Parameter(
                    torch.from_numpy(np.ascontiguousarray(values[name], np.float32)).to(device)
                )
                for name in RATES
            }
        )
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            name: torch.optim.Adam(
                [{"params": self.params[name], "lr": rate, "name": name}], eps=1e-15, betas=(0.9, 0.999)
            )
            for name, rate in RATES.items()
        }
        self.set_rates(0.0)

    @classmethod
    def begin(
        cls,
        start: Start,
        opacity: float,
        size_factor: float,
        scene_scale: float,
        generator: np.random.Generator,
        device: torch.device,
    ) -> Gaussians:
        """Spheres of one opacity; their quaternions are random, which matters once they are no spheres any more."""
        count = len(start.means)
        values = {
            "means": start.means,
            "scales": np.repeat(np.log(start.sizes * size_factor)[:, None], 3, axis=1),
            "quats": generator.random((count, 4)),
            "opacities": np.full(count, math.log(opacity / (1 - opacity))),
            "sh0": ((start.colours - 0.5) / C0)[:, None, :],
            "shN": np.zeros((count, 15, 3)),
        }
        return cls(values, scene_scale, device)

    def __len__(self) -> int:
        return len(self.params["means"])

    def activated(self) -> dict[str, Tensor]:
        """What gsplat's rasterisers take: ``means``, ``quats``, ``scales``, ``opacities``, ``colors`` [N, 16, 3]."""
        params = self.params
        return {
            "means": params["means"],
            "quats": params["quats"],
            "scales": torch.exp(params["scales"]),
            "opacities": torch.sigmoid(params["opacities"]),
            "colors": torch.cat([params["sh0"], params["shN"]], 1),
        }

    @property
    def means_rate(self) -> float:
        """The means' step size, in the frame's units."""
        return self.optimisers["means"].param_groups[0]["lr"]

    def set_rates(self, fraction: float) -> None:
        """Set the step sizes for a share of the budget: the means' falls, the others stay."""
        rate = RATES["means"] * self._scene_scale * schedule.means_decay(fraction)
        self.optimisers["means"].param_groups[0]["lr"] = rate

    def step(self) -> None:
        """Move everything along its gradient."""
        for optimiser in self.optimisers.values():
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    def arrays(self) -> dict[str, np.ndarray]:
        """All that :meth:`restored` needs: parameters, and Adam's moments and counts of steps where it has any."""
        found = {}
        for name, parameter in self.params.items():
            found[name] = parameter.detach().cpu().numpy()
            state = self.optimisers[name].state.get(parameter, {})
            for key in ("step", *MOMENTS) if state else ():
                found[f"{name}.{key}"] = state[key].detach().cpu().numpy()
        return found

    @classmethod
    def restored(cls, arrays: dict[str, np.ndarray], scene_scale: float, device: torch.device) -> Gaussians:
        """What :meth:`arrays` gave, bit for bit."""
        gaussians = cls(arrays, scene_scale, device)
        for name, optimiser in gaussians.optimisers.items():
            if f"{name}.step" in arrays:
                # Adam keeps its count on the processor, and its moments beside the parameter.
                state = {"step": torch.tensor(arrays[f"{name}.step"])}
                state |= {key: torch.from_numpy(arrays[f"{name}.{key}"]).to(device) for key in MOMENTS}
                optimiser.state[gaussians.params[name]] = state
        return gaussians
