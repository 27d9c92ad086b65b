"""The supervisor of one run: the only one who writes that run's state.

It starts the worker, lets it train from mark to mark, has it save often enough that a kill -9 costs little,
has every held-out item rendered and scored at each mark outside of the device clock, and turns a crash, a
hang, an out-of-memory kill or a NaN into a ``failed`` run with its cause. Ctrl-C pauses.
"""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from ..errors import TurntableError, disk_error
from ..methods.spec import Method
from ..record import Record, Score, State
from ..run import Asked, RunFolder
from . import checkpoint
from .process import WorkerFailed, WorkerProcess, expect, kill_leftovers
from .watcher import Watcher

MARKS = (0.125, 0.25, 0.5, 1.0)
"""The shares of a run's budget at which everything held out is rendered and scored."""

PAUSE_PATIENCE_S = 30.0
"""How long an interrupted supervisor waits for the step at hand before it kills the worker."""

LOCK_WAIT_S = 10.0
"""A killed supervisor's worker takes a moment to die; until then it holds the run's lock."""


class Task(Protocol):
    """What a supervisor needs of a task: what to ask the worker, and how to score the answer."""

    def inputs(self) -> dict[str, Any]:
        """The part of the worker's ``init`` message that depends on the capture."""
        ...

    def requests(self, run: Path, mark: float) -> list[dict[str, Any]]:
        """What the worker is asked to render at ``mark``, with the files to write (their folders exist)."""
        ...

    def score(self, run: Path, mark: float, steps: int, device_seconds: float, watch: Any) -> list[Score]:
        """Score what the worker wrote; ``watch(done, total)`` is told how far it is."""
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


class Supervisor:
    """Sees one run through, from wherever it stands to its end or to a pause."""

    def __init__(
        self,
        folder: RunFolder,
        method: Method,
        task: Task,
        record: Record,
        patience: Patience,
        watcher: Watcher,
    ) -> None:
        self.folder = folder
        self.method = method
        self.task = task
        self.record = record
        self.patience = patience
        self.watcher = watcher
        self.asked: Asked = folder.asked()
        self._fraction = 0.0
        self._told = 0.0
        self._state: dict[str, Any] = {}
        self._saving = False

    def run(self) -> State:
        """Work until the run is done, failed or paused; the state it is in then.

        Raises:
            RunBusy: another supervisor has it.
            KeyboardInterrupt: after the run was paused.
            TurntableError: its folder can't be written (disk full, read-only); the run stays resumable.
        """
        with self._lock("supervisor.lock"), self._worker_lock() as lock:
            turn = self.record.start_turn(self.folder.id, self.asked.device, time.time())
            ended = State.PAUSED
            try:
                ended = self._take_turn(lock)
            finally:
                self.record.end_turn(turn, time.time(), ended.value)
        return ended

    def _lock(self, name: str, wait_s: float = LOCK_WAIT_S) -> IO[bytes]:
        deadline = time.monotonic() + wait_s
        while (lock := self.folder.lock(name)) is None:
            if time.monotonic() > deadline:
                raise RunBusy(
                    f"Run {self.folder.id} is being worked on by another turntable; wait for that one."
                )
            time.sleep(0.05)
        return lock

    def _worker_lock(self) -> IO[bytes]:
        """The lock that workers inherit. No supervisor lives, so who still holds it was left behind, and is killed."""
        with contextlib.suppress(RunBusy):
            return self._lock("lock", wait_s=1.0)
        for event in self.folder.events():
            if event.get("type") == "worker":
                kill_leftovers(event["pid"], event["time"])
        return self._lock("lock")

    def _take_turn(self, lock: IO[bytes]) -> State:
        try:
            with self.folder.log_path.open("ab") as log:
                worker = WorkerProcess(sys.executable, self.folder.path, log, lock, self.patience.message_s)
                try:
                    self._change_state(State.RUNNING)
                    self._see_through(worker)
                    worker.stop()
                except KeyboardInterrupt:
                    self._pause(worker)
                    self._change_state(State.PAUSED)
                    self.watcher.run_ended(self.folder.id, State.PAUSED.value, None)
                    raise
                finally:
                    worker.end()
        except OSError as error:  # of this machine, not of the method: the run can go on from its checkpoint
            raise disk_error(error, f"run {self.folder.id}; it can go on once that is mended") from error
        except WorkerFailed as failure:
            self._change_state(State.FAILED, str(failure))
            self.watcher.run_ended(self.folder.id, State.FAILED.value, str(failure))
            return State.FAILED
        self._change_state(State.DONE)
        self.watcher.run_ended(self.folder.id, State.DONE.value, None)
        return State.DONE

    def _see_through(self, worker: WorkerProcess) -> None:
        hello = worker.greet()
        self.folder.append_event("worker", python=hello["python"], numpy=hello["numpy"], pid=worker.pid)
        self._init(worker)
        recover_scores(self.folder, self.task, self.record)
        scored = {score.mark for score in self.folder.scores()}
        for mark in MARKS:
            if mark <= max(scored, default=0.0):
                continue
            self._train(worker, mark)
            at = 1.0 if self._state["finished"] else mark
            if at == mark:
                self._answer(worker, mark)

    def _init(self, worker: WorkerProcess) -> None:
        saved, damaged = checkpoint.newest(self._checkpoints)
        for line in damaged:
            self.folder.append_event("damaged", detail=line)
            where = "the one before" if saved else "the beginning"
            self.watcher.note(f"{self.folder.id}: {line}; going on from {where}")
        budget = self.asked.budget
        self._state = start_method(worker, self.asked, self.method, saved, self.task.inputs())
        self._fraction = budget.fraction(self._state)
        self.folder.append_event("ready", resumed=saved is not None, **self._state)
        self.watcher.run_started(self.folder.id, self._fraction)

    def _train(self, worker: WorkerProcess, mark: float) -> None:
        """Train until ``mark``, in stretches that each end with a checkpoint."""
        target = self.asked.budget.until(mark)
        while not self._reached(target):
            pause_at = self._state["device_seconds"] + self.patience.save_every_s
            seconds = target["device_seconds"]
            until = {
                "steps": target["steps"],
                "device_seconds": pause_at if seconds is None else min(seconds, pause_at),
            }
            worker.send("train", until=until)
            while (message := worker.receive())["type"] == "progress":
                self._note_progress(message, at_least_every_s=1.0)
            expect(message, "reached")
            self._note_progress(message, at_least_every_s=0.0)
            self._save(worker)

    def _reached(self, target: dict[str, Any]) -> bool:
        if self._state["finished"]:
            return True
        if target["steps"] is not None:
            return self._state["steps"] >= target["steps"]
        return self._state["device_seconds"] >= target["device_seconds"]

    def _save(self, worker: WorkerProcess) -> None:
        self.watcher.run_doing(self.folder.id, "saving", 0, 0)
        self._saving = (
            True  # before anything is sent: an interruption must not begin a second save into the first
        )
        worker.send("save", folder=str(checkpoint.begin(self._checkpoints)))
        self._commit(worker.await_("saved")["state"])

    def _commit(self, state: dict[str, Any]) -> None:
        checkpoint.commit(self._checkpoints, state)
        self._saving = False
        self.folder.append_event("saved", steps=state["steps"])

    def _answer(self, worker: WorkerProcess, mark: float) -> None:
        """Have everything held out rendered, and score it."""
        requests = self.task.requests(self.folder.path, mark)
        worker.send("render", views=requests)
        while (message := worker.receive())["type"] == "rendering":
            self.watcher.run_doing(self.folder.id, "rendering", message["done"], message["total"])
        expect(message, "rendered")
        self.folder.append_event("rendered", mark=mark, views=len(requests), seconds=message["seconds"])
        new = self.task.score(
            self.folder.path,
            mark,
            self._state["steps"],
            self._state["device_seconds"],
            lambda done, total: self.watcher.run_doing(self.folder.id, "scoring", done, total),
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

    def _pause(self, worker: WorkerProcess) -> None:
        """Stop at a step boundary and save. A second Ctrl-C, or a step that takes too long, kills instead."""
        worker.patience_s = min(worker.patience_s, PAUSE_PATIENCE_S)
        with contextlib.suppress(WorkerFailed, KeyboardInterrupt):
            if not self._state:  # the method isn't there yet: nothing to save
                return
            if not self._saving:
                self._saving = True
                worker.send("pause")
                worker.send("save", folder=str(checkpoint.begin(self._checkpoints)))
            while (message := worker.receive())["type"] != "saved":
                pass
            self._state = message["state"]
            newest, _ = checkpoint.newest(self._checkpoints)
            if newest is None or self._state["steps"] > newest.state["steps"]:
                self._commit(self._state)
            worker.stop()

    @property
    def _checkpoints(self) -> Path:
        path = self.folder.path / "checkpoint"
        path.mkdir(exist_ok=True)
        return path

    def _note_progress(self, message: dict[str, Any], at_least_every_s: float) -> None:
        self._state = message["state"]
        self._fraction = self.asked.budget.fraction(self._state)
        self.watcher.run_progress(self.folder.id, self._fraction, self._state, message["info"])
        now = time.monotonic()
        if now - self._told >= at_least_every_s:
            self._told = now
            self.folder.append_event("progress", **self._state, **_without(message["info"], self._state))
            self.record.set_progress(self.folder.id, self._state, self._fraction)

    def _change_state(self, state: State, cause: str | None = None) -> None:
        self.folder.append_event("state", state=state.value, cause=cause)
        self.record.set_state(self.folder.id, state, time.time(), cause)
        if self._state:
            self.record.set_progress(self.folder.id, self._state, self._fraction)


def start_method(
    worker: WorkerProcess,
    asked: Asked,
    method: Method,
    saved: checkpoint.Checkpoint | None,
    inputs: dict[str, Any],
) -> dict[str, Any]:
    """Have a greeted worker make the method's object, from ``saved`` if there is a checkpoint.

    Returns:
        The worker's ``state``.

    Raises:
        WorkerFailed: the method can't be made.
    """
    worker.send(
        "init",
        method={"folder": str(method.folder), "entry": method.run["entry"]},
        settings=asked.settings,
        seed=asked.seed,
        device=asked.device,
        budget={"steps": asked.budget.steps, "device_seconds": asked.budget.device_seconds},
        checkpoint=str(saved.folder) if saved else None,
        state=saved.state if saved else None,
        **inputs,
    )
    return worker.await_("ready")["state"]


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
