"""What users wish of runs that no supervisor has, or one does; and wishes that a killed command left behind."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from turntable import control
from turntable.bench import Bench
from turntable.errors import TurntableError
from turntable.record import Record, RunRow, State, StateChange
from turntable.run import Asked, Budget, RunFolder
from turntable.turns.queue import CANCEL, GIVEN_UP, PAUSE, RELEASE, RESUME, Queue
from turntable.turns.wishes import grant

SOON_S = 10.0
"""Far longer than anything takes here, far shorter than control.WAIT_S."""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path / "bench")
    bench.make()
    assert bench.record.count_runs() == 0  # it is made
    return bench


@pytest.fixture
def queue(bench: Bench) -> Queue:
    return Queue(bench.record)


def new_run(bench: Bench) -> RunFolder:
    """A queued run: of a method that isn't there, since nothing is to be started."""
    asked = Asked(
        id="",
        capture="fox",
        capture_hash="c0ffee",
        task="views",
        method="splat",
        method_folder="/nowhere",
        method_fingerprint="f00d",
        settings={},
        seed=0,
        budget=Budget(steps=10),
        device="cpu",
        created=1000.0,
        command="turntable compare",
        versions={},
    )
    return bench.queue(asked)


@pytest.fixture
def run(bench: Bench) -> RunFolder:
    return new_run(bench)


def change(bench: Bench, run: RunFolder, *states: State) -> None:
    """Bring a run into a state, as a supervisor would."""
    for state in states:
        run.append_event("state", state=state.value)
        bench.record.change_state(run.id, StateChange(time.time(), state))


def state_of(bench: Bench, run: RunFolder) -> State:
    return bench.row(run.id).state


def changes(run: RunFolder) -> list[tuple[str, str | None]]:
    """The changes of state that the run's folder tells of, each with its cause."""
    return [(event["state"], event.get("cause")) for event in run.events() if event["type"] == "state"]


def is_free(run: RunFolder, name: str) -> bool:
    lock = run.lock(name)
    if lock is not None:
        lock.close()
    return lock is not None


HOLDS = """
import sys
from pathlib import Path
from turntable.run import RunFolder
lock = RunFolder(Path(sys.argv[1])).lock(sys.argv[2])
print("has it" if lock else "hasn't", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def hold() -> Iterator[Callable[[RunFolder, str], subprocess.Popen[str]]]:
    """Starts a process that has a lock of a run until it is killed."""
    begun: list[subprocess.Popen[str]] = []

    def begin(run: RunFolder, lock: str = "supervisor.lock") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDS, str(run.path), lock],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        begun.append(process)
        assert process.stdout is not None and process.stdout.readline() == "has it\n"
        return process

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


Hold = Callable[..., "subprocess.Popen[str]"]
WAY_TO = {
    State.QUEUED: (),
    State.RUNNING: (State.RUNNING,),
    State.PAUSED: (State.PAUSED,),
    State.DONE: (State.RUNNING, State.DONE),
    State.FAILED: (State.RUNNING, State.FAILED),
    State.CANCELLED: (State.CANCELLED,),
}
VERBS = {PAUSE: control.pause, RESUME: control.resume, CANCEL: control.cancel}


# Where no supervisor has the run -------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [State.QUEUED, State.RUNNING])
def test_a_run_that_nobody_has_is_paused_and_resumed(
    bench: Bench, queue: Queue, run: RunFolder, before: State
) -> None:
    change(bench, run, *WAY_TO[before])  # one that runs has been left behind by a killed supervisor
    later = new_run(bench)
    row = control.pause(bench, run.id)
    assert row == bench.row(run.id) and row.state is State.PAUSED and row.cause is None
    assert changes(run)[-1] == ("paused", "pause")
    assert [waiting.run for waiting in queue.snapshot().waits()] == [later.id]
    row = control.resume(bench, run.id)
    assert row == bench.row(run.id) and row.state is State.QUEUED
    assert changes(run)[-1] == ("queued", "resume")
    assert [waiting.run for waiting in queue.snapshot().waits()] == [later.id, run.id], "it goes behind"
    assert queue.wish_of(run.id) is None


@pytest.mark.parametrize("before", [State.QUEUED, State.RUNNING, State.PAUSED])
def test_a_run_that_nobody_has_is_cancelled(
    bench: Bench, queue: Queue, run: RunFolder, before: State
) -> None:
    change(bench, run, *WAY_TO[before])
    row = control.cancel(bench, run.id)
    assert row == bench.row(run.id) and (row.state, row.cause) == (State.CANCELLED, GIVEN_UP)
    assert changes(run)[-1] == ("cancelled", GIVEN_UP)
    assert queue.entry(run.id) is None
    rebuilt, passed_over = bench.rebuild_record()
    assert (rebuilt, passed_over) == (1, []) and bench.row(run.id) == row


def test_what_a_dead_supervisor_left_running_ends_with_a_cancelled_run(
    bench: Bench, run: RunFolder, hold: Hold
) -> None:
    change(bench, run, State.RUNNING)
    worker = hold(run, "lock")
    run.append_event("worker", pid=worker.pid)
    assert control.cancel(bench, run.id).state is State.CANCELLED
    worker.wait(SOON_S)
    assert is_free(run, "lock"), "nothing of it is alive"


def test_a_paused_run_is_paused_already(bench: Bench, queue: Queue, run: RunFolder) -> None:
    control.pause(bench, run.id)
    told = changes(run)
    assert control.pause(bench, run.id).state is State.PAUSED
    assert changes(run) == told and queue.wish_of(run.id) is None


@pytest.mark.parametrize("before", [State.QUEUED, State.RUNNING])
def test_a_run_that_isnt_paused_is_left_as_it_is_by_resume(
    bench: Bench, queue: Queue, run: RunFolder, before: State
) -> None:
    change(bench, run, *WAY_TO[before])
    told, entry = changes(run), queue.entry(run.id)
    queue.wish(run.id, PAUSE)
    assert control.resume(bench, run.id).state is before
    assert changes(run) == told and queue.entry(run.id) == entry, "but for the pause, which is taken back"


@pytest.mark.parametrize("end", [State.DONE, State.FAILED, State.CANCELLED])
@pytest.mark.parametrize(("verb", "word"), [(PAUSE, "paused"), (RESUME, "resumed"), (CANCEL, "cancelled")])
def test_nothing_is_wished_of_a_run_that_has_ended(
    bench: Bench, run: RunFolder, verb: str, word: str, end: State
) -> None:
    change(bench, run, *WAY_TO[end])
    told = changes(run)
    with pytest.raises(
        TurntableError, match=f"Only a run that has not ended can be {word}; .* is {end.value}"
    ):
        VERBS[verb](bench, run.id)
    assert changes(run) == told and state_of(bench, run) is end


@pytest.mark.parametrize("verb", VERBS)
def test_nothing_is_wished_of_a_run_that_isnt_there(bench: Bench, run: RunFolder, verb: str) -> None:
    with pytest.raises(TurntableError, match="fox-splat-7"):
        VERBS[verb](bench, "fox-splat-7")
    assert state_of(bench, run) is State.QUEUED


# What a killed command left behind -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "wish", "after"),
    [
        (State.QUEUED, PAUSE, State.PAUSED),
        (State.RUNNING, PAUSE, State.PAUSED),
        (State.QUEUED, CANCEL, State.CANCELLED),
        (State.RUNNING, CANCEL, State.CANCELLED),
        (State.PAUSED, CANCEL, State.CANCELLED),
        (State.PAUSED, RESUME, State.QUEUED),
        (State.RUNNING, RESUME, State.QUEUED),
    ],
)
def test_a_wish_that_was_left_behind_is_granted(
    bench: Bench, queue: Queue, run: RunFolder, before: State, wish: str, after: State
) -> None:
    change(bench, run, *WAY_TO[before])
    queue.wish(run.id, wish)
    assert queue.snapshot().waits() == []
    assert grant(run, bench.record, wish)
    why = GIVEN_UP if wish == CANCEL else wish
    assert state_of(bench, run) is after and changes(run)[-1] == (after.value, why)
    assert queue.wish_of(run.id) is None
    assert is_free(run, "supervisor.lock"), "it is let go of"


@pytest.mark.parametrize(
    ("before", "wish"),
    [
        (State.PAUSED, PAUSE),
        (State.QUEUED, RESUME),
        *((state, RELEASE) for state in (State.QUEUED, State.RUNNING, State.PAUSED)),
        *(
            (end, wish)
            for end in (State.DONE, State.FAILED, State.CANCELLED)
            for wish in (PAUSE, RESUME, CANCEL)
        ),
    ],
)
def test_a_wish_for_which_there_is_nothing_to_do_is_forgotten(
    bench: Bench, queue: Queue, run: RunFolder, before: State, wish: str
) -> None:
    change(bench, run, *WAY_TO[before])
    queue.wish(run.id, wish)
    told, row = changes(run), bench.row(run.id)
    assert grant(run, bench.record, wish) is not before.ended
    assert bench.row(run.id) == row and changes(run) == told
    assert queue.wish_of(run.id) is None


def test_a_command_that_is_given_again_grants_what_the_first_left_behind(
    bench: Bench, queue: Queue, run: RunFolder
) -> None:
    queue.wish(run.id, PAUSE)
    assert control.pause(bench, run.id).state is State.PAUSED
    queue.wish(run.id, RESUME)
    assert control.resume(bench, run.id).state is State.QUEUED
    queue.wish(run.id, PAUSE)
    assert control.cancel(bench, run.id).state is State.CANCELLED, "the last wish counts"


# Where a supervisor has the run --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "wish", "after"),
    [
        (State.RUNNING, PAUSE, State.PAUSED),
        (State.QUEUED, CANCEL, State.CANCELLED),
        (State.PAUSED, RESUME, State.QUEUED),
    ],
)
def test_a_wish_is_left_to_the_supervisor_that_has_the_run(
    bench: Bench, queue: Queue, run: RunFolder, hold: Hold, before: State, wish: str, after: State
) -> None:
    change(bench, run, *WAY_TO[before])
    told = changes(run)
    supervisor = hold(run)
    row = VERBS[wish](bench, run.id, wait_s=0.2)
    assert row == bench.row(run.id) and row.state is before and changes(run) == told
    assert queue.wish_of(run.id) == wish, "though the command no longer waits"
    assert not grant(run, bench.record, wish)
    assert queue.wish_of(run.id) == wish and state_of(bench, run) is before
    supervisor.kill()
    supervisor.wait()
    assert grant(run, bench.record, wish) is not before.ended
    assert state_of(bench, run) is after and queue.wish_of(run.id) is None


class Acting:
    """A supervisor that has a run, and does with it what it is told as soon as something is wished."""

    def __init__(self, bench: Bench, run: RunFolder, do: Callable[[Record, IO[bytes]], None]) -> None:
        lock = run.lock("supervisor.lock")
        assert lock is not None
        self._thread = threading.Thread(target=self._act, args=(bench.folder, run.id, lock, do))
        self._stopped = threading.Event()
        self._thread.start()

    def _act(self, bench: Path, run: str, lock: IO[bytes], do: Callable[[Record, IO[bytes]], None]) -> None:
        record = Record(bench / "record.sqlite")
        while Queue(record).wish_of(run) is None and not self._stopped.is_set():
            time.sleep(0.01)
        do(record, lock)
        self._stopped.wait()
        lock.close()
        record.close()

    def __enter__(self) -> Acting:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()


def soon(wish: Callable[[], RunRow]) -> RunRow:
    """What comes of a command, which may not wait for long."""
    began = time.monotonic()
    row = wish()
    assert time.monotonic() - began < SOON_S
    return row


def test_a_command_returns_as_soon_as_the_supervisor_has_granted_its_wish(
    bench: Bench, queue: Queue, run: RunFolder
) -> None:
    change(bench, run, State.RUNNING)

    def stop(record: Record, _: IO[bytes]) -> None:
        record.change_state(run.id, StateChange(time.time(), State.PAUSED))
        Queue(record).take_back(run.id, PAUSE)

    with Acting(bench, run, stop):
        assert soon(lambda: control.pause(bench, run.id)).state is State.PAUSED


@pytest.mark.parametrize(
    "then", [(State.QUEUED,), (State.QUEUED, State.RUNNING), (State.QUEUED, State.RUNNING, State.DONE)]
)
def test_resume_returns_as_soon_as_the_run_isnt_paused(
    bench: Bench, run: RunFolder, then: tuple[State, ...]
) -> None:
    # One that gets its turn at once is never seen queued.
    change(bench, run, State.PAUSED)

    def go_on(record: Record, _: IO[bytes]) -> None:
        with record.writing():  # nobody sees what lies between
            for state in then:
                record._db.execute("UPDATE runs SET state = ? WHERE id = ?", (state.value, run.id))

    with Acting(bench, run, go_on):
        assert soon(lambda: control.resume(bench, run.id)).state is then[-1]


@pytest.mark.parametrize("verb", [PAUSE, CANCEL])
def test_a_run_that_ends_by_itself_meanwhile_has_ended(bench: Bench, run: RunFolder, verb: str) -> None:
    change(bench, run, State.RUNNING)

    def end(record: Record, lock: IO[bytes]) -> None:
        record.change_state(run.id, StateChange(time.time(), State.DONE))
        lock.close()

    with Acting(bench, run, end):
        assert soon(lambda: VERBS[verb](bench, run.id)).state is State.DONE


def test_a_supervisor_that_is_killed_before_it_grants_a_wish_leaves_it_to_us(
    bench: Bench, run: RunFolder
) -> None:
    change(bench, run, State.RUNNING)
    with Acting(bench, run, lambda _, lock: lock.close()):
        assert soon(lambda: control.pause(bench, run.id)).state is State.PAUSED


def test_a_run_that_cant_be_paused_says_why_and_stays_in_line(
    bench: Bench, queue: Queue, run: RunFolder, hold: Hold
) -> None:
    hold(run)
    queue.note_pausing(run.id, "its driver is too old", pausable=False)
    with pytest.raises(TurntableError, match="can't be paused: its driver is too old") as caught:
        soon(lambda: control.pause(bench, run.id))
    assert f"turntable cancel {run.id}" in str(caught.value)
    assert queue.wish_of(run.id) is None and state_of(bench, run) is State.QUEUED


# Faults --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "wish"), [(State.QUEUED, PAUSE), (State.PAUSED, RESUME), (State.QUEUED, CANCEL)]
)
def test_a_wish_that_was_taken_back_isnt_granted(
    bench: Bench, queue: Queue, run: RunFolder, before: State, wish: str
) -> None:
    # A supervisor grants what it saw in its snapshot; since then the command has done so itself, or taken it back.
    change(bench, run, *WAY_TO[before])
    queue.wish(run.id, wish)
    seen = queue.snapshot().entries[run.id].wish
    queue.take_back(run.id, wish)
    assert seen is not None
    grant(run, bench.record, seen)
    assert state_of(bench, run) is before


def test_a_later_wish_isnt_lost_with_an_earlier_one(bench: Bench, queue: Queue, run: RunFolder) -> None:
    queue.wish(run.id, PAUSE)
    queue.wish(run.id, CANCEL)
    grant(run, bench.record, PAUSE)
    assert queue.wish_of(run.id) == CANCEL


def test_no_wish_is_left_for_a_run_whose_folder_is_gone(bench: Bench, queue: Queue, run: RunFolder) -> None:
    run.path.rename(run.path.with_name("elsewhere"))
    with pytest.raises(TurntableError, match="is gone"):
        control.cancel(bench, run.id)
    assert queue.wish_of(run.id) is None


def test_a_wish_for_a_run_whose_folder_is_gone_ends_no_supervisor(
    bench: Bench, queue: Queue, run: RunFolder
) -> None:
    queue.wish(run.id, CANCEL)
    run.path.rename(run.path.with_name("elsewhere"))
    grant(run, bench.record, CANCEL)


def test_resume_takes_back_no_cancel(bench: Bench, queue: Queue, run: RunFolder, hold: Hold) -> None:
    change(bench, run, State.RUNNING)
    hold(run)
    control.cancel(bench, run.id, wait_s=0.0)
    control.resume(bench, run.id)
    assert queue.wish_of(run.id) == CANCEL
