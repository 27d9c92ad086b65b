"""The bench: the folder in which captures, methods, runs, the record and reports live."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from .captures.capture import Capture
from .errors import TurntableError, disk_error, unknown_name
from .files import write_text
from .methods.registry import find_methods, get_method
from .methods.spec import Method
from .record import Record, RunRow, State
from .run import Asked, RunFolder

_BENCH_TOML = """\
# This folder is a Turntable bench. Settings of the bench go here.
format = 1
"""


class Bench:
    """A bench; made on the disk when something is first put into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

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
            for folder in (self.folder, self.captures_folder, self.runs_folder, self.methods_folder):
                folder.mkdir(parents=True, exist_ok=True)
            if not self.exists:
                write_text(self.folder / "bench.toml", _BENCH_TOML)
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
        return Record(self.folder / "record.sqlite")

    def captures(self) -> dict[str, Capture]:
        """All captures by name."""
        found = sorted(self.captures_folder.glob("*/capture.json")) if self.captures_folder.is_dir() else []
        return {
            path.parent.name: Capture.load(path.parent)
            for path in found
            if not path.parent.name.startswith(".")
        }

    def capture(self, name: str) -> Capture:
        """The capture called ``name``.

        Raises:
            TurntableError: there is none; the message lists those that there are.
        """
        folder = self.captures_folder / name
        if Path(name).name != name or not (folder / "capture.json").is_file():
            raise unknown_name("capture", name, self.captures())
        return Capture.load(folder)

    def methods(self) -> dict[str, Method]:
        """All methods by name, the bench's own among them."""
        return find_methods(self.methods_folder)

    def method(self, name: str) -> Method:
        """The method called ``name``, or in the folder ``name``."""
        return get_method(name, self.methods_folder)

    def run_folder(self, run: str) -> RunFolder:
        """The folder of the run with the id ``run``.

        Raises:
            TurntableError: there is no such run.
        """
        path = self.runs_folder / run
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

    def queue(self, asked: Asked) -> RunFolder:
        """Make a new run of ``asked`` (its id is given here) and put it on the record as queued."""
        number = 1
        while True:
            run = f"{asked.capture}-{asked.method}-{number}"
            try:
                folder = RunFolder.create(self.runs_folder / run, replace(asked, id=run))
                break
            except FileExistsError:
                number += 1
        self.record.add_run(_row(folder.asked()))
        return folder

    def rebuild_record(self) -> int:
        """Make the record again from the run folders; how many runs it holds now."""
        record = self.record
        record.forget_all()
        folders = [RunFolder(path.parent) for path in self.runs_folder.glob("*/run.json")]
        for folder in sorted(folders, key=lambda folder: folder.asked().created):
            record.add_run(_row(folder.asked()))
            for event in folder.events():
                if event["type"] == "state":
                    record.set_state(folder.id, State(event["state"]), event["time"], event.get("cause"))
                elif event["type"] in ("progress", "scored", "ready"):
                    fraction = folder.asked().budget.fraction(event)
                    record.set_progress(folder.id, event, fraction)
            record.add_scores(folder.id, folder.scores())
        return len(folders)


def _row(asked: Asked) -> RunRow:
    return RunRow(
        id=asked.id,
        capture=asked.capture,
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
