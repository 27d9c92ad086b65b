"""The supervisor with real worker processes: what becomes of good runs, bad runs and killed ones."""

from __future__ import annotations

import os
import shutil
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
from turntable.environments import place_of
from turntable.jobs import RunRequest, plan, work
from turntable.record import State
from turntable.results import capture_document
from turntable.run import Budget, RunFolder
from turntable.tasks.metrics import metrics
from turntable.tasks.views import ViewsTask
from turntable.turns.python_run import PythonRun
from turntable.turns.supervisor import Patience, RunBusy
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
    work(bench, folders, wanted.handling, watcher or Watcher())
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
        ("text", "loss must be a number, not 'high'"),
        ("readonly", "Read-only file system"),
        ("surrogate", "caf\\udce9"),
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
    rows = work(bench, plan(bench, bench.capture("small"), wanted), wanted.handling, Watcher())
    assert [row.state for row in rows] == [State.FAILED, State.DONE]


def test_a_seconds_budget_counts_steps_only(bench: Bench) -> None:
    """Making the object (0.3 s) and rendering (0.2 s a view, 2 views, 4 marks) are nobody's device seconds."""
    wanted = RunRequest(("colour",), Budget(device_seconds=0.4), settings=("mode=costly",))
    folder = do(bench, wanted)
    row = bench.row(folder.id)
    assert 0.4 <= row.device_seconds < 0.6
    assert row.setup_seconds >= 0.3
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
        "work(bench, plan(bench, bench.capture('small'), wanted), wanted.handling, Watcher())"
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
        states.extend(row.state for row in work(own, folders, wanted.handling, Watcher()))

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


def test_an_interruption_during_a_save_commits_that_save_whole(bench: Bench) -> None:
    class InterruptTheSave(Watcher):
        def run_doing(self, run: str, what: str, done: int, total: int) -> None:
            if what == "saving" and not threads:
                threads.append(threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)))
                threads[0].start()

    threads: list[threading.Timer] = []
    wanted = request("slow save", steps=16)
    with pytest.raises(KeyboardInterrupt):
        do(bench, wanted, InterruptTheSave())
    (checkpoint,) = sorted((bench.runs_folder / "small-colour-1" / "checkpoint").glob("0*"))
    assert sorted(path.name for path in (checkpoint / "method").iterdir()) == ["colour.npy", "state.json"]
    resumed = do(bench, wanted)
    unbroken = do(bench, request("slow save", steps=16, fresh=True))
    assert [s.value for s in resumed.scores()] == [s.value for s in unbroken.scores()]


def test_children_that_a_killed_worker_left_are_ended_and_the_run_goes_on(bench: Bench) -> None:
    """Without walls, that is: those take all with them that is inside."""
    code = (
        "import sys; from pathlib import Path; from turntable.bench import Bench;"
        "from turntable.jobs import RunRequest, plan, work; from turntable.run import Budget;"
        "from turntable.turns.watcher import Watcher;"
        "bench = Bench(Path(sys.argv[1]));"
        "wanted = RunRequest(('colour',), Budget(steps=100), settings=('mode=child',), walls=False);"
        "work(bench, plan(bench, bench.capture('small'), wanted), wanted.handling, Watcher())"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(bench.folder)])
    folder = RunFolder(bench.runs_folder / "small-colour-1")
    deadline = time.monotonic() + 30
    while not any(event["type"] == "ready" for event in folder.events()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    (group,) = [event["pid"] for event in folder.events() if event["type"] == "worker"]
    left = [
        p.pid for p in psutil.process_iter() if alive(p.pid) and p.pid != group and os.getpgid(p.pid) == group
    ]
    assert left, "the method's child lives on, with the run's lock"
    again = RunRequest(("colour",), Budget(steps=100), settings=("mode=child",), walls=False)
    assert do(bench, again).id == folder.id
    assert bench.row(folder.id).state is State.DONE
    assert not [pid for pid in left if alive(pid)]


def test_a_run_that_another_supervisor_holds_is_said_to_be_busy(bench: Bench) -> None:
    wanted = request()
    (folder,) = plan(bench, bench.capture("small"), wanted)
    held = folder.lock("supervisor.lock")
    assert held is not None
    with held, pytest.raises(RunBusy, match="is being worked on by another turntable"):
        PythonRun(
            folder,
            bench.method("colour"),
            place_of(bench, bench.method("colour"), True, lambda text: None),
            ViewsTask(bench.capture("small"), metrics()),
            bench.record,
            Patience(),
            Watcher(),
        )


def test_what_cant_go_on_does_not_stop_the_rest(bench: Bench) -> None:
    make_method(bench.methods_folder / "other")
    wanted = RunRequest(("colour", "other"), Budget(steps=8))
    folders = plan(bench, bench.capture("small"), wanted)
    with (bench.methods_folder / "colour" / "method.py").open("a") as file:
        file.write("\n# changed meanwhile\n")
    problems: list[str] = []
    rows = work(bench, folders, wanted.handling, Watcher(), problems)
    assert [row.state for row in rows] == [State.QUEUED, State.DONE]
    assert len(problems) == 1 and "has changed" in problems[0]


def test_a_bench_that_was_moved_goes_on(bench: Bench, tmp_path: Path) -> None:
    class StopAtHalf(Watcher):
        def run_scored(self, run: str, mark: float, means: dict[str, float]) -> None:
            if mark == 0.5:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        do(bench, request(), StopAtHalf())
    bench.record.close()
    bench.folder.rename(tmp_path / "moved")
    moved = Bench(tmp_path / "moved")
    assert do(moved, request()).id == "small-colour-1"
    assert moved.row("small-colour-1").state is State.DONE


def test_lost_scores_are_made_again_from_the_renderings(bench: Bench) -> None:
    folder = do(bench, request())
    before = folder.scores()
    (folder.path / "scores.csv").unlink()
    do(bench, request())
    assert folder.scores() == before == bench.record.scores(folder.id)


def test_runs_of_another_capture_that_had_the_name_before_are_not_mixed_in(bench: Bench) -> None:
    do(bench, request())
    shutil.rmtree(bench.captures_folder / "small")
    make_capture(bench.captures_folder / "small", views=15)
    again = do(bench, request())
    document = capture_document(bench, bench.capture("small"))
    assert [run["id"] for run in document["runs"]] == [again.id]


def test_a_rebuild_names_what_it_passes_over_and_keeps_the_rest(bench: Bench) -> None:
    folder = do(bench, request())
    shutil.copytree(folder.path, bench.runs_folder / "small-colour-1.bak")
    (bench.runs_folder / "broken").mkdir()
    (bench.runs_folder / "broken" / "run.json").write_text("{")
    with folder.events_path.open("a") as file:
        file.write("{}\n")
    count, passed_over = bench.rebuild_record()
    assert count == 1 and len(passed_over) == 2
    assert bench.row(folder.id).state is State.DONE and len(bench.record.scores(folder.id)) == 24


def test_a_record_that_was_removed_makes_itself_again(bench: Bench) -> None:
    folder = do(bench, request())
    bench.record.close()
    for path in bench.folder.glob("record.sqlite*"):
        path.unlink()
    assert Bench(bench.folder).row(folder.id).state is State.DONE


def test_two_who_ask_the_same_at_once_get_the_same_runs(bench: Bench) -> None:
    wanted = RunRequest(("colour", "nearest"), Budget(steps=5), seeds=3)
    answers: list[list[str]] = []

    def ask() -> None:
        own = Bench(bench.folder)
        answers.append([folder.id for folder in plan(own, own.capture("small"), wanted)])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 4 and all(answer == answers[0] for answer in answers)
