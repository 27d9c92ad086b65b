"""Budgets and run folders."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turntable.errors import TurntableError
from turntable.record import Score
from turntable.run import Budget, RunFolder


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("2000steps", Budget(steps=2000)),
        ("1step", Budget(steps=1)),
        ("90s", Budget(device_seconds=90)),
        ("2m", Budget(device_seconds=120)),
        ("1h30m", Budget(device_seconds=5400)),
        ("0.5s", Budget(device_seconds=0.5)),
        (" 2 M ", Budget(device_seconds=120)),
    ],
)
def test_budgets_are_steps_or_time(text: str, budget: Budget) -> None:
    assert Budget.parse(text) == budget
    assert Budget.parse(str(budget)) == budget


@given(st.text(max_size=20))
def test_any_other_budget_is_refused_with_the_rule_and_the_value(text: str) -> None:
    try:
        budget = Budget.parse(text)
    except TurntableError as error:
        assert "2000steps" in str(error) and repr(text) in str(error)
    else:
        assert budget.steps or budget.device_seconds


@given(st.floats(1e-9, 1e9))
def test_a_budget_of_seconds_comes_back_as_it_was_written(seconds: float) -> None:
    budget = Budget.parse(f"{seconds:.9f}s")
    assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize("text", ["0steps", "0s", "-5s", "5", "5x", "", "nan", "inf", "1e9s", "5s3"])
def test_budgets_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(TurntableError, match="A budget is like"):
        Budget.parse(text)


def test_marks_of_a_tiny_steps_budget_are_at_least_a_step() -> None:
    assert Budget(steps=2).until(0.125) == {"steps": 1, "device_seconds": None}


def test_an_event_after_a_torn_line_is_read_and_the_torn_one_passed_over(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.append_event("state", state="running")
    with folder.events_path.open("ab") as file:
        file.write(b'{"type": "progr')
    folder.append_event("state", state="done")
    assert [event["state"] for event in folder.events()] == ["running", "done"]


@given(
    st.lists(st.tuples(st.text(max_size=10), st.floats(allow_nan=False, allow_infinity=False)), max_size=5)
)
def test_scores_come_back_as_they_were_written(tmp_path_factory: pytest.TempPathFactory, pairs: list) -> None:
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    scores = [
        Score(0.5, 3, 1.5, f"metric-{index}", f"definition {item!r}", f"{item}".replace("\r", ""), value)
        for index, (item, value) in enumerate(pairs)
    ]
    folder.write_scores(scores)
    assert folder.scores() == scores


def test_only_one_holds_the_lock_of_a_run(tmp_path: Path) -> None:
    first = RunFolder(tmp_path).lock()
    assert first is not None and RunFolder(tmp_path).lock() is None
    first.close()
    again = RunFolder(tmp_path).lock()
    assert again is not None
    again.close()


def test_damaged_scores_are_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_scores([Score(1.0, 1, 1.0, "psnr", "d", "a", 1.0)])
    (tmp_path / "scores.csv").write_text("mark,steps\nx,y\n")
    with pytest.raises(TurntableError, match=r"scores\.csv is damaged"):
        folder.scores()
