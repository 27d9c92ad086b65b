"""A run whose method is a program that knows nothing of Turntable: a command that trains, and one that renders.

It can't save, so it is paused as it is (see :mod:`.pause`) and stays in memory; if it is killed, or its supervisor is, it
begins again. Its renderings are scored once, at its end. Its device seconds are all that it has run for while it trained.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from ..errors import TurntableError
from .cuda import CannotRestore, NoRoom
from .pause import CannotPause, Pause
from .process import Quarters, RunProcess, WorkerFailed, WorkerKilled, printable
from .supervisor import Grant, Stop, Supervisor, TurnOver, recover_scores

POLL_S = 0.05
LOOK_EVERY_S = 0.5
"""How often its processes are looked for: their memory, and whether they do anything."""

TRAIN, RENDER, DONE = "train", "render", "done"


class ProgramRun(Supervisor):
    """Sees through a run of a program."""

    _process: RunProcess | None = None
    _pause: Pause | None = None
    _stage = TRAIN
    _frozen = False

    @property
    def kept(self) -> bool:
        return self._process is not None

    @property
    def expendable(self) -> bool:
        return False

    def pids(self) -> list[int]:
        return [member.pid for member in self._process.family.members()] if self._process is not None else []

    @property
    def _out(self) -> Path:
        return self.folder.path / "program" / "out"

    def _work(self, grant: Grant) -> None:
        if self._process is None:
            self._begin()
            if not self.pausable:
                grant.tell(self.how, False)
        elif self._frozen:
            self._thaw()
        self.watcher.run_started(self.folder.id, self._fraction)
        while self._stage != DONE:
            if self._process is None:
                self._start(grant, self._stage)
            self._await_end()
            self.end_process()
            if self._stage == TRAIN:
                self._state["steps"] = self.asked.budget.steps or 0
                self.folder.append_event("trained", **self._state)
            self._stage = RENDER if self._stage == TRAIN and self.method.command.render else DONE
        self._state["finished"] = True
        self._fraction = 1.0
        self.watcher.run_doing(self.folder.id, "scoring", 0, 0)
        try:
            views = self.task.collect(self.folder.path, self.method.command.views, self._out)
        except TurntableError as error:  # what it left isn't what it was asked for
            raise WorkerFailed(printable(str(error))) from error
        self.folder.append_event("rendered", mark=1.0, views=views, seconds=None)
        self._score(1.0)

    def _thaw(self) -> None:
        """Let a frozen program go on; it stays frozen while its card has no room for it."""
        assert self._pause is not None
        try:
            self._pause.resume()
        except NoRoom as error:  # the queue thought that there was; it waits for its next turn
            self.how = str(error)
            self.watcher.note(f"{self.folder.id} can't go on yet: {error}")
            raise TurnOver(Stop.QUANTUM) from error
        except CannotRestore as error:
            self.folder.append_event("not_restored", detail=str(error))
            raise WorkerKilled(f"could not go on after a pause: {error}") from error
        self._frozen = False

    def _begin(self) -> None:
        """Find out what is done already: a program that was killed begins again, but not one that had trained to its end."""
        self._frozen = False
        self._state = {
            "steps": 0,
            "device_seconds": 0.0,
            "setup_seconds": 0.0,
            "finished": False,
            "memory_bytes": 0,
        }
        self._stage = TRAIN
        if any(event.get("type") == "not_restored" for event in self.folder.events()):
            self.pausable = False
            self.how = "the driver could not bring it back from a pause before; it runs to its end"
        trained = [event for event in self.folder.events() if event.get("type") == "trained"]
        if trained and self._out.is_dir():
            self._state = {name: trained[-1][name] for name in self._state}
            self._stage = RENDER if self.method.command.render else DONE
        else:
            shutil.rmtree(self._out, ignore_errors=True)
            self._out.mkdir(parents=True)
        self._places = self.task.lay_out(self.folder.path / "program" / "capture")
        recover_scores(self.folder, self.task, self.record)

    def _start(self, grant: Grant, stage: str) -> None:
        command = self.method.command
        template = command.train if stage == TRAIN else command.render
        assert template is not None
        try:
            words = command.words(template, self._values(grant))
        except TurntableError as error:
            raise WorkerFailed(printable(str(error))) from error
        if not self.place.has_program(words[0], self.method.folder):
            raise WorkerFailed(f"there is no program {words[0]!r} to {stage} with")
        with self.folder.log_path.open("ab") as log:
            self._process = RunProcess(
                words,
                Quarters(self.folder.path, self.place, write=(self._out,), device=grant.device.name),
                log,
                (self._worker_lock.fileno(), grant.device_lock),
                cwd=self.method.folder,
            )
        self.folder.append_event("worker", pid=self._process.pid, stage=stage, words=words)
        self._pause = Pause(self._process.family, grant.device.name)

    def _values(self, grant: Grant) -> dict[str, Any]:
        budget = self.asked.budget
        return {
            **{name: str(path) for name, path in self._places.items()},
            "out": str(self._out),
            "steps": budget.steps,
            "seconds": budget.device_seconds,
            "seed": self.asked.seed,
            "device": grant.device.name,
            "python": str(self.place.python),
            "settings": self.asked.settings,
        }

    def _await_end(self) -> None:
        """Wait until the program ends by itself, and count what it uses."""
        process = self._process
        assert process is not None
        before = time.monotonic()
        looked = 0.0
        did: tuple[float, int] = (0.0, 0)
        last_did = before
        while True:
            # Asked first: one that ends while it is looked at has ended, however the look turned out.
            status = process.process.poll()
            now = time.monotonic()
            if self._stage == TRAIN:
                self._state["device_seconds"] += now - before
            before = now
            if status is not None:
                break
            self._check_stop()
            if now - looked >= LOOK_EVERY_S:
                looked = now
                memory = process.family.resident_bytes()
                self._state["memory_bytes"] = max(self._state["memory_bytes"], memory)
                self._note_progress({"state": self._state, "info": {}}, at_least_every_s=1.0)
                does = (process.family.cpu_seconds(), self.folder.log_path.stat().st_size)
                if does != did:
                    did, last_did = does, now
                elif now - last_did > self.patience.message_s:
                    raise WorkerFailed(
                        f"hung: nothing done and nothing printed for {self.patience.message_s:g} s (--patience)"
                    )
            time.sleep(POLL_S)
        if status != 0:
            raise process.why_it_died()

    def _leave_device(self, stop: Stop, keep: bool) -> bool:
        if self._process is None:  # between its commands, or being scored
            self.how = "nothing of it was running"
            return True
        if stop is Stop.INTERRUPT:
            self.end_process()
            self.how = "ended with its supervisor, since a program can't be saved; begins again"
            return True
        if self._frozen:
            return True
        assert self._pause is not None
        try:
            self.how = self._pause.pause()
        except CannotPause as error:
            self.how = f"{str(error).rstrip('.')}; it runs to its end"
            return False
        self._frozen = True
        self.note_device_memory(self._pause.card_bytes())
        return True

    def end_process(self) -> None:
        if self._process is not None:
            self._process.end()
            self._process = self._pause = None
