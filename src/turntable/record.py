"""The record: SQLite's index of a bench's runs, turns, scores and changes of state.

It repeats what lies in the run folders, so that ``status`` and ``scores`` need not read thousands of files;
``turntable doctor --rebuild`` makes it again from them. Folders are written first, the record after.
"""

from __future__ import annotations

import enum
import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import TurntableError

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    capture TEXT NOT NULL,
    capture_hash TEXT NOT NULL,
    method TEXT NOT NULL,
    task TEXT NOT NULL,
    question TEXT NOT NULL,      -- hash of all that was asked; equal questions have equal answers
    state TEXT NOT NULL,
    cause TEXT,                  -- why it failed, one line
    created REAL NOT NULL,       -- seconds since the epoch
    device TEXT NOT NULL,
    steps INTEGER NOT NULL DEFAULT 0,
    device_seconds REAL NOT NULL DEFAULT 0,
    setup_seconds REAL NOT NULL DEFAULT 0,
    peak_memory_bytes INTEGER NOT NULL DEFAULT 0,
    fraction REAL NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX runs_by_capture ON runs (capture, created);
CREATE INDEX runs_by_question ON runs (question);
CREATE TABLE turns (
    run TEXT NOT NULL REFERENCES runs (id),
    device TEXT NOT NULL,
    started REAL NOT NULL,
    ended REAL,
    why TEXT                     -- how it ended: done, failed, paused
) STRICT;
CREATE INDEX turns_by_run ON turns (run);
CREATE TABLE events (
    run TEXT NOT NULL REFERENCES runs (id),
    time REAL NOT NULL,
    state TEXT NOT NULL,
    detail TEXT
) STRICT;
CREATE INDEX events_by_run ON events (run);
CREATE TABLE scores (
    run TEXT NOT NULL REFERENCES runs (id),
    mark REAL NOT NULL,          -- share of the budget, 1 for the whole
    steps INTEGER NOT NULL,
    device_seconds REAL NOT NULL,
    metric TEXT NOT NULL,
    definition TEXT NOT NULL,    -- key into definitions
    item TEXT NOT NULL,          -- the held-out view
    value REAL NOT NULL,
    PRIMARY KEY (run, mark, metric, item)
) STRICT, WITHOUT ROWID;
CREATE TABLE definitions (
    id TEXT PRIMARY KEY,         -- the first 12 hex digits of the text's sha256
    text TEXT NOT NULL
) STRICT;
"""


class State(str, enum.Enum):
    """Where a run stands. Only its supervisor changes it, except from and to ``queued``.

    ``queued`` → ``running`` → ``done`` | ``failed`` | ``paused``; ``paused`` → ``running``. A run whose
    supervisor was killed still says ``running``, but nobody holds its lock: it goes on like a paused one.
    """

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self in (State.DONE, State.FAILED)


@dataclass(frozen=True)
class RunRow:
    """A run as the record knows it; see the schema for units."""

    id: str
    capture: str
    capture_hash: str
    method: str
    task: str
    question: str
    state: State
    cause: str | None
    created: float
    device: str
    steps: int
    device_seconds: float
    setup_seconds: float
    peak_memory_bytes: int
    fraction: float


@dataclass(frozen=True)
class Score:
    """One number: one metric on one held-out item at one mark of one run."""

    mark: float
    steps: int
    device_seconds: float
    metric: str
    definition: str
    """The definition's text."""
    item: str
    value: float


def definition_id(text: str) -> str:
    """The short name under which a score's definition is stored: 12 hex digits of its sha256."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class StateChange:
    """A run came into a state, at seconds since the epoch; with its cause if it failed."""

    time: float
    state: State
    cause: str | None


class Record:
    """A connection to ``record.sqlite``. Not to be shared between threads."""

    def __init__(self, path: Path) -> None:
        """Open or make the record.

        Raises:
            TurntableError: it can't be opened or written, or comes from a newer Turntable.
        """
        self.path = path
        try:
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA foreign_keys = ON")
            with self._writing():
                version = self._db.execute("PRAGMA user_version").fetchone()[0]
                if version == 0:
                    for statement in _SCHEMA.split(";\n"):
                        self._db.execute(statement)
                    self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        except sqlite3.Error as error:
            raise record_error(path, error) from error
        if version > SCHEMA_VERSION:
            raise TurntableError(
                f"{path} was made by a newer Turntable (version {version} of the record; this one knows "
                f"{SCHEMA_VERSION}). Update Turntable."
            )

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise record_error(self.path, error) from error

    def add_run(self, run: RunRow) -> None:
        """Add a new run."""
        with self._writing():
            self._insert_run(run)
            self._event(run.id, run.created, run.state, run.cause)

    def set_state(self, run: str, state: State, time: float, cause: str | None = None) -> None:
        """Change a run's state and note when."""
        with self._writing():
            self._db.execute("UPDATE runs SET state = ?, cause = ? WHERE id = ?", (state.value, cause, run))
            self._event(run, time, state, cause)

    def set_progress(self, run: str, state: dict[str, Any], fraction: float) -> None:
        """Note how far a run is: ``steps``, ``device_seconds``, ``setup_seconds``, ``memory_bytes``."""
        with self._writing():
            self._db.execute(
                "UPDATE runs SET steps = ?, device_seconds = ?, setup_seconds = ?,"
                " peak_memory_bytes = max(peak_memory_bytes, ?), fraction = ? WHERE id = ?",
                (
                    state["steps"],
                    state["device_seconds"],
                    state["setup_seconds"],
                    state["memory_bytes"],
                    fraction,
                    run,
                ),
            )

    def start_turn(self, run: str, device: str, time: float) -> int:
        """Note that a run now holds a device; the turn's number."""
        with self._writing():
            cursor = self._db.execute(
                "INSERT INTO turns (run, device, started) VALUES (?, ?, ?)", (run, device, time)
            )
        return cursor.lastrowid or 0

    def end_turn(self, turn: int, time: float, why: str) -> None:
        """Note that a turn has ended, and how."""
        with self._writing():
            self._db.execute("UPDATE turns SET ended = ?, why = ? WHERE rowid = ?", (time, why, turn))

    def add_scores(self, run: str, scores: Iterable[Score]) -> None:
        """Add scores; those of the same mark, metric and item are replaced."""
        with self._writing():
            self._insert_scores(run, scores)

    def _insert_scores(self, run: str, scores: Iterable[Score]) -> None:
        for score in scores:
            key = definition_id(score.definition)
            self._db.execute("INSERT OR IGNORE INTO definitions VALUES (?, ?)", (key, score.definition))
            values = (
                score.mark,
                score.steps,
                score.device_seconds,
                score.metric,
                key,
                score.item,
                score.value,
            )
            self._db.execute("INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (run, *values))

    def _read(self, query: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise record_error(self.path, error) from error

    def runs(self, capture: str | None = None, question: str | None = None) -> list[RunRow]:
        """Runs in the order they were asked for, of one capture or with one question where that is given."""
        conditions, values = [], []
        for column, value in (("capture", capture), ("question", question)):
            if value is not None:
                conditions.append(f"{column} = ?")
                values.append(value)
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        rows = self._read(f"SELECT * FROM runs {where} ORDER BY created, rowid", values)
        return [RunRow(**{**dict(row), "state": State(row["state"])}) for row in rows]

    def run(self, run: str) -> RunRow | None:
        """One run, or None."""
        rows = self._read("SELECT * FROM runs WHERE id = ?", (run,))
        return RunRow(**{**dict(rows[0]), "state": State(rows[0]["state"])}) if rows else None

    def scores(self, run: str) -> list[Score]:
        """All scores of a run, by mark, metric and item."""
        rows = self._read(
            "SELECT mark, steps, device_seconds, metric, text AS definition, item, value FROM scores"
            " JOIN definitions ON definitions.id = scores.definition WHERE run = ? ORDER BY mark, metric, item",
            (run,),
        )
        return [Score(**dict(row)) for row in rows]

    def replace_all(self, runs: Iterable[tuple[RunRow, list[StateChange], list[Score]]]) -> None:
        """Make the whole record again, in one go: afterwards it holds these runs, or what it held before."""
        with self._writing():
            for table in ("scores", "events", "turns", "runs", "definitions"):
                self._db.execute(f"DELETE FROM {table}")
            for row, changes, scores in runs:
                self._insert_run(row)
                for change in changes:
                    self._event(row.id, change.time, change.state, change.cause)
                for start, end in zip(changes, [*changes[1:], None], strict=True):
                    if start.state is State.RUNNING:
                        why = None if end is None else end.state.value
                        ended = None if end is None else end.time
                        self._db.execute(
                            "INSERT INTO turns VALUES (?, ?, ?, ?, ?)",
                            (row.id, row.device, start.time, ended, why),
                        )
                self._insert_scores(row.id, scores)

    def _insert_run(self, run: RunRow) -> None:
        values = {**run.__dict__, "state": run.state.value}
        self._db.execute(
            f"INSERT INTO runs ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})",
            list(values.values()),
        )

    def _event(self, run: str, time: float, state: State, detail: str | None) -> None:
        self._db.execute("INSERT INTO events VALUES (?, ?, ?, ?)", (run, time, state.value, detail))


def record_error(path: Path, error: sqlite3.Error) -> TurntableError:
    """What an SQLite error means for the user, in one line."""
    text = str(error)
    if "readonly" in text or "unable to open" in text:
        return TurntableError(
            f"The bench must be writable, but its record {path} is not ({text}). Choose another folder with --bench."
        )
    if "full" in text:
        return TurntableError(
            f"The disk of {path.parent} is full. Free some space, or choose another --bench."
        )
    if "not a database" in text or "malformed" in text:
        return TurntableError(
            f"The record {path} is damaged ({text}). Move it away and run turntable doctor --rebuild."
        )
    return TurntableError(f"The record {path} can't be used: {text}.")
