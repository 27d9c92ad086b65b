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

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import stdtrit

PHI = np.linspace(0.0, 0.9, 19)
"""The autocorrelations that are thought possible."""

PRIOR = (1 - PHI) ** (1 / 3)
"""Their weights before the data speak. Of the powers tried (0 to 2) and bells around 0.3 to 0.5, the one whose intervals are
narrowest while they cover 93 % and more for φ = 0.6 from 7 views on; with less weight on high φ they cover less there."""

_MOST_VIEWS = 400
"""Beyond, degrees of freedom grow in proportion, and are not worth an array of V × V."""


ROUND_OFF = 1e-12
"""Differences below this share of the scores are what adding in another order does to equal numbers."""


def block_length(views: int) -> int:
    """So many neighbouring views make a block: 1.5 ∛V, rounded down, and never more than half of the views.

    The rate is the usual one, the factor was chosen by simulation: 2 of 7 views, 3 of 12, 4 of 25, 5 of 50, 10 of 300.
    Longer blocks of few views leave too few degrees of freedom; with shorter ones of many, intervals cover less where φ is
    0.6.
    """
    return max(1, min(views // 2, int(1.5 * views ** (1 / 3))))


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


@dataclass(frozen=True)
class Spread:
    """A mean, or a mean difference, and how sure it is. All are ``float64[...]``, one for each data set of a batch.

    Args:
        mean: the estimate.
        views, views_freedom: its variance as the views show it, and the degrees of freedom of that.
        runs, runs_freedom: what the runs show beyond; 0 where nobody has two runs.
    """

    mean: np.ndarray
    views: np.ndarray
    views_freedom: np.ndarray
    runs: np.ndarray
    runs_freedom: np.ndarray

    def half_width(self, risk: float | np.ndarray) -> np.ndarray:
        """Half the width of the interval that misses the truth with the probability ``risk``.

        Two ways to join the parts, mixed. Satterthwaite's adds the variances and takes one quantile of Student's t: right
        where the runs have some degrees of freedom, but it covers 88 % instead of 95 with two seeds of one contestant, which
        are often alike by chance. Howe's ("Approximate confidence limits on the mean of X + Y", 1974) gives each part its
        own quantile and joins the half-widths like the legs of a right angle: right with two seeds, else too wide. Howe's
        has the weight 1 ÷ the runs' degrees of freedom.
        """
        tail = np.asarray(risk) / 2
        total = self.views + self.runs
        parts = np.square(self.views) / self.views_freedom + np.square(self.runs) / self.runs_freedom
        freedom = np.divide(np.square(total), parts, out=np.ones_like(total), where=parts > 0)
        satterthwaite = total * np.square(stdtrit(freedom, tail))
        howe = self.views * np.square(stdtrit(self.views_freedom, tail))
        howe = howe + self.runs * np.square(stdtrit(self.runs_freedom, tail))
        return np.sqrt(satterthwaite + (howe - satterthwaite) / self.runs_freedom)

    def p(self) -> np.ndarray:
        """The risk at which the interval just reaches 0, to 1e-30; 1 where the mean is 0, 0 where nothing spreads it."""
        low, high = np.full_like(self.mean, np.log(1e-30)), np.zeros_like(self.mean)
        for _ in range(60):
            middle = (low + high) / 2
            reaches = self.half_width(np.exp(middle)) >= np.abs(self.mean)
            low, high = np.where(reaches, middle, low), np.where(reaches, high, middle)
        certain = (self.views + self.runs == 0) & (self.mean != 0)
        return np.where(self.mean == 0, 1.0, np.where(certain, 0.0, np.exp(low)))


def spread(first: np.ndarray, second: np.ndarray | None, length: int) -> Spread:
    """The mean of ``first[..., K, V]``, or its mean difference to ``second[..., K', V]``.

    With a single run nothing is known of chance between runs: that part is left out, and the rest is about that very run.

    Args:
        first, second: scores of the same views in the same order, at least 2 views; the runs may differ in number.
        length: views in a block.
    """
    series = first.mean(-2) if second is None else first.mean(-2) - second.mean(-2)
    mean = series.mean(-1)
    largest = np.abs(first).max((-2, -1))
    if second is not None:
        largest = np.maximum(largest, np.abs(second).max((-2, -1)))
    # Views that differ by round-off alone say nothing of φ; what they would seem to say would be taken for a finding below.
    flat = np.abs(series - mean[..., None]).max(-1) <= ROUND_OFF * largest
    series = np.where(flat[..., None], 0.0, series)
    shares, freedom = _small_sample(series.shape[-1], length)
    weights = likely_phi(series)
    inflation = (weights / shares).sum(-1)

    from_runs, squares, counted_twice = (np.zeros(series.shape[:-1]) for _ in range(3))
    for scores in (first,) if second is None else (first, second):
        runs = scores.shape[-2]
        if runs < 2:
            continue
        from_runs = from_runs + run_variance(scores)
        squares = squares + np.square(run_variance(scores)) / (runs - 1)
        # What belongs to one view of one run shows among the views and among the runs.
        rest = scores - scores.mean(-1, keepdims=True) - scores.mean(-2, keepdims=True)
        counted_twice = counted_twice + block_variance(rest, length).sum(-1) * inflation / (runs * (runs - 1))
    run_freedom = np.divide(np.square(from_runs), squares, out=np.ones_like(squares), where=squares > 0)
    return Spread(
        mean=mean,
        views=block_variance(series, length) * inflation,
        views_freedom=(weights * freedom).sum(-1),
        runs=np.maximum(from_runs - counted_twice, 0.0),
        runs_freedom=np.maximum(run_freedom, 1.0),
    )


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
    log = np.where(all_squares == 0, np.log(PRIOR), log)  # equal views say nothing
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
