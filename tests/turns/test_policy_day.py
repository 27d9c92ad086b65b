"""A simulated day of 1,000 runs on three devices, in the middle of which the clock is set back by an hour."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest

from turntable.turns.policy import AGE_S, PROTECTED_S, Device, End, Start, Turn, Waiting, decide, why_not

NOW = 1_700_000_000.0
GB = 10**9
HOUR_S, DAY_S = 3600.0, 24 * 3600.0
LEAVE_S, BEGIN_S = 0.25, 0.25
"""A run that is asked to leave saves first, and whoever comes loads first: half a second a switch."""
QUANTUM_S = 60.0
POLL_S = 20.0
"""How often the simulation looks again though nothing has happened (for ageing)."""
LONGEST_S = 600.0


@dataclass
class Life:
    """What becomes of a run in the simulation; times by its own clock, which nobody sets."""

    ask: Waiting
    left_s: float
    arrives: float
    after: str | None = None
    can_run_since: float = 0.0
    in_line_since: float = 0.0
    held_s: float = 0.0
    ended: float | None = None
    waits: list[float] = field(default_factory=list)


@dataclass
class Holding:
    life: Life
    began: float
    priority: int
    leaves: float | None = None
    """When it will have left, once it was asked to."""

    @property
    def works_from(self) -> float:
        return self.began + BEGIN_S

    @property
    def done(self) -> float:
        return self.works_from + self.life.left_s if self.leaves is None else float("inf")


@dataclass
class Tally:
    """What the simulation counts."""

    starts: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    for_nothing: int = 0
    """Turns ended for somebody, after which the same run got the device again."""
    wanted_s: float = 0.0
    """Time of devices for which a run waited that could have had it."""
    busy_s: float = 0.0
    """That part of it in which its holder worked."""
    backlog_s: float = 0.0
    """The most time, on cards or the processor, that a turn each of all who waited at one moment would have taken."""
    lives: dict[str, Life] = field(default_factory=dict)

    def note_backlog(self, line: Iterable[Life]) -> None:
        turns: dict[str, float] = defaultdict(float)
        for life in line:
            turn_s = min(life.left_s, life.ask.quantum_s or life.left_s)
            turns[life.ask.wants.partition(":")[0]] += LEAVE_S + BEGIN_S + turn_s
        self.backlog_s = max(self.backlog_s, *turns.values(), 0.0)


def make_day(seed: int) -> list[Life]:
    """1,000 runs that can all run, and 5 that fit nowhere."""
    chance = random.Random(seed)
    lives = []
    bursts = [chance.uniform(0, 0.9 * DAY_S) for _ in range(12)]
    for index in range(1005):
        arrives = (
            chance.choice(bursts) + chance.uniform(0, 60)
            if chance.random() < 0.4
            else chance.uniform(0, 0.95 * DAY_S)
        )
        wants = chance.choice(["cpu", "cpu", "cuda", "cuda", "cuda:0", "cuda:1"])
        ask = Waiting(
            f"run-{index}",
            0,
            0.0,
            priority=chance.choice([-1, 0, 0, 1]),
            wants=wants,
            need_bytes=chance.choice([0, 4, 12, 20]) * GB if index < 1000 else 40 * GB,
            quantum_s=chance.choice([None, QUANTUM_S]),
        )
        lives.append(Life(ask, 30 * (LONGEST_S / 30) ** chance.random(), arrives))
    lives.sort(key=lambda life: life.arrives)
    able = [life for life in lives if life.ask.need_bytes < 40 * GB]
    for before, life in pairwise(able):
        if chance.random() < 0.1:
            life.after = before.ask.run
            life.ask = replace(life.ask, after=life.after)
    return lives


def simulate(lives: Sequence[Life]) -> Tally:
    """A day of the policy: every run works whenever it holds a device, and goes behind when its turn ends."""
    tally = Tally(lives={life.ask.run: life for life in lives})
    devices = [
        Device("cpu", "cpu", 32 * GB),
        Device("cuda:0", "A (24 GB)", 24 * GB),
        Device("cuda:1", "A (24 GB)", 24 * GB),
    ]
    models = {device.name: device.model for device in devices}
    holding: dict[str, Holding] = {}
    last_out: dict[str, str] = {}
    line: dict[str, Life] = {}
    to_come = list(reversed(lives))
    place = 0
    time = 0.0
    able_left = sum(life.ask.need_bytes < 40 * GB for life in lives)

    def wall() -> float:
        return NOW + time - (HOUR_S if time >= DAY_S / 2 else 0.0)

    def join(life: Life) -> None:
        nonlocal place
        place += 1
        life.ask = replace(life.ask, place=place, since=wall())
        life.in_line_since = time
        line[life.ask.run] = life

    def end(life: Life) -> None:
        life.left_s, life.ended = 0.0, time
        for other in lives:
            if other.after == life.ask.run:
                other.ask = replace(other.ask, after=None)
                other.can_run_since = time

    def decisions() -> list[Start | End]:
        known = []
        for device in devices:
            has = holding.get(device.name)
            turn = None if has is None else Turn(has.life.ask, time - has.began, has.priority)
            known.append(replace(device, turn=turn))
        return decide([life.ask for life in line.values()], known, wall())

    while able_left:
        assert time < 3 * DAY_S, "they never end"
        while to_come and to_come[-1].arrives <= time:
            join(to_come.pop())
        for name, has in list(holding.items()):
            if has.done <= time + 1e-9:
                end(has.life)
                has.life.held_s += time - has.began
                able_left -= 1
                tally.ends["done"] += 1
                del holding[name]
                last_out.pop(name, None)
            elif has.leaves is not None and has.leaves <= time + 1e-9:
                has.life.held_s += time - has.began
                last_out[name] = has.life.ask.run
                del holding[name]
                join(has.life)
        for decision in decisions():
            if isinstance(decision, Start):
                assert decision.device not in holding
                life = line.pop(decision.run)
                life.waits.append(time - max(life.in_line_since, life.can_run_since))
                life.ask = replace(life.ask, began_on=models[decision.device])
                holding[decision.device] = Holding(life, time, decision.priority)
                tally.starts += 1
                tally.for_nothing += last_out.pop(decision.device, None) == decision.run
            elif (has := holding[decision.device]).leaves is None and has.done > time + LEAVE_S:
                if has.works_from < time:  # what it has worked until now; it saves from here on
                    has.life.left_s -= time - has.works_from
                tally.ends[decision.why] += 1
                has.leaves = time + LEAVE_S
        assert len({has.life.ask.run for has in holding.values()}) == len(holding)

        moments = [POLL_S + time]
        if to_come:
            moments.append(to_come[-1].arrives)
        if time < DAY_S / 2:
            moments.append(DAY_S / 2)
        for has in holding.values():
            moments.append(has.done if has.leaves is None else has.leaves)
            if has.leaves is None:
                turning = (has.works_from, has.began + QUANTUM_S, has.began + PROTECTED_S)
                moments += [moment for moment in turning if moment > time + 1e-9]
        then = max(min(moments), time + 1e-6)
        waits = [life.ask for life in line.values()]
        tally.note_backlog(line.values())
        for device in devices:
            if any(why_not(one, device) is None for one in waits):
                tally.wanted_s += then - time
                has = holding.get(device.name)
                if has is not None and has.leaves is None and time + 1e-9 >= has.works_from:
                    tally.busy_s += then - time
        time = then
    return tally


@pytest.fixture(scope="module")
def day() -> Tally:
    return simulate(make_day(seed=4))


def test_in_a_day_every_run_that_fits_ends_and_no_other_begins(day: Tally) -> None:
    fits = {name for name, life in day.lives.items() if life.ask.need_bytes < 40 * GB}
    assert len(fits) == 1000
    assert {name for name, life in day.lives.items() if life.ended is not None} == fits
    assert {name for name, life in day.lives.items() if life.waits} == fits
    for name in fits:
        before = day.lives[name].after
        assert before is None or (day.lives[before].ended or 0) <= (day.lives[name].ended or 0)


def test_in_a_day_nobody_starves(day: Tally) -> None:
    # Ageing makes up for the two steps between the lowest priority and the highest in 2 AGE_S, so that a run yields only to
    # those that came into line before that, or before an hour more where the clock was set back: to a backlog's turn each,
    # one after the other at worst (all want the same device), once the holder's turn is over.
    bound_s = 2 * AGE_S + HOUR_S + day.backlog_s + LONGEST_S
    longest_s = max(wait for life in day.lives.values() for wait in life.waits)
    assert longest_s < bound_s
    assert longest_s > AGE_S, "a day on which nobody has to wait shows nothing"


def test_in_a_day_devices_work_for_99_percent_of_the_time_that_they_are_wanted(day: Tally) -> None:
    assert day.wanted_s > DAY_S, "of three devices' days"
    assert day.busy_s >= 0.99 * day.wanted_s


def test_in_a_day_nothing_is_switched_but_for_a_quantum_a_priority_or_an_end(day: Tally) -> None:
    assert day.starts == 1000 + day.ends["quantum"] + day.ends["priority"]
    assert day.ends["quantum"] <= sum(
        int(life.held_s // QUANTUM_S) for life in day.lives.values() if life.ask.quantum_s
    )
    # For each turn that a higher priority ended, one of a higher priority has begun.
    assert day.ends["priority"] <= sum(
        len(life.waits) for life in day.lives.values() if life.ask.priority > -1
    )
    assert min(day.ends.values()) > 50, "a day without some of them shows nothing"
    assert day.for_nothing == 0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_other_days_end_as_well(seed: int) -> None:
    tally = simulate(make_day(seed)[:300])
    assert all(life.ended for life in tally.lives.values() if life.ask.need_bytes < 40 * GB)
    assert tally.for_nothing == 0
