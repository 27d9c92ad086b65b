"""The parts ``queue`` and ``status`` of ``benchmarks/turns.py``, whose text says what they measure."""

from __future__ import annotations

import itertools
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from _splat_runs import note, section, table
from _turns_bench import SPAWN, Plan

from turntable.bench import Bench
from turntable.record import FoundRun, Record, RunRow, State, StateChange, Terms
from turntable.turns import policy
from turntable.turns.device import processor
from turntable.turns.identity import me
from turntable.turns.queue import PAUSE, Queue

PROCESSES = 4
SECONDS = 2.0
"""For so long each operation is repeated."""
WAITING = (10, 100, 1000)
FINISHED = 100_000
QUEUED = 20
CALLS = 20


def queue(plan: Plan) -> None:
    """Operations per second on one record."""
    with tempfile.TemporaryDirectory(dir=plan.folder) as folder:
        rate = _syncs(Path(folder))
    section(
        "The queue: operations per second on one record",
        "Each is durable when it returns (WAL, `synchronous=FULL`), but for looking and deciding, which writes nothing. Of "
        f"the {PROCESSES} processes each has a connection of its own, and the number is their sum. Appending 4 KB to a file "
        f"and fsync: {rate:,.0f} a second.",
    )
    header = ("operation", "transactions", "runs waiting", "1 process", f"{PROCESSES} processes")
    table(header, _queue_rows(plan))


def _queue_rows(plan: Plan) -> Iterator[tuple[Any, ...]]:
    seconds = 0.2 if plan.quick else SECONDS
    for name, (transactions, _) in OPERATIONS.items():
        for waiting in WAITING if transactions == 0 else (100,):
            note(f"queue, {name}, {waiting} waiting")
            rates = []
            for processes in (1, PROCESSES):
                with tempfile.TemporaryDirectory(dir=plan.folder) as folder:
                    path = Path(folder) / "record.sqlite"
                    _fill(path, waiting)
                    rates.append(_rate(path, name, processes, seconds))
            yield (name, transactions or "–", f"{waiting:,}", *(f"{rate:,.0f}" for rate in rates))


def _fill(path: Path, waiting: int) -> None:
    record = Record(path)
    Queue(record).enter(me(), [], ["cpu"], False)  # somebody has to live that works on them
    found = [FoundRun(row(f"waiting-{n}"), "cpu", terms(), [], []) for n in range(waiting)]
    record.replace_all(found)
    for number in range(PROCESSES):
        record.add_run(row(f"own-{number}"), terms())
    record.close()


def row(run: str, state: State = State.QUEUED, created: float = 0.0) -> RunRow:
    """A run such as there are thousands of."""
    done = state is not State.QUEUED
    return RunRow(
        id=run,
        capture="fox",
        capture_hash="0" * 64,
        method="splat",
        task="views",
        question="0" * 64,
        state=state,
        cause=None,
        created=created or time.time(),
        device="cpu",
        steps=2000 * done,
        device_seconds=120.5 * done,
        setup_seconds=1.5 * done,
        peak_memory_bytes=123_456_789 * done,
        fraction=float(done),
    )


def terms() -> Terms:
    """What `compare` asks for."""
    return Terms(quantum_s=60.0, owner=os.getuid())


def _rate(path: Path, name: str, processes: int, seconds: float) -> float:
    """How often a second ``processes`` at once can do an operation."""
    barrier = SPAWN.Barrier(processes)
    with SPAWN.Pool(processes, _meet_at, (barrier,)) as pool:
        jobs = [(path, name, number, seconds) for number in range(processes)]
        return sum(pool.starmap(_repeat, jobs, chunksize=1))


def _meet_at(barrier: Any) -> None:
    global _barrier
    _barrier = barrier


_barrier: Any = None


def _repeat(path: Path, name: str, number: int, seconds: float) -> float:
    """Do an operation again and again, when all have come; how often a second."""
    record = Record(path)
    operation = OPERATIONS[name][1]
    count = itertools.count()
    operation(record, number, next(count))
    _barrier.wait()
    start = time.perf_counter()
    done = 0
    while time.perf_counter() - start < seconds:
        operation(record, number, next(count))
        done += 1
    rate = done / (time.perf_counter() - start)
    record.close()
    return rate


def _add(record: Record, process: int, count: int) -> None:
    record.add_run(row(f"new-{process}-{count}"), terms())


def _turn(record: Record, process: int, count: int) -> None:
    """What a supervisor writes of a turn that its quantum ends; its processor stands for a device of its own."""
    run, places = f"own-{process}", Queue(record)
    places.take_lease(f"device {process}", run, me(), 0)
    record.change_state(
        run, StateChange(time.time(), State.RUNNING, device="cpu", model="cpu", supervisor=os.getpid())
    )
    places.note_pausing(run, "saved and parked in memory", True)
    record.change_state(
        run, StateChange(time.time(), State.QUEUED, "quantum", how="saved and parked in memory")
    )
    places.drop_lease(f"device {process}")


def _lease(record: Record, process: int, count: int) -> None:
    places = Queue(record)
    places.take_lease(f"device {process}", f"own-{process}", me(), 0)
    places.drop_lease(f"device {process}")


def _wish(record: Record, process: int, count: int) -> None:
    Queue(record).wish(f"own-{process}", PAUSE if count % 2 else None)


def _decide(record: Record, process: int, count: int) -> None:
    """What a supervisor does before every turn, and ten times a second in it."""
    snapshot = Queue(record).snapshot()
    policy.decide(snapshot.waits(), [processor()], time.time())


OPERATIONS: dict[str, tuple[int, Callable[[Record, int, int], None]]] = {
    "queue a run": (1, _add),
    "begin and end a turn, with its lease": (5, _turn),
    "take and drop a lease": (2, _lease),
    "wish": (1, _wish),
    "look at the queue and decide": (0, _decide),
}
"""Transactions that write, and what does it: called with a record, the process's number and a count."""


def _syncs(folder: Path) -> float:
    """How often a second 4 KB can be appended to a file durably: as often as the disk lets anybody."""
    done, start = 0, time.perf_counter()
    with (folder / "syncs").open("wb", buffering=0) as file:
        while time.perf_counter() - start < 1.0:
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            done += 1
    return done / (time.perf_counter() - start)


def status(plan: Plan) -> None:
    """How long `turntable status` takes, with a long past."""
    finished = FINISHED // 20 if plan.quick else FINISHED
    with tempfile.TemporaryDirectory(dir=plan.folder) as folder:
        bench = Bench(Path(folder) / "bench")
        bench.make()
        note(f"status, {finished:,} finished runs")
        bench.record.replace_all(_past(finished))
        bench.record.close()
        size = (bench.folder / "record.sqlite").stat().st_size
        section(
            "`turntable status`",
            f"{finished:,} finished runs and {QUEUED} that wait; the record has {size / 1e6:,.0f} MB. Milliseconds of wall "
            f"time of {CALLS} processes each, in turn. Beyond: than Python's start.",
        )
        program = shutil.which("turntable", path=Path(sys.executable).parent)
        command = [program] if program else [sys.executable, "-m", "turntable"]
        shown = [*command, "status", "--bench", str(bench.folder)]
        commands = {
            "`python -c pass`": [sys.executable, "-c", "pass"],
            "`turntable status`": shown,
            "`turntable status --json`": [*shown, "--json"],
        }
        table(("", "least", "median", "beyond, least", "**beyond, median**"), _status_rows(plan, commands))


def _past(finished: int) -> Iterator[FoundRun]:
    now = time.time()
    for number in range(finished):
        began = now - 600.0 * (finished - number)
        changes = [
            StateChange(began, State.QUEUED),
            StateChange(began + 1, State.RUNNING, device="cpu", model="cpu", supervisor=1),
            StateChange(began + 130, State.DONE),
        ]
        yield FoundRun(row(f"fox-splat-{number}", State.DONE, began), "cpu", terms(), changes, [])
    for number in range(finished, finished + QUEUED):
        yield FoundRun(row(f"fox-splat-{number}"), "cpu", terms(), [StateChange(now, State.QUEUED)], [])


def _status_rows(plan: Plan, commands: dict[str, list[str]]) -> Iterator[tuple[Any, ...]]:
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(3 if plan.quick else 1 + CALLS):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            times[name].append(1000 * (time.perf_counter() - start))
    plain = next(iter(times.values()))[1:]
    for name, all_of_them in times.items():
        seen = all_of_them[1:]  # the first has to compile, and to read everything from the disk
        beyond = (min(seen) - min(plain), statistics.median(seen) - statistics.median(plain))
        cells = ("", "") if seen == plain else (f"{beyond[0]:.0f}", f"**{beyond[1]:.0f}**")
        yield (name, f"{min(seen):.0f}", f"{statistics.median(seen):.0f}", *cells)
