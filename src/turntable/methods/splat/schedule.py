"""What changes while training, as pure functions of the share of the budget used, so that any budget ends
well.

``fraction`` runs from 0 to 1. Numbers of steps appear only where a thing needs steps, not time.
"""

from __future__ import annotations

import numpy as np

from .kernels import HARMONIC, MEAN, OPACITY, QUATERNION, ROWS, SCALE

COARSE = ((0.08, 2), (0.3, 1))
"""Until which fraction photos are halved how often."""
GROWTH_ENDS = 0.6
"""After this fraction no Gaussians are added: what was added last needs time to settle."""
DENSIFY_EVERY = 50
"""Steps between two rounds of densification: about one look at each photo of a small capture."""


def level(fraction: float, coarse_to_fine: bool) -> int:
    """How often photos are halved."""
    if coarse_to_fine:
        for until, times in COARSE:
            if fraction < until:
                return times
    return 0


def degree(fraction: float, most: int) -> int:
    """Degree of the spherical harmonics in use: one more from each of 0.25, 0.4, 0.55 on."""
    return min(most, sum(fraction >= begin for begin in (0.25, 0.4, 0.55)))


def rates(fraction: float, extent: float, factor: float) -> np.ndarray:
    """Adam's step sizes, ``float32[59]``; the means' fall to a hundredth.

    3DGS's are for 30,000 steps; a CPU has hundreds to thousands. On fox with 600 steps, each was raised until the
    held-out views gained no more: means 6 times, scales 4, quaternions 6, colours 2 (opacities stay); together
    they are worth 3 dB there. The higher harmonics share a second moment, which the greater ones dominate, so
    theirs is 8 times 3DGS's.

    Args:
        fraction: share of the budget used.
        extent: of the scene, in scene units: the means' step size scales with it.
        factor: on all of them.
    """
    values = np.zeros(ROWS, np.float32)
    values[MEAN] = 9.6e-4 * extent * 0.01**fraction
    values[SCALE] = 2e-2
    values[QUATERNION] = 6e-3
    values[OPACITY] = 5e-2
    values[HARMONIC] = 1e-3
    values[HARMONIC.start : HARMONIC.start + 3] = 5e-3
    return values * np.float32(factor)


def target(fraction: float, begin: int, most: int) -> int:
    """How many Gaussians there should be: from ``begin`` to ``most``, growing by an even factor, until
    growth ends.
    """
    share = min(1.0, fraction / GROWTH_ENDS)
    return max(1, round(begin * (max(most, 1) / max(begin, 1)) ** share)) if begin < most else most
