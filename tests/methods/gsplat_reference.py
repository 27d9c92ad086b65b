"""gsplat's two rasterisers and its two kernels of MCMC as slow functions that need no card.

Projection, covariances and harmonics are gsplat's own in PyTorch (``gsplat.cuda._torch_impl``). The compositing is
written here, after its CUDA kernels: what gsplat ships for that needs one of those kernels. Every pixel meets every
Gaussian, so scenes have to be tiny.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from gsplat.cuda._torch_impl import _fully_fused_projection, _quat_scale_to_covar_preci, _spherical_harmonics
from gsplat.cuda._torch_impl_2dgs import _fully_fused_projection_2dgs
from gsplat.utils import depth_to_normal
from torch import Tensor

LEAST_ALPHA, MOST_ALPHA, LEAST_LIGHT = 1 / 255, 0.999, 1e-4


def ellipsoids(
    means, quats, scales, opacities, colors, viewmats, Ks, width, height, near_plane, far_plane, sh_degree, packed,
    render_mode, rasterize_mode,
):  # fmt: skip
    """As ``gsplat.rasterization``, of one camera."""
    covars, _ = _quat_scale_to_covar_preci(quats, scales, True, False)
    radii, means2d, depths, conics, compensations = _fully_fused_projection(
        means, covars, viewmats, Ks, width, height, near_plane=near_plane, far_plane=far_plane,
        calc_compensations=rasterize_mode == "antialiased",
    )  # fmt: skip
    if rasterize_mode == "antialiased":
        opacities = opacities * compensations[0]
    order = drawn(radii, depths)
    apart = pixels(width, height)[:, None] - means2d[0][order][None]
    a, b, c = conics[0][order].T
    power = 0.5 * (a * apart[..., 0] ** 2 + c * apart[..., 1] ** 2) + b * apart[..., 0] * apart[..., 1]
    weights = composited(opacities[order] * torch.exp(-power), power)
    values = torch.cat([shown(means, colors, viewmats, sh_degree), depths[0, :, None]], 1)
    picture, alphas = mixed(weights, values[order], width, height, render_mode)
    return picture[None], alphas[None], info(radii, width, height, means2d=means2d)


def discs(
    means, quats, scales, opacities, colors, viewmats, Ks, width, height, near_plane, far_plane, sh_degree, packed,
    render_mode, distloss,
):  # fmt: skip
    """As ``gsplat.rasterization_2dgs``, of one camera."""
    radii, means2d, depths, transforms, normals = _fully_fused_projection_2dgs(
        means, quats, scales, viewmats, Ks, width, height, near_plane=near_plane, far_plane=far_plane
    )
    moved = torch.zeros_like(
        means2d, requires_grad=True
    )  # takes the gradient of each disc's place in the image
    order = drawn(radii, depths)
    at = pixels(width, height)[:, None] - moved[0][order][None]
    matrix = transforms[0][order][None]
    cross = torch.linalg.cross(
        at[..., :1] * matrix[..., 2, :] - matrix[..., 0, :],
        at[..., 1:] * matrix[..., 2, :] - matrix[..., 1, :],
    )
    on_disc = (cross[..., :2] / cross[..., 2:]).square().sum(2)
    beside = 2 * (at - means2d[0][order]).square().sum(2)
    power = 0.5 * torch.minimum(on_disc, beside)
    weights = composited(opacities[order] * torch.exp(-power), power)
    values = torch.cat([shown(means, colors, viewmats, sh_degree), depths[0, :, None]], 1)
    picture, alphas = mixed(weights, values[order], width, height, render_mode)
    to_world = torch.linalg.inv(viewmats)
    facing = (weights @ normals[0][order]).reshape(height, width, 3) @ to_world[0, :3, :3].T
    z = depths[0][order]
    before = torch.cumsum(weights, 1) - weights
    before_z = torch.cumsum(weights * z, 1) - weights * z
    distortion = 2 * (weights * (z * before - before_z)).sum(1).reshape(1, height, width, 1)
    surface = (
        depth_to_normal(picture[None, ..., 3:], to_world, Ks).squeeze(0) if picture.shape[-1] == 4 else None
    )
    told = info(radii, width, height, means2d=means2d, gradient_2dgs=moved)
    return picture[None], alphas[None], facing[None], surface, distortion, None, told


def drawn(radii: Tensor, depths: Tensor) -> Tensor:
    """Which are drawn, the nearest first, ``int64[M]``."""
    seen = torch.where((radii[0] > 0).all(1))[0]
    return seen[torch.argsort(depths[0][seen], stable=True)]


def pixels(width: int, height: int) -> Tensor:
    """Their centres, ``float32[H·W, 2]``."""
    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([columns, rows], 2).reshape(-1, 2)


def composited(alphas: Tensor, power: Tensor) -> Tensor:
    """What each adds to each pixel, front to back, ``float32[H·W, M]``."""
    alphas = torch.where((alphas >= LEAST_ALPHA) & (power >= 0), alphas.clamp_max(MOST_ALPHA), 0)
    left = torch.cumprod(1 - alphas, 1)
    before = torch.cat([torch.ones_like(left[:, :1]), left[:, :-1]], 1) if left.shape[1] else left
    return torch.where(left > LEAST_LIGHT, alphas * before, 0)


def shown(means: Tensor, colors: Tensor, viewmats: Tensor, degree: int) -> Tensor:
    """The colours from here, ``float32[N, 3]``."""
    directions = means - torch.linalg.inv(viewmats)[0, :3, 3]
    return (_spherical_harmonics(degree, directions, colors) + 0.5).clamp_min(0)


def mixed(weights: Tensor, values: Tensor, width: int, height: int, mode: str) -> tuple[Tensor, Tensor]:
    """``float32[H, W, 3]`` or, with the mean depth, ``[H, W, 4]``; opacity ``[H, W, 1]``."""
    total = (weights @ values).reshape(height, width, 4)
    alphas = weights.sum(1).reshape(height, width, 1)
    if mode == "RGB":
        return total[..., :3], alphas
    return torch.cat([total[..., :3], total[..., 3:] / alphas.clamp(min=1e-10)], 2), alphas


def info(radii: Tensor, width: int, height: int, **more: Tensor) -> dict[str, Any]:
    """What strategies look at."""
    return {
        "width": width, "height": height, "n_cameras": 1, "radii": radii, "gaussian_ids": None, **more
    }  # fmt: skip


def relocation(opacities: Tensor, scales: Tensor, ratios: Tensor, binoms: Tensor) -> tuple[Tensor, Tensor]:
    """As ``gsplat.relocation.compute_relocation``: 3DGS-MCMC's equation 9."""
    each = 1 - (1 - opacities) ** (1 / ratios)
    total = torch.zeros_like(each)
    for i in range(1, int(ratios.max()) + 1):
        term = sum(binoms[i - 1, k] * (-1) ** k * each ** (k + 1) / math.sqrt(k + 1) for k in range(i))
        total += torch.where(ratios >= i, term, 0)
    return each, scales * (opacities / total)[:, None]


def covariances(quats: Tensor, scales: Tensor, compute_covar: bool, compute_preci: bool, triu: bool):
    """As ``gsplat.quat_scale_to_covar_preci``."""
    return _quat_scale_to_covar_preci(quats, scales, compute_covar, compute_preci, triu)
