"""What is shown of a bench: by tables where it is decided, and from a real record."""

from __future__ import annotations

import time

import pytest

from conftest import make_capture
from serve.live_bench import change, new_run, score
from turntable.bench import Bench
from turntable.lang import texts
from turntable.record import State
from turntable.serve.state import MOST_TURNS, REST_S, Reader, Turn, allowed, curve, last_stretch, timeline


@pytest.mark.parametrize(
    ("state", "wish", "pausable", "can"),
    [
        ("queued", None, True, ["pause", "cancel"]),
        ("running", None, True, ["pause", "cancel"]),
        ("running", None, None, ["pause", "cancel"]),
        ("running", None, False, ["cancel"]),
        ("interrupted", None, True, ["pause", "cancel"]),
        ("running", "pause", True, ["resume", "cancel"]),
        ("running", "cancel", True, []),
        ("paused", None, True, ["resume", "cancel"]),
        ("done", None, None, []),
        ("failed", None, None, ["retry"]),
        ("cancelled", None, None, ["retry"]),
    ],
)
def test_what_can_be_wished_of_a_run(
    state: str, wish: str | None, pausable: bool | None, can: list[str]
) -> None:
    assert allowed(state, wish, pausable) == can


def turn(started: float, ended: float | None, run: str = "a", device: str = "cpu") -> Turn:
    return Turn(run, device, started, ended, None)


NOW = 100_000.0
DAY_BEFORE = turn(NOW - 90_000, NOW - 80_000)


@pytest.mark.parametrize(
    ("turns", "first"),
    [
        ([], 0),
        ([turn(NOW - 5, None)], 0),
        ([turn(NOW - 9000, NOW - 8000)], 0),  # nothing happens now, and this was the last that did
        ([DAY_BEFORE, turn(NOW - 20, NOW - 10), turn(NOW - 10, None)], 1),
        ([DAY_BEFORE, turn(NOW - 2 * REST_S, NOW - 20), turn(NOW - 10, None)], 1),
        ([DAY_BEFORE, turn(NOW - 9000, NOW - 8000)], 1),
        ([turn(NOW - 3 * REST_S, None), turn(NOW - 2 * REST_S, NOW - 1.9 * REST_S, device="cuda:0")], 0),
    ],
)
def test_the_timeline_begins_after_the_last_rest(turns: list[Turn], first: int) -> None:
    assert last_stretch(turns, NOW) == turns[first:]


def test_the_timeline_ends_now_while_somebody_holds_a_device() -> None:
    t = texts("en")
    ended, lasting = turn(NOW - 20, NOW - 10), turn(NOW - 10, None, "b", "cuda:0")
    shown = timeline([ended, lasting], NOW, {"b": 3}, t)
    assert (shown["begin"], shown["end"]) == (NOW - 20, None)
    assert [device["name"] for device in shown["devices"]] == ["cpu", "cuda:0"]
    assert shown["devices"][1]["turns"][0] | {"from": ""} == {
        "run": "b",
        "url": "/runs/b",
        "colour": 3,
        "started": NOW - 10,
        "ended": None,
        "from": "",
        "to": "now",
        "seconds": "",
        "why": "",
    }
    assert timeline([ended], NOW, {}, t)["end"] == NOW - 10
    assert timeline([], NOW, {}, t) == {"begin": NOW, "end": None, "from": "", "to": "", "devices": []}


def test_a_curve_fills_its_box() -> None:
    drawn = curve([(10.0, 20.0), (20.0, 25.0), (40.0, 30.0)], width=400, height=100)
    assert drawn is not None
    assert drawn["dots"] == [(100.0, 100.0), (200.0, 50.0), (400.0, 0.0)]
    assert curve([(10.0, 20.0)]) is None
    flat = curve([(0.0, 5.0), (0.0, 5.0)])
    assert flat is not None and flat["dots"] == [(0.0, 120.0), (0.0, 120.0)]


def test_a_turn_whose_supervisor_was_killed_has_ended(bench: Bench) -> None:
    run = new_run(bench)
    change(bench, run, State.RUNNING, at=1000.0)
    run.append_event("progress", steps=1)  # the last that it told of
    parts = Reader(bench.folder, texts("en")).look()
    assert parts is not None
    assert parts[f"run/{run.id}"]["state"] == "interrupted"
    (shown,) = parts["turns"]["devices"][0]["turns"]
    assert shown["why"] == "interrupted" and shown["ended"] > 1000.0


def test_nothing_is_read_again_while_nothing_changes(bench: Bench) -> None:
    run = new_run(bench)
    reader = Reader(bench.folder, texts("en"))
    first = reader.look()
    assert first is not None and first["order"] == [run.id]
    assert reader.look() is None
    score(bench, run, 0.5, 20.0)
    again = reader.look()
    assert again is not None and again[f"run/{run.id}"]["score"] == "20.50 dB at 50.0%"
    writing = reader.look(frozenset({"fox"}), {})
    assert writing is not None and writing["captures"][0]["writing"]
    failed = reader.look(frozenset(), {"fox": "no such thing"})
    assert failed is not None and "no such thing" in failed["captures"][0]["text"]


def test_a_page_is_called_outdated_by_runs_that_are_no_longer_listed(bench: Bench) -> None:
    make_capture(bench.captures_folder / "banana")
    for name in ("fox", "banana"):
        (bench.reports_folder / name).mkdir(parents=True)
        (bench.reports_folder / name / "index.html").write_text("the page")
    old = new_run(bench, capture="banana")
    change(bench, old, State.CANCELLED, at=time.time() + 60)
    for number in range(25):
        change(bench, new_run(bench), State.CANCELLED, at=time.time() - 3600 + number)
    parts = Reader(bench.folder, texts("en")).look()
    assert parts is not None and old.id not in parts["order"]
    assert {capture["name"]: capture["stale"] for capture in parts["captures"]} == {
        "banana": True,
        "fox": False,
    }


def test_a_long_day_is_cut_short(bench: Bench) -> None:
    run = new_run(bench)
    for number in range(MOST_TURNS + 50):
        change(bench, run, State.RUNNING, at=1000.0 + 2 * number)
        change(bench, run, State.QUEUED, at=1001.0 + 2 * number)
    parts = Reader(bench.folder, texts("en")).look()
    assert parts is not None
    turns = parts["turns"]["devices"][0]["turns"]
    assert len(turns) == MOST_TURNS
    assert turns[-1]["started"] == 1000.0 + 2 * (MOST_TURNS + 49)
