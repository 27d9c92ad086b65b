"""The bench: the folder in which captures, methods, runs, the record and reports live."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import TurntableError, disk_error, unknown_name
from .files import holding, write_text
from .record import FoundRun, Record, RunRow, State, StateChange
from .run import Asked, RunFolder

if TYPE_CHECKING:  # they bring NumPy and a TOML parser, for which `turntable status` need not wait
    from .captures.capture import Capture
    from .methods.spec import Method
    from .settings import Settings
    from .tasks.published import Published


class Bench:
    """A bench; made on the disk when something is first put into it."""

    def __init__(self, folder: Path, record: Record | None = None) -> None:
        """The bench in a folder.

        Args:
            folder: where it lies.
            record: an open connection to its record, for a thread that has one; else it is opened when first used.
        """
        self.folder = folder
        if record is not None:
            self.record = record

    @classmethod
    def find(cls, folder: Path | None = None) -> Bench:
        """The bench meant: ``folder``, else ``$TURNTABLE_BENCH``, else the nearest upward, else ``./bench``."""
        if folder is not None:
            return cls(folder.expanduser().resolve())
        if named := os.environ.get("TURNTABLE_BENCH"):
            return cls(Path(named).expanduser().resolve())
        here = Path.cwd()
        for candidate in (here, *here.parents):
            if (candidate / "bench.toml").is_file():
                return cls(candidate)
        return cls(here / "bench")

    @property
    def exists(self) -> bool:
        """Whether it has been made."""
        return (self.folder / "bench.toml").is_file()

    @property
    def captures_folder(self) -> Path:
        return self.folder / "captures"

    @property
    def runs_folder(self) -> Path:
        return self.folder / "runs"

    @property
    def methods_folder(self) -> Path:
        return self.folder / "methods"

    @property
    def reports_folder(self) -> Path:
        return self.folder / "reports"

    def make(self) -> None:
        """Make the folder, if it isn't there.

        Raises:
            TurntableError: it can't be made or written to, or is a file.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise TurntableError(f"A bench is a folder, but {self.folder} is a file. Choose another --bench.")
        try:
            from .settings import BENCH_TOML

            for folder in (self.folder, self.captures_folder, self.runs_folder, self.methods_folder):
                folder.mkdir(parents=True, exist_ok=True)
            if not self.exists:
                write_text(self.folder / "bench.toml", BENCH_TOML)
            probe = self.folder / f".writable.{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise disk_error(error, f"the bench {self.folder}") from error

    @cached_property
    def record(self) -> Record:
        """The record; opened when first used."""
        if not self.exists:
            raise TurntableError(
                f"There is no bench in {self.folder} yet. Start with turntable compare, or name one with --bench."
            )
        path = self.folder / "record.sqlite"
        lost = not path.exists()
        record = Record(path)
        # It is an index: what it pointed to is still there.
        if lost and any(self.runs_folder.glob("*/run.json")):
            self._rebuild(record)
        return record

    def settings(self) -> Settings:
        """What ``bench.toml`` says.

        Raises:
            TurntableError: it isn't TOML, or says something that isn't known.
        """
        from .settings import read_settings

        return read_settings(self.folder / "bench.toml")

    def captures(self) -> dict[str, Capture]:
        """All captures by name, but those that are damaged: see :meth:`faults`."""
        return self._captures()[0]

    def _captures(self) -> tuple[dict[str, Capture], list[str]]:
        from .captures.capture import Capture

        found, faults = {}, []
        for path in sorted(self.captures_folder.glob("*/capture.json")):
            if not path.parent.name.startswith("."):
                try:
                    found[path.parent.name] = Capture.load(path.parent)
                except TurntableError as error:
                    faults.append(str(error))
        return found, faults

    def faults(self) -> list[str]:
        """A line for every capture, method and run of the bench that can't be read."""
        from .methods.registry import broken_methods

        faults = self._captures()[1] + broken_methods(self.methods_folder)
        for row in self.record.runs():
            try:
                self.run_folder(row.id).asked()
            except TurntableError as error:
                faults.append(str(error))
        return faults

    def capture(self, name: str) -> Capture:
        """The capture called ``name``.

        Raises:
            TurntableError: there is none; the message lists those that there are.
        """
        from .captures.capture import Capture

        folder = self.captures_folder / name
        if Path(name).name != name or not (folder / "capture.json").is_file():
            raise unknown_name("capture", name, self.captures())
        return Capture.load(folder)

    def methods(self) -> dict[str, Method]:
        """All methods by name, the bench's own among them."""
        from .methods.registry import find_methods

        return find_methods(self.methods_folder)

    def published(self) -> Published:
        """The published numbers that are known: Turntable's, those in the bench's ``published/``, and its methods'."""
        from .tasks.published import load_published

        of_methods = [fact for method in self.methods().values() for fact in method.facts]
        return load_published(self.folder / "published", of_methods)

    def method(self, name: str) -> Method:
        """The method called ``name``, or in the folder ``name``."""
        from .methods.registry import get_method

        return get_method(name, self.methods_folder)

    def run_folder(self, run: str) -> RunFolder:
        """The folder of the run with the id ``run``.

        Raises:
            TurntableError: there is no such run.
        """
        path = self.runs_folder / run
        if self.record.run(run) is not None and not (path / "run.json").is_file():
            raise TurntableError(
                f"The folder of run {run} is gone ({path}). turntable doctor --rebuild makes the record fit again."
            )
        if Path(run).name != run or not (path / "run.json").is_file():
            raise unknown_name("run", run, [row.id for row in self.record.runs()])
        return RunFolder(path)

    def row(self, run: str) -> RunRow:
        """What the record knows of the run with the id ``run``.

        Raises:
            TurntableError: there is no such run.
        """
        row = self.record.run(run)
        if row is None:
            raise unknown_name("run", run, [row.id for row in self.record.runs()])
        return row

    @contextlib.contextmanager
    def planning(self) -> Iterator[None]:
        """Only one process at a time looks for the answer to a question and queues a run where there is none."""
        with holding(self.folder / ".planning.lock"):
            import shutil

            # Half made by a killed process: we are the only one here.
            for left in self.runs_folder.glob(".*.tmp"):
                shutil.rmtree(left, ignore_errors=True)
            yield

    def queue(self, asked: Asked) -> RunFolder:
        """Make a new run of ``asked`` (its id is given here) and put it on the record as queued."""
        record = self.record  # opened before there is a folder: a new one takes up all that there are
        number = 1
        while True:
            run = f"{asked.capture}-{asked.method}-{number}"
            if record.run(run) is not None:  # its folder may have been moved away
                number += 1
                continue
            try:
                folder = RunFolder.create(self.runs_folder / run, replace(asked, id=run))
                break
            except FileExistsError:
                number += 1
        record.add_run(_row(folder.asked()), asked.terms)
        return folder

    def rebuild_record(self) -> tuple[int, list[str]]:
        """Make the record again from the run folders: all is read before anything is written.

        Returns:
            How many runs it holds now, and a line for every folder that could not be read and is not in it.

        Raises:
            TurntableError: somebody works on runs of this bench, whose states would be those of a moment ago.
        """
        from .turns.queue import Queue

        if at_work := Queue(self.record).supervisors():
            pids = ", ".join(str(row.who.pid) for row in at_work)
            raise TurntableError(
                f"The record can only be made again while nobody works on the bench; process {pids} does. "
                "Interrupt it (Ctrl-C, or kill), and try again."
            )
        return self._rebuild(self.record)

    def _rebuild(self, record: Record) -> tuple[int, list[str]]:
        found, passed_over = [], []
        for path in sorted(self.runs_folder.glob("*/run.json")):
            folder = RunFolder(path.parent)
            if folder.id.startswith("."):  # half made by a killed process
                continue
            try:
                asked = folder.asked()
                if asked.id != folder.id:
                    raise TurntableError(
                        f"{folder.path} is a copy of the run {asked.id}, and is not counted."
                    )
                row, changes = row_of_events(asked, folder.events())
                found.append(FoundRun(row, asked.device, asked.terms, changes, folder.scores()))
            except TurntableError as error:
                passed_over.append(str(error))
        record.replace_all(sorted(found, key=lambda entry: entry.row.created))
        return len(found), passed_over


def row_of_events(asked: Asked, events: Iterable[dict[str, Any]]) -> tuple[RunRow, list[StateChange]]:
    """A run's row and its changes of state, from what was asked and its events; odd events are passed over."""
    row = _row(asked)
    changes = [StateChange(row.created, State.QUEUED)]
    for event in events:
        with contextlib.suppress(KeyError, ValueError, TypeError):
            if event["type"] == "state":
                change = StateChange(
                    time=float(event["time"]),
                    state=State(event["state"]),
                    **{name: event.get(name) for name in ("cause", "device", "model", "how", "supervisor")},
                )
                changes.append(change)
                cause = change.cause if change.state.ended else None
                row = replace(row, state=change.state, cause=cause, device=change.device or row.device)
            elif event["type"] in ("progress", "scored", "ready"):
                row = replace(
                    row,
                    steps=int(event["steps"]),
                    device_seconds=float(event["device_seconds"]),
                    setup_seconds=float(event["setup_seconds"]),
                    peak_memory_bytes=max(row.peak_memory_bytes, int(event["memory_bytes"])),
                    fraction=asked.budget.fraction(event),
                )
            elif event["type"] == "device_memory":
                row = replace(row, device_memory_bytes=int(event["bytes"]))
    return row, changes


def _row(asked: Asked) -> RunRow:
    return RunRow(
        id=asked.id,
        capture=asked.capture,
        capture_hash=asked.capture_hash,
        method=asked.method,
        task=asked.task,
        question=asked.question(),
        state=State.QUEUED,
        cause=None,
        created=asked.created,
        device=asked.device,
        steps=0,
        device_seconds=0.0,
        setup_seconds=0.0,
        peak_memory_bytes=0,
        fraction=0.0,
    )
