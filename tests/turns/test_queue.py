"""The queue in a real record: places, who counts as waiting, whose word is believed, old records, and the states."""

from __future__ import annotations

import itertools
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from turntable import schema
from turntable.errors import TurntableError
from turntable.record import FoundRun, Record, RunRow, Score, State, StateChange, Terms
from turntable.turns.identity import Who, me, started
from turntable.turns.queue import CANCEL, EXPIRES_S, PAUSE, RELEASE, RESUME, Queue


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    record = Record(tmp_path / "record.sqlite")
    yield record
    record.close()


@pytest.fixture
def queue(record: Record) -> Queue:
    return Queue(record)


@pytest.fixture(scope="module")
def dead() -> Who:
    """A process that has lived on this machine, and ended."""
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    born = started(process.pid)
    process.communicate()
    assert born is not None
    return replace(me(), pid=process.pid, started=born)


@pytest.fixture(scope="module")
def other() -> Iterator[Who]:
    """Another process that lives."""
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    born = started(process.pid)
    assert born is not None
    yield replace(me(), pid=process.pid, started=born)
    process.communicate()


OF_ANOTHER_BOOT = replace(me(), boot="00000000-0000-0000-0000-000000000000 pid:[1]")
UNSEEN = replace(me(), boot=f"{me().boot.partition(' ')[0]} pid:[1]")
"""In another container of this machine: nobody can say from here whether it lives."""


def row(run: str, created: float = 1000.0, **more: Any) -> RunRow:
    fields: dict[str, Any] = {
        "capture": "fox",
        "capture_hash": "c0ffee",
        "method": "splat",
        "task": "views",
        "question": f"question of {run}",
        "state": State.QUEUED,
        "cause": None,
        "device": "cpu",
        "steps": 0,
        "device_seconds": 0.0,
        "setup_seconds": 0.0,
        "peak_memory_bytes": 0,
        "fraction": 0.0,
    }
    return RunRow(id=run, created=created, **{**fields, **more})


def add(record: Record, *runs: str, terms: Terms | None = None, **more: Any) -> None:
    for run in runs:
        record.add_run(row(run, **more), terms or Terms())


def change(record: Record, run: str, *states: State, at: float = 2000.0, **more: Any) -> None:
    for state in states:
        record.change_state(run, StateChange(at, state, **more))


def in_line(queue: Queue) -> list[str]:
    return [waiting.run for waiting in sorted(queue.snapshot().waits(), key=lambda waiting: waiting.place)]


# Places --------------------------------------------------------------------------------------------------------------


def test_runs_stand_in_the_order_in_which_they_were_added(record: Record, queue: Queue) -> None:
    add(record, "c", created=3.0)
    add(record, "a", created=2.0)
    add(record, "b", created=1.0)
    assert in_line(queue) == ["c", "a", "b"]
    assert [queue.snapshot().entries[run].place for run in "cab"] == [1, 2, 3]


def test_a_run_whose_turn_has_ended_goes_behind(record: Record, queue: Queue) -> None:
    add(record, "a", "b", "c")
    change(record, "a", State.RUNNING, State.QUEUED, at=5000.0)
    assert in_line(queue) == ["b", "c", "a"]
    assert queue.snapshot().entries["a"].since == 5000.0
    change(record, "b", State.RUNNING, State.QUEUED)
    assert in_line(queue) == ["c", "a", "b"]


def test_a_resumed_run_goes_behind_and_its_waiting_begins_anew(record: Record, queue: Queue) -> None:
    add(record, "a", "b")
    change(record, "a", State.PAUSED)
    assert in_line(queue) == ["b"]
    change(record, "a", State.QUEUED, at=7000.0)
    assert in_line(queue) == ["b", "a"]
    assert queue.snapshot().entries["a"].since == 7000.0


def test_a_clock_set_back_changes_no_order(record: Record, queue: Queue) -> None:
    add(record, "a", "b", created=9000.0)
    change(record, "a", State.RUNNING, State.QUEUED, at=10.0)
    assert in_line(queue) == ["b", "a"]


@pytest.mark.parametrize("end", [State.DONE, State.FAILED, State.CANCELLED])
def test_a_run_that_has_ended_leaves_the_queue(record: Record, queue: Queue, end: State) -> None:
    add(record, "a", "b")
    queue.enter(me(), ["a", "b"], ["cpu"], detached=False)
    change(record, "a", State.RUNNING, end)
    assert list(queue.snapshot().entries) == ["b"]
    assert queue.entry("a") is None and queue.entry("b") is not None
    assert queue.answering("a") == [] and queue.answering("b") == [me()]
    assert [run.id for run in record.runs(unended=True)] == ["b"]
    assert [run.id for run in record.last_ended(5)] == ["a"]


def test_places_stay_distinct_though_runs_come_and_go(record: Record, queue: Queue) -> None:
    add(record, "a", "b", "c")
    change(record, "c", State.CANCELLED)
    add(record, "d")
    change(record, "a", State.RUNNING, State.QUEUED)
    add(record, "e")
    assert in_line(queue) == ["b", "d", "a", "e"]
    assert len({entry.place for entry in queue.snapshot().entries.values()}) == 4


def test_terms_reach_the_policy(record: Record, queue: Queue) -> None:
    terms = Terms(priority=2, quantum_s=60.0, after="a", need_bytes=5_000, owner=None)
    add(record, "a")
    add(record, "b", terms=terms, created=1234.0, device="cuda:1")
    [waiting] = [waiting for waiting in queue.snapshot().waits() if waiting.run == "b"]
    assert (waiting.priority, waiting.quantum_s, waiting.need_bytes) == (2, 60.0, 5_000)
    assert (waiting.wants, waiting.after, waiting.since, waiting.pausable) == ("cuda:1", "a", 1234.0, True)


@pytest.mark.parametrize("end", [State.DONE, State.FAILED, State.CANCELLED])
def test_a_run_waits_for_another_until_that_has_ended_however_it_did(
    record: Record, queue: Queue, end: State
) -> None:
    add(record, "a")
    add(record, "b", terms=Terms(after="a"))
    for state in (State.RUNNING, State.PAUSED, State.QUEUED, State.RUNNING):
        change(record, "a", state)
        assert queue.snapshot().waiting(queue.snapshot().entries["b"]).after == "a"
    change(record, "a", end)
    assert queue.snapshot().waiting(queue.snapshot().entries["b"]).after is None


def test_a_run_is_bound_to_the_model_of_its_first_device(record: Record, queue: Queue) -> None:
    add(record, "a", device="cuda")
    change(record, "a", State.RUNNING, device="cuda:1", model="A (24 GB)")
    change(record, "a", State.QUEUED)
    change(record, "a", State.RUNNING, device="cuda:0", model="B (80 GB)")
    entry = queue.snapshot().entries["a"]
    assert (entry.began_on, entry.wants, entry.device) == ("A (24 GB)", "cuda", "cuda:0")


def test_what_pausing_came_to_is_noted(record: Record, queue: Queue) -> None:
    add(record, "a")
    queue.note_pausing("a", "no way of pausing it works here", pausable=False)
    snapshot = queue.snapshot()
    assert snapshot.entries["a"].pausing == "no way of pausing it works here"
    assert snapshot.waits()[0].pausable is False


def test_the_need_for_memory_is_learned_from_finished_runs_alone(record: Record, queue: Queue) -> None:
    assert queue.learned_need("splat", "fox", "c0ffee", "cpu") == 0
    for run, peak, end in (("a", 5, State.DONE), ("b", 7, State.DONE), ("c", 99, State.FAILED)):
        add(record, run, peak_memory_bytes=peak)
        change(record, run, State.RUNNING, end)
    add(record, "d", peak_memory_bytes=88)
    assert queue.learned_need("splat", "fox", "c0ffee", "cpu") == 7
    assert queue.learned_need("splat", "fox", "c0ffee", "cuda") == 0, "that is of a card's memory"
    assert queue.learned_need("splat", "fox", "another size", "cpu") == 0
    assert queue.learned_need("nearest", "fox", "c0ffee", "cpu") == 0
    queue.learn("b", "cpu", most_bytes=100)
    assert queue.snapshot().waits()[0].need_bytes == 7, "those that wait already learn too"
    add(record, "e")
    queue.learn("e", "cpu", most_bytes=6)
    assert queue.snapshot().entries["e"].need_bytes == 6, "never more than the device has"


def test_one_that_comes_while_another_comes_isnt_taken_for_dead(
    record: Record, queue: Queue, other: Who
) -> None:
    """What was there was looked up before the transaction began: whoever came in between lost his rows for good."""
    rows = queue.supervisors()
    assert rows == []
    queue.enter(other, ["a"], ["cpu"], detached=False)
    queue.enter(me(), ["b"], ["cpu"], detached=False)
    assert {row.who for row in queue.supervisors()} == {other, me()}


# Who is believed -----------------------------------------------------------------------------------------------------


def test_a_running_run_whose_supervisor_lives_doesnt_wait(record: Record, queue: Queue, other: Who) -> None:
    add(record, "a", "b", terms=Terms(priority=1))
    queue.take_lease("cpu", "a", other, priority=3)
    change(record, "a", State.RUNNING)
    assert in_line(queue) == ["b"]
    turn = queue.snapshot().turn("cpu")
    assert turn is not None
    assert (turn.run.run, turn.run.priority, turn.priority) == ("a", 1, 3)
    assert 0 <= turn.held_s < EXPIRES_S


def test_a_running_run_whose_supervisor_was_killed_waits_at_its_old_place(
    record: Record, queue: Queue, dead: Who
) -> None:
    add(record, "a", "b")
    queue.take_lease("cpu", "a", dead, priority=0)
    change(record, "a", State.RUNNING)
    assert in_line(queue) == ["a", "b"]
    assert queue.snapshot().turn("cpu") is None and queue.snapshot().leases == {}
    assert [lease.who for lease in queue.leases()] == [dead], "but what it had said is there to be seen"


def test_a_lease_of_another_boot_counts_for_nothing(record: Record, queue: Queue) -> None:
    add(record, "a")
    queue.take_lease("cpu", "a", OF_ANOTHER_BOOT, priority=0)
    change(record, "a", State.RUNNING)
    assert in_line(queue) == ["a"] and queue.snapshot().turn("cpu") is None


def test_a_lease_of_a_process_that_cant_be_seen_from_here_counts(record: Record, queue: Queue) -> None:
    add(record, "a")
    queue.take_lease("cpu", "a", UNSEEN, priority=0)
    change(record, "a", State.RUNNING)
    assert in_line(queue) == [] and queue.snapshot().turn("cpu") is not None


def test_a_lease_expires_when_its_heart_stops(
    record: Record, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(record, "a")
    queue.take_lease("cpu", "a", me(), priority=0)
    [lease] = queue.leases()
    assert lease.stands and not lease.expired
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + EXPIRES_S + 1)
    [lease] = queue.leases()
    assert lease.stands and lease.expired
    queue.beat(me())
    [lease] = queue.leases()
    assert not lease.expired and lease.began < lease.heartbeat


def test_a_run_that_waits_for_its_turn_isnt_made_to_wait_by_a_lease_of_another(
    record: Record, queue: Queue
) -> None:
    add(record, "a", "b")
    queue.take_lease("cpu", "gone", me(), priority=0)  # a run of which the record knows nothing (rebuilt)
    assert in_line(queue) == ["a", "b"] and queue.snapshot().turn("cpu") is None


def test_who_has_the_device_drops_the_lease_of_one_who_cant_be_seen(record: Record, queue: Queue) -> None:
    # One killed in another container, say: as long as its lease stands, its run gets no turn.
    add(record, "a")
    queue.take_lease("cpu", "a", UNSEEN, priority=0)
    queue.take_lease("cuda:0", "b", me(), priority=0)
    change(record, "a", State.RUNNING)
    assert in_line(queue) == []
    queue.drop_lease("cpu")
    assert [lease.device for lease in queue.leases()] == ["cuda:0"]
    assert in_line(queue) == ["a"] and queue.snapshot().turn("cpu") is None


def test_a_device_taken_from_the_dead_has_one_lease(record: Record, queue: Queue, dead: Who) -> None:
    queue.take_lease("cpu", "a", dead, priority=0)
    queue.take_lease("cpu", "b", me(), priority=0)
    assert [(lease.run, lease.who) for lease in queue.leases()] == [("b", me())]


@pytest.mark.parametrize("gone", ["dead", "of another boot"])
def test_who_comes_clears_away_what_the_dead_had_written(
    record: Record, queue: Queue, dead: Who, other: Who, gone: str
) -> None:
    gone_one = dead if gone == "dead" else OF_ANOTHER_BOOT
    add(record, "a", "b")
    queue.enter(gone_one, ["a"], ["cpu"], detached=False)
    assert queue.supervisors() == [] and queue.answering("a") == []
    queue.enter(other, ["b"], ["cpu"], detached=True)
    queue.enter(me(), ["a"], ["cpu"], detached=False)
    rows = {table: record.read(f"SELECT pid, boot FROM {table}") for table in ("supervisors", "wanted")}
    for found in rows.values():
        assert sorted((row["pid"], row["boot"]) for row in found) == sorted(
            (who.pid, who.boot) for who in (other, me())
        )
    assert {(row.who, row.detached) for row in queue.supervisors()} == {(other, True), (me(), False)}


def test_who_comes_leaves_those_alone_that_cant_be_seen_from_here(record: Record, queue: Queue) -> None:
    add(record, "a")
    queue.enter(UNSEEN, ["a"], ["cpu"], detached=False)
    queue.enter(me(), [], ["cpu"], detached=False)
    assert queue.answering("a") == [UNSEEN]


def test_entering_twice_changes_nothing(record: Record, queue: Queue) -> None:
    add(record, "a", "b")
    queue.enter(me(), ["a"], ["cpu"], detached=False)
    queue.enter(me(), ["a", "b"], ["cpu"], detached=False)
    assert len(queue.supervisors()) == 1
    assert queue.answering("a") == [me()] and queue.answering("b") == [me()]


def test_who_leaves_takes_all_of_its_own_along_and_nothing_else(
    record: Record, queue: Queue, other: Who
) -> None:
    add(record, "a")
    for device, who in (("cpu", other), ("cuda:0", me())):
        queue.enter(who, ["a"], ["cpu"], detached=False)
        queue.take_lease(device, "a", who, priority=0)
    queue.leave(me())
    assert [row.who for row in queue.supervisors()] == [other]
    assert queue.answering("a") == [other]
    assert [lease.who for lease in queue.leases()] == [other]


def test_those_who_answer_for_a_run_are_found_but_for_the_dead(
    record: Record, queue: Queue, dead: Who, other: Who
) -> None:
    add(record, "a", "b")
    queue.enter(me(), ["a"], ["cpu"], detached=False)
    queue.enter(other, ["a", "b"], ["cpu"], detached=False)
    with record.writing() as db:
        db.execute("INSERT INTO wanted VALUES (?, ?, ?, 'a')", (dead.boot, dead.pid, dead.started))
    assert set(queue.answering("a")) == {me(), other}
    assert queue.answering("b") == [other]
    snapshot = queue.snapshot()
    assert {run: set(who) for run, who in snapshot.wanted.items()} == {
        "a": {me(), other, dead},
        "b": {other},
    }
    assert {row.who for row in snapshot.supervisors} == {me(), other}


def served_on(queue: Queue) -> dict[str, set[str]]:
    """By run, where somebody would give it a turn."""
    waits = queue.snapshot().waits()
    assert all(waiting.served_on is not None for waiting in waits)
    return {waiting.run: set(waiting.served_on or ()) for waiting in waits}


def test_a_run_of_anybody_is_served_while_a_supervisor_lives(record: Record, queue: Queue, dead: Who) -> None:
    add(record, "a")
    assert served_on(queue) == {"a": set()}
    queue.enter(dead, ["a"], ["cpu"], detached=False)
    assert served_on(queue) == {"a": set()}
    queue.enter(me(), [], ["cpu"], detached=False)
    assert served_on(queue) == {"a": {"cpu"}}
    queue.leave(me())
    assert served_on(queue) == {"a": set()}


def test_a_run_is_served_where_its_supervisors_give_turns(record: Record, queue: Queue, other: Who) -> None:
    add(record, "a", device="cuda:1")
    queue.enter(me(), [], [], detached=False)
    assert served_on(queue) == {"a": set()}
    queue.enter(other, [], ["cpu", "cuda:0"], detached=False)
    assert served_on(queue) == {"a": {"cpu", "cuda:0"}}
    queue.enter(me(), ["a"], iter(["cuda:0", "cuda:1"]), detached=False)
    assert {row.who: row.devices for row in queue.supervisors()} == {
        me(): {"cuda:0", "cuda:1"},
        other: {"cpu", "cuda:0"},
    }
    assert served_on(queue) == {"a": {"cpu", "cuda:0", "cuda:1"}}
    queue.leave(other)
    assert served_on(queue) == {"a": {"cuda:0", "cuda:1"}}


def test_a_kept_process_binds_its_run_to_a_device(record: Record, queue: Queue) -> None:
    add(record, "a", "b", device="cuda")
    assert [waiting.kept_on for waiting in queue.snapshot().waits()] == [None, None]
    queue.note_kept("a", "cuda:1")
    assert [waiting.kept_on for waiting in queue.snapshot().waits()] == ["cuda:1", None]
    queue.note_kept("a", None)
    assert [waiting.kept_on for waiting in queue.snapshot().waits()] == [None, None]


def test_a_run_of_one_user_is_served_by_that_users_supervisors_alone(
    record: Record, queue: Queue, other: Who
) -> None:
    add(record, "mine", terms=Terms(owner=os.getuid()))
    add(record, "theirs", terms=Terms(owner=os.getuid() + 1))

    queue.enter(me(), ["mine", "theirs"], ["cpu"], detached=False)
    assert served_on(queue) == {"mine": {"cpu"}, "theirs": set()}
    queue.enter(other, [], ["cuda:0"], detached=False)
    with record.writing() as db:
        db.execute("UPDATE supervisors SET owner = owner + 1 WHERE pid = ?", (other.pid,))
    assert served_on(queue) == {"mine": {"cpu"}, "theirs": {"cuda:0"}}


def test_a_run_that_cant_be_saved_is_served_only_by_who_answers_for_it(
    record: Record, queue: Queue, other: Who
) -> None:
    add(record, "a", terms=Terms(own_only=True))
    queue.enter(me(), [], ["cpu", "cuda:0"], detached=False)
    assert served_on(queue) == {"a": set()}
    queue.enter(other, ["a"], ["cpu"], detached=False)
    assert served_on(queue) == {"a": {"cpu"}}
    queue.leave(other)
    assert served_on(queue) == {"a": set()}


@pytest.mark.parametrize("wish", [PAUSE, CANCEL, RESUME])
def test_a_run_of_which_something_is_wished_gets_no_turn_before_that_is_granted(
    record: Record, queue: Queue, wish: str
) -> None:
    add(record, "a", "b")
    assert queue.wish_of("a") is None
    queue.wish("a", wish)
    assert queue.wish_of("a") == wish and queue.snapshot().entries["a"].wish == wish
    assert in_line(queue) == ["b"]
    queue.take_back("a", wish)
    assert in_line(queue) == ["a", "b"]


def test_a_run_whose_process_is_to_be_let_go_stays_in_line(record: Record, queue: Queue) -> None:
    add(record, "a", "b")
    queue.wish("a", RELEASE)
    assert queue.wish_of("a") == RELEASE and in_line(queue) == ["a", "b"]


def test_a_wish_for_a_run_that_has_ended_is_forgotten(record: Record, queue: Queue) -> None:
    add(record, "a")
    change(record, "a", State.CANCELLED)
    queue.wish("a", PAUSE)
    assert queue.wish_of("a") is None and queue.wish_of("never there") is None


def test_a_snapshot_is_of_one_moment(record: Record, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    # Regression: a run whose turn ended between two reads was seen as running without a lease, and was given a turn.
    add(record, "a", "b")
    queue.take_lease("cpu", "a", me(), priority=0)
    change(record, "a", State.RUNNING)
    elsewhere = Record(record.path)
    read = record.read

    def read_while_a_turn_ends(query: str, values: Any = ()) -> list[sqlite3.Row]:
        if "leases" in query:
            change(elsewhere, "a", State.DONE)
            Queue(elsewhere).drop_lease("cpu")
        return read(query, values)

    with monkeypatch.context() as patched:
        patched.setattr(record, "read", read_while_a_turn_ends)
        snapshot = queue.snapshot()
    assert [waiting.run for waiting in snapshot.waits()] == ["b"] and snapshot.turn("cpu") is not None
    assert list(queue.snapshot().entries) == ["b"] and queue.snapshot().turn("cpu") is None
    elsewhere.close()


# States --------------------------------------------------------------------------------------------------------------

MAY_BECOME = {
    State.QUEUED: {State.RUNNING, State.PAUSED, State.CANCELLED},
    State.RUNNING: set(State),
    State.PAUSED: {State.QUEUED, State.CANCELLED},
    State.DONE: set(),
    State.FAILED: set(),
    State.CANCELLED: set(),
}
WAY_TO = {
    State.QUEUED: (),
    State.RUNNING: (State.RUNNING,),
    State.PAUSED: (State.PAUSED,),
    State.DONE: (State.RUNNING, State.DONE),
    State.FAILED: (State.RUNNING, State.FAILED),
    State.CANCELLED: (State.CANCELLED,),
}


@pytest.mark.parametrize(
    ("before", "after"), list(itertools.product(State, State)), ids=lambda state: state.value
)
def test_a_run_leaves_a_state_only_for_those_that_the_table_names(
    record: Record, queue: Queue, before: State, after: State
) -> None:
    add(record, "a")
    change(record, "a", *WAY_TO[before])
    events = record.read("SELECT * FROM events")
    assert before.may_become(after) == (after in MAY_BECOME[before])
    if after in MAY_BECOME[before]:
        change(record, "a", after)
        now = record.run("a")
        assert now is not None and now.state is after
        assert (queue.entry("a") is None) == after.ended
        return
    entry = queue.entry("a")
    with pytest.raises(TurntableError, match=f"Run a is {before.value}, and can't become {after.value}"):
        change(record, "a", after)
    now = record.run("a")
    assert now is not None and now.state is before
    assert queue.entry("a") == entry and record.read("SELECT * FROM events") == events


def test_a_run_that_the_record_doesnt_know_changes_nothing(record: Record) -> None:
    with pytest.raises(TurntableError, match="has no run gone; run turntable doctor --rebuild") as caught:
        change(record, "gone", State.RUNNING)
    assert "\n" not in str(caught.value)
    assert record.read("SELECT * FROM events") == [] and record.read("SELECT * FROM turns") == []


def test_every_end_is_for_good_and_nothing_else_is() -> None:
    for state in State:
        assert state.ended == (not any(state.may_become(after) for after in State))


def test_a_cause_is_kept_where_a_run_has_ended_alone(record: Record) -> None:
    add(record, "a")
    change(record, "a", State.RUNNING, State.QUEUED, cause="quantum")
    now = record.run("a")
    assert now is not None and now.cause is None
    change(record, "a", State.RUNNING)
    change(record, "a", State.FAILED, cause="out of memory")
    now = record.run("a")
    assert now is not None and now.cause == "out of memory"


def test_every_turn_is_on_the_record_with_its_device_and_its_end(record: Record) -> None:
    add(record, "a")
    story = [
        StateChange(10.0, State.RUNNING, device="cpu", model="cpu", supervisor=7),
        StateChange(20.0, State.QUEUED, "quantum", how="parked in memory"),
        StateChange(30.0, State.RUNNING, device="cpu", model="cpu", supervisor=7),
        StateChange(45.0, State.RUNNING, device="cpu", model="cpu", supervisor=8),  # 7 was killed
        StateChange(50.0, State.DONE),
    ]
    for step in story:
        record.change_state("a", step)
    turns = record.read("SELECT device, started, ended, why, how, pid FROM turns ORDER BY started")
    assert [tuple(turn) for turn in turns] == [
        ("cpu", 10.0, 20.0, "quantum", "parked in memory", 7),
        ("cpu", 30.0, 45.0, "lost", None, 7),
        ("cpu", 45.0, 50.0, "done", None, 8),
    ]


# Rebuilding ----------------------------------------------------------------------------------------------------------


def found(run: str, created: float, *story: StateChange, wants: str = "cpu", **terms: Any) -> FoundRun:
    changes = [StateChange(created, State.QUEUED), *story]
    scores = [Score(1.0, 10, 1.0, "psnr", "how psnr is computed", "0001.jpg", 20.0)]
    device = next((step.device for step in reversed(changes) if step.device), wants)
    return FoundRun(
        row(run, created, state=changes[-1].state, device=device), wants, Terms(**terms), changes, scores
    )


def test_replace_all_rebuilds_the_queue(record: Record, queue: Queue) -> None:
    add(record, "old", "d")
    queue.enter(me(), ["old", "d"], ["cpu"], detached=False)
    began = StateChange(20.0, State.RUNNING, device="cuda:1", model="A (24 GB)", supervisor=7)
    record.replace_all(
        [
            found("a", 10.0, began, StateChange(30.0, State.DONE)),
            found("b", 11.0, began, StateChange(30.0, State.QUEUED, "quantum"), wants="cuda", priority=2),
            found("c", 12.0, StateChange(30.0, State.PAUSED, "pause"), after="b", quantum_s=60.0),
            found("d", 13.0, owner=5, own_only=True, need_bytes=7),
            found("e", 14.0, began, wants="cuda"),
        ]
    )
    entries = queue.snapshot().entries
    assert list(entries) == ["c", "d", "e", "b"], "in the order in which they came into line last"
    assert [entry.place for entry in entries.values()] == [1, 2, 3, 4]
    assert [entry.since for entry in entries.values()] == [12.0, 13.0, 14.0, 30.0]
    assert [entry.state for entry in entries.values()] == [
        State.PAUSED,
        State.QUEUED,
        State.RUNNING,
        State.QUEUED,
    ]
    b, c, d = entries["b"], entries["c"], entries["d"]
    assert (b.wants, b.began_on, b.device, b.priority) == ("cuda", "A (24 GB)", "cuda:1", 2)
    assert (c.after, c.quantum_s, c.began_on) == ("b", 60.0, None)
    assert (d.owner, d.own_only, d.need_bytes) == (5, 1, 7)
    assert in_line(queue) == ["d", "e", "b"]
    assert record.run("old") is None and queue.answering("old") == [] and queue.answering("d") == [me()]
    turns = record.read("SELECT run, started, ended, why FROM turns ORDER BY run")
    assert [tuple(turn) for turn in turns] == [
        ("a", 20.0, 30.0, "done"),
        ("b", 20.0, 30.0, "quantum"),
        ("e", 20.0, None, None),
    ]
    assert len(record.scores("a")) == 1


def test_a_rebuilt_queue_is_the_queue_that_was(record: Record, queue: Queue) -> None:
    story = [
        StateChange(10.0, State.RUNNING, device="cpu", model="cpu", supervisor=7),
        StateChange(20.0, State.QUEUED, "quantum"),
    ]
    add(record, "a", "b", "c", created=5.0)
    for step in story:
        record.change_state("b", step)
    record.change_state("c", StateChange(15.0, State.PAUSED))
    before = queue.snapshot().entries
    paused = StateChange(15.0, State.PAUSED)
    record.replace_all([found("a", 5.0), found("b", 5.0, *story), found("c", 5.0, paused)])
    after = queue.snapshot().entries
    assert list(after) == list(before) == ["a", "c", "b"]
    assert {run: replace(entry, place=0) for run, entry in after.items()} == {
        run: replace(entry, place=0) for run, entry in before.items()
    }


def test_a_rebuilt_queue_keeps_its_order_and_since_when_its_runs_wait(record: Record, queue: Queue) -> None:
    # Regression: after doctor --rebuild a run that had had its turns counted as having waited ever since it was made.
    story = [
        StateChange(9_000.0, State.RUNNING, device="cpu", model="cpu", supervisor=7),
        StateChange(9_060.0, State.QUEUED, "quantum"),
    ]
    record.replace_all([found("a", 5.0, *story), found("b", 6.0)])
    assert queue.snapshot().entries["a"].since == 9_060.0
    assert in_line(queue) == ["b", "a"]


def test_a_rebuilt_queue_is_still_answered_for(record: Record, queue: Queue) -> None:
    # Regression: after doctor --rebuild nobody answered for a living supervisor's runs; Ctrl-C elsewhere paused them.
    add(record, "a", terms=Terms(own_only=True))
    queue.enter(me(), ["a"], ["cpu"], detached=False)
    record.replace_all([found("a", 5.0, own_only=True)])
    assert queue.answering("a") == [me()] and served_on(queue) == {"a": {"cpu"}}


def test_replace_all_that_fails_leaves_all_as_it_was(record: Record, queue: Queue) -> None:
    add(record, "a", "b")
    before = queue.snapshot().entries
    with pytest.raises(TurntableError):
        record.replace_all([found("c", 1.0), found("c", 2.0)])
    assert queue.snapshot().entries == before


# Old records ---------------------------------------------------------------------------------------------------------

VERSION_1 = """
CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    capture TEXT NOT NULL,
    capture_hash TEXT NOT NULL,
    method TEXT NOT NULL,
    task TEXT NOT NULL,
    question TEXT NOT NULL,
    state TEXT NOT NULL,
    cause TEXT,
    created REAL NOT NULL,
    device TEXT NOT NULL,
    steps INTEGER NOT NULL DEFAULT 0,
    device_seconds REAL NOT NULL DEFAULT 0,
    setup_seconds REAL NOT NULL DEFAULT 0,
    peak_memory_bytes INTEGER NOT NULL DEFAULT 0,
    fraction REAL NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX runs_by_capture ON runs (capture, created);
CREATE INDEX runs_by_question ON runs (question);
CREATE TABLE turns (
    run TEXT NOT NULL REFERENCES runs (id),
    device TEXT NOT NULL,
    started REAL NOT NULL,
    ended REAL,
    why TEXT
) STRICT;
CREATE INDEX turns_by_run ON turns (run);
CREATE TABLE events (
    run TEXT NOT NULL REFERENCES runs (id),
    time REAL NOT NULL,
    state TEXT NOT NULL,
    detail TEXT
) STRICT;
CREATE INDEX events_by_run ON events (run);
CREATE TABLE scores (
    run TEXT NOT NULL REFERENCES runs (id),
    mark REAL NOT NULL,
    steps INTEGER NOT NULL,
    device_seconds REAL NOT NULL,
    metric TEXT NOT NULL,
    definition TEXT NOT NULL,
    item TEXT NOT NULL,
    value REAL NOT NULL,
    PRIMARY KEY (run, mark, metric, item)
) STRICT, WITHOUT ROWID;
CREATE TABLE definitions (
    id TEXT PRIMARY KEY,
    text TEXT NOT NULL
) STRICT;
PRAGMA user_version = 1;
"""
"""What commit 9fcc137, the last before there was a queue, wrote."""

OLD_RUNS = {
    "fox-a-1": "done",
    "fox-b-1": "queued",
    "fox-c-1": "paused",
    "fox-d-1": "failed",
    "fox-e-1": "running",
}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A record of version 1, with a run in every state that there was."""
    path = tmp_path / "old.sqlite"
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode = WAL")
    db.executescript(VERSION_1)
    for number, (run, state) in enumerate(OLD_RUNS.items()):
        values = (run, "fox", "c0ffee", "splat", "views", run, state, 100.0 + number, "cpu")
        columns = "id, capture, capture_hash, method, task, question, state, created, device"
        db.execute(f"INSERT INTO runs ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        db.execute("INSERT INTO turns VALUES (?, 'cpu', 1, 2, ?)", (run, state))
        db.execute("INSERT INTO scores VALUES (?, 1, 10, 1.0, 'psnr', 'abc', '0001.jpg', 20.0)", (run,))
    db.execute("INSERT INTO definitions VALUES ('abc', 'how psnr is computed')")
    db.commit()
    db.close()
    return path


def test_a_record_of_version_1_gets_a_queue_of_its_unended_runs(old: Path) -> None:
    record = Record(old)
    queue = Queue(record)
    entries = queue.snapshot().entries
    assert {run: entry.state.value for run, entry in entries.items()} == {
        run: state for run, state in OLD_RUNS.items() if state not in ("done", "failed")
    }
    assert in_line(queue) == ["fox-b-1", "fox-e-1"], "who still says that it runs was left behind"
    first = entries["fox-b-1"]
    assert (first.wants, first.priority, first.quantum_s, first.after, first.need_bytes) == (
        "cpu",
        0,
        None,
        None,
        0,
    )
    assert (first.owner, first.own_only, first.wish, first.pausable, first.began_on) == (
        None,
        0,
        None,
        1,
        None,
    )
    record.close()


def test_an_upgraded_record_keeps_all_and_is_as_good_as_a_new_one(old: Path, tmp_path: Path) -> None:
    upgraded, new = Record(old), Record(tmp_path / "new.sqlite")
    assert {run.id: run.state.value for run in upgraded.runs()} == OLD_RUNS
    assert [score.value for score in upgraded.scores("fox-a-1")] == [20.0]
    schemas = []
    for record in (upgraded, new):
        assert record.read("PRAGMA user_version")[0][0] == schema.VERSION
        tables = [
            row[0] for row in record.read("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        ]
        schemas.append(
            {table: [tuple(c) for c in record.read(f"PRAGMA table_info({table})")] for table in tables}
        )
    assert schemas[0] == schemas[1]
    change(upgraded, "fox-c-1", State.QUEUED, State.RUNNING, State.DONE)
    add(upgraded, "fox-f-1")
    assert in_line(Queue(upgraded)) == ["fox-b-1", "fox-e-1", "fox-f-1"]
    assert upgraded.read("PRAGMA integrity_check")[0][0] == "ok"
    assert upgraded.read("PRAGMA foreign_key_check") == []
    upgraded.close()
    new.close()


def test_a_record_is_upgraded_once(old: Path) -> None:
    Record(old).close()
    record = Record(old)
    assert len(record.read("SELECT * FROM queue")) == 3
    record.close()


OPENS = """
import sys
from pathlib import Path
from turntable.record import Record
from turntable.turns.queue import Queue
print("ready", flush=True)
sys.stdin.readline()
record = Record(Path(sys.argv[1]))
print(*Queue(record).snapshot().entries)
"""


@pytest.mark.parametrize("which", ["old", "new"])
def test_processes_that_open_a_record_at_once_all_find_it_whole(
    old: Path, tmp_path: Path, which: str
) -> None:
    path = old if which == "old" else tmp_path / "new.sqlite"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPENS, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:  # by now all have imported all that they need
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate() for process in processes]
    expected = "fox-b-1 fox-c-1 fox-e-1\n" if which == "old" else "\n"
    assert [(out, error) for out, error in answers] == [(expected, "")] * 4
    record = Record(path)
    assert record.read("PRAGMA user_version")[0][0] == schema.VERSION
    record.close()


def test_a_record_that_another_process_is_making_is_waited_for(tmp_path: Path) -> None:
    # Regression: SQLite doesn't wait to make a WAL; it failed at once, with "database is locked".
    path = tmp_path / "record.sqlite"
    maker = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    maker.execute("BEGIN IMMEDIATE")
    done = threading.Timer(0.2, maker.execute, ("COMMIT",))
    done.start()
    try:
        Record(path).close()
    finally:
        done.join()
        maker.close()


def test_a_record_of_a_newer_turntable_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "record.sqlite"
    Record(path).close()
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    db.close()
    with pytest.raises(TurntableError, match="newer Turntable"):
        Record(path)
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA user_version").fetchone()[0] == schema.VERSION + 1
    db.close()
