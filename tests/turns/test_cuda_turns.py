"""Programs that take turns on a card and know nothing of it, from the queue down to the driver's calls.

The card, its driver and NVML are the fakes of ``fake_cuda``: what a real card does, they can't show.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import psutil
import pytest

import turntable
from conftest import make_capture
from turntable import control
from turntable.bench import Bench
from turntable.errors import TurntableError
from turntable.record import State
from turntable.turns.family import MARK
from turntable.turns.process import kill_leftovers
from turntable.turns.queue import Queue

FAKES = Path(__file__).parent / "fake_cuda"
SOURCE = Path(turntable.__file__).parent.parent
MIB = 1 << 20
GIB = 1 << 30
GPU_BYTES = 256 * MIB
STEPS = 100
QUANTUM_S = 0.5
MOVED_AND_FROZEN = re.compile(r"memory of cuda:0 moved to the host, frozen \((cgroup|SIGSTOP)\), ")


def lacks(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is None
    except ModuleNotFoundError:
        return True


pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the driver checkpoints on Linux alone"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (cc) to build the fake driver"),
    pytest.mark.skipif(
        lacks("cuda.bindings") or lacks("pynvml"),
        reason="cuda-bindings or nvidia-ml-py isn't installed: pip install 'turntable[cuda]'",
    ),
]

METHOD = """
name = "loop"
task = "views"
title = "A program that uses CUDA"
devices = ["cuda"]
[environment]
kind = "host"
[run]
kind = "command"
train = '''{python} -S -E train.py --cameras {cameras} --out {out} --steps {steps} --seed {seed} \\
    --gpu-bytes {settings.gpu_bytes} --gate {settings.gate} --ranks {settings.ranks}'''
views = "{out}/test/{stem}.png"
[settings.gpu_bytes]
default = 0.0
help = "how much memory of the card it takes, in bytes"
[settings.gate]
default = "/nowhere"
help = "a file; while it is there, the last steps wait"
[settings.ranks]
default = 0.0
help = "in how many children it trains; 0: in none"
"""


class Machine:
    """A machine with a fake card, a bench on it, and the supervisors that work there."""

    def __init__(self, libraries: Path, folder: Path) -> None:
        self.folder = folder / "card"
        self.folder.mkdir()
        self.bench = Bench(folder / "bench")
        self.bench.make()
        make_capture(self.bench.captures_folder / "small")
        method = self.bench.methods_folder / "loop"
        method.mkdir(parents=True)
        (method / "method.toml").write_text(METHOD)
        shutil.copy(FAKES / "train.py", method)
        self.environment = fake_environment(libraries, self.folder) | {
            "TURNTABLE_LOCKS": str(folder / "locks")
        }
        self._said = folder / "said"
        self._started: list[subprocess.Popen[bytes]] = []

    def set(self, name: str, value: object) -> None:
        """Have the fakes behave; see ``fake_state.h``."""
        (self.folder / name).write_text(str(value))

    def hold(self) -> None:
        """From now on no program comes to its end: it goes on to ask CUDA and takes turns, without a step."""
        self.set("gate", "")

    def let_go(self) -> None:
        (self.folder / "gate").unlink()

    def _command(self, what: str, given: Any) -> list[str]:
        return [sys.executable, str(FAKES / "work.py"), str(self.bench.folder), what, json.dumps(given)]

    def _answer(self, what: str, given: Any) -> Any:
        answer = subprocess.run(
            self._command(what, given), env=self.environment, capture_output=True, text=True, check=False
        )
        assert answer.returncode == 0, answer.stderr
        return json.loads(answer.stdout)

    def ask(
        self,
        steps: int = STEPS,
        gpu_bytes: int = GPU_BYTES,
        ranks: int = 0,
        quantum_s: float | None = QUANTUM_S,
        priority: int = 0,
        **more: Any,
    ) -> list[str]:
        """Queue runs; their ids."""
        settings = [f"gpu_bytes={gpu_bytes}", f"ranks={ranks}", f"gate={self.folder / 'gate'}"]
        terms = {"quantum_s": quantum_s, "priority": priority}
        given = {"methods": ["loop"], "steps": steps, "settings": settings, "terms": terms, **more}
        return self._answer("plan", given)

    def look(self) -> dict[str, Any]:
        """How the queue stands, and ``on_card``: NVML's word on who has how much of card 0."""
        return self._answer("look", None)

    def work(self, *runs: str) -> subprocess.Popen[bytes]:
        """A supervisor in a process of its own."""
        with self._said.open("ab") as said:
            process = subprocess.Popen(self._command("work", runs), env=self.environment, stderr=said)
        self._started.append(process)
        return process

    def await_end(self, supervisor: subprocess.Popen[bytes]) -> None:
        """Wait until a supervisor's runs have ended; all that while, no two programs have memory of the card."""
        deadline = time.monotonic() + 45
        while supervisor.poll() is None:
            self.check_card()
            assert time.monotonic() < deadline, f"the runs have not ended: {self.turns()}, {self.calls()}"
            time.sleep(0.005)
        assert supervisor.returncode == 0, self._said.read_text()

    def end(self) -> None:
        """End whatever was started, supervisors or programs."""
        for process in self._started:
            process.kill()
            process.wait()
        for row in self.bench.record.runs():
            kill_leftovers(self.bench.run_folder(row.id))

    def processes(self, run: str) -> list[psutil.Process]:
        """The living processes that carry a run's mark."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                marked = process.environ().get(MARK) == str(self.bench.run_folder(run).path)
                if marked and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def states(self) -> dict[int, tuple[str, int]]:
        """By process, where the driver has it and its GPU memory in bytes; at one moment, and of the living only."""
        found: dict[int, tuple[str, int]] = {}
        with (self.folder / ".lock").open("a") as lock:
            until(lambda: takes(lock), "the lock of the fake driver")
            for path in self.folder.iterdir():
                if path.name.isdecimal() and is_alive(int(path.name)):
                    state, gpu_bytes, _, _ = path.read_text().split()
                    name = ("running", "locked", "checkpointed")[int(state)]
                    found[int(path.name)] = (name, int(gpu_bytes))
        return found

    def check_card(self) -> None:
        holding = [pid for pid, (_, gpu_bytes) in self.states().items() if gpu_bytes]
        assert len(holding) <= 1, f"processes {holding} have memory of the card at the same time"

    def await_switch(self) -> tuple[int, int]:
        """Wait for a moment in which one program is paused while another has the card; their processes, in that order."""

        def switched() -> tuple[int, int] | None:
            states = self.states()
            away = [pid for pid, state in states.items() if state == ("checkpointed", 0)]
            there = [pid for pid, state in states.items() if state == ("running", GPU_BYTES)]
            return (away[0], there[0]) if away and there else None

        return until(switched, "one program to be away while another has the card")

    def await_program(self, run: str) -> int:
        """Wait until a run's program has its memory of the card, and trains; its process."""

        def trains() -> int | None:
            states, ours = self.states(), [process.pid for process in self.processes(run)]
            there = [pid for pid in ours if states.get(pid, ("", 0))[1] > 0]
            return there[0] if there and len(self.losses(run)) > 5 else None

        return until(trains, f"the program of {run}")

    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def losses(self, run: str) -> list[str]:
        """What a run's program has printed since it began last."""
        path = self.bench.run_folder(run).log_path
        log = path.read_text() if path.exists() else ""
        return [line for line in log.rpartition("begins\n")[2].splitlines() if line.startswith("loss ")]

    def attempts(self, run: str) -> int:
        return self.bench.run_folder(run).log_path.read_text().count("begins\n")

    def state(self, run: str) -> State:
        return self.bench.row(run).state

    def turns(self) -> list[dict[str, Any]]:
        """Every turn, in the order that they began."""
        return [dict(row) for row in self.bench.record.read("SELECT * FROM turns ORDER BY rowid")]


def fake_environment(libraries: Path, folder: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    return {
        **inherited,
        "LD_LIBRARY_PATH": str(libraries),
        "FAKE_CUDA_DIR": str(folder),
        "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(SOURCE)])),
    }


def takes(lock: IO[str]) -> bool:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def is_alive(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def activity(pid: int) -> tuple[Any, ...]:
    """Changes whenever a process runs: its times, and how often it was put on a processor and taken off again."""
    process = psutil.Process(pid)
    return (*process.cpu_times(), *process.num_ctx_switches())


def until(condition: Callable[[], Any], what: str, within_s: float = 30.0) -> Any:
    """Wait for something to come true; what it was."""
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.005)
    return found


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("libraries")
    for source, library in (("fake_cuda.c", "libcuda.so.1"), ("fake_nvml.c", "libnvidia-ml.so.1")):
        command = ["cc", "-O1", "-shared", "-fPIC", "-o", str(folder / library), str(FAKES / source)]
        subprocess.run(command, check=True)
    return folder


@pytest.fixture
def machine(libraries: Path, tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(libraries, tmp_path)
    yield machine
    machine.end()


@pytest.fixture(scope="module")
def undisturbed(libraries: Path, tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """By seed, the losses that the program prints where nobody gives it turns."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "cameras.json").write_text('{"frames": []}')
    losses = []
    for seed in (0, 1):
        command = [sys.executable, "-S", "-E", str(FAKES / "train.py"), "--gpu-bytes", "1"]
        command += ["--seed", str(seed), "--steps", str(STEPS), "--out", str(folder), "--gate", "/nowhere"]
        answer = subprocess.run(
            [*command, "--cameras", str(folder / "cameras.json")],
            env=fake_environment(libraries, folder),
            capture_output=True,
            text=True,
            check=True,
        )
        losses.append(answer.stdout.splitlines()[1:])
    assert losses[0] != losses[1] and all(len(of_seed) == STEPS for of_seed in losses)
    return losses


def test_programs_take_turns_on_a_card_and_end_with_the_losses_of_undisturbed_ones(
    machine: Machine, undisturbed: list[list[str]]
) -> None:
    machine.hold()
    runs = machine.ask(seeds=2)
    supervisor = machine.work(*runs)
    looked_at: set[int] = set()
    while len(looked_at) < 2:
        away, there = machine.await_switch()
        calls, before = machine.calls(), activity(away)
        time.sleep(0.1)
        after, states = activity(away), machine.states()
        if machine.calls() == calls:  # still the same turn
            assert after == before, "it has been on a processor though it isn't its turn"
            assert states == {away: ("checkpointed", 0), there: ("running", GPU_BYTES)}
            looked_at.add(away)
    machine.let_go()
    machine.await_end(supervisor)
    assert [machine.state(run) for run in runs] == [State.DONE, State.DONE]
    assert [machine.losses(run) for run in runs] == undisturbed
    assert [machine.attempts(run) for run in runs] == [1, 1]
    turns = machine.turns()
    assert [turn["run"] for turn in turns][:4] == [*runs, *runs], "one after the other"
    assert {turn["device"] for turn in turns} == {"cuda:0"}
    assert {turn["why"] for turn in turns} == {"quantum", "done"}
    paused = [turn for turn in turns if turn["why"] == "quantum"]
    # One whose quantum ends before it has any memory of the card, or just as it comes to its end, is only frozen.
    moved = [turn for turn in paused if MOVED_AND_FROZEN.match(turn["how"])]
    assert {turn["run"] for turn in moved} == set(runs)
    assert all("frozen (" in turn["how"] for turn in paused)
    steps = [call.split()[0] for call in machine.calls()]
    # One that has made its last call of CUDA may end, once it is let go on, before it is given anything back.
    assert len(moved) - len(runs) <= steps.count("restore") == steps.count("unlock") <= len(moved)


def test_a_paused_program_leaves_the_card_to_others_and_goes_on_when_it_is_resumed(
    machine: Machine, undisturbed: list[list[str]]
) -> None:
    machine.hold()
    first, second = machine.ask(seeds=2, quantum_s=None)
    supervisor = machine.work(first, second)
    pid = machine.await_program(first)
    assert control.pause(machine.bench, first).state is State.PAUSED
    assert machine.states()[pid] == ("checkpointed", 0)
    before, printed = activity(pid), machine.losses(first)
    machine.let_go()
    until(lambda: machine.state(second) is State.DONE, "the other run")
    assert activity(pid) == before and machine.losses(first) == printed, "it is frozen"
    seen = machine.look()
    assert seen["on_card"] == {}, "NVML says so too"
    shown = next(run for run in seen["runs"] if run["id"] == first)
    assert shown["state"] == "paused" and MOVED_AND_FROZEN.match(shown["pausing"])
    assert supervisor.poll() is None and is_alive(pid)
    assert control.resume(machine.bench, first).state in (State.QUEUED, State.RUNNING)
    machine.await_end(supervisor)
    assert machine.state(first) is State.DONE and machine.attempts(first) == 1
    assert [machine.losses(run) for run in (first, second)] == undisturbed
    assert [(turn["run"], turn["why"]) for turn in machine.turns()] == [
        (first, "pause"),
        (second, "done"),
        (first, "done"),
    ]


def check_goes_on_unpaused(machine: Machine, supervisor: subprocess.Popen[bytes], run: str, pid: int) -> None:
    """Watch a program that can't be paused: it is never frozen, and never away from the card."""
    printed, seen_at = len(machine.losses(run)), time.monotonic()
    while machine.state(run) is State.RUNNING and printed < STEPS:
        assert supervisor.poll() is None
        with contextlib.suppress(psutil.NoSuchProcess):
            assert psutil.Process(pid).status() != psutil.STATUS_STOPPED, "it was frozen"
        assert machine.states().get(pid, ("", GPU_BYTES))[1] == GPU_BYTES
        if len(machine.losses(run)) > printed:
            printed, seen_at = len(machine.losses(run)), time.monotonic()
        assert time.monotonic() - seen_at < 5, "it does nothing any more"
        time.sleep(0.02)


def test_with_a_driver_that_is_too_old_a_program_runs_to_its_end_and_status_says_why(
    machine: Machine, undisturbed: list[list[str]]
) -> None:
    machine.set("driver", "550.54 12040")
    machine.hold()
    first, second = machine.ask(seeds=2)
    supervisor = machine.work(first, second)
    pid = machine.await_program(first)
    entry = until(
        lambda: (found := Queue(machine.bench.record).entry(first)) and not found.pausable,
        "the quantum's end",
    )
    assert entry and machine.state(second) is State.QUEUED
    shown, waiting = machine.look()["runs"]
    assert shown["state"] == "running" and shown["pausable"] is False
    assert shown["pausing"].startswith("NVIDIA's driver here is 550.54, and pausing CUDA processes needs 570")
    assert shown["pausing"].endswith("it runs to its end")
    assert waiting["state"] == "queued" and waiting["waits"] == "next in line"
    machine.let_go()
    check_goes_on_unpaused(machine, supervisor, first, pid)
    machine.await_end(supervisor)
    # The second isn't asked to leave at all: nobody waits.
    assert [(turn["run"], turn["why"]) for turn in machine.turns()] == [(first, "done"), (second, "done")]
    assert [machine.losses(run) for run in (first, second)] == undisturbed
    assert machine.calls() == []


def test_a_program_whose_checkpoint_fails_goes_on_as_before(
    machine: Machine, undisturbed: list[list[str]]
) -> None:
    machine.hold()
    first, second = machine.ask(seeds=2, quantum_s=None)
    supervisor = machine.work(first, second)
    pid = machine.await_program(first)
    machine.set("fail_checkpoint", pid)
    for _ in range(2):
        with pytest.raises(
            TurntableError,
            match=rf"{first} can't be paused: Checkpointing process {pid} gave CUDA_ERROR_NOT_",
        ):
            control.pause(machine.bench, first)
    assert machine.state(second) is State.QUEUED
    machine.let_go()
    check_goes_on_unpaused(machine, supervisor, first, pid)
    machine.await_end(supervisor)
    assert [machine.losses(run) for run in (first, second)] == undisturbed
    assert [machine.attempts(run) for run in (first, second)] == [1, 1]
    assert [(turn["run"], turn["why"]) for turn in machine.turns()] == [(first, "done"), (second, "done")]
    assert machine.calls() == [f"lock {pid}", f"checkpoint {pid}", f"unlock {pid}"], "tried once only"


@pytest.mark.parametrize("ranks", [0, 1])
def test_programs_of_a_killed_supervisor_begin_again_and_nothing_of_them_is_left(
    machine: Machine, undisturbed: list[list[str]], ranks: int
) -> None:
    """A rank is a grandchild of the supervisor: the kernel doesn't end it too, and it doesn't hold the run's lock."""
    machine.hold()
    runs = machine.ask(seeds=2, ranks=ranks)
    supervisor = machine.work(*runs)
    away, there = machine.await_switch()
    supervisor.kill()
    supervisor.wait()
    running = [run for run in runs if machine.state(run) is State.RUNNING]
    left = [process for run in runs for process in machine.processes(run)]
    if ranks == 0:
        until(lambda: not any(machine.processes(run) for run in runs), "the programs to die")
    machine.let_go()
    again = machine.work(*runs)
    machine.await_end(again)
    assert not any(process.is_running() for process in left)
    assert not is_alive(away) and not is_alive(there)
    assert not any(machine.processes(run) for run in runs)
    assert [machine.state(run) for run in runs] == [State.DONE, State.DONE]
    assert [machine.attempts(run) for run in runs] == [2, 2]
    assert [machine.losses(run) for run in runs] == undisturbed
    assert [turn["run"] for turn in machine.turns() if turn["why"] == "lost"] == running


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_program_that_loses_a_process_while_it_is_paused_is_let_go_on_to_its_end(
    machine: Machine, ranks: int
) -> None:
    """Nothing can bring that process back; the others must not stay on the card, frozen, while it isn't their turn."""
    machine.hold()
    (run,) = machine.ask(quantum_s=None, ranks=ranks)
    machine.work(run)
    machine.await_program(run)
    pids = until(lambda: len(found := list(machine.states())) == ranks and found, "all its processes")
    assert control.pause(machine.bench, run).state is State.PAUSED
    os.kill(pids[-1], signal.SIGKILL)
    machine.let_go()
    control.resume(machine.bench, run)

    def ended() -> bool:
        before, states = machine.state(run), machine.states()
        if before is machine.state(run) and before in (State.QUEUED, State.PAUSED):
            assert not any(gpu_bytes for _, gpu_bytes in states.values()), "it has the card, but no turn"
        return before.ended

    until(ended, "its end", within_s=10)
    assert machine.state(run) is State.FAILED
    assert "a rank has failed" in machine.bench.run_folder(run).log_path.read_text()


def test_a_paused_program_waits_for_room_on_the_card_and_status_says_so(
    machine: Machine, undisturbed: list[list[str]]
) -> None:
    machine.hold()
    (run,) = machine.ask(quantum_s=None)
    supervisor = machine.work(run)
    pid = machine.await_program(run)
    control.pause(machine.bench, run)
    machine.set("others", 15.9 * GIB)
    machine.let_go()
    control.resume(machine.bench, run)
    # It may have been given a turn once: what is free on a card is known to the second only.
    until(
        lambda: machine.look()["runs"][0]["waits"] == "needs 0.3 GB; cuda:0 has free 0.1 GB",
        "it to wait for room",
    )
    assert machine.states() == {pid: ("checkpointed", 0)}
    machine.set("others", 0)
    machine.await_end(supervisor)
    assert machine.losses(run) == undisturbed[0]
    assert machine.attempts(run) == 1


def test_a_program_that_the_driver_cannot_bring_back_begins_again_and_is_not_paused_any_more(
    machine: Machine, undisturbed: list[list[str]]
) -> None:
    machine.hold()
    first, second = machine.ask(seeds=2)
    supervisor = machine.work(first, second)
    machine.await_switch()
    machine.set("fail_restore", 1)
    until(
        lambda: (found := Queue(machine.bench.record).entry(first)) and not found.pausable,
        "the first to have begun again",
    )
    (machine.folder / "fail_restore").unlink()
    shown = machine.look()["runs"][0]
    assert shown["pausing"].startswith("the driver could not bring it back from a pause before")
    machine.let_go()
    machine.await_end(supervisor)
    assert [machine.losses(run) for run in (first, second)] == undisturbed
    assert machine.attempts(first) == 2
    assert [turn["why"] for turn in machine.turns() if turn["run"] == first] == ["quantum", "killed", "done"]


def test_the_memory_that_a_run_had_of_the_card_is_kept_free_for_the_next(machine: Machine) -> None:
    (first,) = machine.ask(gpu_bytes=10 * GIB, steps=80)
    machine.await_end(machine.work(first))
    row = machine.bench.record.run(first)
    assert row is not None and row.device_memory_bytes == 10 * GIB
    (second,) = machine.ask(gpu_bytes=10 * GIB, steps=80, fresh=True)
    entry = Queue(machine.bench.record).entry(second)
    assert entry is not None and entry.need_bytes == 10 * GIB
    machine.set("others", 8 * GIB)
    supervisor = machine.work(second)
    until(lambda: Queue(machine.bench.record).answering(second), "the supervisor")
    seen = machine.look()  # takes a second, in which it would begin
    assert machine.state(second) is State.QUEUED and seen["runs"][-1]["id"] == second
    machine.set("others", 0)
    machine.await_end(supervisor)
    assert machine.state(second) is State.DONE


def test_a_run_that_needs_more_than_the_card_has_is_never_begun_and_status_says_why(machine: Machine) -> None:
    (run,) = machine.ask()
    with machine.bench.record.writing() as db:  # as if learned on a larger card
        db.execute("UPDATE queue SET need_bytes = ? WHERE run = ?", (20 * GIB, run))
    machine.work(run)
    until(lambda: Queue(machine.bench.record).answering(run), "the supervisor")
    (shown,) = machine.look()["runs"]
    assert shown["state"] == "queued" and shown["waits"] == "needs 21.5 GB; cuda:0 has 17.2 GB"
    assert machine.turns() == []
    assert control.cancel(machine.bench, run).state is State.CANCELLED
