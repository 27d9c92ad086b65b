"""From single scores to a few numbers, without ever mixing what can't be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import TurntableError


@dataclass(frozen=True)
class Protocol:
    """What scores must share to be averaged or set side by side."""

    capture_hash: str
    held_out: tuple[str, ...]
    definition: str


def summarise(per_item: Mapping[str, float], higher_is_better: bool) -> dict[str, object]:
    """The summary of one metric over the held-out items of one run.

    Args:
        per_item: score by item.
        higher_is_better: which way is good.

    Returns:
        ``mean``, ``min``, ``max``, ``p10`` and ``p90`` (percentiles, linear between order statistics),
        ``worst`` (``min`` or ``max``), ``bad_tenth`` (``p10`` or ``p90``: nine of ten views are better) and
        ``per_item``.

    Raises:
        ValueError: no item.
    """
    if not per_item:
        raise ValueError("a summary needs at least one score")
    values = np.array(list(per_item.values()), np.float64)
    low, high = (float(value) for value in np.percentile(values, [10, 90]))
    smallest, largest = float(values.min()), float(values.max())
    return {
        "mean": float(values.mean()),
        "min": smallest,
        "max": largest,
        "p10": low,
        "p90": high,
        "worst": smallest if higher_is_better else largest,
        "bad_tenth": low if higher_is_better else high,
        "per_item": dict(per_item),
    }


def mean_of(values: Sequence[tuple[Protocol, float]]) -> float:
    """The mean of scores that share a protocol.

    Raises:
        TurntableError: they come from different captures, splits or definitions, or there are none.
    """
    if not values:
        raise TurntableError("A mean needs at least one score; there is none.")
    first = values[0][0]
    for protocol, _ in values[1:]:
        for what, ours, theirs in (
            ("captures (or sizes)", first.capture_hash, protocol.capture_hash),
            ("splits", first.held_out, protocol.held_out),
            ("definitions", first.definition, protocol.definition),
        ):
            if ours != theirs:
                raise TurntableError(
                    f"Scores of different {what} are never put into one mean; got {ours!r} and {theirs!r}. "
                    "Compare them one by one."
                )
    return float(np.mean([value for _, value in values]))
