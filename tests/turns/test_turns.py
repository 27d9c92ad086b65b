"""Turns with real processes: how runs share a device, and how they are paused, resumed and cancelled."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from conftest import make_capture, make_method, make_program
from turntable import control, jobs
from turntable.bench import Bench
from turntable.errors import TurntableError
from turntable.jobs import RunRequest, plan, work
from turntable.record import State, StateChange, Terms
from turntable.run import Budget
from turntable.turns import device, policy, queue, rota
from turntable.turns.identity import Who, this_boot
from turntable.turns.process import kill_leftovers
from turntable.turns.queue import Queue
from turntable.turns.supervisor import Patience
from turntable.turns.watcher import Watcher


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return new_bench(tmp_path / "bench")


def new_bench(folder: Path) -> Bench:
    bench = Bench(folder)
    bench.make()
    make_capture(bench.captures_folder / "small")
    make_method(bench.methods_folder / "colour")
    make_program(bench.methods_folder / "program")
    return bench


def ask(
    bench: Bench,
    *methods: str,
    steps: int = 40,
    mode: str = "slow",
    quantum_s: float | None = 0.3,
    **more: Any,
) -> list[str]:
    """Queue runs; their ids."""
    terms = more.pop("terms", Terms(quantum_s=quantum_s))
    wanted = RunRequest(
        methods or ("colour",), Budget(steps=steps), settings=(f"mode={mode}",), terms=terms, **more
    )
    return [folder.id for folder in plan(bench, bench.capture("small"), wanted)]


HANDLING = jobs.Handling(Patience(save_every_s=0.2))


def do(bench: Bench, runs: list[str], watcher: Watcher | None = None) -> None:
    """Work on runs to their end, here."""
    work(bench, [bench.run_folder(run) for run in runs], HANDLING, watcher or Watcher())


@contextlib.contextmanager
def working(bench: Bench, runs: list[str]) -> Iterator[threading.Thread]:
    """Work on runs in the background, and wait for their end."""
    errors: list[BaseException] = []

    def target() -> None:
        try:
            do(Bench(bench.folder), runs)
        except BaseException as error:
            errors.append(error)
            raise

    thread = threading.Thread(target=target)
    thread.start()
    try:
        yield thread
        thread.join(120)
        assert not thread.is_alive() and not errors
    finally:
        for row in bench.record.runs(unended=True):
            control.cancel(bench, row.id)
        thread.join(30)


def until(condition: Callable[[], Any], what: str, within_s: float = 60.0) -> Any:
    """Wait for something to come true; what it was."""
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)
    return found


def values(bench: Bench, run: str) -> list[tuple[float, str, str, float]]:
    """A run's scores, without what depends on the clock."""
    return [(score.mark, score.metric, score.item, score.value) for score in bench.record.scores(run)]


def turns(bench: Bench) -> list[dict[str, Any]]:
    """Every turn, in the order that they began."""
    return [dict(row) for row in bench.record.read("SELECT * FROM turns ORDER BY rowid")]


def steps_of(bench: Bench, run: str) -> int:
    return bench.row(run).steps


def worker_pid(bench: Bench, run: str) -> int | None:
    pids = [event["pid"] for event in bench.run_folder(run).events() if event["type"] == "worker"]
    return pids[-1] if pids else None


def alive(pid: int | None) -> bool:
    try:
        return pid is not None and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def supervise(bench: Bench, runs: list[str], walls: bool = True) -> subprocess.Popen[bytes]:
    """A supervisor in a process of its own."""
    code = (
        "import sys; from pathlib import Path; from turntable.bench import Bench;"
        "from turntable.jobs import Handling, work; from turntable.turns.supervisor import Patience;"
        "from turntable.turns.watcher import Watcher; bench = Bench(Path(sys.argv[1]));"
        f"handling = Handling(Patience(save_every_s=0.2), walls={walls});"
        "work(bench, [bench.run_folder(run) for run in sys.argv[2:]], handling, Watcher())"
    )
    return subprocess.Popen([sys.executable, "-c", code, str(bench.folder), *runs])


def test_runs_go_round_robin_and_end_with_the_bits_of_unbroken_ones(bench: Bench) -> None:
    runs = ask(bench, seeds=3, steps=120)
    do(bench, runs)
    order = [turn["run"] for turn in turns(bench)]
    assert order[:6] == [*runs, *runs], "each has its turn before one has its second"
    assert {turn["how"] for turn in turns(bench) if turn["why"] == "quantum"} == {
        "saved and parked in memory"
    }
    unbroken = ask(bench, seeds=3, steps=120, quantum_s=None, fresh=True)
    do(bench, unbroken)
    assert [turn["run"] for turn in turns(bench)[len(order) :]] == unbroken, "first come, first served"
    assert [values(bench, run) for run in runs] == [values(bench, run) for run in unbroken]


def test_a_run_alone_keeps_its_device_beyond_its_quantum(bench: Bench) -> None:
    do(bench, ask(bench, steps=80))
    assert [turn["why"] for turn in turns(bench)] == ["done"]


def test_a_paused_run_ends_its_process_and_goes_on_where_it_was(bench: Bench) -> None:
    (run,) = ask(bench, steps=200)
    with working(bench, [run]):
        until(lambda: steps_of(bench, run) > 20, "some steps")
        row = control.pause(bench, run)
        assert row.state is State.PAUSED and 0 < row.steps < 200
        assert not alive(worker_pid(bench, run))
        assert not Queue(bench.record).leases(), "the device is free"
        time.sleep(0.5)
        assert bench.row(run).state is State.PAUSED, "nobody goes on with it by himself"
        assert control.resume(bench, run).state in (State.QUEUED, State.RUNNING)
    unbroken = ask(bench, steps=200, fresh=True)
    do(bench, unbroken)
    assert values(bench, run) == values(bench, unbroken[0])


def test_a_run_can_be_paused_resumed_and_cancelled_without_any_supervisor(bench: Bench) -> None:
    (run,) = ask(bench)
    assert control.pause(bench, run).state is State.PAUSED
    assert control.resume(bench, run).state is State.QUEUED
    assert control.cancel(bench, run).state is State.CANCELLED
    with pytest.raises(
        TurntableError, match=r"Only a run that has not ended can be resumed; .* is cancelled"
    ):
        control.resume(bench, run)
    again = control.retry(bench, run)
    assert again.id != run and bench.row(again.id).state is State.QUEUED


def test_a_paused_run_that_is_asked_for_again_goes_on(bench: Bench) -> None:
    (run,) = ask(bench)
    control.pause(bench, run)
    do(bench, ask(bench))
    assert bench.row(run).state is State.DONE


def test_a_cancelled_run_is_no_answer_to_the_same_question(bench: Bench) -> None:
    (run,) = ask(bench)
    control.cancel(bench, run)
    assert ask(bench) != [run]


def test_cancelling_ends_everything_that_a_run_has_started(bench: Bench) -> None:
    """The program ignores SIGTERM; its child has a session of its own and no descriptors, and ignores nothing."""
    (run,) = ask(bench, "program", steps=100_000, mode="fork")
    with working(bench, [run]):
        leader = until(lambda: worker_pid(bench, run), "the program")
        children = until(lambda: psutil.Process(leader).children(), "its child")
        control.cancel(bench, run)
        assert bench.row(run).state is State.CANCELLED
        assert not [process for process in (leader, *[c.pid for c in children]) if alive(process)]


def test_a_program_that_ignores_sigterm_is_killed_after_a_grace_period(bench: Bench) -> None:
    (run,) = ask(bench, "program", steps=100_000, mode="deaf")
    with working(bench, [run]):
        leader = until(lambda: worker_pid(bench, run), "the program")
        until(lambda: bench.row(run).peak_memory_bytes > 20e6, "NumPy's import")
        control.cancel(bench, run)
        assert not alive(leader)


def test_a_run_of_higher_priority_takes_the_device_and_gives_it_back(bench: Bench) -> None:
    (low,) = ask(bench, steps=200, quantum_s=None)
    with working(bench, [low]):
        until(lambda: steps_of(bench, low) > 0, "some steps")
        (high,) = ask(bench, steps=20, terms=Terms(priority=1), fresh=True)
        until(lambda: bench.row(high).state is State.DONE, "the important run")
        assert not bench.row(low).state.ended
    assert [(turn["run"], turn["why"]) for turn in turns(bench)] == [
        (low, "priority"),
        (high, "done"),
        (low, "done"),
    ]


def test_a_run_begins_after_the_one_that_it_waits_for_has_ended(bench: Bench) -> None:
    (first,) = ask(bench, steps=60)
    (second,) = ask(bench, steps=10, terms=Terms(priority=5, after=first))
    do(bench, [second, first])
    assert [turn["run"] for turn in turns(bench)] == [first, second]


def test_a_run_that_asks_for_more_memory_than_there_is_is_refused(bench: Bench) -> None:
    with pytest.raises(TurntableError, match="--memory is at most what a device has"):
        ask(bench, terms=Terms(need_bytes=10**15))


def test_what_a_run_needed_is_learned_for_the_next_of_its_kind(bench: Bench) -> None:
    do(bench, ask(bench))
    (again,) = ask(bench, fresh=True)
    entry = Queue(bench.record).entry(again)
    assert entry is not None and entry.need_bytes == bench.record.runs()[0].peak_memory_bytes > 10e6


def fake_cards(monkeypatch: pytest.MonkeyPatch, *models: str) -> None:
    """Pretend that this machine has such cards; methods of the tests don't mind where they run."""
    found = (
        device.processor(),
        *(policy.Device(f"cuda:{i}", model, 10**12) for i, model in enumerate(models)),
    )
    for module in (device, rota, jobs, control):
        monkeypatch.setattr(module, "devices", lambda: found)


def overlapping(of: list[dict[str, Any]]) -> bool:
    spans = sorted((turn["started"], turn["ended"]) for turn in of)
    return any(start < end for (_, end), (start, _) in pairwise(spans))


def test_runs_spread_over_two_devices_and_each_has_one_at_a_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_cards(monkeypatch, "card", "card")
    do(bench, ask(bench, seeds=4, steps=60, device="cuda"))
    done = turns(bench)
    assert {turn["device"] for turn in done} == {"cuda:0", "cuda:1"}
    assert overlapping(done), "both devices work at the same time"
    for name in ("cuda:0", "cuda:1"):
        assert not overlapping([turn for turn in done if turn["device"] == name])


def test_a_run_is_never_moved_to_an_unlike_device(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cards(monkeypatch, "large card", "small card")
    runs = ask(bench, seeds=3, steps=100, device="cuda")
    do(bench, runs)
    for run in runs:
        assert len({turn["device"] for turn in turns(bench) if turn["run"] == run}) == 1


def test_a_program_on_a_card_that_cant_be_paused_runs_to_its_end_and_status_says_why(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no driver here. The program must not be frozen: its card would not be free."""
    fake_cards(monkeypatch, "card")
    (run,) = ask(bench, "program", steps=60, mode="plain", device="cuda")
    with working(bench, [run]):
        until(lambda: worker_pid(bench, run), "the program")
        with pytest.raises(TurntableError, match=r"can't be paused: .*it runs to its end"):
            control.pause(bench, run)
        (shown,) = control.view_queue(bench).runs
        assert shown["pausable"] is False and "it runs to its end" in shown["pausing"]
    assert bench.row(run).state is State.DONE
    assert [turn["why"] for turn in turns(bench)] == ["done"]


def test_an_unaware_program_is_frozen_while_another_has_its_turn(bench: Bench) -> None:
    """It ends with the scores of an undisturbed one; while it is frozen it uses no processor time at all."""
    (program,) = ask(bench, "program", steps=60, mode="plain", quantum_s=0.5)
    (other,) = ask(bench, "colour", steps=150, quantum_s=None)
    used: list[float] = []
    with working(bench, [program, other]):
        until(lambda: bench.row(other).state is State.RUNNING, "the other's turn")
        process = psutil.Process(worker_pid(bench, program))
        for _ in range(5):
            times = process.cpu_times()
            used.append(times.user + times.system)
            time.sleep(0.1)
        assert bench.row(other).state is State.RUNNING, "all that while"
        assert process.is_running()
    assert len(set(used)) == 1
    first = turns(bench)[0]
    assert first["run"] == program and first["why"] == "quantum" and first["how"].startswith("frozen (")
    assert len([event for event in bench.run_folder(program).events() if event["type"] == "worker"]) == 2
    undisturbed = ask(bench, "program", steps=60, mode="plain", fresh=True)
    do(bench, undisturbed)
    assert values(bench, program) == values(bench, undisturbed[0])


def test_a_frozen_programs_memory_is_given_up_to_swap(bench: Bench, swap: None) -> None:
    (program,) = ask(bench, "program", steps=40, mode="big", quantum_s=2.0)
    (other,) = ask(bench, "colour", steps=100, quantum_s=None)
    with working(bench, [program, other]):
        until(lambda: bench.row(other).state is State.RUNNING, "the other's turn")
        resident = psutil.Process(worker_pid(bench, program)).memory_info().rss
        assert resident < bench.row(program).peak_memory_bytes / 2
    assert "given up to swap" in turns(bench)[0]["how"]
    assert bench.row(program).state is State.DONE


def test_a_program_is_paused_and_resumed_by_its_user(bench: Bench) -> None:
    (run,) = ask(bench, "program", steps=60, mode="plain")
    with working(bench, [run]):
        leader = until(lambda: worker_pid(bench, run), "the program")
        assert control.pause(bench, run).state is State.PAUSED
        assert alive(leader)
        until(lambda: not Queue(bench.record).leases(), "the device to be free")
        assert control.resume(bench, run).state in (State.QUEUED, State.RUNNING)
    assert bench.row(run).state is State.DONE


def test_a_program_that_fails_is_a_failed_run(bench: Bench) -> None:
    (run,) = ask(bench, "program", mode="fails")
    do(bench, [run])
    assert bench.row(run).cause == "ended with status 1 without a word; see the log"
    assert "no such thing as data" in bench.run_folder(run).log_path.read_text()


def test_a_program_that_prints_without_end_is_no_danger_to_its_supervisor(bench: Bench) -> None:
    (run,) = ask(bench, "program", steps=2, mode="noisy")
    do(bench, [run])
    assert bench.row(run).state is State.DONE
    assert bench.run_folder(run).log_path.stat().st_size > 60e6


def test_a_worker_killed_from_outside_goes_on_from_its_checkpoint(bench: Bench) -> None:
    (run,) = ask(bench, steps=150)
    with working(bench, [run]):
        until(lambda: steps_of(bench, run) > 30, "some steps")
        pid = worker_pid(bench, run)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    assert bench.row(run).state is State.DONE
    assert [turn["why"] for turn in turns(bench)] == ["killed", "done"]
    unbroken = ask(bench, steps=150, fresh=True)
    do(bench, unbroken)
    assert values(bench, run) == values(bench, unbroken[0])


def test_supervisors_of_one_bench_never_have_the_device_at_the_same_time(bench: Bench) -> None:
    # The first one's runs are the shortest: it leaves before the rest is done, and the two others race for the device.
    shares = [ask(bench, seeds=2, steps=steps) for steps in (40, 120, 121)]
    runs = [run for share in shares for run in share]
    processes = [supervise(bench, shares[0])]
    until(lambda: turns(bench), "the first turn")
    processes += [supervise(bench, share) for share in shares[1:]]
    for process in processes:
        assert process.wait(120) == 0
    assert all(bench.row(run).state is State.DONE for run in runs)
    assert len({turn["pid"] for turn in turns(bench)}) > 1 and not overlapping(turns(bench))


def test_a_run_that_nobody_can_work_on_ends_no_supervisor_and_holds_nobody_up(bench: Bench) -> None:
    """A colleague has changed the method of the run that he had queued, or has removed its folder."""
    (changed,) = ask(bench, steps=10)
    make_method(bench.methods_folder / "other")
    with (bench.methods_folder / "colour" / "method.py").open("a") as file:
        file.write("\n# changed meanwhile\n")
    (gone,) = ask(bench, "other", steps=11)
    bench.run_folder(gone).path.rename(bench.folder / "elsewhere")
    mine = ask(bench, "other", steps=12)
    do(bench, mine)  # raises nothing: it isn't my fault
    assert bench.row(mine[0]).state is State.DONE
    shown = {row["id"]: row["waits"] for row in control.view_queue(bench).runs}
    assert "has changed" in shown[changed] and "is gone" in shown[gone]
    with pytest.raises(TurntableError, match="has changed"):
        do(bench, [changed])


def test_a_method_that_hangs_fails_though_others_wait(bench: Bench) -> None:
    runs = ask(bench, seeds=2, mode="hang", quantum_s=0.3)
    work(bench, [bench.run_folder(run) for run in runs], jobs.Handling(Patience(message_s=1.5)), Watcher())
    assert [bench.row(run).cause for run in runs] == ["hung: no message for 1.5 s (--patience)"] * 2


def test_a_program_that_leaves_a_rendering_out_has_failed(bench: Bench) -> None:
    with (bench.methods_folder / "program" / "render.py").open("a") as file:
        file.write("\nnext(folder.iterdir()).unlink()\n")
    (run,) = ask(bench, "program", steps=2)
    do(bench, [run])
    row = bench.row(run)
    assert row.state is State.FAILED and row.cause is not None and "0000" in row.cause


def test_a_watcher_that_cant_write_any_more_stops_nothing(bench: Bench) -> None:
    class Deaf(Watcher):
        def run_progress(
            self, run: str, fraction: float, state: dict[str, Any], info: dict[str, Any]
        ) -> None:
            raise BrokenPipeError

    (run,) = ask(bench)
    do(bench, [run], Deaf())
    assert bench.row(run).state is State.DONE


def test_asking_again_changes_the_terms_of_a_run_that_waits(bench: Bench) -> None:
    (run,) = ask(bench)
    assert ask(bench, terms=Terms(priority=7)) == [run]
    entry = Queue(bench.record).entry(run)
    assert entry is not None and entry.priority == 7 and entry.quantum_s is None


def test_another_bench_of_the_machine_gets_its_turn_when_the_quantum_is_up(
    bench: Bench, tmp_path: Path
) -> None:
    other = new_bench(tmp_path / "other")
    (long,) = ask(bench, steps=400)
    (short,) = ask(other, steps=20)
    with working(bench, [long]):
        until(lambda: steps_of(bench, long) > 0, "some steps")
        do(other, [short])
        assert other.row(short).state is State.DONE and not bench.row(long).state.ended
    assert not overlapping(turns(bench) + turns(other))


def test_an_interrupted_supervisor_pauses_its_own_runs_and_leaves_others_to_the_next(bench: Bench) -> None:
    (mine,) = ask(bench, steps=300)
    (theirs,) = ask(bench, steps=150, fresh=True)
    first = supervise(bench, [mine])
    until(lambda: steps_of(bench, mine) > 0, "some steps")
    second = supervise(bench, [theirs])
    until(lambda: Queue(bench.record).answering(theirs), "the second supervisor")
    first.send_signal(signal.SIGINT)
    assert first.wait(60) == -signal.SIGINT
    assert second.wait(120) == 0
    assert bench.row(mine).state is State.PAUSED and bench.row(theirs).state is State.DONE


def test_a_supervisor_that_was_stopped_loses_its_device_when_its_lease_has_expired(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = ask(bench, steps=150)
    stopped = supervise(bench, [run])
    until(lambda: steps_of(bench, run) > 0, "some steps")
    stopped.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(queue, "EXPIRES_S", 0.5)
    monkeypatch.setattr(rota, "SEEN_STILL_S", 0.5)
    do(bench, [run])
    assert stopped.wait(10) == -signal.SIGKILL, "it is dead before the run starts again"
    assert bench.row(run).state is State.DONE and not overlapping(turns(bench))


def test_after_a_reboot_the_queue_goes_on(bench: Bench) -> None:
    """Nothing of before the boot lives, whatever has come by its process id since."""
    (run,) = ask(bench)
    before = Who(os.getpid(), 1, "another boot " + this_boot().partition(" ")[2])
    bench.record.change_state(run, StateChange(time.time(), State.RUNNING, device="cpu"))
    places = Queue(bench.record)
    places.enter(before, [run], ["cpu"], detached=False)
    places.take_lease("cpu", run, before, 0)
    assert control.view_queue(bench).runs[0]["state"] == "interrupted"
    do(bench, [run])
    assert bench.row(run).state is State.DONE
    assert [turn["why"] for turn in turns(bench)] == ["lost", "done"]


def test_what_a_dead_supervisor_left_on_the_device_is_ended_before_the_next_turn(bench: Bench) -> None:
    """Without walls, that is: those take all with them that is inside."""
    (run,) = ask(bench, steps=100, mode="child")
    supervisor = supervise(bench, [run], walls=False)
    until(lambda: steps_of(bench, run) > 0, "some steps")
    child = until(lambda: psutil.Process(worker_pid(bench, run)).children(), "the method's child")[0]
    supervisor.kill()
    supervisor.wait()
    assert alive(child.pid)
    (next_run,) = ask(bench, steps=10, fresh=True)
    do(bench, [next_run])
    assert not alive(child.pid)
    kill_leftovers(bench.run_folder(run))


def test_a_disk_that_is_full_at_a_checkpoint_harms_no_older_one(bench: Bench, tmp_path: Path) -> None:
    if os.getuid() != 0 or not sys.platform.startswith("linux"):
        pytest.skip("only root can mount a small disk")
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", small], check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        (run,) = ask(bench, steps=120)
        checkpoints = bench.run_folder(run).path / "checkpoint"
        checkpoints.symlink_to(small)

        class FillTheDisk(Watcher):
            def run_scored(self, run: str, mark: float, means: dict[str, float]) -> None:
                if mark == 0.5:
                    with contextlib.suppress(OSError), (small / "ballast").open("wb") as file:
                        while True:
                            file.write(b"x" * 4096)
                            file.flush()

        with pytest.raises(TurntableError, match="the disk is full"):
            do(bench, [run], FillTheDisk())
        assert not bench.row(run).state.ended
        (small / "ballast").unlink()
        do(bench, [run])
        assert bench.row(run).state is State.DONE
        unbroken = ask(bench, steps=120, fresh=True)
        do(bench, unbroken)
        assert values(bench, run) == values(bench, unbroken[0])
    finally:
        subprocess.run(["umount", small], check=True)
