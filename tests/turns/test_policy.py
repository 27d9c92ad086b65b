"""Who gets the next turn: tables, and properties that hold for every queue. See test_policy_day.py for a simulated day."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turntable.turns.policy import (
    AGE_S,
    PROTECTED_S,
    Device,
    End,
    Start,
    Turn,
    Waiting,
    aged,
    decide,
    why_not,
)

NOW = 1_700_000_000.0
GB = 10**9


def run(name: str, place: int = 1, waits_s: float = 0.0, **more: Any) -> Waiting:
    return Waiting(name, place, NOW - waits_s, **more)


def held(holder: Waiting, for_s: float = 0.0, priority: int | None = None) -> Turn:
    return Turn(holder, for_s, holder.priority if priority is None else priority)


def cpu(turn: Turn | None = None, **more: Any) -> Device:
    return Device("cpu", "cpu", turn=turn, **more)


def card(number: int, turn: Turn | None = None, model: str = "A (24 GB)", **more: Any) -> Device:
    return Device(f"cuda:{number}", model, turn=turn, **more)


CASES: dict[str, tuple[list[Waiting], list[Device], list[Start | End]]] = {
    "nobody waits": ([], [cpu()], []),
    "no devices": ([run("a")], [], []),
    "first come": ([run("b", 2), run("a", 1), run("c", 3)], [cpu()], [Start("a", "cpu", 0)]),
    "the place counts, not the time": (
        [run("a", 1, waits_s=-3600.0), run("b", 2, waits_s=60.0)],
        [cpu()],
        [Start("a", "cpu", 0)],
    ),
    "before the quantum is used nobody leaves": (
        [run("b", 2)],
        [cpu(held(run("a", quantum_s=60.0), 59.9))],
        [],
    ),
    "a used quantum ends the turn": (
        [run("b", 2)],
        [cpu(held(run("a", quantum_s=60.0), 60.0))],
        [End("a", "cpu", "quantum")],
    ),
    "a used quantum is no matter if nobody waits": ([], [cpu(held(run("a", quantum_s=60.0), 999.0))], []),
    "a used quantum is no matter if who waits can't go there": (
        [run("b", 2, wants="cuda")],
        [cpu(held(run("a", quantum_s=60.0), 999.0))],
        [],
    ),
    "a used quantum isn't given up for a lower priority": (
        [run("b", 2, priority=-1)],
        [cpu(held(run("a", quantum_s=60.0), 999.0))],
        [],
    ),
    "a first-come holder keeps its device": ([run("b", 2)], [cpu(held(run("a"), 1e6))], []),
    "a first-come holder keeps its device from who has waited for long": (
        [run("b", 2, waits_s=10 * AGE_S)],
        [cpu(held(run("a"), 1e6))],
        [],
    ),
    "priority goes before place": (
        [run("a", 1), run("b", 2, priority=1), run("c", 3, priority=-1)],
        [cpu()],
        [Start("b", "cpu", 1)],
    ),
    "priority doesn't wait for the quantum": (
        [run("b", 2, priority=1)],
        [cpu(held(run("a", quantum_s=60.0), 1.0))],
        [End("a", "cpu", "priority")],
    ),
    "priority doesn't wait for a first-come holder": (
        [run("b", 2, priority=1)],
        [cpu(held(run("a"), 1.0))],
        [End("a", "cpu", "priority")],
    ),
    "priority is named before the quantum": (
        [run("b", 2, priority=1)],
        [cpu(held(run("a", quantum_s=60.0), 61.0))],
        [End("a", "cpu", "priority")],
    ),
    "equal priority waits for the quantum": (
        [run("b", 2, priority=1)],
        [cpu(held(run("a", priority=1, quantum_s=60.0), 1.0))],
        [],
    ),
    "who can't be paused keeps its device": (
        [run("b", 2, priority=9)],
        [cpu(held(run("a", quantum_s=60.0, pausable=False), 999.0))],
        [],
    ),
    "a low priority that has waited for long goes first": (
        [run("high", 2, priority=1), run("low", 1, waits_s=2 * AGE_S, priority=-1)],
        [cpu()],
        [Start("low", "cpu", 1)],
    ),
    "a low priority that has waited for long ends a turn whose quantum is used": (
        [run("low", 2, waits_s=AGE_S, priority=-1)],
        [cpu(held(run("a", quantum_s=60.0), 60.0))],
        [End("a", "cpu", "quantum")],
    ),
    "ageing alone takes nobody's device before its quantum": (
        [run("low", 2, waits_s=9 * AGE_S, priority=-1)],
        [cpu(held(run("a", quantum_s=60.0), 59.0))],
        [],
    ),
    "an aged priority is kept for the turn": (
        [run("high", 2, priority=1)],
        [cpu(held(run("low", priority=-1, quantum_s=60.0), 30.0, priority=1))],
        [],
    ),
    "an aged priority is kept for a first-come turn too": (
        [run("high", 2, priority=1)],
        [cpu(held(run("low", priority=-1), PROTECTED_S - 0.1, priority=1))],
        [],
    ),
    "an aged priority isn't kept for longer than it is protected": (
        [run("high", 2, priority=1)],
        [cpu(held(run("low", priority=-1), PROTECTED_S, priority=1))],
        [End("low", "cpu", "priority")],
    ),
    "an aged priority isn't kept for longer than it is protected before a quantum's end": (
        [run("b", 2)],
        [cpu(held(run("low", priority=-1, quantum_s=10 * PROTECTED_S), PROTECTED_S, priority=1))],
        [End("low", "cpu", "priority")],
    ),
    "its own priority is kept for ever": (
        [run("b", 2, waits_s=9 * AGE_S)],
        [cpu(held(run("a"), 100 * PROTECTED_S, priority=2))],
        [],
    ),
    "an aged priority isn't kept beyond the quantum": (
        [run("high", 2, priority=1)],
        [cpu(held(run("low", priority=-1, quantum_s=30.0), 30.0, priority=1))],
        [End("low", "cpu", "quantum")],
    ),
    "an aged priority isn't kept beyond the quantum from who is above the run's own": (
        [run("b", 2)],
        [cpu(held(run("low", priority=-1, quantum_s=30.0), 30.0, priority=1))],
        [End("low", "cpu", "quantum")],
    ),
    "a yet higher priority ends an aged turn": (
        [run("highest", 2, priority=2)],
        [cpu(held(run("low", priority=-1, quantum_s=60.0), 30.0, priority=1))],
        [End("low", "cpu", "priority")],
    ),
    "a high priority isn't kept back by an aged run before it in line": (
        [run("aged", 1, waits_s=4 * AGE_S), run("high", 2, priority=3)],
        [cpu(held(run("a"), 10.0))],
        [End("a", "cpu", "priority")],
    ),
    "no start on a device that is too small": (
        [run("a", need_bytes=9 * GB)],
        [cpu(memory_bytes=8 * GB)],
        [],
    ),
    "a run that just fits starts": (
        [run("a", need_bytes=8 * GB)],
        [cpu(memory_bytes=8 * GB, free_bytes=8 * GB)],
        [Start("a", "cpu", 0)],
    ),
    "no start where too little is free": (
        [run("a", need_bytes=5 * GB)],
        [cpu(memory_bytes=8 * GB, free_bytes=4 * GB)],
        [],
    ),
    "no memory known, no memory minded": ([run("a", need_bytes=99 * GB)], [cpu()], [Start("a", "cpu", 0)]),
    "nobody leaves for a run that doesn't fit": (
        [run("b", 2, priority=5, need_bytes=9 * GB)],
        [cpu(held(run("a"), 10.0), memory_bytes=8 * GB)],
        [],
    ),
    "who doesn't fit doesn't keep the next one back": (
        [run("big", 1, need_bytes=9 * GB), run("small", 2, need_bytes=GB)],
        [cpu(memory_bytes=8 * GB)],
        [Start("small", "cpu", 0)],
    ),
    "the larger device for who needs it": (
        [run("a", wants="cuda", need_bytes=30 * GB)],
        [card(0, memory_bytes=24 * GB), card(1, memory_bytes=80 * GB)],
        [Start("a", "cuda:1", 0)],
    ),
    "cuda means any card": (
        [run("a", wants="cuda")],
        [cpu(), card(0, held(run("x"))), card(1)],
        [Start("a", "cuda:1", 0)],
    ),
    "cuda:1 means that card": ([run("a", wants="cuda:1")], [card(0), card(1)], [Start("a", "cuda:1", 0)]),
    "cuda:1 isn't cuda:10": ([run("a", wants="cuda:1")], [card(10)], []),
    "cpu means no card": ([run("a")], [card(0), cpu()], [Start("a", "cpu", 0)]),
    "two runs spread over two cards": (
        [run("a", 1, wants="cuda"), run("b", 2, wants="cuda"), run("c", 3, wants="cuda")],
        [card(0), card(1)],
        [Start("a", "cuda:0", 0), Start("b", "cuda:1", 0)],
    ),
    "one run gets one card": ([run("a", wants="cuda")], [card(0), card(1)], [Start("a", "cuda:0", 0)]),
    "who wants any card leaves the one that another wants": (
        [run("any", 1, wants="cuda"), run("first", 2, wants="cuda:0")],
        [card(0), card(1)],
        [Start("any", "cuda:1", 0), Start("first", "cuda:0", 0)],
    ),
    "who wants any card leaves the one that another began on the like of": (
        [run("any", 1, wants="cuda"), run("began", 2, wants="cuda", began_on="A (24 GB)")],
        [card(0), card(1, model="B (80 GB)")],
        [Start("any", "cuda:1", 0), Start("began", "cuda:0", 0)],
    ),
    "who wants any card leaves the large one to who needs it": (
        [run("small", 1, wants="cuda"), run("large", 2, wants="cuda", need_bytes=30 * GB)],
        [card(0, memory_bytes=80 * GB), card(1, memory_bytes=24 * GB)],
        [Start("small", "cuda:1", 0), Start("large", "cuda:0", 0)],
    ),
    "who wants any card takes the one that another wants if it is the only one free": (
        [run("any", 1, wants="cuda"), run("first", 2, wants="cuda:0")],
        [card(0), card(1, held(run("x")))],
        [Start("any", "cuda:0", 0)],
    ),
    "nobody is left a card by who wants the same one and comes first": (
        [run("a", 1, wants="cuda:0"), run("b", 2, wants="cuda:0"), run("c", 3, wants="cuda:0")],
        [card(0), card(1)],
        [Start("a", "cuda:0", 0)],
    ),
    "who has a card already needs none left": (
        [run("first", 1, wants="cuda:1"), run("any", 2, wants="cuda"), run("last", 3, wants="cuda:0")],
        [card(0), card(1), card(2)],
        [Start("first", "cuda:1", 0), Start("any", "cuda:2", 0), Start("last", "cuda:0", 0)],
    ),
    "nobody makes room for who finds room elsewhere": (
        [run("b", 3, wants="cuda", priority=5)],
        [card(0, held(run("a", quantum_s=60.0), 999.0)), card(1)],
        [Start("b", "cuda:1", 5)],
    ),
    "one who waits ends one turn": (
        [run("c", 3, wants="cuda", priority=5)],
        [card(0, held(run("a"), 10.0)), card(1, held(run("b"), 20.0))],
        [End("b", "cuda:1", "priority")],
    ),
    "the lowest priority makes room": (
        [run("c", 3, wants="cuda", priority=2)],
        [card(0, held(run("a", priority=1), 99.0)), card(1, held(run("b", priority=0), 1.0))],
        [End("b", "cuda:1", "priority")],
    ),
    "who has held for longest makes room, so that a turn that is being ended stays the one": (
        [run("c", 3, wants="cuda")],
        [card(0, held(run("a", quantum_s=60.0), 60.0)), card(1, held(run("b", quantum_s=60.0), 75.0))],
        [End("b", "cuda:1", "quantum")],
    ),
    "two who wait end two turns": (
        [run("c", 3, wants="cuda", priority=1), run("d", 4, wants="cuda")],
        [card(0, held(run("a", quantum_s=60.0), 60.0)), card(1, held(run("b"), 99.0))],
        [End("b", "cuda:1", "priority"), End("a", "cuda:0", "quantum")],
    ),
    "one starts and one makes room": (
        [run("c", 3, wants="cuda"), run("d", 4, wants="cuda")],
        [card(0, held(run("a", quantum_s=60.0), 60.0)), card(1)],
        [Start("c", "cuda:1", 0), End("a", "cuda:0", "quantum")],
    ),
    "a run stays on the model that it began on": (
        [run("a", wants="cuda", began_on="B (80 GB)")],
        [card(0), card(1, model="B (80 GB)")],
        [Start("a", "cuda:1", 0)],
    ),
    "a run is moved between like cards": (
        [run("a", wants="cuda", began_on="A (24 GB)")],
        [card(0, held(run("x"))), card(1)],
        [Start("a", "cuda:1", 0)],
    ),
    "a run waits rather than be moved to another model": (
        [run("a", wants="cuda", began_on="B (80 GB)", priority=9)],
        [card(0)],
        [],
    ),
    "a run waits for the one that it comes after": ([run("b", after="a", priority=9)], [cpu()], []),
    "nobody leaves for a run that still comes after another": (
        [run("b", after="a", priority=9)],
        [cpu(held(run("x", quantum_s=1.0), 99.0))],
        [],
    ),
    "a run that nobody would work on gets nothing": (
        [run("a", served_on=frozenset(), priority=9)],
        [cpu()],
        [],
    ),
    "nobody leaves for a run that nobody would work on": (
        [run("b", 2, served_on=frozenset({"cuda:1"}), wants="cuda", priority=9)],
        [card(0, held(run("a"), 99.0))],
        [],
    ),
    "a run gets the card on which somebody gives turns": (
        [run("a", wants="cuda", served_on=frozenset({"cpu", "cuda:1"}))],
        [cpu(), card(0), card(1)],
        [Start("a", "cuda:1", 0)],
    ),
    "where nobody would work on the first in line the next one starts": (
        [run("a", 1, wants="cuda", served_on=frozenset({"cuda:1"})), run("b", 2, wants="cuda")],
        [card(0), card(1, held(run("x")))],
        [Start("b", "cuda:0", 0)],
    ),
    "a run goes back to where its process is kept": (
        [run("a", wants="cuda", kept_on="cuda:1")],
        [card(0), card(1)],
        [Start("a", "cuda:1", 0)],
    ),
    "a run whose process is kept for another card waits for that one": (
        [run("a", wants="cuda", kept_on="cuda:1", priority=1)],
        [card(0), card(1, held(run("x", priority=1)))],
        [],
    ),
    "only where its process is kept does somebody leave for a run": (
        [run("c", 3, wants="cuda", kept_on="cuda:1", priority=1)],
        [card(0, held(run("a"), 99.0)), card(1, held(run("b"), 1.0))],
        [End("b", "cuda:1", "priority")],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_decisions(case: str) -> None:
    waiting, devices, expected = CASES[case]
    assert decide(waiting, devices, NOW) == expected


def test_a_comparisons_runs_go_round_robin() -> None:
    line = [run(name, place, quantum_s=60.0) for place, name in enumerate("abc", 1)]
    turns = []
    for place in range(4, 11):
        [start] = decide(line, [cpu()], NOW)
        assert isinstance(start, Start)
        turns.append(start.run)
        holder = next(one for one in line if one.run == start.run)
        others = [one for one in line if one is not holder]
        assert decide(others, [cpu(held(holder, 60.0))], NOW) == [End(holder.run, "cpu", "quantum")]
        line = [*others, replace(holder, place=place)]
    assert "".join(turns) == "abcabca"


def test_an_aged_run_has_its_turn_and_then_waits_again() -> None:
    low = run("low", 1, waits_s=2 * AGE_S, priority=-1, quantum_s=2 * PROTECTED_S)
    high = run("high", 2, priority=1, quantum_s=60.0)
    [start] = decide([low, high], [cpu()], NOW)
    assert isinstance(start, Start) and start == Start("low", "cpu", 1)
    for seconds in (0.0, 1.0, PROTECTED_S - 0.1):
        assert decide([high], [cpu(Turn(low, seconds, start.priority))], NOW + seconds) == []
    over = NOW + PROTECTED_S
    assert decide([high], [cpu(Turn(low, PROTECTED_S, start.priority))], over) == [
        End("low", "cpu", "priority")
    ]
    again = replace(low, place=3, since=over)
    assert decide([again, high], [cpu()], over) == [Start("high", "cpu", 1)]


@pytest.mark.parametrize(
    ("waited_s", "counts"), [(-7200.0, 0), (0.0, 0), (AGE_S - 1, 0), (AGE_S, 1), (2.5 * AGE_S, 2)]
)
def test_waiting_raises_the_priority_by_one_each_half_hour(waited_s: float, counts: int) -> None:
    assert aged(run("a", waits_s=waited_s), NOW) == counts
    assert aged(run("a", waits_s=waited_s, priority=-3), NOW) == counts - 3


@pytest.mark.parametrize(
    ("wish", "device", "words"),
    [
        ({"after": "first"}, cpu(), "waits for first to end"),
        ({"served_on": frozenset()}, cpu(), "turntable resume"),
        ({"served_on": frozenset({"cpu"}), "wants": "cuda"}, card(0), "nobody gives turns on cuda:0"),
        ({"served_on": frozenset({"cpu"}), "wants": "cpu"}, card(0), "wants cpu"),
        ({"kept_on": "cuda:1", "wants": "cuda"}, card(0), "kept in memory for cuda:1"),
        ({"wants": "cuda:1"}, card(0), "wants cuda:1"),
        ({"wants": "cuda", "began_on": "B"}, card(0), "began on B, and cuda:0 is A (24 GB)"),
        ({"need_bytes": 9 * GB}, cpu(memory_bytes=8 * GB), "needs 9.0 GB; cpu has 8.0 GB"),
        ({"need_bytes": 9 * GB}, cpu(memory_bytes=16 * GB, free_bytes=8 * GB), "cpu has free 8.0 GB"),
    ],
)
def test_the_reason_for_no_turn_is_said(wish: dict[str, Any], device: Device, words: str) -> None:
    assert words in (why_not(run("a", **wish), device) or "")


# Properties ----------------------------------------------------------------------------------------------------------

MODELS = ("A (24 GB)", "B (80 GB)")
MAYBE_GB = st.sampled_from([None, 8 * GB, 24 * GB, 80 * GB])


@st.composite
def runs(draw: st.DrawFn, name: str, place: int) -> Waiting:
    return Waiting(
        name,
        place,
        NOW - draw(st.sampled_from([-3600.0, 0.0, 10.0, AGE_S, 3 * AGE_S])),
        priority=draw(st.integers(-2, 2)),
        wants=draw(st.sampled_from(["cpu", "cuda", "cuda:0", "cuda:1"])),
        began_on=draw(st.sampled_from([None, None, "cpu", *MODELS])),
        need_bytes=draw(st.sampled_from([0, 8 * GB, 30 * GB])),
        quantum_s=draw(st.sampled_from([None, 60.0])),
        after=draw(st.sampled_from([None, None, None, "x"])),
        served_on=draw(
            st.sampled_from(
                [None, None, None, frozenset(), frozenset({"cpu", "cuda:0"}), frozenset({"cuda:1"})]
            )
        ),
        kept_on=draw(st.sampled_from([None, None, None, "cpu", "cuda:0", "cuda:1"])),
        pausable=draw(st.sampled_from([True, True, False])),
    )


@st.composite
def queues(draw: st.DrawFn) -> tuple[list[Waiting], list[Device]]:
    count = draw(st.integers(0, 8))
    places = draw(st.permutations(range(count + 4)))
    waiting = [draw(runs(f"run-{index}", places[index])) for index in range(count)]
    devices = []
    for index, name in enumerate(draw(st.permutations(["cpu", "cuda:0", "cuda:1", "cuda:2"]))):
        turn = None
        if draw(st.booleans()):
            holder = draw(runs(f"holder-{index}", places[count + index]))
            aged_by = draw(st.integers(0, 2))
            held_s = draw(st.sampled_from([0.0, 59.0, 60.0, 600.0]))
            turn = Turn(holder, held_s, holder.priority + aged_by)
        model = "cpu" if name == "cpu" else draw(st.sampled_from(MODELS))
        devices.append(Device(name, model, draw(MAYBE_GB), draw(MAYBE_GB), turn))
    return waiting, devices[: draw(st.integers(0, 4))]


@settings(max_examples=400, deadline=None)
@given(queues())
def test_every_decision_is_legal(queue: tuple[list[Waiting], list[Device]]) -> None:
    waiting, devices = queue
    decisions = decide(waiting, devices, NOW)
    by_run, by_device = {one.run: one for one in waiting}, {device.name: device for device in devices}
    assert len({decision.device for decision in decisions}) == len(decisions)
    assert len({decision.run for decision in decisions}) == len(decisions)
    for decision in decisions:
        device = by_device[decision.device]
        if isinstance(decision, Start):
            chosen = by_run[decision.run]
            assert device.turn is None and why_not(chosen, device) is None
            assert decision.priority == aged(chosen, NOW) >= chosen.priority
        else:
            assert device.turn is not None and device.turn.run.run == decision.run
            assert device.turn.run.pausable and decision.why in ("quantum", "priority")
            assert any(why_not(one, device) is None for one in waiting)
    ends = sum(isinstance(decision, End) for decision in decisions)
    assert ends <= len(waiting) - (len(decisions) - ends), "a turn is ended for each who waits, at most"


@settings(max_examples=400, deadline=None)
@given(queues())
def test_no_device_is_left_free_while_a_run_that_fits_waits(
    queue: tuple[list[Waiting], list[Device]],
) -> None:
    waiting, devices = queue
    starts = {
        decision.device: decision.run
        for decision in decide(waiting, devices, NOW)
        if isinstance(decision, Start)
    }
    for device in devices:
        if device.turn is None and device.name not in starts:
            left = [one for one in waiting if one.run not in starts.values()]
            assert not any(why_not(one, device) is None for one in left)


@settings(max_examples=400, deadline=None)
@given(queues(), st.randoms(use_true_random=False))
def test_the_order_of_the_list_is_no_matter(
    queue: tuple[list[Waiting], list[Device]], chance: random.Random
) -> None:
    waiting, devices = queue
    mixed = list(waiting)
    chance.shuffle(mixed)
    assert decide(mixed, devices, NOW) == decide(waiting, devices, NOW)


@settings(max_examples=400, deadline=None)
@given(queues())
def test_a_higher_priority_doesnt_wait_behind_a_lower_holder_that_can_be_paused(
    queue: tuple[list[Waiting], list[Device]],
) -> None:
    waiting, devices = queue
    decisions = decide(waiting, devices, NOW)
    started = {decision.run for decision in decisions if isinstance(decision, Start)}
    ended = {decision.device for decision in decisions if isinstance(decision, End)}
    for device in devices:
        turn = device.turn
        if turn is None or not turn.run.pausable or device.name in ended:
            continue
        counts = turn.priority if turn.held_s < PROTECTED_S else turn.run.priority
        above = [
            one
            for one in waiting
            if one.run not in started and one.priority > counts and why_not(one, device) is None
        ]
        assert len(above) <= len(ended), "each of them has another turn ended for it"


@settings(max_examples=200, deadline=None)
@given(queues())
def test_who_has_just_been_asked_to_leave_isnt_the_next_on_that_device(
    queue: tuple[list[Waiting], list[Device]],
) -> None:
    waiting, devices = queue
    for decision in decide(waiting, devices, NOW):
        if isinstance(decision, End):
            device = next(device for device in devices if device.name == decision.device)
            assert device.turn is not None
            left = replace(device.turn.run, place=1000, since=NOW)
            free = [replace(device, turn=None)]
            [start] = decide([*waiting, left], free, NOW)
            assert isinstance(start, Start) and start.run != left.run
