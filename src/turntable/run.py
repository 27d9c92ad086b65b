"""A run as it lies on disk: what was asked, what happened, its scores and its checkpoints.

::

    runs/<id>/
    ├── run.json       what was asked; never rewritten
    ├── events.jsonl   one line per event: state changes, progress (a line a second at most), marks
    ├── log.txt        what the worker printed
    ├── checkpoint/    <steps>/ folders, each with a manifest of hashes; the two newest are kept
    ├── views/         the rendering of every held-out view at the whole of the budget
    ├── curve/<mark>/  the same at 1/8, 1/4 and 1/2 of it
    ├── depth/         z depth of the same views, where the method gives it
    └── scores.csv     every score, with definitions.json saying what each means
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from .errors import TurntableError
from .files import read_json, write_json, write_text
from .record import Record, Score, State, StateChange, Terms, definition_id

_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600}

LONGEST_S = 1e9
"""Thirty years; beyond that a time would lose its nanoseconds."""


@dataclass(frozen=True)
class Budget:
    """How long a run may train: a number of steps, or device seconds. Exactly one of the two is set."""

    steps: int | None = None
    device_seconds: float | None = None

    @classmethod
    def parse(cls, text: str) -> Budget:
        """``2000steps``, ``90s``, ``2m``, ``1h30m``.

        Raises:
            TurntableError: anything else, or nothing to do.
        """
        wrong = TurntableError(f"A budget is like 2m, 90s, 1h30m or 2000steps, not {text!r}.")
        compact = text.strip().lower().replace(" ", "")
        if match := re.fullmatch(r"(\d{1,12})steps?", compact):
            budget = cls(steps=int(match[1]))
        elif re.fullmatch(r"(\d{1,12}(\.\d{1,9})?[hms])+", compact):
            parts = re.findall(r"([\d.]+)([hms])", compact)
            seconds = sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)
            if seconds > LONGEST_S:
                raise wrong
            budget = cls(device_seconds=round(seconds, 9))
        else:
            raise wrong
        if not (budget.steps or budget.device_seconds):
            raise wrong
        return budget

    @property
    def kind(self) -> Literal["steps", "seconds"]:
        """What it is counted in."""
        return "steps" if self.steps is not None else "seconds"

    def __str__(self) -> str:
        if self.steps is not None:
            return f"{self.steps}steps"
        return f"{self.device_seconds:.9f}".rstrip("0").rstrip(".") + "s"

    def until(self, mark: float) -> dict[str, Any]:
        """Where the share ``mark`` of the budget ends: ``{"steps", "device_seconds"}``, one of them None."""
        if self.steps is not None:
            return {"steps": max(1, round(self.steps * mark)), "device_seconds": None}
        return {"steps": None, "device_seconds": (self.device_seconds or 0) * mark}

    def fraction(self, state: dict[str, Any]) -> float:
        """The share that is used, 0 to 1, by a worker's ``state``."""
        if state.get("finished"):
            return 1.0
        if self.steps is not None:
            return min(1.0, state["steps"] / self.steps)
        return min(1.0, state["device_seconds"] / (self.device_seconds or 1))


@dataclass(frozen=True)
class Asked:
    """What was asked of a run: all that its answer depends on, who asked when, and on what terms it takes its turns."""

    id: str
    capture: str
    capture_hash: str
    task: str
    method: str
    method_folder: str
    method_fingerprint: str
    settings: dict[str, Any]
    seed: int
    budget: Budget
    device: str
    created: float
    command: str
    versions: dict[str, str]
    terms: Terms = field(default_factory=Terms)
    machine: dict[str, str] = field(default_factory=dict)

    def question(self) -> str:
        """A hash of everything that the answer depends on: runs with equal questions are interchangeable."""
        parts = {
            "capture": self.capture_hash,
            "task": self.task,
            "method": self.method,
            "fingerprint": self.method_fingerprint,
            "settings": self.settings,
            "seed": self.seed,
            "budget": str(self.budget),
            "device": self.device,
        }
        import hashlib  # not above: it takes 5 ms, and `turntable status` needs no hash

        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """What ``run.json`` holds."""
        return {"format": 1, **asdict(self), "budget": str(self.budget), "question": self.question()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Asked:
        """What :meth:`to_json` described."""
        later = ("terms", "machine")  # which runs of earlier Turntables lack
        fields = {key: data[key] for key in cls.__dataclass_fields__ if key not in ("budget", *later)}
        terms, machine = Terms(**data.get("terms", {})), data.get("machine", {})
        return cls(budget=Budget.parse(data["budget"]), terms=terms, machine=machine, **fields)


class RunFolder:
    """The folder of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def log_path(self) -> Path:
        return self.path / "log.txt"

    @property
    def events_path(self) -> Path:
        return self.path / "events.jsonl"

    @classmethod
    def create(cls, path: Path, asked: Asked) -> RunFolder:
        """Make the folder with its ``run.json``: built aside and renamed, so that it is never seen half made.

        Raises:
            FileExistsError: there is such a run already.
        """
        aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        aside.mkdir(parents=True)
        write_json(aside / "run.json", asked.to_json())
        try:
            if path.exists():
                raise FileExistsError(path)
            aside.rename(path)
        except OSError as error:
            (aside / "run.json").unlink()
            aside.rmdir()
            raise FileExistsError(path) from error
        return cls(path)

    def asked(self) -> Asked:
        """What was asked.

        Raises:
            TurntableError: ``run.json`` is missing or damaged.
        """
        data = read_json(self.path / "run.json")
        try:
            return Asked.from_json(data)
        except (KeyError, TypeError) as error:
            raise TurntableError(f"{self.path / 'run.json'} lacks {error}; move {self.path} away.") from None

    def lock(self, name: str = "lock") -> IO[bytes] | None:
        """Take a lock of this run: an open file that holds it, or None if another process does.

        ``supervisor.lock`` is the supervisor's alone. ``lock`` is inherited by the worker and its children, and the
        kernel releases it when the last of them has died: whoever gets it knows that nothing of the run is alive.
        """
        file = (self.path / name).open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        return file

    def append_event(self, kind: str, **fields: Any) -> None:
        """Add a line to ``events.jsonl``."""
        line = (
            json.dumps({"time": round(time.time(), 3), "type": kind, **fields}, allow_nan=False).encode()
            + b"\n"
        )
        with self.events_path.open("ab+") as file:
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # the last writer was killed in the middle of a line
                    line = b"\n" + line
            file.write(line)

    def events(self) -> Iterator[dict[str, Any]]:
        """The events so far; a line that a killed writer left unfinished is passed over."""
        if not self.events_path.exists():
            return
        with self.events_path.open("rb") as file:
            for line in file:
                try:
                    event = json.loads(line)
                except ValueError:
                    continue
                if isinstance(event, dict):
                    yield event

    def write_scores(self, scores: list[Score]) -> None:
        """Write ``scores.csv`` and ``definitions.json``, whole."""
        definitions = {definition_id(score.definition): score.definition for score in scores}
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["mark", "steps", "device_seconds", "metric", "definition", "item", "value"])
        for score in sorted(scores, key=lambda score: (score.mark, score.metric, score.item)):
            key = definition_id(score.definition)
            seconds, value = repr(score.device_seconds), repr(score.value)
            writer.writerow([score.mark, score.steps, seconds, score.metric, key, score.item, value])
        write_json(self.path / "definitions.json", definitions)
        write_text(self.path / "scores.csv", text.getvalue())

    def scores(self) -> list[Score]:
        """What ``scores.csv`` holds; [] where there is none yet.

        Raises:
            TurntableError: it is damaged.
        """
        path = self.path / "scores.csv"
        if not path.exists():
            return []
        definitions = read_json(self.path / "definitions.json")
        try:
            with path.open(newline="", encoding="utf-8") as file:
                return [
                    Score(
                        mark=float(row["mark"]),
                        steps=int(row["steps"]),
                        device_seconds=float(row["device_seconds"]),
                        metric=row["metric"],
                        definition=definitions[row["definition"]],
                        item=row["item"],
                        value=float(row["value"]),
                    )
                    for row in csv.DictReader(file)
                ]
        except (KeyError, ValueError, TypeError) as error:
            raise TurntableError(
                f"{path} is damaged ({error!r}); delete it and give the same command again: renderings are scored anew."
            ) from None

    def log_tail(self, lines: int = 20) -> list[str]:
        """The last lines of the worker's log, at most 64 KiB of it."""
        if not self.log_path.exists():
            return []
        with self.log_path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - (1 << 16)))
            text = file.read().decode("utf-8", "replace")
        return text.splitlines()[-lines:]


def settle(folder: RunFolder, record: Record, state: State, cause: str) -> None:
    """Bring a run that has no turn into a state, as its user wishes; the caller holds its ``supervisor.lock``.

    Nothing is done if it may not become that (any more): what is seen before the lock is held may have changed since.
    """
    row = record.run(folder.id)
    if row is None or not row.state.may_become(state):
        return
    folder.append_event("state", state=state.value, cause=cause)
    record.change_state(folder.id, StateChange(time.time(), state, cause))
