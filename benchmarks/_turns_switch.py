"""The part ``switch`` of ``benchmarks/turns.py``, whose text says what it measures."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from _splat_runs import note, section, table
from _turns_bench import (
    Plan,
    ask,
    await_,
    clock,
    middle,
    small_capture,
    supervised,
    temporary_bench,
    when,
)

from turntable.bench import Bench
from turntable.captures.build import CaptureOptions
from turntable.captures.capture import Capture
from turntable.jobs import add
from turntable.run import Budget
from turntable.turns.watcher import Watcher

RUNS = 4
QUANTUM_S = 2.0
TURNS = 6
"""So many quanta of its own has each run."""
LONG_QUANTUM_S = 60.0
"""The quantum that `compare` has by itself: the goal is a loss of 1 % of it at most."""


@dataclass(frozen=True)
class Rounds:
    """The same runs, worked through once.

    Args:
        wall: seconds from the first turn's beginning to the last one's end.
        device: seconds inside their own steps.
        switches: turns that were followed by another run's before their own run had ended.
        gaps: seconds without a step at each of those, where the method writes its steps down.
        ways: how runs left the device.
    """

    wall: float
    device: float
    switches: int
    gaps: list[float]
    ways: frozenset[str]

    @property
    def outside(self) -> float:
        """Seconds outside of all steps: starting, rendering, scoring, saving; and switching."""
        return self.wall - self.device


def switch(plan: Plan) -> None:
    """What a round robin costs."""
    section(
        f"A round robin of {RUNS} runs: device time lost to switching",
        f"Quantum {QUANTUM_S:g} s. Outside: wall time from the first turn to the last one's end, less device seconds; "
        "without switches: the same runs first come, first served, before and after. By difference: what the round robin "
        "has more of it, for each switch. Gap: from the last step before a switch to the first one after it, median (least "
        "– most), by the method's own clock. Shares of the gap, or of the difference where there's none.",
    )
    header = (
        "method",
        "between turns",
        "switches",
        "device s",
        "outside s",
        "outside s without switches",
        "s a switch, by difference",
        "**gap s a switch**",
        f"share at {QUANTUM_S:g} s",
        f"**share at {LONG_QUANTUM_S:g} s, at most**",
    )
    table(header, _rows(plan))


def _rows(plan: Plan) -> Iterator[tuple[Any, ...]]:
    with temporary_bench(plan) as bench:
        capture = small_capture(bench, bench.folder.parent / "source")
        yield from _rows_of(plan, bench, capture, "rest", megabytes=10)
    if not plan.source.is_dir():
        yield ("splat", f"left out: {plan.source} isn't there", *[""] * 8)
        return
    with temporary_bench(plan) as bench:
        options = CaptureOptions(name="photos", long_side=256)
        yield from _rows_of(plan, bench, add(bench, plan.source, options, Watcher()), "splat")


def _rows_of(
    plan: Plan, bench: Bench, capture: Capture, method: str, **settings: Any
) -> Iterator[tuple[Any, ...]]:
    before = _work(plan, bench, capture, method, None, True, settings)
    robins = {keep: _work(plan, bench, capture, method, QUANTUM_S, keep, settings) for keep in (True, False)}
    after = _work(plan, bench, capture, method, None, True, settings)
    unbroken = (before.outside + after.outside) / 2
    for robin in robins.values():
        switches = robin.switches
        difference = (robin.outside - unbroken) / switches
        loss = sum(robin.gaps) / len(robin.gaps) if robin.gaps else difference
        yield (
            method,
            ", ".join(sorted(robin.ways)),
            switches,
            f"{robin.device:.1f}",
            f"{robin.outside:.1f}",
            f"{before.outside:.1f}, {after.outside:.1f}",
            f"{difference:.3f}",
            f"**{middle(robin.gaps, '.3f') if robin.gaps else '–'}**",
            f"{loss * switches / robin.wall:.1%}",
            f"**{loss / LONG_QUANTUM_S:.2%}**",
        )


def _work(
    plan: Plan,
    bench: Bench,
    capture: Capture,
    method: str,
    quantum_s: float | None,
    keep: bool,
    settings: dict[str, Any],
) -> Rounds:
    how = "first come" if quantum_s is None else "kept in memory" if keep else "saved and exited"
    note(f"switch, {method}, {how}")
    budget = Budget(device_seconds=QUANTUM_S * (2 if plan.quick else TURNS))
    folders = ask(bench, capture, method, RUNS, budget, quantum_s, **settings)
    runs = [folder.id for folder in folders]
    with supervised(bench, folders, keep) as alive:
        await_("the runs", lambda: all(bench.row(run).state.ended for run in runs), alive, 0.2)
    marks = ", ".join("?" * len(runs))
    turns = bench.record.read(
        f"SELECT run, started, ended, why, how FROM turns WHERE run IN ({marks}) ORDER BY started", runs
    )
    clocks = {folder.id: clock(folder) for folder in folders}
    switches = [
        (turn, following)
        for turn, following in itertools.pairwise(turns)
        if turn["why"] == "quantum" and following["run"] != turn["run"]
    ]
    gaps = []
    for turn, following in switches:
        ends = [at for what, at in clocks[turn["run"]] if what == "last" and at <= turn["ended"]]
        first = when(clocks[following["run"]], "first", following["started"])
        # A run that has its first turn has to be started in any case: that is no loss by switching.
        begun = any(
            other["run"] == following["run"] for other in turns if other["started"] < following["started"]
        )
        if ends and first is not None and begun:
            gaps.append(first - max(ends))
    device = sum(bench.row(run).device_seconds for run in runs)
    ways = frozenset(turn["how"] for turn, _ in switches)
    return Rounds(turns[-1]["ended"] - turns[0]["started"], device, len(switches), gaps, ways)
