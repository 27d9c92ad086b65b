"""Which views are held out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turntable.captures.split import FEWEST_TRAINING, split
from turntable.errors import TurntableError


def test_every_eighth_by_name_the_first_included() -> None:
    names = [f"{index:02d}.jpg" for index in range(17)]
    assert [name for name, out in zip(names, split(names, [None] * 17, 8).held_out, strict=True) if out] == [
        "00.jpg",
        "08.jpg",
        "16.jpg",
    ]


def test_names_decide_and_not_the_order_they_come_in() -> None:
    assert split(["c", "a", "b", "d"], [None] * 4, 2).held_out == [True, True, False, False]


def test_the_sources_own_split_stands() -> None:
    assert split(["a", "b", "c"], [False, True, False], 8).held_out == [False, True, False]


def test_half_a_split_is_none() -> None:
    assert split(["a", "b", "c"], [False, None, True], 8).held_out == [True, False, False]


@given(st.sets(st.text(min_size=1), min_size=4, max_size=40), st.integers(2, 9))
def test_the_share_that_is_held_out(names: set[str], every: int) -> None:
    held_out = split(sorted(names), [None] * len(names), every).held_out
    assert held_out.count(True) == -(-len(names) // every)
    assert held_out.count(False) >= FEWEST_TRAINING


@pytest.mark.parametrize(
    ("said", "every", "says"),
    [
        ([None, None], 8, "2 training views.* 2 usable photos 1 train"),
        ([None], 8, "1 usable photos 0 train"),
        ([], 8, "0 usable photos"),
        ([False, False, False], 8, "3 train, 0 are held out"),
        ([True, True, False], 8, "1 train, 2 are held out"),
        ([None] * 9, 1, "--every is at least 2.* not 1"),
        ([None] * 9, 0, "--every is at least 2.* not 0"),
    ],
)
def test_too_little_is_refused(said: list[bool | None], every: int, says: str) -> None:
    with pytest.raises(TurntableError, match=says):
        split([f"{index}" for index in range(len(said))], said, every)
