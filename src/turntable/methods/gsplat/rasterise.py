# pyright: reportMissingImports=false
"""Drawing Gaussians, 3DGS's ellipsoids or 2DGS's discs, by functions with the interface of gsplat's rasterisers.

What draws is given to the trainer, so that tests can hand it slow functions that need no card. Nothing else can:
:func:`of_card` is all that a run ever gets, and it refuses to work where gsplat's kernels can't.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

NEAR_FAR = {"3dgs": (0.01, 1e10), "2dgs": (0.2, 200.0)}
"""Clipping planes in the frame's units (gsplat's trainers for 3DGS and 2DGS)."""


@dataclass(frozen=True)
class Rasterisers:
    """Two functions.

    Args:
        ellipsoids: as ``gsplat.rasterization``.
        discs: as ``gsplat.rasterization_2dgs``.
    """

    ellipsoids: Callable[..., Any]
    discs: Callable[..., Any]


@dataclass(frozen=True)
class Drawn:
    """One view, drawn.

    Args:
        image: ``float32[H, W, 3]``, on the background.
        opacity: ``float32[H, W]``.
        depth: ``float32[H, W]``, the mean z of what a ray meets, in frame units; None if it wasn't asked for.
        info: for the strategy.
        normals: ``float32[H, W, 3]`` of the discs; None of ellipsoids.
        depth_normals: ``float32[H, W, 3]`` of the depth's surface; None unless depth of discs was asked for.
        distortion: ``float32[H, W]``; likewise.
    """

    image: Tensor
    opacity: Tensor
    depth: Tensor | None
    info: dict[str, Any]
    normals: Tensor | None = None
    depth_normals: Tensor | None = None
    distortion: Tensor | None = None


@dataclass(frozen=True)
class Brush:
    """How Gaussians are drawn.

    Args:
        rasterisers: what draws.
        primitive: ``3dgs`` or ``2dgs``.
        antialias: whether ellipsoids keep their total when they are widened to a pixel.
    """

    rasterisers: Rasterisers
    primitive: str
    antialias: bool

    def draw(
        self,
        gaussians: dict[str, Tensor],
        camera: Any,
        world_to_camera: Tensor,
        degree: int,
        background: Tensor,
        with_depth: bool,
    ) -> Drawn:
        """Draw.

        Args:
            gaussians: as the rasterisers take them.
            camera: its size and intrinsics.
            world_to_camera: ``float32[4, 4]``, camera axes x right, y down, z forward: those of gsplat.
            degree: of the harmonics in use.
            background: ``float32[3]``.
            with_depth: whether depth is wanted, and of discs what comes with it.
        """
        near, far = NEAR_FAR[self.primitive]
        # Both gsplat and Turntable see the pixel in column i, row j at (i + 0.5, j + 0.5): K goes as it is.
        options: dict[str, Any] = {
            "viewmats": world_to_camera[None],
            "Ks": torch.from_numpy(camera.K).to(world_to_camera)[None],
            "width": int(camera.width),
            "height": int(camera.height),
            "near_plane": near,
            "far_plane": far,
            "sh_degree": degree,
            "packed": False,
            "render_mode": "RGB+ED" if with_depth else "RGB",
        }
        if self.primitive == "3dgs":
            mode = "antialiased" if self.antialias else "classic"
            drawn, alphas, info = self.rasterisers.ellipsoids(**gaussians, **options, rasterize_mode=mode)
            return Drawn(*_split(drawn, alphas, background), info)
        drawn, alphas, normals, depth_normals, distortion, _, info = self.rasterisers.discs(
            **gaussians, **options, distloss=with_depth
        )
        if not with_depth:
            return Drawn(*_split(drawn, alphas, background), info, normals[0])
        shape = (*drawn.shape[1:3], 3)
        # gsplat drops the axis of one camera from these, or not: its version decides.
        return Drawn(
            *_split(drawn, alphas, background),
            info,
            normals[0],
            depth_normals.reshape(shape) if depth_normals.numel() == drawn[0, ..., :3].numel() else None,
            distortion[0, ..., 0],
        )


def _split(drawn: Tensor, alphas: Tensor, background: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Image on the background, opacity, and depth if it was drawn."""
    opacity = alphas[0, ..., 0]
    image = drawn[0, ..., :3] + background * (1 - alphas[0])
    return image, opacity, drawn[0, ..., 3] if drawn.shape[-1] == 4 else None


def of_card(device: str) -> Rasterisers:
    """gsplat's own rasterisers, on a card.

    Args:
        device: ``cuda:0`` …

    Raises:
        RuntimeError: there is no card that torch can use, or gsplat's kernels can't be had.
    """
    if torch.device(device).type != "cuda":
        raise RuntimeError(
            f"gsplat's kernels run on NVIDIA cards only, not on {device}: choose --device cuda:0"
        )
    if not torch.cuda.is_available():
        raise RuntimeError(
            f"gsplat needs an NVIDIA card, and torch {torch.__version__} finds none that it can use: "
            "turntable doctor says what this machine has; the method splat runs on the processor"
        )
    torch.cuda.set_device(device)  # gsplat makes some of its tensors on "cuda", which is whichever is current
    # Without this module gsplat would compile its kernels now, for minutes, in every run anew.
    if importlib.util.find_spec("gsplat.csrc") is None:
        raise RuntimeError(
            "gsplat's kernels are not in this environment, which was built where there was no card: "
            "turntable env list says its hash, turntable env remove HASH and env build gsplat make it again"
        )
    from gsplat import rasterization, rasterization_2dgs

    return Rasterisers(rasterization, rasterization_2dgs)
