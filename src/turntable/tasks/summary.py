"""From single scores to a few numbers, without ever mixing what can't be compared."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import TurntableError


@dataclass(frozen=True)
class Protocol:
    """What scores must share to be averaged or set side by side.

    Args:
        capture: its name, for people.
        capture_hash: stands for its content, sizes and split included.
        sizes: of the views, as in ``540×960``; where there are several, the most frequent ones first.
        split: how the held-out views were chosen, in words.
        held_out: the views that were scored.
        definition: the metric's.
    """

    capture: str
    capture_hash: str
    sizes: tuple[str, ...]
    split: str
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


def differences(protocols: Sequence[Protocol]) -> list[str]:
    """Why scores under these protocols can't be put into one mean, a reason each; [] where nothing speaks against it."""
    reasons = []
    if len({protocol.capture_hash for protocol in protocols}) > 1:
        names = dict.fromkeys(f"{one.capture} ({one.capture_hash[:12]})" for one in protocols)
        reasons.append(f"captures differ: {' and '.join(names)}")
    reasons += _differing("sizes", [" and ".join(protocol.sizes) for protocol in protocols])
    splits = _differing("splits", [protocol.split for protocol in protocols])
    views = {(protocol.capture_hash, protocol.held_out) for protocol in protocols}
    if not splits and len(views) > len({capture for capture, _ in views}):
        counts = " and ".join(str(len(held_out)) for _, held_out in sorted(views))
        splits = [f"splits differ: {counts} held-out views of one capture"]
    return reasons + splits + _differing("definitions", [protocol.definition for protocol in protocols])


def scenes_differ(scenes: Mapping[str, Collection[str]]) -> list[str]:
    """Why means of these methods can't be set side by side: a mean over seven scenes says nothing beside one over nine.

    Args:
        scenes: by method, the captures that it has scores on.

    Returns:
        A reason, or [] where all have the same.
    """
    if len({frozenset(names) for names in scenes.values()}) < 2:
        return []
    every = sorted(set().union(*scenes.values()))
    lacking = [
        f"{method} has {len(set(names))} of {len(every)} and lacks {', '.join(sorted(set(every) - set(names)))}"
        for method, names in scenes.items()
        if set(names) != set(every)
    ]
    return [f"numbers of scenes differ: {'; '.join(lacking)}"]


def refusal(reasons: Sequence[str]) -> TurntableError:
    """The error that says why there is no mean."""
    return TurntableError(
        f"Scores of different captures, splits, sizes, definitions or numbers of scenes are never put into one mean; here "
        f"{'; '.join(reasons)}. Ask for each capture by itself."
    )


def mean_of(values: Sequence[tuple[Protocol, float]]) -> float:
    """The mean of scores that share a protocol.

    Raises:
        TurntableError: they come from different captures, splits, sizes or definitions, or there are none.
    """
    if not values:
        raise TurntableError("A mean needs at least one score; there is none.")
    if reasons := differences([protocol for protocol, _ in values]):
        raise refusal(reasons)
    return float(np.mean([value for _, value in values]))


def _differing(what: str, values: Sequence[str]) -> list[str]:
    different = list(dict.fromkeys(values))
    return [f"{what} differ: {' and '.join(map(repr, different))}"] if len(different) > 1 else []
