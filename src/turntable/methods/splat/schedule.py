"""What changes while training, as pure functions of the share of the budget used, so that any budget ends
well.

``fraction`` runs from 0 to 1. Numbers of steps appear only where a thing needs steps, not time.
"""

from __future__ import annotations

import numpy as np

from .kernels import HARMONIC, MEAN, OPACITY, QUATERNION, ROWS, SCALE

COARSE = ((0.1, 300, 2), (0.35, 1500, 1))
"""Until which fraction, but no longer than for how many steps, photos are halved how often. A step on a photo of half
its size costs less than half; but after some hundreds the photo has nothing more to teach, and a long run that is
looked at early would still be blurred.
"""
GROWTH_ENDS = 0.6
"""After this fraction no Gaussians are added: what was added last needs time to settle."""
DENSIFY_EVERY = 50
"""Steps between two rounds of densification: about one look at each photo of a small capture."""
SORT_EVERY = 500
"""Steps after which Gaussians are brought into the order of space again: densification spoils it slowly."""


def level(fraction: float, step: int, coarse_to_fine: bool) -> int:
    """How often photos are halved, after ``step`` steps."""
    if coarse_to_fine:
        for until, steps, times in COARSE:
            if fraction < until and step < steps:
                return times
    return 0


def degree(fraction: float, most: int) -> int:
    """Degree of the spherical harmonics in use: one more from each of 0.1, 0.2, 0.3 on."""
    return min(most, sum(fraction >= begin for begin in (0.1, 0.2, 0.3)))


SETTLING = 500
"""Steps after which step sizes have begun to fall as one over the root of the steps: to a half at 1,500, to a quarter (about
3DGS's own) at 8,000. Without it a run of 3,000 steps stays 1.8 dB behind until its last quarter, and ends 0.2 dB lower.
"""


def rates(fraction: float, step: int, extent: float, factor: float) -> np.ndarray:
    """Adam's step sizes, ``float32[59]``; the means' fall to a hundredth over the budget, the others with the steps.

    3DGS's are for 30,000 steps; a CPU has hundreds to thousands. On fox with 600 steps, each was raised until the
    held-out views gained no more: means 6 times, scales 4, quaternions 6, colours 2 (opacities stay); together
    they are worth 3 dB there. The higher harmonics share a second moment, which the greater ones dominate, so
    theirs is 8 times 3DGS's.

    Args:
        fraction: share of the budget used.
        step: how many steps were done.
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
    values[SCALE.start :] *= (1 + step / SETTLING) ** -0.5
    return values * np.float32(factor)


def target(fraction: float, begin: int, most: int) -> int:
    """How many Gaussians there should be: from ``begin`` to ``most``, growing by a factor that falls a little, until
    growth ends.
    """
    share = min(1.0, fraction / GROWTH_ENDS) ** 0.7
    return max(1, round(begin * (max(most, 1) / max(begin, 1)) ** share)) if begin < most else most
