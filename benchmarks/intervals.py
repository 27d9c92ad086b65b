"""How often the intervals of tasks/statistics.py hold the truth, on simulated scores. Asserts nothing.

    python benchmarks/intervals.py [--sets 10000] [--seed 0] [--rivals]

A simulated score is view + run + rest: a view's effect (standard deviation 1, for each contestant another, as paired
differences have it) and the rest (0.5) are autoregressive along the views, φ at distance 1; a run's effect is shared by all
of its views. Skewed scores are the same, carried over to an exponential distribution with its tail to the bad side
(skewness −2).

A last table has what the model of the intervals doesn't: other kinds of likeness along the views, wild and uneven scores.

With ``--rivals``, what simpler intervals cover: Student's t over single views; ours as if the mean over runs were a single
run; and the percentiles of a bootstrap over single views and runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np
from scipy.special import ndtr, stdtrit

from turntable.tasks.spread import block_length, block_variance, spread

VIEWS, PHI, SEEDS, RUN_DEVIATION = (7, 12, 25, 50), (0.0, 0.3, 0.6), (2, 3, 5), (0.0, 0.3, 1.0)

Covers = Callable[[np.ndarray, "np.ndarray | None"], np.ndarray]
"""Scores ``[N, K, V]`` of one contestant, or of two, all of true mean 0, to ``bool[N]``: does the interval hold 0?"""


def along_a_path(rng: np.random.Generator, shape: tuple[int, ...], phi: float, skewed: bool) -> np.ndarray:
    """Mean 0, variance 1, correlated along the last axis."""
    noise = rng.standard_normal(shape)
    noise[..., 1:] *= np.sqrt(1 - phi**2)
    for view in range(1, shape[-1]):
        noise[..., view] += phi * noise[..., view - 1]
    return 1 + np.log(ndtr(noise)) if skewed else noise


def simulated(
    rng: np.random.Generator, sets: int, seeds: int, views: int, phi: float, run: float, skewed: bool = False
) -> np.ndarray:
    """One contestant's scores in ``sets`` data sets, ``[sets, seeds, views]``, of true mean 0."""
    scores = along_a_path(rng, (sets, 1, views), phi, skewed)
    scores = scores + 0.5 * along_a_path(rng, (sets, seeds, views), phi, skewed)
    return scores + run * rng.standard_normal((sets, seeds, 1))


def ours(first: np.ndarray, second: np.ndarray | None) -> np.ndarray:
    """The 95 % interval that rankings have."""
    found = spread(first, second, block_length(first.shape[-1]))
    return np.abs(found.mean) <= found.half_width(0.05)


def runs_left_out(first: np.ndarray, second: np.ndarray | None) -> np.ndarray:
    """The same interval, were the runs' mean a single run."""
    single = [None if one is None else one.mean(-2, keepdims=True) for one in (first, second)]
    assert single[0] is not None
    return ours(single[0], single[1])


def single_views(first: np.ndarray, second: np.ndarray | None) -> np.ndarray:
    """An interval over views as if they were independent: Student's t on blocks of one, on the mean over runs."""
    series = first.mean(-2) if second is None else first.mean(-2) - second.mean(-2)
    views = series.shape[-1]
    error = np.sqrt(block_variance(series, 1) * views / (views - 1))
    return np.abs(series.mean(-1)) <= stdtrit(views - 1, 0.975) * error


def percentiles(first: np.ndarray, second: np.ndarray | None, draws: int = 400) -> np.ndarray:
    """The percentiles of an ordinary bootstrap: single views (paired) and runs, drawn with replacement."""
    rng = np.random.default_rng(0)
    means = []
    for _ in range(draws):
        views = rng.integers(0, first.shape[-1], first.shape[-1])
        drawn = [
            one[:, rng.integers(0, one.shape[1], one.shape[1])][..., views].mean((-1, -2))
            for one in (first, second)
            if one is not None
        ]
        means.append(drawn[0] - (drawn[1] if second is not None else 0))
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    return (low <= 0) & (high >= 0)


def table(title: str, covers: Covers, sets: int, seed: int, paired: bool, skewed: bool) -> None:
    """Print the share of ``sets`` data sets whose interval holds the truth, in per cent, for every cell of the grid."""
    columns = [(1, 0.0), *((seeds, run) for seeds in SEEDS for run in RUN_DEVIATION)]
    print(f"\n{title}\n")
    print("| views | φ | " + " | ".join(f"{k} seed{'s' * (k > 1)}, run {run:g}" for k, run in columns) + " |")
    print("|---" * (2 + len(columns)) + "|")
    for views in VIEWS:
        for phi in PHI:
            cells = []
            for seeds, run in columns:
                rng = np.random.default_rng(seed)
                first = simulated(rng, sets, seeds, views, phi, run, skewed)
                second = simulated(rng, sets, seeds, views, phi, run, skewed) if paired else None
                cells.append(f"{100 * covers(first, second).mean():.1f}")
            print(f"| {views} | {phi:g} | " + " | ".join(cells) + " |", flush=True)


def other_kinds(rng: np.random.Generator, sets: int, views: int) -> Iterator[tuple[str, np.ndarray]]:
    """Scores of one seed, ``[sets, views]``, that aren't autoregressive, uniform or normal, with what they are."""
    distance = np.abs(np.arange(views)[:, None] - np.arange(views))
    correlations = {
        "smooth, exp(−(distance ÷ 2)²)": np.exp(-np.square(distance / 2)),
        "neighbours alone, 0.5": np.where(distance == 1, 0.5, 0.0) + (distance == 0),
        "half noise, half φ = 0.7": 0.5 * (distance == 0) + 0.5 * 0.7**distance,
        "alternating, φ = −0.4": (-0.4) ** distance,
    }
    for name, correlation in correlations.items():
        root = np.linalg.cholesky(correlation + 1e-9 * np.eye(views))
        yield name, rng.standard_normal((sets, views)) @ root.T
    yield "wild (Student's t, 3 degrees of freedom)", rng.standard_t(3, (sets, views))
    yield (
        "a third of the path 4 times as uneven",
        (rng.standard_normal((sets, views)) * np.where(np.arange(views) < views / 3, 4, 1)),
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", type=int, default=10000, help="data sets per cell")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rivals", action="store_true", help="simpler intervals too")
    asked = parser.parse_args()
    for paired, what in ((True, "A pair's mean difference"), (False, "One contestant's mean")):
        for skewed in (False, True):
            title = (
                f"{what}, {'skewed' if skewed else 'normal'} scores: 95 % intervals that hold the truth (%)"
            )
            table(title, ours, asked.sets, asked.seed, paired, skewed)
    print(
        "\nOne contestant's mean, one seed, other kinds of scores: 95 % intervals that hold the truth (%)\n"
    )
    print("| scores | " + " | ".join(f"{views} views" for views in VIEWS) + " |")
    print("|---" * (1 + len(VIEWS)) + "|")
    columns = [list(other_kinds(np.random.default_rng(asked.seed), asked.sets, views)) for views in VIEWS]
    for row in zip(*columns, strict=True):
        cells = [f"{100 * ours(scores[:, None], None).mean():.1f}" for _, scores in row]
        print(f"| {row[0][0]} | " + " | ".join(cells) + " |")
    if asked.rivals:
        for covers in (single_views, runs_left_out, percentiles):
            title = f"A pair's mean difference, normal scores, {covers.__name__.replace('_', ' ')} (%)"
            table(title, covers, asked.sets // 5, asked.seed, True, False)


if __name__ == "__main__":
    main()
