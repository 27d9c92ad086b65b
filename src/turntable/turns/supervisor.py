"""The supervisor of one run: the only one who writes that run's state, for as long as it has it.

It gives the run its turns. A turn ends when the run is done or has failed, when its quantum is up and others wait, when
its user wants it paused or cancelled, when Ctrl-C is pressed, or when somebody kills its process. A run that has neither
ended nor been cancelled goes on later as if nothing had been. What kind of process a run has (a worker that speaks our
protocol, or any program) is the business of the two subclasses.
"""

from __future__ import annotations

import contextlib
import enum
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from ..environments.place import Place
from ..errors import TurntableError, disk_error
from ..methods.spec import Method
from ..record import Record, Score, State, StateChange
from ..run import Asked, RunFolder, settle
from . import policy
from .process import WorkerFailed, WorkerKilled, kill_leftovers
from .queue import GIVEN_UP
from .watcher import Watcher

LOCK_WAIT_S = 10.0
"""What a killed supervisor's worker had started takes a moment to die; until then it holds the run's lock."""

SUPERVISOR_WAIT_S = 0.3
"""A killed supervisor's own lock goes with it."""

KILLS_BORNE = 10
"""A process that is killed from outside so many times in a row, each time before it got any further, has failed: who kills
so often can't be told from a method that brings it upon itself."""


class Task(Protocol):
    """What a supervisor needs of a task: what to ask the worker, and how to score the answer."""

    def inputs(self) -> dict[str, Any]:
        """The part of the worker's ``init`` message that depends on the capture."""
        ...

    @property
    def folder(self) -> Path:
        """The capture's folder."""
        ...

    @property
    def answers(self) -> tuple[str, ...]:
        """The names of the folders in a run's where a worker's answers go."""
        ...

    def held_out_files(self) -> tuple[Path, ...]:
        """The files of the capture that no method may see."""
        ...

    def requests(self, run: Path, mark: float) -> list[dict[str, Any]]:
        """What the worker is asked to render at ``mark``, with the files to write (their folders exist)."""
        ...

    def lay_out(self, folder: Path) -> dict[str, Path]:
        """Lay the capture out as a program expects it: the values of ``{capture}`` and ``{cameras}``."""
        ...

    def collect(self, run: Path, pattern: str, out: Path) -> int:
        """Find what a program has rendered and put it where :meth:`score` looks; how many there are."""
        ...

    def score(self, run: Path, mark: float, steps: int, device_seconds: float, watch: Any) -> list[Score]:
        """Score what was rendered; ``watch(done, total)`` is told how far it is."""
        ...

    def score_missing(
        self, run: Path, mark: float, steps: int, device_seconds: float, scores: list[Score]
    ) -> list[Score]:
        """Score by the metrics that ``scores`` lack, from stored renderings; [] where those are gone."""
        ...


@dataclass(frozen=True)
class Patience:
    """How a supervisor treats its worker.

    Args:
        message_s: a worker that says nothing for this long, in seconds, counts as hung.
        save_every_s: a checkpoint is written after at most this much training, in device seconds.
    """

    message_s: float = 600.0
    save_every_s: float = 30.0


class CannotGoOn(TurntableError):
    """This run can't be worked on; others can."""


class RunBusy(CannotGoOn):
    """Somebody else is seeing this run through."""


class Stop(str, enum.Enum):
    """Why a turn is to end before its run has."""

    QUANTUM = "quantum"
    """Its time is up and others wait."""
    PRIORITY = "priority"
    """A run of higher priority waits."""
    PAUSE = "pause"
    """Its user wants it paused."""
    CANCEL = "cancel"
    """Its user gives it up."""
    INTERRUPT = "interrupt"
    """The supervisor has been asked to end (Ctrl-C, SIGTERM, a closed terminal)."""
    KILL = "kill"
    """It has been asked again: no more waiting for a step's end."""


class TurnOver(Exception):
    """Raised in the middle of a turn that is to end."""

    def __init__(self, stop: Stop) -> None:
        super().__init__(stop.value)
        self.stop = stop


@dataclass(frozen=True)
class Grant:
    """A turn that a supervisor is given.

    Args:
        device: the device that it may use until the turn ends.
        device_lock: the descriptor of the device's kernel lock, for the worker to inherit.
        stop: asked several times a second: why the turn should end now, or None.
        keep: asked when the turn ends by quantum or priority: whether the process may stay in memory.
        tell: told how the run left the device, or why it can't be made to, in words; and whether it can.
    """

    device: policy.Device
    device_lock: int
    stop: Callable[[], Stop | None]
    keep: Callable[[], bool]
    tell: Callable[[str, bool], None]


class Supervisor:
    """Sees one run through, turn by turn, from wherever it stands to its end."""

    def __init__(
        self,
        folder: RunFolder,
        method: Method,
        place: Place,
        task: Task,
        record: Record,
        patience: Patience,
        watcher: Watcher,
    ) -> None:
        """Take the run's locks.

        Raises:
            RunBusy: another supervisor has it.
        """
        self.folder = folder
        self.method = method
        self.place = place
        self.task = task
        self.record = record
        self.patience = patience
        self.watcher = watcher
        self.asked: Asked = folder.asked()
        self.how = ""
        """How the run left its device last, or why it can't be made to, in words."""
        self.pausable = True
        """False once every way of making it leave its device has failed."""
        self.device_bytes = max(
            (event["bytes"] for event in folder.events() if event.get("type") == "device_memory"), default=0
        )
        self._fraction = 0.0
        self._told = 0.0
        self._state: dict[str, Any] = {}
        with contextlib.ExitStack() as locks:
            locks.enter_context(self._lock("supervisor.lock", SUPERVISOR_WAIT_S))
            self._worker_lock = locks.enter_context(self._lock_worker())
            self._locks = locks.pop_all()

    @property
    def kept(self) -> bool:
        """Whether the run's process is in memory though it has no turn."""
        raise NotImplementedError

    @property
    def expendable(self) -> bool:
        """Whether nothing is lost if a kept process ends."""
        raise NotImplementedError

    def expendable_bytes(self) -> int:
        """How much memory, in bytes, would be given back without a loss if a kept process ended."""
        return 0

    def _work(self, grant: Grant) -> None:
        """Work until the run is done.

        Raises:
            TurnOver: as soon as ``grant.stop`` says so.
            WorkerFailed: the run has failed.
        """
        raise NotImplementedError

    def _leave_device(self, stop: Stop, keep: bool) -> bool:
        """End or park what works, after :class:`TurnOver`; False if that can't be done and the turn has to go on."""
        raise NotImplementedError

    def end_process(self) -> None:
        """End the run's process, if there is one; what isn't saved is lost."""
        raise NotImplementedError

    def take_turn(self, grant: Grant) -> State:
        """Work on the run until it has ended or its turn is over; the state that it is in then.

        Raises:
            KeyboardInterrupt: the watcher was interrupted; the run was paused.
            TurntableError: its folder can't be written (disk full, read-only); the run stays resumable.
        """
        self._grant = grant
        self._change_state(
            State.RUNNING, device=grant.device.name, model=grant.device.model, supervisor=os.getpid()
        )
        try:
            while True:
                try:
                    self._work(grant)
                except TurnOver as over:
                    if over.stop is Stop.CANCEL:
                        return self._end(State.CANCELLED, GIVEN_UP)
                    if over.stop is Stop.KILL:
                        self.end_process()
                    elif not self._leave_device(over.stop, grant.keep()):
                        self.pausable = False
                        grant.tell(self.how, False)
                        self.watcher.note(f"{self.folder.id} can't be paused: {self.how}")
                        continue
                    return self._stopped(over.stop)
                return self._end(State.DONE)
        except CannotGoOn:
            self.end_process()
            raise
        except TurntableError as error:  # of this run: a picture was damaged, a file is gone
            self.end_process()
            raise CannotGoOn(f"Run {self.folder.id} can't go on: {error}") from error
        except OSError as error:  # of this machine, not of the method: the run can go on from its checkpoint
            self.end_process()
            raise disk_error(error, f"run {self.folder.id}; it can go on once that is mended") from error
        except WorkerKilled as killed:
            self.end_process()
            return self._killed(killed)
        except WorkerFailed as failure:
            return self._end(State.FAILED, str(failure))
        except KeyboardInterrupt:
            self._leave_device(Stop.INTERRUPT, keep=False)
            self._stopped(Stop.INTERRUPT)
            raise
        except BaseException:
            self.end_process()
            raise

    def _stopped(self, stop: Stop) -> State:
        self._grant.tell(self.how, True)
        state = State.PAUSED if stop is Stop.PAUSE else State.QUEUED
        self._change_state(state, cause=stop.value, how=self.how)
        self.watcher.run_stopped(self.folder.id, stop.value, self.how)
        return state

    def _end(self, state: State, cause: str | None = None) -> State:
        self.end_process()
        self._change_state(state, cause=cause)
        self.watcher.run_ended(self.folder.id, state.value, cause)
        return state

    def _killed(self, killed: WorkerKilled) -> State:
        """Somebody killed the process: no fault of the method, unless it happens again and again at the same place."""
        kills = 1
        for event in self.folder.events():
            if event.get("type") == "saved":
                kills = 1
            elif event.get("type") == "killed":
                kills += 1
        self.folder.append_event("killed", detail=str(killed))
        if kills >= KILLS_BORNE:
            return self._end(State.FAILED, f"{killed}; {kills} times in a row, without getting any further")
        self.watcher.note(f"{self.folder.id}: {killed}; it goes on from its last checkpoint")
        self._change_state(State.QUEUED, cause="killed", how=str(killed))
        return State.QUEUED

    def pids(self) -> list[int]:
        """The processes that the run has now; they may be gone a moment later."""
        return []

    def note_device_memory(self, used_bytes: int) -> None:
        """Note how much memory of its card the run has now: the next of its kind isn't begun where that isn't free."""
        if used_bytes > 1.02 * self.device_bytes:
            self.device_bytes = used_bytes
            self.folder.append_event("device_memory", bytes=used_bytes)
            self.record.set_device_memory(self.folder.id, used_bytes)

    def settle(self, state: State, cause: str) -> None:
        """Bring a run that has no turn into another state, as its user wishes."""
        if state.ended or (self.expendable and state is State.PAUSED):
            self.end_process()
        settle(self.folder, self.record, state, cause)

    def close(self) -> None:
        """Let go of the run, whatever becomes of it; its process ends."""
        self.end_process()
        self._locks.close()

    def _lock(self, name: str, wait_s: float) -> IO[bytes]:
        deadline = time.monotonic() + wait_s
        while (lock := self.folder.lock(name)) is None:
            if time.monotonic() > deadline:
                raise RunBusy(
                    f"Run {self.folder.id} is being worked on by another turntable; wait for that one."
                )
            time.sleep(0.05)
        return lock

    def _lock_worker(self) -> IO[bytes]:
        """The lock that workers inherit. No supervisor lives, so what is left of an earlier worker is killed.

        Also where nobody holds the lock: a child that was started the usual way has none of its parent's descriptors.
        """
        if any(event.get("type") == "worker" for event in self.folder.events()):
            kill_leftovers(self.folder)
        return self._lock("lock", LOCK_WAIT_S)

    def _check_stop(self, but: tuple[Stop, ...] = ()) -> None:
        """Raise :class:`TurnOver` if the turn should end, for another reason than one of ``but``."""
        stop = self._grant.stop()
        if stop in (Stop.QUANTUM, Stop.PRIORITY, Stop.PAUSE) and not self.pausable:
            return
        if stop is not None and stop not in but:
            raise TurnOver(stop)

    def _score(self, mark: float) -> None:
        """Score what was rendered at ``mark``."""

        def watch(done: int, total: int) -> None:
            self.watcher.run_doing(self.folder.id, "scoring", done, total)
            self._check_stop(but=(Stop.QUANTUM, Stop.PRIORITY))

        new = self.task.score(
            self.folder.path, mark, self._state["steps"], self._state["device_seconds"], watch
        )
        kept = [score for score in self.folder.scores() if score.mark != mark]
        self.folder.write_scores(kept + new)
        self.record.add_scores(self.folder.id, new)
        means: dict[str, list[float]] = {}
        for score in new:
            means.setdefault(score.metric, []).append(score.value)
        averages = {metric: sum(values) / len(values) for metric, values in means.items()}
        self.folder.append_event("scored", mark=mark, means=averages, **self._state)
        self.watcher.run_scored(self.folder.id, mark, averages)

    def _note_progress(self, message: dict[str, Any], at_least_every_s: float) -> None:
        self._state = message["state"]
        self._fraction = self.asked.budget.fraction(self._state)
        self.watcher.run_progress(self.folder.id, self._fraction, self._state, message["info"])
        now = time.monotonic()
        if now - self._told >= at_least_every_s:
            self._told = now
            self.folder.append_event("progress", **self._state, **_without(message["info"], self._state))
            self.record.set_progress(self.folder.id, self._state, self._fraction)

    def _change_state(self, state: State, **fields: Any) -> None:
        self.folder.append_event("state", state=state.value, **fields)
        self.record.change_state(self.folder.id, StateChange(time.time(), state, **fields))
        if self._state:
            self.record.set_progress(self.folder.id, self._state, self._fraction)


def recover_scores(folder: RunFolder, task: Task, record: Record) -> None:
    """Score again what was rendered and scored before, where the file or the record has lost it.

    A mark counts as scored where an event says so; what is missing of it (a file that was lost, or a metric that was not
    asked for then) is scored from the renderings, which are kept.
    """
    scores = folder.scores()
    marks = {event["mark"]: event for event in folder.events() if event.get("type") == "scored"}
    for mark, event in sorted(marks.items()):
        at_mark = [score for score in scores if score.mark == mark]
        new = task.score_missing(folder.path, mark, event["steps"], event["device_seconds"], at_mark)
        replaced = {(score.mark, score.metric) for score in new}
        scores = [score for score in scores if (score.mark, score.metric) not in replaced] + new
    folder.write_scores(scores)
    record.add_scores(folder.id, scores)


def _without(info: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """What a step said, less what would overwrite the worker's own account of itself."""
    return {key: value for key, value in info.items() if key not in state and key not in ("time", "type")}
