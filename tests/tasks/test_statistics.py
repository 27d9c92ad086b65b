"""Rankings: what is decided, what can't be told, and that nothing is dropped."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turntable.errors import TurntableError
from turntable.tasks.statistics import Sample, holm, rank


def sample(name: str, mean: float, seeds: int, views: int, failed: int = 0, noise: float = 1.0) -> Sample:
    """Scores of a contestant: views and rest of deviation ``noise``, drawn from the name."""
    rng = np.random.default_rng([*name.encode(), views])
    return Sample(
        name, mean + noise * (rng.normal(size=(1, views)) + 0.3 * rng.normal(size=(seeds, views))), failed
    )


@st.composite
def contestants(draw: st.DrawFn) -> list[Sample]:
    """Two to five, of the same views, some with clear differences."""
    views = draw(st.integers(1, 9))
    return [
        sample(name, draw(st.sampled_from([0.0, 0.5, 3.0, 20.0])), draw(st.integers(0, 3)), views)
        for name in "abcde"[: draw(st.integers(2, 5))]
    ]


def test_a_clear_difference_is_decided_and_a_small_one_can_not_be_told() -> None:
    found = rank([sample("nearest", 17, 1, 7), sample("splat", 32, 1, 7), sample("gs", 32.1, 1, 7)], True)
    assert set(found.ties[0]) == {"splat", "gs"} and found.ties[1] == ("nearest",)
    assert found.ranks["nearest"] == (3, 3) and found.ranks["splat"] == found.ranks["gs"] == (1, 2)
    assert (found.leader, found.views, found.fewest_seeds) == (None, 7, 1)
    assert not found.between_runs_measured


def test_with_two_seeds_each_chance_between_runs_is_measured() -> None:
    found = rank([sample("a", 20, 3, 12), sample("b", 30, 2, 12)], True)
    assert (found.leader, found.fewest_seeds, found.between_runs_measured) == ("b", 2, True)


def test_one_seed_of_either_leaves_chance_between_runs_unmeasured() -> None:
    found = rank([sample("a", 20, 3, 12), sample("b", 30, 1, 12)], True)
    assert (found.between_runs_measured, found.pairs[0].between_runs_measured) == (False, False)


def test_where_lower_is_better_a_positive_difference_still_means_that_the_first_is_better() -> None:
    low, high = sample("low", 0.1, 2, 12, noise=0.01), sample("high", 0.4, 2, 12, noise=0.01)
    found = rank([low, high], higher_is_better=False)
    pair = found.pairs[0]
    assert found.order == ("low", "high") and pair.winner == "low" == found.leader
    assert pair.difference.mean > 0 and pair.difference.low > 0
    assert (pair.views_better, pair.views_worse) == (12, 0)
    assert rank([low, high], higher_is_better=True).order == ("high", "low")


def test_views_that_differ_in_difficulty_alone_do_not_widen_a_paired_difference() -> None:
    difficulty = np.random.default_rng(0).normal(size=(1, 25)) * 5
    other = difficulty + sample("b", 0, 1, 25, noise=0.1).scores
    found = rank([Sample("a", difficulty + 0.5), Sample("b", other)], True)
    assert found.leader == "a"
    assert found.intervals["a"].high - found.intervals["a"].low > 2  # their own means can't tell


def test_runs_that_differ_a_lot_are_not_decided_by_many_views() -> None:
    """The original 3DGS gave 24.2 to 28.1 dB from the same seed: more views can't make up for few runs."""
    views = np.random.default_rng(1).normal(size=(2, 1, 300)) * 0.1
    runs = np.array([24.2, 28.1, 26.0])[:, None]
    found = rank([Sample("a", runs + views[0]), Sample("b", runs[::-1] + 1 + views[1])], True)
    assert found.pairs[0].views_worse == 300 and not found.pairs[0].decided
    assert rank([Sample("a", runs[:1] + views[0]), Sample("b", runs[:1] + 1 + views[1])], True).leader == "b"


def test_failed_runs_are_counted_and_one_that_never_finished_is_last() -> None:
    dead = Sample("dead", np.empty((0, 7)), failed=2)
    found = rank([dead, sample("a", 30, 2, 7, failed=1), sample("b", 10, 2, 7)], True)
    assert found.order == ("a", "b", "dead") and found.ties[-1] == ("dead",)
    assert found.ranks["dead"] == (3, 3) and "dead" not in found.intervals and len(found.pairs) == 1
    assert found.failed == {"dead": 2, "a": 1, "b": 0} and found.seeds["dead"] == 0
    assert found.leader == "a"


def test_where_nobody_or_one_finished_there_is_nothing_to_compare() -> None:
    dead = [Sample("x", np.empty((0, 7)), 1), Sample("y", np.empty((0, 7)), 1)]
    assert rank(dead, True).ties == (("x", "y"),) and rank(dead, True).leader is None
    assert rank(dead, True).fewest_seeds == 0
    found = rank([dead[0], sample("a", 30, 2, 7)], True)
    assert found.leader is None and found.ranks == {"a": (1, 1), "x": (2, 2)}


def test_a_single_view_tells_nothing_of_others() -> None:
    found = rank([sample("a", 0, 3, 1), sample("b", 99, 3, 1)], True)
    assert (found.pairs[0].p, found.leader, found.block) == (1.0, None, 1)
    assert found.intervals["a"].low == -math.inf and found.intervals["a"].high == math.inf


def test_equal_scores_are_equal_and_a_constant_difference_is_certain() -> None:
    scores = sample("a", 30, 2, 7).scores
    found = rank([Sample("a", scores), Sample("b", scores + 0.0), Sample("c", scores[::-1])], True)
    assert all(pair.p == 1 and pair.difference.mean == 0 for pair in found.pairs)
    assert found.ties == (("a", "b", "c"),)
    flat = rank([Sample("a", np.full((1, 7), 3.0)), Sample("b", np.full((1, 7), 1.0))], True)
    assert (flat.pairs[0].p, flat.leader) == (0.0, "a")


def test_who_is_not_decidedly_worse_than_the_best_ties_with_it_even_behind_one_that_is() -> None:
    rng = np.random.default_rng(2)
    best = rng.normal(size=(1, 25))
    close = best - 0.3 + 0.01 * rng.normal(size=(1, 25))  # hardly differs from the best but by a little
    wild = best - 0.5 + 9 * rng.normal(size=(1, 25))
    wild += best.mean() - 0.5 - wild.mean()
    found = rank([Sample("best", best), Sample("close", close), Sample("wild", wild)], True)
    assert found.order == ("best", "close", "wild")
    assert found.ties == (("best", "wild"), ("close",))
    assert found.ranks == {"best": (1, 2), "close": (2, 3), "wild": (1, 3)}


@given(contestants(), st.booleans())
def test_pairs_ranks_and_ties_agree(samples: list[Sample], higher: bool) -> None:
    found = rank(samples, higher)
    finished = [name for name in found.order if found.seeds[name]]
    assert sorted(found.order) == sorted(one.name for one in samples)
    assert sorted(name for group in found.ties for name in group) == sorted(found.order)
    for pair in found.pairs:
        excludes = pair.difference.low > 0 or pair.difference.high < 0
        assert excludes == (pair.p < 0.05) and pair.p_holm >= pair.p
        assert pair.decided == (pair.p_holm < 0.05) and (pair.winner is None) != pair.decided
        assert found.pair(pair.second, pair.first) is pair
        if pair.decided:
            assert pair.winner is not None
            assert found.order.index(pair.winner) == min(map(found.order.index, (pair.first, pair.second)))
    for name in finished:
        best, worst = found.ranks[name]
        assert best <= 1 + finished.index(name) <= worst
    if found.leader is not None:
        assert found.ranks[found.leader] == (1, 1) and found.ties[0] == (found.leader,)


@given(contestants(), st.booleans())
def test_the_order_of_the_samples_does_not_matter(samples: list[Sample], higher: bool) -> None:
    one, other = rank(samples, higher), rank(samples[::-1], higher)
    assert one.ranks == other.ranks
    for pair in one.pairs:
        swapped = other.pair(pair.first, pair.second)
        assert (swapped.first, swapped.decided) == (pair.second, pair.decided)
        assert swapped.difference.mean == pytest.approx(-pair.difference.mean)
        assert (swapped.views_better, swapped.views_worse) == (pair.views_worse, pair.views_better)


@given(contestants(), st.floats(-100, 100))
def test_the_same_added_to_all_changes_no_decision(samples: list[Sample], shift: float) -> None:
    one = rank(samples, True)
    other = rank([Sample(each.name, each.scores + shift) for each in samples], True)
    for before, after in zip(one.pairs, other.pairs, strict=True):
        assert after.p == pytest.approx(before.p, abs=1e-6)
        assert after.difference.mean == pytest.approx(before.difference.mean, abs=1e-9)


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_rejects_what_its_steps_reject(p: list[float]) -> None:
    """The twin: from the smallest p on, reject while p < α ÷ (how many are left)."""
    corrected = holm(p)
    for alpha in (0.01, 0.05, 0.3):
        rejected, going = set(), True
        for place, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
            going = going and (len(p) - place) * p[i] < alpha
            if going:
                rejected.add(i)
        assert {i for i, value in enumerate(corrected) if value < alpha} == rejected


def test_holms_example_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_equals_are_rarely_parted() -> None:
    """Four equals, 300 times: Holm holds the risk of any wrong decision under 5 %; 8.8 % are three deviations more."""
    rng = np.random.default_rng(3)
    parted = 0
    for _ in range(300):
        scores = (
            rng.normal(size=(4, 1, 25)) + 0.3 * rng.normal(size=(4, 3, 1)) + 0.5 * rng.normal(size=(4, 3, 25))
        )
        found = rank([Sample(str(i), one) for i, one in enumerate(scores)], True)
        parted += any(pair.decided for pair in found.pairs)
    assert parted / 300 < 0.088


def test_six_contestants_of_three_seeds_and_three_hundred_views_take_under_a_second() -> None:
    samples = [sample(name, 25, 3, 300) for name in "abcdef"]
    start = time.process_time()
    rank(samples, True)
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("samples", "says"),
    [
        ([], "at least one contestant"),
        ([sample("a", 0, 1, 7), sample("a", 1, 1, 7)], "'a' is there 2 times"),
        ([sample("a", 0, 1, 7), sample("b", 1, 1, 8)], "b has 8 and a 7. Score them on one split"),
        ([sample("x", 0, 0, 9), sample("a", 0, 1, 7), sample("b", 1, 1, 8)], "b has 8 and a 7"),
        ([Sample("a", np.array([[1.0, math.nan]]))], "a has nan"),
        ([Sample("a", np.array([[1.0, math.inf]]))], "a has inf"),
        ([Sample("a", np.zeros(7))], r"have shape \(7,\)"),
        ([Sample("a", np.zeros((2, 0)))], "a has none"),
        ([Sample("a", np.zeros((1, 7)), failed=-1)], "a has -1"),
    ],
)
def test_what_can_not_be_compared_is_refused(samples: list[Sample], says: str) -> None:
    with pytest.raises(TurntableError, match=says):
        rank(samples, True)


def test_a_level_is_between_0_and_1() -> None:
    with pytest.raises(TurntableError, match="got 95"):
        rank([sample("a", 0, 1, 7)], True, level=95)
