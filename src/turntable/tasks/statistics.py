"""Which contestant is better, as far as so many views and seeds can tell.

Notation: a contestant is a method with its settings and budget; its scores by one metric are ``float64[K, V]``, K finished
runs (seeds) by V held-out views in the order of the capture. Views are paired between contestants, runs aren't. How wide
intervals are, and why, is in :mod:`.spread`; what they cover in simulations is in docs/statistics.md.

Nothing here is drawn at random: the same scores give the same answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from ..errors import TurntableError
from .spread import ROUND_OFF, block_length, spread


@dataclass(frozen=True)
class Sample:
    """One contestant by one metric.

    Args:
        name: of the contestant.
        scores: ``float64[K, V]``; K is 0 where no run finished.
        failed: so many runs failed; they are counted, never dropped.
    """

    name: str
    scores: np.ndarray
    failed: int = 0


@dataclass(frozen=True)
class Interval:
    """Where a mean, or a mean difference, lies with the probability ``level``.

    ``low`` and ``high`` are infinite where a single view says nothing of others.
    """

    mean: float
    low: float
    high: float
    level: float


@dataclass(frozen=True)
class Pair:
    """Two contestants that have finished runs.

    Args:
        first, second: their names, in the order of the samples.
        difference: of their means, positive where ``first`` is better, whichever way the metric's good is.
        p: how often chance alone would part two equals so far; under 1 − level where ``difference`` excludes 0.
        p_holm: the same after Holm's correction over all pairs.
        views_better, views_worse: on so many views ``first`` is better or worse, on average over runs; the rest are equal.
        views: of each run.
        seeds: finished runs of each.
        decided: the data tell the two apart: ``p_holm`` is under 1 − level.
        between_runs_measured: both have 2 runs or more. Else the claim is about these very runs, and how far other seeds
            would move it isn't known.
    """

    first: str
    second: str
    difference: Interval
    p: float
    p_holm: float
    views_better: int
    views_worse: int
    views: int
    seeds: tuple[int, int]
    decided: bool
    between_runs_measured: bool

    @property
    def winner(self) -> str | None:
        """The better one, where the data tell."""
        return None if not self.decided else self.first if self.difference.mean > 0 else self.second


@dataclass(frozen=True)
class Ranking:
    """Who is better than whom, and what can't be told.

    Args:
        higher_is_better: which way the metric's good is.
        level: of the intervals, and 1 − the risk of any wrong decision.
        intervals: of each contestant's own mean; those without a finished run have none.
        pairs: all pairs of contestants that have finished runs.
        order: names, the best mean first, those without a finished run last.
        ranks: by name, the best and the worst place that the decided pairs leave open; those without a finished run share
            the last places.
        ties: ``order`` in groups for display: the first contestant of each, and those after it that the data can't tell from
            it; those without a finished run are a group of their own, the last.
        block: so many neighbouring views were taken as a block.
        views: of each run.
        seeds: finished runs by name.
        failed: failed runs by name.
    """

    higher_is_better: bool
    level: float
    intervals: dict[str, Interval]
    pairs: tuple[Pair, ...]
    order: tuple[str, ...]
    ranks: dict[str, tuple[int, int]]
    ties: tuple[tuple[str, ...], ...]
    block: int
    views: int
    seeds: dict[str, int]
    failed: dict[str, int]
    _by_names: dict[frozenset[str], Pair] = field(repr=False, compare=False)

    @property
    def fewest_seeds(self) -> int:
        """The fewest finished runs of any contestant that has one; 0 where none has."""
        return min((count for count in self.seeds.values() if count), default=0)

    @property
    def between_runs_measured(self) -> bool:
        """Every contestant that has finished runs has 2 or more."""
        return self.fewest_seeds >= 2

    @property
    def leader(self) -> str | None:
        """Who is decidedly better than all others that finished, of which there is at least one; else None.

        Runs of it may have failed (``failed``): whoever names the leader says so.
        """
        finished = [name for name in self.order if self.seeds[name]]
        if len(finished) < 2:
            return None
        return finished[0] if self.ranks[finished[0]] == (1, 1) else None

    def pair(self, one: str, other: str) -> Pair:
        """The pair of these two, whichever is its first.

        Raises:
            KeyError: one of them has no finished run, or isn't ranked.
        """
        return self._by_names[frozenset((one, other))]


def rank(samples: Sequence[Sample], higher_is_better: bool, level: float = 0.95) -> Ranking:
    """Rank contestants by one metric.

    Args:
        samples: at least one, of different names, all with scores of the same views in the same order.
        higher_is_better: which way the metric's good is.
        level: of the intervals; 1 − level is the risk of deciding any pair wrongly, over all pairs (Holm).

    Raises:
        TurntableError: names repeat, views differ in number, or a score isn't a finite number.
    """
    views = _check(samples, level)
    finished = [sample for sample in samples if len(sample.scores)]
    block = block_length(views) if views else 0
    intervals = {sample.name: _interval(sample.scores, None, 1.0, block, level)[0] for sample in finished}
    pairs = _pairs(finished, 1.0 if higher_is_better else -1.0, block, level)
    order = _order(samples, intervals, higher_is_better)
    by_names = {frozenset((pair.first, pair.second)): pair for pair in pairs}
    return Ranking(
        higher_is_better=higher_is_better,
        level=level,
        intervals=intervals,
        pairs=pairs,
        order=order,
        ranks=_ranks(order, pairs, len(finished)),
        ties=_ties(order, by_names, len(finished)),
        block=block,
        views=views,
        seeds={sample.name: len(sample.scores) for sample in samples},
        failed={sample.name: sample.failed for sample in samples},
        _by_names=by_names,
    )


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction ("A simple sequentially rejective multiple test procedure", 1979), in the order given.

    Whatever depends on what: to call significant those under α has a risk of at most α of any wrong call.
    """
    corrected = [0.0] * len(p)
    most = 0.0
    for place, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        most = max(most, min(1.0, (len(p) - place) * p[i]))
        corrected[i] = most
    return corrected


def _check(samples: Sequence[Sample], level: float) -> int:
    """How many views every run has."""
    if not 0 < level < 1:
        raise TurntableError(f"A level lies between 0 and 1, as 0.95 does; got {level}.")
    names = [sample.name for sample in samples]
    if not names:
        raise TurntableError("A ranking needs at least one contestant; there is none.")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise TurntableError(
            f"Contestants have different names; {twice!r} is there {names.count(twice)} times."
        )
    first: Sample | None = None
    for sample in samples:
        if sample.scores.ndim != 2:
            raise TurntableError(
                f"Scores are runs by views, two axes; those of {sample.name} have shape {sample.scores.shape}."
            )
        if sample.failed < 0:
            raise TurntableError(f"Failed runs are counted from 0; {sample.name} has {sample.failed}.")
        if not len(sample.scores):
            continue
        if sample.scores.shape[1] == 0:
            raise TurntableError(f"A finished run has scores of its held-out views; {sample.name} has none.")
        if not np.isfinite(sample.scores).all():
            wrong = sample.scores[~np.isfinite(sample.scores)][0]
            raise TurntableError(
                f"Scores are finite numbers; {sample.name} has {wrong}. Count such a run as failed."
            )
        first = first or sample
        if sample.scores.shape[1] != first.scores.shape[1]:
            raise TurntableError(
                f"Contestants are compared on the same held-out views; {sample.name} has {sample.scores.shape[1]} and "
                f"{first.name} {first.scores.shape[1]}. Score them on one split."
            )
    return first.scores.shape[1] if first else 0


def _interval(
    first: np.ndarray, second: np.ndarray | None, sign: float, block: int, level: float
) -> tuple[Interval, float]:
    """The interval of the mean or of the mean difference, and p of that being 0."""
    largest = max(float(np.abs(one).max()) for one in (first, second) if one is not None)
    if first.shape[-1] < 2:
        mean = float(first.mean() if second is None else first.mean() - second.mean()) * sign
        return Interval(mean, -math.inf, math.inf, level), 1.0
    found = spread(first, second, block)
    mean, half = float(found.mean) * sign, float(found.half_width(1 - level))
    if second is not None and abs(mean) <= ROUND_OFF * largest:
        return Interval(0.0, -half, half, level), 1.0
    return Interval(mean, mean - half, mean + half, level), float(found.p())


def _pairs(finished: Sequence[Sample], sign: float, block: int, level: float) -> tuple[Pair, ...]:
    both = list(combinations(finished, 2))
    found = [_interval(one.scores, other.scores, sign, block, level) for one, other in both]
    corrected = holm([p for _, p in found])
    pairs = []
    for (one, other), (interval, p), p_holm in zip(both, found, corrected, strict=True):
        by_view = sign * (one.scores.mean(0) - other.scores.mean(0))
        least = ROUND_OFF * max(float(np.abs(one.scores).max()), float(np.abs(other.scores).max()))
        pairs.append(
            Pair(
                first=one.name,
                second=other.name,
                difference=interval,
                p=p,
                p_holm=p_holm,
                views_better=int((by_view > least).sum()),
                views_worse=int((by_view < -least).sum()),
                views=len(by_view),
                seeds=(len(one.scores), len(other.scores)),
                decided=p_holm < 1 - level,
                between_runs_measured=min(len(one.scores), len(other.scores)) >= 2,
            )
        )
    return tuple(pairs)


def _order(
    samples: Sequence[Sample], intervals: dict[str, Interval], higher_is_better: bool
) -> tuple[str, ...]:
    finished = [sample.name for sample in samples if sample.name in intervals]
    best_first = sorted(finished, key=lambda name: intervals[name].mean, reverse=higher_is_better)
    return (*best_first, *(sample.name for sample in samples if sample.name not in intervals))


def _ranks(order: tuple[str, ...], pairs: Sequence[Pair], finished: int) -> dict[str, tuple[int, int]]:
    ranks = {}
    for name in order[:finished]:
        winners = [pair.winner for pair in pairs if name in (pair.first, pair.second) and pair.decided]
        won = winners.count(name)
        ranks[name] = (1 + len(winners) - won, finished - won)
    return ranks | {name: (finished + 1, len(order)) for name in order[finished:]}


def _ties(
    order: tuple[str, ...], by_names: dict[frozenset[str], Pair], finished: int
) -> tuple[tuple[str, ...], ...]:
    groups, left = [], list(order[:finished])
    while left:
        best = left[0]
        group = [name for name in left if name == best or not by_names[frozenset((best, name))].decided]
        groups.append(tuple(group))
        left = [name for name in left if name not in group]
    if finished < len(order):
        groups.append(order[finished:])
    return tuple(groups)
