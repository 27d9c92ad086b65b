"""What changes while training, as pure functions of the share of the budget that is used.

gsplat publishes its schedules for 30,000 steps. Here a run's *position* is where those would be at the same share of
the budget: with a budget of 30,000 steps it is the step's number. Any other budget walks through the same
schedule faster or slower, as gsplat's own ``steps_scaler`` does, with one difference: two rounds that need a number
of steps between them, since they count what those steps have seen, keep a least distance in steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

PUBLISHED_STEPS = 30_000
DEGREE_EVERY = 1_000
"""Positions after which the harmonics have another degree (``sh_degree_interval``)."""
FINAL_RATE = 0.01
"""The means' step size ends at this share of what it began with."""
NORMALS_BEGIN, DISTORTION_BEGINS = 7_000, 3_000
"""Positions at which 2DGS's two terms begin to count (``normal_start_iter``, ``dist_start_iter``)."""
LEAST_BETWEEN_ROUNDS = 50
"""Steps between two rounds of growth, however short the budget: a round looks at gradients averaged over the photos since
the last one, and over a few photos that is chance. Chosen as the method splat has it; not tuned on a card.
"""
LEAST_BETWEEN_RESETS = 1_000
"""Steps between two resets of the opacities: a Gaussian needs some 150 steps in which it is seen to get its opacity back
(0.05 of the logit a step), and is seen in only some of the photos. Not tuned on a card.
"""


def position(fraction: float) -> float:
    """Where gsplat's published schedule is at a share of the budget: 0 to 30,000."""
    return round(min(max(fraction, 0.0), 1.0) * PUBLISHED_STEPS, 6)


def degree(fraction: float, most: int) -> int:
    """Degree of the spherical harmonics in use."""
    return min(most, int(position(fraction) // DEGREE_EVERY))


def means_decay(fraction: float) -> float:
    """The factor on the means' step size: falls exponentially, to FINAL_RATE at the budget's end."""
    return FINAL_RATE ** min(max(fraction, 0.0), 1.0)


@dataclass(frozen=True)
class Window:
    """When something is done again and again.

    Args:
        begin, end: only between these positions, both excluded.
        every: at each multiple of this position.
        apart: never after fewer steps than this.
    """

    begin: float
    end: float
    every: float
    apart: int

    def due(self, at: float, last: float, steps_since: int) -> bool:
        """Whether it is time.

        Args:
            at: the position.
            last: the position at which it was done last; ``begin`` if never.
            steps_since: steps since then; since the start if never.
        """
        passed = math.floor(at / self.every) > math.floor(last / self.every)
        return self.begin < at < self.end and passed and steps_since >= self.apart


ROUNDS = {
    "default": Window(500, 15_000, 100, LEAST_BETWEEN_ROUNDS),
    "mcmc": Window(500, 25_000, 100, LEAST_BETWEEN_ROUNDS),
}
"""Rounds of growth, by strategy (``refine_start_iter``, ``refine_stop_iter``, ``refine_every``)."""
RESETS = Window(0, 15_000, 3_000, LEAST_BETWEEN_RESETS)
"""Resets of the opacities, with the strategy ``default`` only (``reset_every``)."""
