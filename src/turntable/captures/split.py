"""Which views are held out."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import TurntableError

FEWEST_TRAINING = 2
"""One photo shows no shape: with fewer, what a method is scored on is a guess."""


def split(names: Sequence[str], said: Sequence[bool | None], every: int) -> list[bool]:
    """Whether each view is held out.

    The source's own split stands where it says something of every view; else names are sorted and every
    ``every``-th is held out, the first included (multinerf's ``llffhold``).

    Args:
        names: of the usable views.
        said: what the source says of each; None where it says nothing.
        every: 2 or more.

    Raises:
        TurntableError: ``every`` is out of range, or fewer than two training views or no held-out view would
        be left.
    """
    if every < 2:
        raise TurntableError(f"--every is at least 2, so that something is left to train on; not {every}.")
    if names and all(answer is not None for answer in said):
        held_out = [bool(answer) for answer in said]
    else:
        order = sorted(range(len(names)), key=lambda index: names[index])
        rank = {index: place for place, index in enumerate(order)}
        held_out = [rank[index] % every == 0 for index in range(len(names))]
    training = held_out.count(False)
    if training < FEWEST_TRAINING or training == len(held_out):
        raise TurntableError(
            f"A capture needs at least {FEWEST_TRAINING} training views and one held-out view; of "
            f"{len(names)} usable photos {training} train, {len(held_out) - training} are held out. "
            "Add photos, or change --every."
        )
    return held_out
