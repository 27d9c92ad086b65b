"""The slow twin of the compiled kernels: the same mathematics in float64, one formula after the other.

Tests hold the two together, and hold the gradients here to finite differences. Nothing else uses this module.

Notation: N Gaussians, P pixels; a ``model`` is ``float64[59, N]`` with the rows of :mod:`.kernels`. World to
camera is x_c = R x + t. Each function ``…_back`` takes the gradients of the loss with respect to its
partner's results and returns those with respect to its arguments. Sources: Zwicker et al., EWA splatting
(2002); Kerbl et al. (2023); Ye and Kanazawa, Mathematical supplement for gsplat (arXiv 2312.02121).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .kernels import (
    FIRST,
    HARMONIC,
    HARMONIC_SECOND,
    MEAN,
    MOMENTS,
    OPACITY,
    QUATERNION,
    SCALE,
    SECOND,
    ViewStruct,
)

ALPHA_LEAST = 1 / 255
ALPHA_MOST = 0.99
TRANSMITTANCE_LEAST = 1e-4
MARGIN = 0.15
"""x/z and y/z enter the Jacobian only up to this share of the image beyond its border (3DGS: 1.3 × the
field).
"""
COVERAGE_LEAST = 2.5e-5
"""Least ratio of determinants under the 2D filter, as Mip-Splatting has it."""


class Projection(NamedTuple):
    """What each Gaussian looks like in a view; arrays over N, and what the way back needs.

    Args:
        centre: ``[N, 2]`` pixels.
        inverse: ``[N, 2, 2]`` inverse of the dilated covariance, 1/px².
        opacity: ``[N]``.
        colour: ``[N, 3]``, at least 0.
        depth: ``[N]``, z.
        drawn: ``bool[N]``: in front of the near plane and not fainter than 1/255 everywhere.
        bare: ``[N, 2, 2]`` covariance without dilation.
        below: ``bool[N, 3]``: the colour was brought to 0.
    """

    centre: np.ndarray
    inverse: np.ndarray
    opacity: np.ndarray
    colour: np.ndarray
    depth: np.ndarray
    drawn: np.ndarray
    bare: np.ndarray
    below: np.ndarray


def pose(view: ViewStruct) -> tuple[np.ndarray, np.ndarray]:
    """R ``[3, 3]`` and t ``[3]``."""
    return np.array(view.rotation[:]).reshape(3, 3), np.array(view.translation[:])


def turn_of(quaternion: np.ndarray) -> np.ndarray:
    """Rotation matrices ``[N, 3, 3]`` of unit quaternions ``[4, N]``."""
    w, x, y, z = quaternion
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.array(rows).transpose(2, 0, 1)


def turn_slopes(quaternion: np.ndarray) -> np.ndarray:
    """``[4, N, 3, 3]``: derivative of :func:`turn_of` by each component."""
    w, x, y, z = quaternion
    o = np.zeros_like(w)
    slopes = [
        [[o, -z, y], [z, o, -x], [-y, x, o]],
        [[o, y, z], [y, -2 * x, -w], [z, w, -2 * x]],
        [[-2 * y, x, w], [x, o, z], [-w, z, -2 * y]],
        [[-2 * z, -w, x], [w, -2 * z, y], [x, y, o]],
    ]
    return 2 * np.array(slopes).transpose(0, 3, 1, 2)


def harmonics(direction: np.ndarray) -> np.ndarray:
    """Real spherical harmonics, ``[N, 16]``, of directions ``[N, 3]``: 3DGS's order and signs."""
    x, y, z = direction.T
    return np.stack(
        [
            np.full_like(x, 0.28209479177387814),
            -0.4886025119029199 * y,
            0.4886025119029199 * z,
            -0.4886025119029199 * x,
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525252005 * (2 * z * z - x * x - y * y),
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (x * x - y * y),
            -0.5900435899266435 * y * (3 * x * x - y * y),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (4 * z * z - x * x - y * y),
            0.3731763325901154 * z * (2 * z * z - 3 * x * x - 3 * y * y),
            -0.4570457994644658 * x * (4 * z * z - x * x - y * y),
            1.445305721320277 * z * (x * x - y * y),
            -0.5900435899266435 * x * (x * x - 3 * y * y),
        ],
        1,
    )


def harmonic_slopes(direction: np.ndarray) -> np.ndarray:
    """``[N, 16, 3]``: derivatives of :func:`harmonics` by x, y and z (as polynomials, off the sphere too)."""
    x, y, z = direction.T
    o = np.zeros_like(x)
    a, b, c, d = 0.4886025119029199, 1.0925484305920792, 0.31539156525252005, 0.5462742152960396
    e, f, g, h, i = (
        0.5900435899266435,
        2.890611442640554,
        0.4570457994644658,
        0.3731763325901154,
        1.445305721320277,
    )
    rows = [
        [o, o, o],
        [o, o - a, o],
        [o, o, o + a],
        [o - a, o, o],
        [b * y, b * x, o],
        [o, -b * z, -b * y],
        [-2 * c * x, -2 * c * y, 4 * c * z],
        [-b * z, o, -b * x],
        [2 * d * x, -2 * d * y, o],
        [-6 * e * x * y, -e * (3 * x * x - 3 * y * y), o],
        [f * y * z, f * x * z, f * x * y],
        [2 * g * x * y, -g * (4 * z * z - x * x - 3 * y * y), -8 * g * y * z],
        [-6 * h * x * z, -6 * h * y * z, h * (6 * z * z - 3 * x * x - 3 * y * y)],
        [-g * (4 * z * z - 3 * x * x - y * y), 2 * g * x * y, -8 * g * x * z],
        [2 * i * x * z, -2 * i * y * z, i * (x * x - y * y)],
        [-e * (3 * x * x - 3 * y * y), 6 * e * x * y, o],
    ]
    return np.array(rows).transpose(2, 0, 1)


def _geometry(model: np.ndarray, view: ViewStruct) -> dict[str, np.ndarray]:
    """Everything between the parameters and a projection, by name."""
    rotation, translation = pose(view)
    camera = model[MEAN].T @ rotation.T + translation
    focal = np.array([view.fx, view.fy])
    size, principal = np.array([view.width, view.height]), np.array([view.cx, view.cy])
    margin = MARGIN * size / focal
    ratio = camera[:, :2] / camera[:, 2:]
    bounded = np.clip(ratio, -principal / focal - margin, (size - principal) / focal + margin)
    # M = J R with J = [[fx/z, 0, -fx x/z²], [0, fy/z, -fy y/z²]], x/z and y/z bounded
    jacobian = (focal / camera[:, 2:])[:, :, None] * (rotation[:2] - bounded[:, :, None] * rotation[2])
    norm = np.maximum(np.linalg.norm(model[QUATERNION], axis=0), 1e-12)
    quaternion = model[QUATERNION] / norm
    scale = np.exp(np.clip(model[SCALE], -87, 87)).T
    turn = turn_of(quaternion)
    spread = turn * scale[:, None, :]
    axes = jacobian @ spread
    towards = model[MEAN].T + rotation.T @ translation
    distance = np.maximum(np.linalg.norm(towards, axis=1, keepdims=True), 1e-12)
    return {
        "camera": camera, "ratio": bounded, "inside": ratio == bounded, "jacobian": jacobian, "norm": norm,
        "quaternion": quaternion, "scale": scale, "turn": turn, "spread": spread, "axes": axes,
        "direction": towards / distance, "distance": distance,
    }  # fmt: skip


def coverage(bare: np.ndarray, dilation: float) -> np.ndarray:
    """``[N]``: square root of the share of the determinant that dilation leaves (Mip-Splatting's 2D
    filter).
    """
    full = bare + dilation * np.eye(2)
    return np.sqrt(np.maximum(np.linalg.det(bare) / np.linalg.det(full), COVERAGE_LEAST))


def project(model: np.ndarray, view: ViewStruct) -> Projection:
    """EWA projection and colours. Gaussians behind the near plane have ``drawn`` False and meaningless
    numbers.
    """
    with np.errstate(all="ignore"):
        g = _geometry(model, view)
        bare = g["axes"] @ g["axes"].transpose(0, 2, 1)
        dilated = bare + view.dilation * np.eye(2)
        determinant = dilated[:, 0, 0] * dilated[:, 1, 1] - dilated[:, 0, 1] ** 2
        inverse = np.stack([dilated[:, 1, 1], -dilated[:, 0, 1], -dilated[:, 0, 1], dilated[:, 0, 0]], 1)
        inverse = (inverse / determinant[:, None]).reshape(-1, 2, 2)
        focal, principal = np.array([view.fx, view.fy]), np.array([view.cx, view.cy])
        centre = focal * g["camera"][:, :2] / g["camera"][:, 2:] + principal
        opacity = np.minimum(1 / (1 + np.exp(-model[OPACITY])), ALPHA_MOST)
        if view.filter:
            opacity = opacity * coverage(bare, view.dilation)
        terms = (view.degree + 1) ** 2
        basis = harmonics(g["direction"])[:, :terms]
        colour = 0.5 + np.einsum("nk,kcn->nc", basis, model[HARMONIC].reshape(16, 3, -1)[:terms])
        drawn = (g["camera"][:, 2] > view.near) & (opacity >= ALPHA_LEAST) & np.isfinite(inverse).all((1, 2))
        return Projection(
            centre, inverse, opacity, np.maximum(colour, 0), g["camera"][:, 2], drawn, bare, ~(colour > 0)
        )


class Splats(NamedTuple):
    """Gradients of the loss with respect to a :class:`Projection`'s centre, inverse (symmetric), log
    opacity, colour.
    """

    centre: np.ndarray
    inverse: np.ndarray
    log_opacity: np.ndarray
    colour: np.ndarray


def project_back(model: np.ndarray, view: ViewStruct, projection: Projection, by: Splats) -> np.ndarray:
    """``[59, N]``: the loss's gradient with respect to the model; zeros for what is not drawn."""
    rotation, _ = pose(view)
    focal = np.array([view.fx, view.fy])
    out = np.zeros_like(model)
    with np.errstate(all="ignore"):
        g = _geometry(model, view)
        inverse, z = projection.inverse, g["camera"][:, 2:]
        by_covariance = -inverse @ by.inverse @ inverse
        if view.filter:
            bare_det, bare = np.linalg.det(projection.bare), projection.bare
            full_det = np.linalg.det(bare + view.dilation * np.eye(2))
            moves = bare_det / full_det > COVERAGE_LEAST
            bare_inverse = np.stack([bare[:, 1, 1], -bare[:, 0, 1], -bare[:, 0, 1], bare[:, 0, 0]], 1)
            bare_inverse = (bare_inverse / np.maximum(bare_det, 1e-300)[:, None]).reshape(-1, 2, 2)
            share = np.where(moves, 0.5 * by.log_opacity, 0)[:, None, None]
            by_covariance = by_covariance + share * (bare_inverse - inverse)
        by_axes = 2 * by_covariance @ g["axes"]
        by_jacobian = by_axes @ g["spread"].transpose(0, 2, 1)
        by_spread = g["jacobian"].transpose(0, 2, 1) @ by_axes
        out[SCALE] = (by_spread * g["spread"]).sum(1).T
        by_turn = by_spread * g["scale"][:, None, :]
        by_unit = (turn_slopes(g["quaternion"]) * by_turn).sum((2, 3))
        along = (by_unit * g["quaternion"]).sum(0)
        out[QUATERNION] = (by_unit - along * g["quaternion"]) / g["norm"]

        by_camera = np.zeros_like(g["camera"])
        by_camera[:, :2] += by.centre * focal / z
        by_camera[:, 2] -= (by.centre * focal * g["camera"][:, :2] / z**2).sum(1)
        by_ratio = -(by_jacobian * rotation[2]).sum(2) * focal / z * g["inside"]
        by_camera[:, :2] += by_ratio / z
        by_camera[:, 2] -= (by_ratio * g["ratio"] / z).sum(1) + (by_jacobian * g["jacobian"]).sum((1, 2)) / z[
            :, 0
        ]

        terms = (view.degree + 1) ** 2
        by_colour = np.where(projection.below, 0, by.colour)
        basis, slopes = harmonics(g["direction"])[:, :terms], harmonic_slopes(g["direction"])[:, :terms]
        coefficients = model[HARMONIC].reshape(16, 3, -1)[:terms]
        out[HARMONIC].reshape(16, 3, -1)[:terms] = np.einsum("nk,nc->kcn", basis, by_colour)
        by_direction = np.einsum("nc,kcn,nkx->nx", by_colour, coefficients, slopes)
        radial = (by_direction * g["direction"]).sum(1, keepdims=True)
        by_mean = by_camera @ rotation + (by_direction - radial * g["direction"]) / g["distance"]
        out[MEAN] = by_mean.T
        # an opacity that is held at 0.99 is treated as if it were free, so that it may fall again
        out[OPACITY] = by.log_opacity * (1 - np.minimum(1 / (1 + np.exp(-model[OPACITY])), ALPHA_MOST))
    out[:, ~projection.drawn] = 0
    return out


def _alphas(projection: Projection, view: ViewStruct) -> tuple[np.ndarray, ...]:
    """Over Gaussians front to back and pixels: order [n], offset [n, P, 2], alpha, light before each, light left."""
    order = np.flatnonzero(projection.drawn)
    order = order[np.argsort(projection.depth[order], kind="stable")]
    rows, columns = np.mgrid[: view.height, : view.width] + 0.5
    pixels = np.stack([columns.ravel(), rows.ravel()], 1)
    offset = pixels[None] - projection.centre[order, None]
    power = -0.5 * np.einsum("npi,nij,npj->np", offset, projection.inverse[order], offset)
    raw = projection.opacity[order, None] * np.exp(power)
    alpha = np.where(raw >= ALPHA_LEAST, raw, 0)
    before = np.empty_like(alpha)
    left = np.ones(len(pixels))
    for i in range(len(order)):
        before[i] = left
        alpha[i] *= left > TRANSMITTANCE_LEAST
        left = left * (1 - alpha[i])
    return order, offset, alpha, before, left


def rasterise(projection: Projection, view: ViewStruct) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image ``[H, W, 3]``, mean depth ``[H, W]`` (0 where nothing is), opacity ``[H, W]``."""
    order, _, alpha, before, left = _alphas(projection, view)
    weight = alpha * before
    image = np.einsum("np,nc->pc", weight, projection.colour[order]) + left[:, None] * np.array(
        view.background[:]
    )
    opacity = 1 - left
    depth = weight.T @ projection.depth[order]
    depth = np.divide(depth, opacity, out=np.zeros_like(depth), where=opacity > 1e-6)
    shape = view.height, view.width
    return image.reshape(*shape, 3), depth.reshape(shape), opacity.reshape(shape)


def rasterise_back(projection: Projection, view: ViewStruct, by_image: np.ndarray) -> Splats:
    """The gradients with respect to a projection, given ``[H, W, 3]`` with respect to the image."""
    order, offset, alpha, before, left = _alphas(projection, view)
    by_pixel = by_image.reshape(-1, 3)
    shade = projection.colour[order] @ by_pixel.T
    weight = alpha * before
    behind = left * (by_pixel @ np.array(view.background[:]))
    by_alpha = np.empty_like(alpha)
    for i in reversed(range(len(order))):
        by_alpha[i] = before[i] * shade[i] - behind / (1 - alpha[i])
        behind = behind + weight[i] * shade[i]
    by_power = by_alpha * alpha
    count = len(projection.depth)
    out = Splats(np.zeros((count, 2)), np.zeros((count, 2, 2)), np.zeros(count), np.zeros((count, 3)))
    out.log_opacity[order] = by_power.sum(1)
    out.centre[order] = np.einsum("nij,npj,np->ni", projection.inverse[order], offset, by_power)
    out.inverse[order] = -0.5 * np.einsum("npi,npj,np->nij", offset, offset, by_power)
    out.colour[order] = weight @ by_pixel
    return out


def window() -> np.ndarray:
    """SSIM's Gaussian window, ``[11]``: sigma 1.5, sum 1."""
    x = np.arange(-5, 6)
    values = np.exp(-(x**2) / (2 * 1.5**2))
    return values / values.sum()


def blur(image: np.ndarray) -> np.ndarray:
    """``[H, W, …]`` under the window, zeros beyond the border. It is its own adjoint, the window being
    symmetric.
    """
    for axis in (0, 1):
        widths = [(5, 5) if i == axis else (0, 0) for i in range(image.ndim)]
        padded = np.pad(image, widths)
        length = image.shape[axis]
        parts = [w * np.take(padded, np.arange(k, k + length), axis) for k, w in enumerate(window())]
        image = np.sum(parts, axis=0)
    return image


def loss(
    image: np.ndarray, photo: np.ndarray, mask: np.ndarray | None, ssim_weight: float
) -> tuple[float, np.ndarray]:
    """(1 - w) L1 + w (1 - SSIM), and its gradient by the image, ``[H, W, 3]``.

    Where the mask is 0 both become 0, like what lies beyond the border, so nothing there can matter; both
    means are over pixels that count. No pixel that counts: loss and gradient are 0.
    """
    counts = (np.ones(image.shape[:2]) if mask is None else mask.astype(np.float64))[:, :, None]
    total = 3 * counts.sum()
    if total == 0:
        return 0.0, np.zeros_like(image)
    x, y = np.where(counts > 0, image, 0), np.where(counts > 0, photo, 0)
    mx, my = blur(x), blur(y)
    vx, vy, vxy = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    a, b, d, e = 2 * mx * my + c1, 2 * vxy + c2, mx * mx + my * my + c1, vx + vy + c2
    ssim = a * b / (d * e)
    value = (1 - ssim_weight) * (counts * np.abs(x - y)).sum() / total
    value += ssim_weight * (1 - (counts * ssim).sum() / total)
    by_vx, by_vxy = -ssim / e, 2 * a / (d * e)
    by_mx = 2 * my * b / (d * e) - 2 * mx * ssim / d - 2 * mx * by_vx - my * by_vxy
    by_ssim = -ssim_weight / total * counts
    gradient = blur(by_ssim * by_mx) + 2 * x * blur(by_ssim * by_vx) + y * blur(by_ssim * by_vxy)
    return float(value), counts * ((1 - ssim_weight) / total * np.sign(x - y) + gradient)


def adam(records: np.ndarray, gradient: np.ndarray, rates: np.ndarray, step: int, degree: int) -> np.ndarray:
    """One step of Adam (decays 0.9 and 0.999), the ``step``-th.

    The first 14 rows have moments of their own. The harmonics above degree 0 have no first moment, and share one
    second: the mean square of those in use.

    Args:
        records: ``[88, N]``: parameters and moments, rows as in :mod:`.kernels`.
        gradient: ``[59, N]``.
        rates: ``[59]``.
        step: counted from 1.
        degree: of the harmonics in use.

    Returns:
        ``[88, N]``.
    """
    out = records.copy()
    own, unbias = gradient[:MOMENTS], 1 / (1 - 0.999**step)
    out[FIRST:SECOND] = 0.9 * records[FIRST:SECOND] + 0.1 * own
    out[SECOND:HARMONIC_SECOND] = 0.999 * records[SECOND:HARMONIC_SECOND] + 0.001 * own**2
    change = (
        out[FIRST:SECOND] / (1 - 0.9**step) / np.sqrt(np.maximum(out[SECOND:HARMONIC_SECOND] * unbias, 1e-30))
    )
    out[:MOMENTS] -= rates[:MOMENTS, None] * change
    out[OPACITY] = np.minimum(out[OPACITY], np.log(ALPHA_MOST / (1 - ALPHA_MOST)))
    if degree:
        used = slice(MOMENTS, HARMONIC.start + 3 * (degree + 1) ** 2)
        mean_square = (gradient[used] ** 2).mean(0)
        out[HARMONIC_SECOND] = 0.999 * records[HARMONIC_SECOND] + 0.001 * mean_square
        scale = 1 / np.sqrt(np.maximum(out[HARMONIC_SECOND] * unbias, 1e-30))
        out[used] -= rates[used, None] * scale * gradient[used]
    return out
