"""How far a mean over views and runs may lie from what more views and more runs would give.

Notation: a contestant's scores are ``[K, V]``, K runs (seeds) by V held-out views in the order of the capture, and

    score[k, v] = μ + view[v] + run[k] + rest[k, v]

where neighbouring views are alike (photos are taken along a path) and a run's effect is shared by all of its views. Leading
axes are allowed everywhere: a batch of data sets is treated at once.

What is bootstrapped, and how:

* Views: contiguous blocks of L views, from a circle, drawn with replacement until V are together (Politis and Romano, "A
  circular block-resampling procedure for stationary data", 1992). Of a mean, the variance over all such draws has a closed
  form, the variance of the V block means times L ÷ V, so nothing is drawn and no luck is in the result.
* Runs: of each contestant, with replacement; the variance of the run means ÷ K, likewise. Runs of two contestants aren't
  paired; their views are.

A bootstrap of few blocks gives too little spread, the less the more the views are alike. So its variance is divided by the
share of the truth that it would be, on average, were the autocorrelation φ at distance 1 and φ² at distance 2; and its
degrees of freedom are those of a χ² with the same mean and variance (Satterthwaite, "An approximate distribution of
estimates of variance components", 1946). φ itself is weighed by its restricted likelihood, which has not the bias that an
estimate from few views has, times a weak prior: nobody can tell φ from 7 views, and what can't be told must widen an
interval.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

PHI = np.linspace(0.0, 0.9, 19)
"""The autocorrelations that are thought possible."""

PRIOR = np.sqrt(1 - PHI)
"""Their weights before the data speak. Of the shapes tried (flat, bells around 0.3 to 0.5) the one whose intervals cover
most nearly 95 % for φ from 0 to 0.6 and 7 to 50 views: see benchmarks/statistics.py."""

_MOST_VIEWS = 400
"""Beyond, degrees of freedom grow in proportion, and are not worth an array of V × V."""


def block_length(views: int) -> int:
    """So many neighbouring views make a block: 1.5 ∛V, the usual rate, and never more than half of the views.

    The factor was chosen by simulation: 3 of 7 or 12 views, 4 of 25, 6 of 50, 10 of 300. With ∛V alone, intervals over
    25 views with φ = 0.6 cover 1 to 2 points less.
    """
    return max(1, min(views // 2, round(1.5 * views ** (1 / 3))))


def block_variance(series: np.ndarray, length: int) -> np.ndarray:
    """The variance of the mean of ``series[..., V]`` over all draws of circular blocks of ``length`` views: ``[...]``."""
    views = series.shape[-1]
    centred = series - series.mean(-1, keepdims=True)
    around = np.concatenate([centred, centred[..., : length - 1]], -1)
    sums = np.cumsum(np.concatenate([np.zeros_like(around[..., :1]), around], -1), -1)
    means = (sums[..., length:] - sums[..., :-length]) / length
    return np.square(means).mean(-1) * length / views


def run_variance(scores: np.ndarray) -> np.ndarray:
    """The variance of the mean of ``scores[..., K, V]`` that comes of its runs, K of at least 2: ``[...]``."""
    runs = scores.shape[-2]
    return scores.mean(-1).var(-1, ddof=1) / runs


def spread(
    first: np.ndarray, second: np.ndarray | None, length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean of ``first[..., K, V]``, or its mean difference to ``second[..., K', V]``, and how sure it is.

    With a single run nothing is known of chance between runs: that part is left out, and the rest is about that very run.

    Args:
        first, second: scores of the same views in the same order, at least 2 views; the runs may differ in number.
        length: views in a block.

    Returns:
        Estimate, its standard error and the degrees of freedom (at least 1), each ``[...]``.
    """
    samples = [first] if second is None else [first, second]
    series = first.mean(-2) if second is None else first.mean(-2) - second.mean(-2)
    shares, freedom = _small_sample(series.shape[-1], length)
    weights = likely_phi(series)
    inflation = (weights / shares).sum(-1)
    from_views = block_variance(series, length) * inflation
    view_freedom = (weights * freedom).sum(-1)

    squares = np.square(from_views) / view_freedom
    from_runs, counted_twice = np.zeros_like(from_views), np.zeros_like(from_views)
    for scores in samples:
        runs = scores.shape[-2]
        if runs < 2:
            continue
        one = run_variance(scores)
        from_runs = from_runs + one
        squares = squares + np.square(one) / (runs - 1)
        # What belongs to one view of one run shows among the views and among the runs.
        rest = scores - scores.mean(-1, keepdims=True) - scores.mean(-2, keepdims=True)
        counted_twice = counted_twice + block_variance(rest, length).sum(-1) * inflation / (runs * (runs - 1))
    total = np.maximum(np.maximum(from_views, from_runs), from_views + from_runs - counted_twice)
    degrees = np.divide(np.square(total), squares, out=np.ones_like(total), where=squares > 0)
    return series.mean(-1), np.sqrt(total), np.maximum(degrees, 1.0)


def likely_phi(series: np.ndarray) -> np.ndarray:
    """How likely each of :data:`PHI` is for ``series[..., V]``, V of at least 2: ``[..., len(PHI)]``, of sum 1.

    Restricted likelihood of a stationary first-order autoregression of unknown mean and scale, times :data:`PRIOR`.
    """
    views = series.shape[-1]
    x = series - series.mean(-1, keepdims=True)
    rest = 1 - np.square(PHI)
    # Everything below is times (1 − φ²); the inverse of the correlations has three diagonals only.
    all_squares = np.square(x).sum(-1)[..., None]
    inner_squares = all_squares - np.square(x[..., :1]) - np.square(x[..., -1:])
    neighbours = (x[..., 1:] * x[..., :-1]).sum(-1)[..., None]
    squares = all_squares + np.square(PHI) * inner_squares - 2 * PHI * neighbours
    with_mean = PHI * (1 - PHI) * (x[..., :1] + x[..., -1:])  # x sums to 0
    of_mean = views * np.square(1 - PHI) + 2 * PHI * (1 - PHI)
    residual = (squares - np.square(with_mean) / of_mean) / rest
    log = -0.5 * (views - 1) * (np.log(rest) + np.log(np.maximum(residual, np.finfo(float).tiny)))
    log = log - 0.5 * np.log(of_mean / rest) + np.log(PRIOR)
    weights = np.exp(log - log.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


@lru_cache(maxsize=64)
def _small_sample(views: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of :data:`PHI`: the block variance's expectation as a share of the truth, and its degrees of freedom."""
    kept = min(views, _MOST_VIEWS)
    places = np.arange(kept)
    distance = np.abs(places[:, None] - places)
    window = np.where(places < length, 1 / length, 0.0)
    spectrum = np.square(np.abs(np.fft.fft(window))) * length / kept**2
    spectrum[0] = 0.0  # the mean is taken off
    shares, freedom = np.empty(len(PHI)), np.empty(len(PHI))
    for i, phi in enumerate(PHI):
        correlations = phi**distance
        product = np.fft.ifft(spectrum[:, None] * np.fft.fft(correlations, axis=0), axis=0).real
        trace = np.trace(product)
        shares[i] = trace / (correlations.sum() / kept**2)
        freedom[i] = trace**2 / (product * product.T).sum() * views / kept
    return shares, freedom
