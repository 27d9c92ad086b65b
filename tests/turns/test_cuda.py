"""Pausing CUDA processes, against a fake driver and a fake NVML that keep the real ones' layouts and states.

That real GPU memory moves, and which programs the real driver refuses, only a real card can show.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import turntable

FAKES = Path(__file__).parent / "fake_cuda"
SOURCE = Path(turntable.__file__).parent.parent
GIB = 1 << 30

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the driver checkpoints on Linux alone")
needs_fakes = pytest.mark.skipif(
    shutil.which("cc") is None, reason="no C compiler (cc) to build the fake driver"
)


def lacks(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is None
    except ModuleNotFoundError:
        return True


needs_packages = pytest.mark.skipif(
    lacks("cuda.bindings") or lacks("pynvml"),
    reason="cuda-bindings or nvidia-ml-py isn't installed: pip install 'turntable[cuda]'",
)
no_driver_here = pytest.mark.skipif(
    shutil.which("nvidia-smi") is not None, reason="this machine has NVIDIA's driver, which would be found"
)


class Driver:
    """A process with the code under test and the fake libraries."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(FAKES / "drive.py")],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ticks = 0

    def send(self, call: str, *arguments: Any) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"call": call, "with": arguments}) + "\n")
        self.process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        assert self.process.stdout
        answer = json.loads(self.process.stdout.readline())
        self.ticks = answer.pop("ticks")
        return answer

    def __call__(self, call: str, *arguments: Any) -> Any:
        self.send(call, *arguments)
        answer = self.receive()
        assert "error" not in answer, answer
        return answer["value"]

    def refusal(self, call: str, *arguments: Any) -> str:
        """The message of the error, which must be the call's own and one line."""
        self.send(call, *arguments)
        answer = self.receive()
        own = {"checkpoint": ["CannotCheckpoint"], "restore": ["CannotRestore", "NoRoom"]}[call]
        assert answer.get("error") in own, answer
        assert "\n" not in answer["message"]
        return answer["message"]


class Machine:
    """A folder that is the fake machine's state, the programs on it, and whoever pauses them."""

    def __init__(self, libraries: Path, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "LD_LIBRARY_PATH": str(libraries),
            "FAKE_CUDA_DIR": str(folder),
            "PYTHONPATH": str(SOURCE),
        }
        self.started: list[subprocess.Popen[Any]] = []

    def set(self, name: str, value: object) -> None:
        (self.folder / name).write_text(str(value))

    def driver(self, **environment: str) -> Driver:
        driver = Driver({**self.environment, **environment})
        self.started.append(driver.process)
        return driver

    def program(self, gpu_bytes: int = GIB, card: int = 0) -> int:
        count = self.folder / f"count-{len(self.started)}"
        process = subprocess.Popen(
            [sys.executable, "-S", "-E", str(FAKES / "program.py"), str(gpu_bytes), str(count)],
            env={**self.environment, "FAKE_CUDA_CARD": str(card)},
        )
        self.started.append(process)
        (self.folder / f"{process.pid}.count").symlink_to(count)
        wait_until(lambda: self.count(process.pid) > 0)
        return process.pid

    def count(self, pid: int) -> int:
        shown = self.folder / f"{pid}.count"
        return int(shown.read_text() or 0) if shown.exists() else 0

    def state(self, pid: int) -> tuple[str, int]:
        """Where the driver has the process, and its GPU memory in bytes."""
        state, gpu_bytes, _, _ = (self.folder / str(pid)).read_text().split()
        return ("running", "locked", "checkpointed")[int(state)], int(gpu_bytes)

    def runs(self, pid: int) -> bool:
        """Whether a program runs and counts, with its GPU memory."""
        before = self.count(pid)
        wait_until(lambda: self.count(pid) > before)
        return self.state(pid) == ("running", GIB)

    def calls(self) -> list[tuple[str, int]]:
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(call, int(pid)) for call, pid in (line.split() for line in lines)]


def wait_until(happened: Callable[[], bool], limit_s: float = 10.0) -> None:
    end = time.monotonic() + limit_s
    while not happened():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("libraries")
    for source, library in (("fake_cuda.c", "libcuda.so.1"), ("fake_nvml.c", "libnvidia-ml.so.1")):
        command = [
            "cc",
            "-O1",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-shared",
            "-fPIC",
            "-o",
            str(folder / library),
        ]
        subprocess.run([*command, str(FAKES / source)], check=True)
    return folder


@pytest.fixture
def machine(libraries: Path, tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(libraries, tmp_path)
    yield machine
    for process in machine.started:
        process.kill()
        process.wait()


@needs_fakes
@needs_packages
class TestOnAMachineWithCards:
    def test_cards_are_listed_with_their_memory(self, machine: Machine) -> None:
        machine.set("cards", 2)
        machine.program(card=1)
        first, second = machine.driver()("cards")
        assert first == {
            "index": 0,
            "name": "Fake card 0",
            "memory_bytes": 16 * GIB,
            "free_bytes": 16 * GIB,
            "uuid": "GPU-00000000-0000-0000-0000-000000000000",
        }
        assert (second["index"], second["free_bytes"]) == (1, 15 * GIB)

    def test_a_cards_processes_are_listed_with_theirs(self, machine: Machine) -> None:
        machine.set("cards", 2)
        on_0, on_1 = machine.program(), machine.program(2 * GIB, card=1)
        driver = machine.driver()
        assert driver("gpu_processes", 0) == {str(on_0): GIB}
        assert driver("gpu_processes", 1) == {str(on_1): 2 * GIB}
        driver.send("gpu_processes", 2)
        assert driver.receive()["error"] == "TurntableError"

    def test_every_argument_struct_is_as_long_as_the_fakes(self, machine: Machine) -> None:
        assert set(machine.driver()("sizes").values()) == {64}

    def test_a_paused_program_holds_no_gpu_memory_and_goes_on_where_it_was(self, machine: Machine) -> None:
        driver, pid = machine.driver(), machine.program()
        assert driver("why_not") is None and driver("why_not", 0) is None
        assert driver("checkpoint", [pid], 0) == [pid]
        assert machine.state(pid) == ("checkpointed", 0)
        assert driver("gpu_processes", 0) == {} and driver("cards")[0]["free_bytes"] == 16 * GIB
        at = machine.count(pid)
        time.sleep(0.1)
        assert machine.count(pid) - at <= 1  # at most the one that CUDA had answered already
        at = machine.count(pid)
        driver("restore", [pid])
        assert machine.runs(pid)
        wait_until(lambda: machine.count(pid) > at + 3)
        assert machine.calls() == [("lock", pid), ("checkpoint", pid), ("restore", pid), ("unlock", pid)]

    def test_it_may_be_frozen_in_between(self, machine: Machine) -> None:
        driver, pid = machine.driver(), machine.program()
        driver("checkpoint", [pid], 0)
        os.kill(pid, signal.SIGSTOP)
        assert driver("gpu_processes", 0) == {}
        os.kill(pid, signal.SIGCONT)
        driver("restore", [pid])
        assert machine.runs(pid)

    def test_all_are_locked_before_the_first_is_checkpointed(self, machine: Machine) -> None:
        driver, first, second = machine.driver(), machine.program(), machine.program()
        assert driver("checkpoint", [first, os.getpid(), second, first], 0) == [first, second]
        driver("restore", [first, second])
        order = [step for step, _ in machine.calls()]
        assert order == [step for step in ("lock", "checkpoint", "restore", "unlock") for _ in range(2)]
        assert machine.runs(first) and machine.runs(second)

    def test_who_does_not_use_cuda_is_left_alone(self, machine: Machine) -> None:
        assert machine.driver()("checkpoint", [os.getpid(), 999_999_999], 0) == []
        assert machine.calls() == []

    def test_whoever_comes_later_can_resume_too(self, machine: Machine) -> None:
        pid = machine.program()
        machine.driver()("checkpoint", [pid], 0)
        machine.driver()("restore", [pid])
        assert machine.runs(pid)

    def test_resuming_what_runs_does_nothing(self, machine: Machine) -> None:
        driver, pid = machine.driver(), machine.program()
        driver("restore", [pid])
        assert machine.calls() == [] and machine.runs(pid)

    def test_other_threads_run_while_the_driver_moves_memory(self, machine: Machine) -> None:
        driver, pid = machine.driver(), machine.program()
        machine.set("slow", 500)
        driver("checkpoint", [pid], 0)
        assert driver.ticks > 10

    def test_a_checkpoint_that_fails_undoes_those_before_it(self, machine: Machine) -> None:
        driver, first, second = machine.driver(), machine.program(), machine.program()
        machine.set("fail_checkpoint", second)
        message = driver.refusal("checkpoint", [first, second], 0)
        assert message.startswith(
            f"Checkpointing process {second} gave CUDA_ERROR_NOT_SUPPORTED (it uses what"
        )
        assert machine.calls()[4:] == [("restore", first), ("unlock", second), ("unlock", first)]
        assert machine.runs(first) and machine.runs(second)

    def test_work_that_does_not_end_is_not_waited_for_for_ever(self, machine: Machine) -> None:
        driver, first, second = machine.driver(), machine.program(), machine.program()
        machine.set("busy", second)
        message = driver.refusal("checkpoint", [first, second], 0, 0.2)
        assert message.startswith(f"Locking process {second} gave CUDA_ERROR_NOT_READY (the GPU work")
        assert ("checkpoint", first) not in machine.calls()
        assert machine.runs(first) and machine.runs(second)

    def test_a_lock_that_hangs_on_a_locked_peer_is_freed(self, machine: Machine) -> None:
        driver, first, second = machine.driver(), machine.program(), machine.program()
        machine.set("hang", f"{second} {first}")
        message = driver.refusal("checkpoint", [first, second], 0, 0.2)
        assert message.startswith(f"Locking process {second} did not end within") and "hangs" not in message
        assert machine.calls()[-1] == ("unlock", second)
        assert machine.runs(first) and machine.runs(second)

    def test_an_interrupt_undoes_what_was_done(self, machine: Machine) -> None:
        driver, pid = machine.driver(), machine.program()
        machine.set("slow", 400)
        driver.send("checkpoint", [pid], 0)
        wait_until(lambda: ("lock", pid) in machine.calls())
        time.sleep(0.1)
        driver.process.send_signal(signal.SIGINT)
        assert driver.receive()["error"] == "KeyboardInterrupt"
        assert machine.runs(pid)

    def test_memory_that_stays_in_use_is_no_free_card(self, machine: Machine) -> None:
        driver, pid = machine.driver(), machine.program()
        machine.set("leaky", pid)
        message = driver.refusal("checkpoint", [pid], 0)
        assert message.startswith(f"Card 0 is not free: process {pid} still held GPU memory")
        assert machine.runs(pid)

    def test_processes_that_nvml_does_not_show_are_not_paused(self, machine: Machine) -> None:
        driver, pid = machine.driver(), machine.program()
        machine.set("hidden", 1)
        assert "--pid=host" in driver.refusal("checkpoint", [pid], 0)
        assert machine.calls() == [] and machine.runs(pid)

    def test_without_host_memory_nothing_is_locked(self, machine: Machine) -> None:
        pids = [machine.program(), machine.program()]
        driver = machine.driver(DRIVE_AVAILABLE=str(3 * GIB))
        message = driver.refusal("checkpoint", pids, 0)
        assert message == "Pausing needs 3.2 GiB of host memory, 3.0 GiB are free."
        assert machine.calls() == []
        assert driver("checkpoint", pids[:1], 0) == pids[:1]

    def test_what_another_program_has_paused_is_left_to_it(self, machine: Machine) -> None:
        pid = machine.program()
        machine.driver()("checkpoint", [pid], 0)
        message = machine.driver().refusal("checkpoint", [pid], 0)
        assert (
            message == f"Process {pid} isn't running but in the driver's state CU_PROCESS_STATE_CHECKPOINTED."
        )
        assert machine.state(pid) == ("checkpointed", 0)

    def test_a_full_card_is_not_restored_to_and_it_can_be_tried_again(self, machine: Machine) -> None:
        driver, pid = machine.driver(), machine.program()
        driver("checkpoint", [pid], 0)
        machine.set("others", 15.5 * GIB)
        message = driver.refusal("restore", [pid])
        assert message.startswith(f"Card 0 has 0.5 GiB free, and to go on, process {pid} must have 1.0 GiB")
        assert ("restore", pid) not in machine.calls()
        machine.set("others", 0)
        driver("restore", [pid])
        assert machine.runs(pid)

    def test_one_that_died_while_paused_needs_nothing_and_the_others_go_on(self, machine: Machine) -> None:
        driver, dead, alive = machine.driver(), machine.program(), machine.program()
        driver("checkpoint", [dead, alive], 0)
        process = next(p for p in machine.started if p.pid == dead)
        process.kill()
        process.wait()
        driver("restore", [dead, alive])
        assert machine.runs(alive)

    def test_one_that_ends_while_it_is_locked_is_no_reason_not_to_pause_the_others(
        self, machine: Machine
    ) -> None:
        driver, ending, alive = machine.driver(), machine.program(), machine.program()
        machine.set("ending", ending)
        driver("checkpoint", [ending, alive], 0)
        assert machine.state(alive) == ("checkpointed", 0)
        driver("restore", [ending, alive])
        assert machine.runs(alive)

    def test_a_restore_that_fails_is_named_and_the_others_go_on(self, machine: Machine) -> None:
        driver, lost, alive = machine.driver(), machine.program(), machine.program()
        driver("checkpoint", [lost, alive], 0)
        machine.set(f"{lost}.spoilt", 1)
        message = driver.refusal("restore", [lost, alive])
        assert message.startswith(f"Restoring process {lost} gave CUDA_ERROR_OPERATING_SYSTEM (")
        assert machine.runs(alive)

    @pytest.mark.parametrize("version", ["550.54 12040", "550.54 12080"])
    def test_an_old_driver_is_named(self, machine: Machine, version: str) -> None:
        machine.set("driver", version)
        driver = machine.driver()
        reason = "NVIDIA's driver here is 550.54, and pausing CUDA processes needs 570 or newer: update the driver."
        assert driver("why_not") == reason
        assert driver.refusal("checkpoint", [os.getpid()], 0) == reason

    def test_an_old_cuda_library_under_a_new_driver_is_named(self, machine: Machine) -> None:
        machine.set("driver", "570.86 12040")
        assert "is of CUDA 12.4" in machine.driver()("why_not")

    def test_mig_is_refused_on_its_own_card(self, machine: Machine) -> None:
        machine.set("mig", 0)
        driver = machine.driver()
        assert "'nvidia-smi -i 0 -mig 0'" in driver.refusal("checkpoint", [os.getpid()], 0)
        assert "MIG is enabled on card 0" in driver("why_not")
        machine.set("cards", 2)
        assert driver("why_not") is None and driver("why_not", 1) is None

    def test_a_card_that_is_not_there_is_named(self, machine: Machine) -> None:
        driver = machine.driver()
        assert driver("why_not", 3) == "There is no card 3; known: 0."
        machine.set("cards", 0)
        assert driver("why_not") == "There is no NVIDIA card here." and driver("cards") == []

    @no_driver_here
    def test_a_missing_cuda_library_is_named(self, machine: Machine, libraries: Path, tmp_path: Path) -> None:
        (tmp_path / "libraries").mkdir()
        (tmp_path / "libraries" / "libnvidia-ml.so.1").symlink_to(libraries / "libnvidia-ml.so.1")
        driver = machine.driver(LD_LIBRARY_PATH=str(tmp_path / "libraries"))
        assert driver("why_not").startswith("The CUDA driver library can't be used (")

    def test_a_missing_bindings_package_is_named(self, machine: Machine) -> None:
        reason = machine.driver(DRIVE_WITHOUT="cuda.bindings")("why_not")
        assert (
            reason == "Pausing CUDA processes needs the package cuda-bindings: pip install 'turntable[cuda]'."
        )


def bare(tmp_path: Path, **environment: str) -> Iterator[Driver]:
    driver = Driver(
        {**os.environ, "PYTHONPATH": str(SOURCE), "LD_LIBRARY_PATH": str(tmp_path), **environment}
    )
    yield driver
    driver.process.kill()
    driver.process.wait()


@pytest.fixture
def without_packages(tmp_path: Path) -> Iterator[Driver]:
    yield from bare(tmp_path, DRIVE_WITHOUT="pynvml cuda cuda.bindings")


@pytest.fixture
def without_a_card(tmp_path: Path) -> Iterator[Driver]:
    yield from bare(tmp_path)


def test_without_the_packages_the_reason_says_what_to_install(without_packages: Driver) -> None:
    driver = without_packages
    assert driver("cards") == []
    reason = driver("why_not")
    assert reason == "Pausing CUDA processes needs the package nvidia-ml-py: pip install 'turntable[cuda]'."
    assert driver.refusal("checkpoint", [1], 0) == reason
    assert "cuda-bindings" in driver.refusal("restore", [1])


@needs_packages
@no_driver_here
def test_without_a_driver_the_reason_says_so(without_a_card: Driver) -> None:
    driver = without_a_card
    assert driver("cards") == []
    assert driver("why_not").endswith("install the NVIDIA driver, 570 or newer.")
    assert "The CUDA driver library can't be used" in driver.refusal("restore", [1])
