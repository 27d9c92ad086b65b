"""How Gaussians are added, moved and dropped while training.

``split`` cuts Gaussians into halves along the longest axis: each by chance, in proportion to how much the loss wants
its centre moved.
``mcmc`` copies Gaussians in proportion to their opacity so that the picture stays nearly the same, and moves
dead ones onto live ones the same way (3D Gaussian Splatting as Markov Chain Monte Carlo, arXiv 2404.09591,
eq. 9).
"""

from __future__ import annotations

import math

import numpy as np

from .kernels import ACTIVITY, MEAN, OPACITY, QUATERNION, SCALE
from .model import Model

DEAD = 0.005
"""Opacity below which a Gaussian is of no use, as in 3DGS and 3DGS-MCMC: just above 1/255, where it isn't
drawn.
"""
MOST_COPIES = 51
"""As 3DGS-MCMC has it: the alternating sums of binomials beyond lose their digits."""


def densify(model: Model, kind: str, target: int, generator: np.random.Generator) -> None:
    """Take dead Gaussians away and grow to ``target`` (never beyond): see the module.

    Args:
        kind: ``split`` or ``mcmc``.
        target: how many Gaussians there should be afterwards.
        generator: its state is all that chance depends on.
    """
    alive = model.opacities() > DEAD
    if not alive.any():
        return
    if kind == "mcmc":
        _move_dead(model, alive, generator)
        _copy(model, max(0, target - model.count), generator)
    else:
        _split(model, alive, target, generator)
    model.forget(ACTIVITY)


def _split(model: Model, alive: np.ndarray, target: int, generator: np.random.Generator) -> None:
    count = model.count
    wanted = max(0, target - int(alive.sum()))
    score = np.where(alive, model.row(ACTIVITY).astype(np.float64), 0)
    wanted = min(wanted, int((score > 0).sum()) // 2)
    if wanted:
        # weighted sampling without replacement: the greatest of log(u) / weight (Efraimidis and Spirakis,
        # 2006)
        with np.errstate(divide="ignore"):
            keys = np.log(generator.random(count)) / np.where(score > 0, score, 1e-300)
        parents = np.sort(np.argpartition(keys, count - wanted)[count - wanted :])
        one, other = halves(model.take(parents))
        model.put(parents, one)
        dead = np.flatnonzero(~alive)
        reused = min(len(dead), wanted)
        model.put(dead[:reused], other[:, :reused])
        model.add(other[:, reused:])
        alive = np.concatenate([alive, np.ones(model.count - count, bool)])
        alive[dead[:reused]] = True
    if not alive.all():
        model.remove(~alive)


OFFSET, SHORTER, THINNER = 0.7, 0.6, 0.9
"""A half's centre lies OFFSET standard deviations from the whole's; it is SHORTER times as long and THINNER times as
wide. Halves that keep the pair's covariance (0.5, 0.87, 1, at a lower opacity) lie on top of each other: on fox they
cost 0.4 dB and a third more pairs of Gaussian and tile, and every cut left the scene more of a fog.
"""


def halves(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each Gaussian, ``float32[59, M]``, cut in two along its longest axis: see OFFSET. Opacities stay."""
    longest = np.argmax(values[SCALE], axis=0)
    columns = np.arange(values.shape[1])
    scale = np.exp(values[SCALE][longest, columns])
    offset = OFFSET * scale * rotations(values[QUATERNION])[columns, :, longest].T
    one, other = values.copy(), values.copy()
    one[MEAN] += offset
    other[MEAN] -= offset
    for half in (one, other):
        half[SCALE] += np.float32(math.log(THINNER))
        half[SCALE.start + longest, columns] += np.float32(math.log(SHORTER / THINNER))
    return one, other


def rotations(quaternions: np.ndarray) -> np.ndarray:
    """Rotation matrices ``[M, 3, 3]`` of quaternions ``[4, M]`` (w, x, y, z; any length but 0)."""
    w, x, y, z = quaternions / np.maximum(np.linalg.norm(quaternions, axis=0), 1e-12)
    return np.stack(
        [
            np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], 1),
            np.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], 1),
            np.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], 1),
        ],
        1,
    )


def shared(opacity: np.ndarray, copies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Opacity of each of ``copies`` Gaussians that stand for one, and the factor on their scales.

    3DGS-MCMC's equation 9: o' = 1 - (1 - o)^(1/n), and the scales shrink by
    o / sum_{i=1..n} sum_{k=0..i-1} C(i-1, k) (-1)^k o'^(k+1) / sqrt(k+1), so that a ray through the centre
    meets as much.
    """
    each = 1 - (1 - opacity) ** (1 / copies)
    total = np.zeros_like(each)
    for i in range(1, int(copies.max(initial=1)) + 1):
        term = sum(math.comb(i - 1, k) * (-1) ** k * each ** (k + 1) / math.sqrt(k + 1) for k in range(i))
        total += np.where(i <= copies, term, 0)
    return np.clip(each, DEAD, 1 - 1e-6), opacity / np.maximum(total, 1e-12)


def _spread_over(model: Model, sources: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share each source's opacity among itself and its copies; returns the sources (once each) and their
    values.
    """
    unique, counts = np.unique(sources, return_counts=True)
    opacity = np.clip(model.opacities()[unique], DEAD, 1 - 1e-6)
    each, factor = shared(opacity, np.minimum(counts + 1, MOST_COPIES))
    values = model.take(unique)
    values[OPACITY] = np.log(each / (1 - each))
    values[SCALE] += np.log(factor)
    return unique, values


def _copy(model: Model, wanted: int, generator: np.random.Generator) -> None:
    if not wanted:
        return
    weight = model.opacities()
    sources = generator.choice(model.count, wanted, p=weight / weight.sum())
    unique, values = _spread_over(model, sources)
    model.put(unique, values)
    model.add(model.take(sources))


def _move_dead(model: Model, alive: np.ndarray, generator: np.random.Generator) -> None:
    dead = np.flatnonzero(~alive)
    if not len(dead):
        return
    weight = np.where(alive, model.opacities(), 0)
    sources = generator.choice(model.count, len(dead), p=weight / weight.sum())
    unique, values = _spread_over(model, sources)
    model.put(unique, values)
    model.put(dead, model.take(sources))
