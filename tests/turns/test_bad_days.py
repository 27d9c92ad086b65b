"""kill -9 of workers, supervisors and both, at random moments: every run ends once, with the scores of an unbroken one."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import pytest

from conftest import make_capture, make_method
from turntable.bench import Bench
from turntable.jobs import Handling, RunRequest, plan, work
from turntable.record import State, Terms
from turntable.run import Budget
from turntable.turns.queue import Queue
from turntable.turns.watcher import Watcher

KILLS = 200
RUNS = 20
SUPERVISORS = 2

NURSERY = """
# Starts supervisors by forking, since importing everything takes a second: a line with a name starts one, and its process
# id is written back.
import os, sys, signal
from pathlib import Path
from turntable.bench import Bench
from turntable.jobs import Handling, work
from turntable.turns.supervisor import Patience
from turntable.turns.watcher import Watcher
import turntable.tasks.metrics, turntable.captures.capture

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
folder, runs = Path(sys.argv[1]), sys.argv[2:]
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        bench = Bench(folder)
        work(bench, [bench.run_folder(run) for run in runs], Handling(Patience(save_every_s=0.1)), Watcher())
        os._exit(0)
    print(pid, flush=True)
"""


class Nursery:
    """Supervisors that come quickly."""

    def __init__(self, bench: Path, runs: list[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", NURSERY, str(bench), *runs],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.alive: list[int] = []

    def fill(self) -> None:
        """Start supervisors until there are enough."""
        self.alive = [pid for pid in self.alive if is_alive(pid)]
        while len(self.alive) < SUPERVISORS:
            self._pipe(self._process.stdin).write("one\n")
            self._pipe(self._process.stdin).flush()
            self.alive.append(int(self._pipe(self._process.stdout).readline()))

    def close(self) -> None:
        for pid in self.alive:
            kill(pid)
        self._pipe(self._process.stdin).close()
        self._process.wait(10)

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe


def is_alive(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def worker_of(bench: Bench, run: str) -> int | None:
    """The process id of a run's worker, if it lives."""
    pids = [event["pid"] for event in bench.run_folder(run).events() if event["type"] == "worker"]
    return pids[-1] if pids and is_alive(pids[-1]) else None


def holders(bench: Bench) -> list[tuple[int, int | None]]:
    """Who has a turn: the supervisor and its worker."""
    return [
        (lease.who.pid, worker_of(bench, lease.run)) for lease in Queue(bench.record).leases() if lease.stands
    ]


def ask(bench: Bench, fresh: bool = False) -> list[str]:
    wanted = RunRequest(
        ("colour",),
        Budget(steps=120),
        seeds=RUNS,
        settings=("mode=slow",),
        terms=Terms(quantum_s=0.4 if not fresh else None),
        fresh=fresh,
    )
    return [folder.id for folder in plan(bench, bench.capture("small"), wanted)]


def values(bench: Bench, run: str) -> list[tuple[float, str, str, float]]:
    return [(score.mark, score.metric, score.item, score.value) for score in bench.record.scores(run)]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
def test_killing_workers_and_supervisors_at_random_moments_loses_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "bench")
    bench.make()
    make_capture(bench.captures_folder / "small")
    make_method(bench.methods_folder / "colour")
    runs = ask(bench)
    chance = random.Random(4)
    nursery = Nursery(bench.folder, runs)
    kills = {"worker": 0, "supervisor": 0, "both": 0}
    try:
        while sum(kills.values()) < KILLS and bench.record.runs(unended=True):
            nursery.fill()
            time.sleep(chance.uniform(0.0, 0.6))
            what = chance.choice(list(kills))
            for supervisor, worker in holders(bench)[:1]:
                if what != "supervisor" and worker is None:
                    continue
                if what != "worker":
                    kill(supervisor)
                if what != "supervisor" and worker is not None:
                    kill(worker)
                kills[what] += 1
        deadline = time.monotonic() + 180
        while left := bench.record.runs(unended=True):
            assert time.monotonic() < deadline, f"{[row.id for row in left]} still there after {kills}"
            nursery.fill()
            time.sleep(0.1)
    finally:
        nursery.close()
    assert sum(kills.values()) == KILLS and min(kills.values()) > KILLS / 10, kills
    assert bench.record.read("PRAGMA integrity_check")[0][0] == "ok"
    rows = bench.record.runs()
    assert [row.id for row in rows] == runs, "nobody made a run anew"
    assert all(row.state is State.DONE and row.steps == 120 for row in rows)
    for run in runs:
        ends = [
            event["state"]
            for event in bench.run_folder(run).events()
            if event["type"] == "state" and State(event["state"]).ended
        ]
        assert ends == ["done"], run
    unbroken = ask(bench, fresh=True)
    work(bench, [bench.run_folder(run) for run in unbroken], Handling(), Watcher())
    assert [values(bench, run) for run in runs] == [values(bench, run) for run in unbroken]
    for run in runs:
        assert worker_of(bench, run) is None
