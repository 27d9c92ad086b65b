"""Summaries: the numbers, which way is bad, and means that are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turntable.errors import TurntableError
from turntable.tasks.summary import Protocol, mean_of, summarise

PROTOCOL = Protocol("abc", ("a.png", "b.png"), "psnr as defined")


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
    assert mean_of([(PROTOCOL, 20.0), (Protocol("abc", ("a.png", "b.png"), "psnr as defined"), 30.0)]) == 25.0


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (Protocol("abd", ("a.png", "b.png"), "psnr as defined"), r"captures \(or sizes\)"),
        (Protocol("abc", ("a.png",), "psnr as defined"), "splits"),
        (Protocol("abc", ("a.png", "b.png"), "psnr on floats"), "definitions"),
    ],
)
def test_scores_of_different_protocols_are_never_averaged(other: Protocol, what: str) -> None:
    with pytest.raises(TurntableError, match=f"different {what} are never put into one mean"):
        mean_of([(PROTOCOL, 20.0), (other, 30.0)])


def test_no_scores_have_no_mean() -> None:
    with pytest.raises(TurntableError, match="at least one score"):
        mean_of([])
