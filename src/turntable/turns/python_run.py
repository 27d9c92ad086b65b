"""A run whose method is a Python class: its worker speaks our protocol, and stops at a step's end whenever it is asked.

The worker trains from mark to mark, saves often enough that a kill -9 costs little, and renders everything held out at each
mark outside of the device clock. Made to leave the device, it saves, and exits or stays parked in memory, where it waits for
the next message and uses no time of the processor.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from ..methods.spec import Method
from ..run import Asked
from . import checkpoint
from .process import Quarters, WorkerFailed, WorkerProcess, expect
from .supervisor import Grant, Stop, Supervisor, TurnOver, recover_scores

MARKS = (0.125, 0.25, 0.5, 1.0)
"""The shares of a run's budget at which everything held out is rendered and scored."""

INTERRUPT_PATIENCE_S = 30.0
"""How long an interrupted supervisor waits for the step at hand before it kills the worker."""


class PythonRun(Supervisor):
    """Sees through a run of a Python method."""

    _worker: WorkerProcess | None = None
    _training = False
    _saving = False
    _saved_steps = -1
    """Those of the newest whole checkpoint."""

    @property
    def kept(self) -> bool:
        return self._worker is not None

    @property
    def expendable(self) -> bool:
        return True

    def expendable_bytes(self) -> int:
        return self._worker.resident_bytes() if self._worker is not None else 0

    def pids(self) -> list[int]:
        return self._worker.pids() if self._worker is not None else []

    def _work(self, grant: Grant) -> None:
        if self._worker is None:
            self._start(grant)
        else:
            self.watcher.run_started(self.folder.id, self._fraction)
        worker = self._worker
        assert worker is not None
        scored = max((score.mark for score in self.folder.scores()), default=0.0)
        for mark in MARKS:
            if mark <= scored:
                continue
            self._train(worker, mark)
            at = 1.0 if self._state["finished"] else mark
            if at == mark:
                self._answer(worker, mark)
        worker.stop()

    def _start(self, grant: Grant) -> None:
        with self.folder.log_path.open("ab") as log:
            self._worker = WorkerProcess(
                self._quarters(grant.device.name),
                log,
                (self._worker_lock.fileno(), grant.device_lock),
                self.patience.message_s,
            )
        worker = self._worker
        self._state = {}
        self.folder.append_event("worker", pid=worker.pid)
        # A worker that is only starting has nothing to save: for a quantum it isn't worth giving up.
        worker.tick = lambda: self._check_stop(but=(Stop.QUANTUM,))
        hello = worker.greet()
        self.folder.append_event("hello", python=hello["python"], numpy=hello["numpy"])
        saved, damaged = checkpoint.newest(self._checkpoints)
        for line in damaged:
            self.folder.append_event("damaged", detail=line)
            where = "the one before" if saved else "the beginning"
            self.watcher.note(f"{self.folder.id}: {line}; going on from {where}")
        state = start_method(worker, self.asked, self.method, grant.device.name, saved, self.task.inputs())
        self._state, self._saved_steps = state, saved.state["steps"] if saved else -1
        self._fraction = self.asked.budget.fraction(state)
        self.folder.append_event("ready", resumed=saved is not None, **state)
        self.watcher.run_started(self.folder.id, self._fraction)
        worker.tick = self._tick
        recover_scores(self.folder, self.task, self.record)

    def _quarters(self, device: str) -> Quarters:
        """The capture can be read, but for what is held out; only answers and checkpoints can be written."""
        run = self.folder.path
        write = tuple(run / name for name in (self._checkpoints.name, *self.task.answers))
        for path in write:
            path.mkdir(exist_ok=True)
        return Quarters(
            run,
            self.place,
            (self.task.folder,),
            write,
            self.task.held_out_files(),
            device,
        )

    def _tick(self) -> None:
        """Many times a second while the worker is waited for. Only training is cut short by a quantum."""
        self._check_stop(but=() if self._training else (Stop.QUANTUM,))

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
            self._training = True
            try:
                worker.send("train", until=until)
                while (message := worker.receive())["type"] == "progress":
                    self._note_progress(message, at_least_every_s=1.0)
                expect(message, "reached")
                self._note_progress(message, at_least_every_s=0.0)
            finally:
                self._training = False
            self._save(worker)

    def _reached(self, target: dict[str, Any]) -> bool:
        if self._state["finished"]:
            return True
        if target["steps"] is not None:
            return self._state["steps"] >= target["steps"]
        return self._state["device_seconds"] >= target["device_seconds"]

    def _save(self, worker: WorkerProcess) -> None:
        self.watcher.run_doing(self.folder.id, "saving", 0, 0)
        # Before anything is sent: an interruption must not begin a second save into the first.
        self._saving = True
        worker.send("save", folder=str(checkpoint.begin(self._checkpoints)))
        self._commit(worker.await_("saved")["state"])

    def _commit(self, state: dict[str, Any]) -> None:
        try:
            checkpoint.commit(self._checkpoints, state)
        except ValueError as error:
            raise WorkerFailed(str(error)) from error
        self._saving, self._saved_steps = False, state["steps"]
        self.folder.append_event("saved", steps=state["steps"])

    def _answer(self, worker: WorkerProcess, mark: float) -> None:
        """Have everything held out rendered, and score it."""
        requests = self.task.requests(self.folder.path, mark)
        worker.send("render", views=requests)
        while (message := worker.receive())["type"] == "rendering":
            self.watcher.run_doing(self.folder.id, "rendering", message["done"], message["total"])
        expect(message, "rendered")
        self.folder.append_event("rendered", mark=mark, views=len(requests), seconds=message["seconds"])
        self._score(mark)

    def _leave_device(self, stop: Stop, keep: bool) -> bool:
        """Stop at a step boundary and save. A second Ctrl-C, or a step that takes too long, kills instead."""
        self.how = "exited; goes on from its last checkpoint"
        parked = False
        try:
            # The state is empty while the method isn't there yet: nothing to save.
            if self._worker is not None and self._state:
                # A method that hangs or can't save has failed, if it isn't us who are in a hurry.
                hurried = (WorkerFailed,) if stop is Stop.INTERRUPT else ()
                with contextlib.suppress(KeyboardInterrupt, TurnOver, *hurried):
                    self._save_at_once(self._worker, stop)
                    parked = keep and stop in (Stop.QUANTUM, Stop.PRIORITY)
                    if parked:
                        self.how = "saved and parked in memory"
                    else:
                        self.how = "saved and exited"
                        self._worker.stop()
        finally:
            if not parked:
                self.end_process()
        return True

    def _save_at_once(self, worker: WorkerProcess, stop: Stop) -> None:
        """Save after the step at hand, whatever the worker is doing; or let it finish the save that it is in."""
        worker.tick = self._tick_while_leaving
        patience_s = worker.patience_s
        if stop is Stop.INTERRUPT:
            worker.patience_s = min(patience_s, INTERRUPT_PATIENCE_S)
        if not self._saving:
            self._saving = True
            worker.send("pause")
            worker.send("save", folder=str(checkpoint.begin(self._checkpoints)))
        while (message := worker.receive())["type"] != "saved":
            pass
        self._state = message["state"]
        self._fraction = self.asked.budget.fraction(self._state)
        if self._state["steps"] > self._saved_steps:
            self._commit(self._state)
        self._saving = False
        worker.tick, worker.patience_s = self._tick, patience_s

    def _tick_while_leaving(self) -> None:
        """A worker that leaves its device anyway is only hurried by whoever no longer wants what it saves."""
        self._check_stop(but=(Stop.QUANTUM, Stop.PRIORITY, Stop.PAUSE, Stop.INTERRUPT))

    def end_process(self) -> None:
        self._saving = self._training = False
        if self._worker is not None:
            self._worker.end()
            self._worker = None

    @property
    def _checkpoints(self) -> Path:
        path = self.folder.path / "checkpoint"
        path.mkdir(exist_ok=True)
        return path


def start_method(
    worker: WorkerProcess,
    asked: Asked,
    method: Method,
    device: str,
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
        device=device,
        budget={"steps": asked.budget.steps, "device_seconds": asked.budget.device_seconds},
        checkpoint=str(saved.folder) if saved else None,
        state=saved.state if saved else None,
        **inputs,
    )
    return worker.await_("ready")["state"]
