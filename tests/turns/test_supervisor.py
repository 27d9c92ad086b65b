"""The supervisor with real worker processes: what becomes of good runs, bad runs and killed ones."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from conftest import make_capture, make_method
from turntable.bench import Bench
from turntable.jobs import RunRequest, plan, work
from turntable.record import State
from turntable.run import Budget, RunFolder
from turntable.turns.supervisor import Patience
from turntable.turns.watcher import Watcher


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path / "bench")
    bench.make()
    make_capture(bench.captures_folder / "small")
    make_method(bench.methods_folder / "colour")
    return bench


def request(mode: str = "plain", steps: int = 40, **more: Any) -> RunRequest:
    return RunRequest(("colour",), Budget(steps=steps), settings=(f"mode={mode}",), **more)


def do(bench: Bench, wanted: RunRequest, watcher: Watcher | None = None) -> RunFolder:
    folders = plan(bench, bench.capture("small"), wanted)
    work(bench, folders, wanted, watcher or Watcher())
    return folders[0]


def test_a_run_is_scored_at_four_marks_on_every_held_out_view(bench: Bench) -> None:
    folder = do(bench, request())
    row = bench.row(folder.id)
    scores = bench.record.scores(folder.id)
    assert row.state is State.DONE and row.steps == 40 and row.fraction == 1.0
    assert {score.mark: score.steps for score in scores} == {0.125: 5, 0.25: 10, 0.5: 20, 1.0: 40}
    held_out = [view.name for view in bench.capture("small").held_out]
    for mark in (0.125, 0.25, 0.5, 1.0):
        for metric in ("psnr", "ssim", "flip"):
            assert [s.item for s in scores if s.mark == mark and s.metric == metric] == held_out
    assert folder.scores() == scores
    assert "hello from the method" in folder.log_path.read_text()
    assert [event["state"] for event in folder.events() if event["type"] == "state"] == ["running", "done"]


@pytest.mark.parametrize(
    ("mode", "cause"),
    [
        ("broken", "ValueError: cannot start"),
        ("crash", "SIGSEGV"),
        ("exit", "status 7"),
        ("nan", "loss became nan at step 5"),
        ("memory", "out of memory: too big"),
        ("killed", "signal 9"),
        ("shape", "must give shape (16, 24, 3), not (3, 3, 3)"),
    ],
)
def test_a_method_that_fails_becomes_a_failed_run_with_its_cause_and_log(
    bench: Bench, mode: str, cause: str
) -> None:
    folder = do(bench, request(mode))
    row = bench.row(folder.id)
    assert row.state is State.FAILED
    assert row.cause is not None and cause in row.cause and "\n" not in row.cause
    assert folder.log_path.exists()


def test_a_method_that_says_nothing_for_the_patience_counts_as_hung(bench: Bench) -> None:
    folder = do(bench, request("hang", patience=Patience(message_s=1.0)))
    assert bench.row(folder.id).cause == "hung: no message for 1 s (--patience)"


def test_the_other_runs_go_on_after_a_failure(bench: Bench) -> None:
    make_method(bench.methods_folder / "other")
    wanted = RunRequest(("colour", "other"), Budget(steps=8), settings=("colour.mode=crash",))
    rows = work(bench, plan(bench, bench.capture("small"), wanted), wanted, Watcher())
    assert [row.state for row in rows] == [State.FAILED, State.DONE]


def test_a_seconds_budget_counts_steps_only(bench: Bench) -> None:
    wanted = RunRequest(("colour",), Budget(device_seconds=0.4), settings=("mode=slow",))
    folder = do(bench, wanted)
    row = bench.row(folder.id)
    assert 0.4 <= row.device_seconds < 0.6
    assert min(s.device_seconds for s in folder.scores()) >= 0.05


def test_the_same_question_is_answered_by_the_run_that_there_is(bench: Bench) -> None:
    first = do(bench, request())
    again = do(bench, request())
    fresh = do(bench, request(fresh=True))
    other = do(bench, request(steps=16))
    assert (again.id, fresh.id, other.id) == (first.id, "small-colour-2", "small-colour-3")


def test_a_failed_run_is_asked_again_as_a_new_one(bench: Bench) -> None:
    assert [do(bench, request("nan")).id for _ in range(2)] == ["small-colour-1", "small-colour-2"]


def test_an_interrupted_run_is_paused_and_ends_with_the_bits_of_an_unbroken_one(bench: Bench) -> None:
    class Interrupter(Watcher):
        def run_progress(
            self, run: str, fraction: float, state: dict[str, Any], info: dict[str, Any]
        ) -> None:
            raise KeyboardInterrupt

    wanted = request("slow", steps=120)
    with pytest.raises(KeyboardInterrupt):
        do(bench, wanted, Interrupter())
    paused = bench.record.runs()[0]
    assert paused.state is State.PAUSED and 0 < paused.steps < 120
    resumed = do(bench, wanted)
    unbroken = do(bench, request("slow", steps=120, fresh=True))
    assert resumed.id == paused.id != unbroken.id
    values = [[(s.mark, s.metric, s.item, s.value) for s in f.scores()] for f in (resumed, unbroken)]
    assert values[0] == values[1]


def test_killing_supervisor_and_worker_loses_nothing(bench: Bench) -> None:
    """kill -9 of the supervisor: its worker dies too, the run goes on, the scores are those of an unbroken run."""
    code = (
        "import sys; from pathlib import Path; from turntable.bench import Bench;"
        "from turntable.jobs import RunRequest, plan, work; from turntable.run import Budget;"
        "from turntable.turns.supervisor import Patience; from turntable.turns.watcher import Watcher;"
        "bench = Bench(Path(sys.argv[1]));"
        "wanted = RunRequest(('colour',), Budget(steps=200), settings=('mode=slow',),"
        " patience=Patience(save_every_s=0.1));"
        "work(bench, plan(bench, bench.capture('small'), wanted), wanted, Watcher())"
    )
    pids: list[int] = []
    for wait in (1.2, 0.3, 1.7):
        process = subprocess.Popen([sys.executable, "-c", code, str(bench.folder)])
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for run in bench.record.runs():
            events = list(bench.run_folder(run.id).events())
            pids += [event["pid"] for event in events if event["type"] == "worker"]
    subprocess.run([sys.executable, "-c", code, str(bench.folder)], check=True, timeout=60)
    (run,) = bench.record.runs()
    assert run.state is State.DONE and run.steps == 200
    assert not [pid for pid in pids if alive(pid)]
    unbroken = do(bench, request("slow", steps=200, fresh=True))
    values = [
        [(s.mark, s.metric, s.item, s.value) for s in bench.record.scores(id)] for id in (run.id, unbroken.id)
    ]
    assert values[0] == values[1]


def alive(pid: int) -> bool:
    """Whether a process does anything any more: a zombie only waits to be counted."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_damaged_checkpoint_is_noticed_and_the_one_before_is_used(bench: Bench) -> None:
    class StopAtHalf(Watcher):
        def run_scored(self, run: str, mark: float, means: dict[str, float]) -> None:
            if mark == 0.5:
                raise KeyboardInterrupt

    notes: list[str] = []

    class Listener(Watcher):
        def note(self, text: str) -> None:
            notes.append(text)

    with pytest.raises(KeyboardInterrupt):
        do(bench, request(), StopAtHalf())
    run = bench.run_folder("small-colour-1")
    newest = sorted((run.path / "checkpoint").iterdir())[-1]
    (newest / "method" / "colour.npy").write_bytes(b"")
    do(bench, request(), Listener())
    unbroken = do(bench, request(fresh=True))
    assert len(notes) == 1 and "damaged" in notes[0]
    assert [s.value for s in run.scores()] == [s.value for s in unbroken.scores()]


def test_two_supervisors_never_work_on_one_run(bench: Bench) -> None:
    wanted = request("slow", steps=100)
    plan(bench, bench.capture("small"), wanted)
    states: list[State] = []

    def supervise() -> None:
        own = Bench(bench.folder)
        folders = plan(own, own.capture("small"), wanted)
        states.extend(row.state for row in work(own, folders, wanted, Watcher()))

    threads = [threading.Thread(target=supervise) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states == [State.DONE, State.DONE]
    starts = [event for event in bench.run_folder("small-colour-1").events() if event["type"] == "worker"]
    assert len(bench.record.runs()) == 1 and len(starts) == 1


def test_the_record_is_made_again_from_the_folders(bench: Bench) -> None:
    do(bench, request())
    do(bench, request("nan"))
    before = [(row, bench.record.scores(row.id)) for row in bench.record.runs()]
    bench.record.close()
    for path in bench.folder.glob("record.sqlite*"):
        path.unlink()
    again = Bench(bench.folder)
    again.rebuild_record()
    assert [(row, again.record.scores(row.id)) for row in again.record.runs()] == before


def test_a_method_whose_code_changed_is_asked_anew(bench: Bench) -> None:
    first = do(bench, request())
    with (bench.methods_folder / "colour" / "method.py").open("a") as file:
        file.write("\n# changed\n")
    assert do(bench, request()).id != first.id
