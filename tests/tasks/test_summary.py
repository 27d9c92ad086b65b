"""Summaries: the numbers, which way is bad, and means that are refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turntable.errors import TurntableError
from turntable.tasks.summary import Protocol, differences, mean_of, scenes_differ, summarise

PROTOCOL = Protocol("fox", "abc", ("540×960",), "every 8th", ("a.png", "b.png"), "psnr as defined")


def test_eleven_scores_by_hand() -> None:
    summary = summarise({f"{i:02d}.png": float(i) for i in range(11)}, higher_is_better=True)
    assert {key: summary[key] for key in ("mean", "min", "max", "p10", "p90", "worst", "bad_tenth")} == {
        "mean": 5.0, "min": 0.0, "max": 10.0, "p10": 1.0, "p90": 9.0, "worst": 0.0, "bad_tenth": 1.0,
    }  # fmt: skip


def test_percentiles_lie_linearly_between_order_statistics() -> None:
    summary = summarise({"a": 1.0, "b": 2.0}, higher_is_better=True)
    assert (summary["p10"], summary["p90"]) == (pytest.approx(1.1), pytest.approx(1.9))


def test_where_lower_is_better_the_worst_is_the_largest() -> None:
    summary = summarise({f"{i:02d}.png": float(i) for i in range(11)}, higher_is_better=False)
    assert (summary["worst"], summary["bad_tenth"], summary["p10"]) == (10.0, 9.0, 1.0)


def test_no_score_has_no_summary() -> None:
    with pytest.raises(ValueError, match="at least one score"):
        summarise({}, higher_is_better=True)


@settings(deadline=None)  # a busy machine is no fault
@given(st.dictionaries(st.text(min_size=1), st.floats(-1e6, 1e6), min_size=1), st.booleans())
def test_in_order_and_independent_of_the_items_order(scores: dict[str, float], higher: bool) -> None:
    one = summarise(scores, higher)
    assert one["min"] <= one["p10"] <= one["p90"] <= one["max"]  # type: ignore[operator]
    other = summarise(dict(reversed(scores.items())), higher)
    assert {key: one[key] for key in ("min", "p10", "p90", "max", "worst", "per_item")} == {
        key: other[key] for key in ("min", "p10", "p90", "max", "worst", "per_item")
    }
    np.testing.assert_allclose(one["mean"], other["mean"], rtol=1e-9, atol=1e-6)  # type: ignore[arg-type]


def test_scores_of_one_protocol_have_a_mean() -> None:
    assert mean_of([(PROTOCOL, 20.0), (replace(PROTOCOL), 30.0)]) == 25.0


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (
            replace(PROTOCOL, capture="temple", capture_hash="abd"),
            r"captures differ: fox \(abc\) and temple \(abd\)",
        ),
        (replace(PROTOCOL, sizes=("270×480",)), "sizes differ: '540×960' and '270×480'"),
        (replace(PROTOCOL, split="the last 20 %"), "splits differ: 'every 8th' and 'the last 20 %'"),
        (replace(PROTOCOL, held_out=("a.png",)), "splits differ: 1 and 2 held-out views of one capture"),
        (
            replace(PROTOCOL, definition="psnr on floats"),
            "definitions differ: 'psnr as defined' and 'psnr on floats'",
        ),
    ],
)
def test_scores_of_different_protocols_are_never_averaged(other: Protocol, why: str) -> None:
    for values in ([(PROTOCOL, 20.0), (other, 30.0)], [(other, 1.0), (PROTOCOL, 2.0), (PROTOCOL, 3.0)]):
        with pytest.raises(TurntableError, match=r"never put into one mean; here .* differ"):
            mean_of(values)
    assert len(differences([PROTOCOL, other])) == 1
    with pytest.raises(TurntableError, match=why):
        mean_of([(PROTOCOL, 20.0), (other, 30.0)])


def test_everything_that_differs_is_named_at_once() -> None:
    other = Protocol("temple", "abd", ("640×480",), "the last 20 %", ("c.png",), "psnr on floats")
    reasons = differences([PROTOCOL, other, PROTOCOL])
    assert [reason.partition(" ")[0] for reason in reasons] == ["captures", "sizes", "splits", "definitions"]


@settings(deadline=None)  # a busy machine is no fault
@given(st.lists(st.sampled_from([PROTOCOL, replace(PROTOCOL, capture_hash="abd")]), min_size=1))
def test_one_stranger_among_many_is_enough(protocols: list[Protocol]) -> None:
    assert bool(differences(protocols)) == (len(set(protocols)) > 1)


def test_means_over_seven_and_nine_scenes_are_never_set_beside_each_other() -> None:
    nine = [f"scene {index}" for index in range(9)]
    assert scenes_differ({"3DGS": nine, "MCMC": nine[:7]}) == [
        "numbers of scenes differ: MCMC has 7 of 9 and lacks scene 7, scene 8"
    ]
    assert scenes_differ({"3DGS": nine[1:], "MCMC": nine[:8]}) == [  # as many, but not the same
        "numbers of scenes differ: 3DGS has 8 of 9 and lacks scene 0; MCMC has 8 of 9 and lacks scene 8"
    ]
    assert scenes_differ({"3DGS": nine, "MCMC": nine[::-1]}) == []
    assert scenes_differ({}) == []


def test_no_scores_have_no_mean() -> None:
    with pytest.raises(TurntableError, match="at least one score"):
        mean_of([])
