"""The record: SQLite's index of a bench's runs, turns, scores and changes of state.

It repeats what lies in the run folders, so that ``status`` and ``scores`` need not read thousands of files;
``turntable doctor --rebuild`` makes it again from them. Folders are written first, the record after.
"""

from __future__ import annotations

import enum
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import schema
from .errors import TurntableError

BUSY_S = 30.0
"""How long another process's transaction is waited for."""


class State(str, enum.Enum):
    """Where a run stands. Whoever holds the run's ``supervisor.lock`` writes it, and nobody else.

    That is the supervisor while it works on the run or keeps its process parked. Anybody else who wants a change leaves a
    wish in the queue, or takes the lock where no supervisor has it. :meth:`may_become` has the transitions.

    A run whose supervisor was killed still says ``running``, but nobody holds its lock: it counts as queued, and goes on
    from its last checkpoint.
    """

    QUEUED = "queued"
    """Waits for a turn, its first or its next. Left for running by a supervisor, for paused or cancelled by its user."""
    RUNNING = "running"
    """Has a turn: its process holds a device. Left by its supervisor alone: for queued when its turn is over (quantum,
    priority, or its process was killed from outside), for paused or cancelled as its user wishes, for done or failed."""
    PAUSED = "paused"
    """Its user doesn't want it to go on now. Left for queued (resumed) or cancelled by its user."""
    DONE = "done"
    """The whole of its budget is used and scored. For good."""
    FAILED = "failed"
    """Its method crashed, hung, ran out of memory or broke its contract; the cause is kept. For good: ``retry`` makes a
    new run beside it."""
    CANCELLED = "cancelled"
    """Its user gave it up. For good, like failed."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self in (State.DONE, State.FAILED, State.CANCELLED)

    def may_become(self, state: State) -> bool:
        """Whether a run may leave this state for ``state``."""
        return state in _MAY_BECOME[self]


_MAY_BECOME = {
    State.QUEUED: (State.RUNNING, State.PAUSED, State.CANCELLED),
    # From running to running: whose supervisor was killed, and who is now seen through by another.
    State.RUNNING: (State.RUNNING, State.QUEUED, State.PAUSED, State.DONE, State.FAILED, State.CANCELLED),
    State.PAUSED: (State.QUEUED, State.CANCELLED),
    State.DONE: (),
    State.FAILED: (),
    State.CANCELLED: (),
}


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
    device_memory_bytes: int = 0


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


@dataclass(frozen=True)
class FoundRun:
    """A run as its folder tells it: for :meth:`Record.replace_all`."""

    row: RunRow
    wants: str
    """The device asked for."""
    terms: Terms
    changes: list[StateChange]
    scores: list[Score]

    @property
    def queued(self) -> float:
        """When it came to wait last, in seconds since the epoch."""
        times = [change.time for change in self.changes if change.state is State.QUEUED]
        return times[-1] if times else self.row.created


_NEXT_PLACE = "SELECT coalesce(max(place), 0) + 1 FROM queue"


def definition_id(text: str) -> str:
    """The short name under which a score's definition is stored: 12 hex digits of its sha256."""
    import hashlib  # not above: it takes 5 ms, and `turntable status` needs no hash

    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Terms:
    """On what terms a run takes its turns; no answer depends on them.

    Args:
        priority: higher goes first.
        quantum_s: how long, in seconds, it may hold a device while others wait; None: to its end.
        after: the id of a run that must have ended first, or None.
        need_bytes: memory of the device that it needs; 0 where that isn't known.
        owner: the number of the user whose supervisors work on it; None: anybody's.
        own_only: whether only a supervisor that answers for it may work on it: one whose process can't be saved ends with
            the supervisor that has it.
    """

    priority: int = 0
    quantum_s: float | None = None
    after: str | None = None
    need_bytes: int = 0
    owner: int | None = None
    own_only: bool = False


@dataclass(frozen=True)
class StateChange:
    """A run came into a state.

    Args:
        time: when, in seconds since the epoch.
        state: which.
        cause: why it failed; else why its turn ended or what was wished; None where there is nothing to say.
        device: the device that it holds now.
        model: that device's model.
        how: how it left the device.
        supervisor: the process id of who wrote it.
    """

    time: float
    state: State
    cause: str | None = None
    device: str | None = None
    model: str | None = None
    how: str | None = None
    supervisor: int | None = None

    @property
    def detail(self) -> str | None:
        """What the record's events say beside the state."""
        return ", ".join(part for part in (self.device, self.cause, self.how) if part) or None


class Record:
    """A connection to ``record.sqlite``. Not to be shared between threads."""

    def __init__(self, path: Path) -> None:
        """Open or make the record.

        Raises:
            TurntableError: it can't be opened or written, or comes from a newer Turntable.
        """
        self.path = path
        try:
            self._db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
            self._db.row_factory = sqlite3.Row
            self._make_wal()
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA foreign_keys = ON")
            version = self._version()
            if version < schema.VERSION:
                with self.writing():
                    version = self._version()  # asked again: another process may have been faster
                    for part in schema.PARTS[version:]:
                        for statement in part.split(";\n"):
                            self._db.execute(statement)
                    self._db.execute(f"PRAGMA user_version = {max(version, schema.VERSION)}")
        except sqlite3.Error as error:
            raise record_error(path, error) from error
        if version > schema.VERSION:
            raise TurntableError(
                f"{path} was made by a newer Turntable (version {version} of the record; this one knows "
                f"{schema.VERSION}). Update Turntable."
            )

    def _make_wal(self) -> None:
        """SQLite doesn't wait for this one: while another process makes the record, it fails at once."""
        deadline = time.monotonic() + BUSY_S
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _version(self) -> int:
        return self._db.execute("PRAGMA user_version").fetchone()[0]

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that writes: all of it happens, durably, or none; nobody else writes meanwhile.

        Raises:
            TurntableError: the record can't be written.
        """
        try:
            try:
                self._db.execute("BEGIN IMMEDIATE")  # Ctrl-C while it waits is raised when it has begun
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise record_error(self.path, error) from error

    def add_run(self, run: RunRow, terms: Terms) -> None:
        """Add a new run and put it into the queue, behind all others."""
        with self.writing():
            self._insert_run(run)
            self._insert_queue(run.id, run.created, run.device, terms)
            self._event(run.id, StateChange(run.created, run.state, run.cause))

    def change_state(self, run: str, change: StateChange) -> None:
        """Note that a run came into another state; out of the queue if it has ended.

        Raises:
            TurntableError: no run may go from the state that it is in to that one.
        """
        state = change.state
        with self.writing():
            found = self._db.execute("SELECT state FROM runs WHERE id = ?", (run,)).fetchone()
            if found is None:
                raise TurntableError(
                    f"The record {self.path} has no run {run}; run turntable doctor --rebuild."
                )
            before = State(found[0])
            if not before.may_become(state):
                raise TurntableError(
                    f"Run {run} is {before.value}, and can't become {state.value} from that."
                )
            cause = change.cause if state.ended else None
            self._db.execute("UPDATE runs SET state = ?, cause = ? WHERE id = ?", (state.value, cause, run))
            if change.device is not None:
                self._db.execute("UPDATE runs SET device = ? WHERE id = ?", (change.device, run))
            if state.ended:
                self._db.execute("DELETE FROM queue WHERE run = ?", (run,))
                self._db.execute("DELETE FROM wanted WHERE run = ?", (run,))
            elif state is State.QUEUED:
                self._db.execute(
                    f"UPDATE queue SET place = ({_NEXT_PLACE}), since = ? WHERE run = ?", (change.time, run)
                )
            self._event(run, change)
            self._turns(run, change)

    def set_progress(self, run: str, state: dict[str, Any], fraction: float) -> None:
        """Note how far a run is: ``steps``, ``device_seconds``, ``setup_seconds``, ``memory_bytes``."""
        with self.writing():
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

    def _turns(self, run: str, change: StateChange) -> None:
        """A run that comes into another state ends the turn that it had; a turn begins where it comes to hold a device."""
        why = "lost" if change.state is State.RUNNING else change.cause or change.state.value
        if change.state.ended:
            why = change.state.value
        self._db.execute(
            "UPDATE turns SET ended = ?, why = ?, how = ? WHERE run = ? AND ended IS NULL",
            (change.time, why, change.how, run),
        )
        if change.state is State.RUNNING:
            self._db.execute(
                "INSERT INTO turns (run, device, started, pid) VALUES (?, ?, ?, ?)",
                (run, change.device or "", change.time, change.supervisor),
            )
            self._db.execute(
                "UPDATE queue SET began_on = coalesce(began_on, ?) WHERE run = ?", (change.model, run)
            )

    def version(self) -> tuple[int, int]:
        """Differs after every change of the record, ours (the second number) or another connection's (the first).

        Raises:
            TurntableError: the record can't be read.
        """
        return self.read("PRAGMA data_version")[0][0], self._db.total_changes

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Several reads of the same moment.

        Raises:
            TurntableError: the record can't be read.
        """
        try:
            try:
                self._db.execute("BEGIN")
                yield
            finally:
                if self._db.in_transaction:
                    self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise record_error(self.path, error) from error

    def set_device_memory(self, run: str, peak_bytes: int) -> None:
        """Note the most memory of a card that a run has had, in bytes."""
        with self.writing():
            self._db.execute("UPDATE runs SET device_memory_bytes = ? WHERE id = ?", (peak_bytes, run))

    def add_scores(self, run: str, scores: Iterable[Score]) -> None:
        """Add scores; those of the same mark, metric and item are replaced."""
        with self.writing():
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

    def read(self, query: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """The rows that a query finds.

        Raises:
            TurntableError: the record can't be read.
        """
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise record_error(self.path, error) from error

    def runs(
        self, capture: str | None = None, question: str | None = None, unended: bool = False
    ) -> list[RunRow]:
        """Runs in the order they were asked for, of one capture or with one question where that is given.

        Args:
            capture: the name of one capture.
            question: the hash of one question.
            unended: only those that have not ended.
        """
        conditions, values = [], []
        for column, value in (("capture", capture), ("question", question)):
            if value is not None:
                conditions.append(f"{column} = ?")
                values.append(value)
        if unended:
            conditions.append("id IN (SELECT run FROM queue)")
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        return _rows(self.read(f"SELECT * FROM runs {where} ORDER BY created, rowid", values))

    def last_ended(self, count: int) -> list[RunRow]:
        """The ended runs that were asked for last, newest first."""
        return _rows(
            self.read(
                "SELECT * FROM runs WHERE id NOT IN (SELECT run FROM queue) ORDER BY rowid DESC LIMIT ?",
                (count,),
            )
        )

    def count_runs(self) -> int:
        """How many runs there are."""
        # Runs are never removed but all at once, so that their row numbers have no gaps; to count 100,000 takes 5 ms.
        return self.read("SELECT coalesce(max(rowid), 0) FROM runs")[0][0]

    def run(self, run: str) -> RunRow | None:
        """One run, or None."""
        rows = self.read("SELECT * FROM runs WHERE id = ?", (run,))
        return _rows(rows)[0] if rows else None

    def scores(self, run: str) -> list[Score]:
        """All scores of a run, by mark, metric and item."""
        rows = self.read(
            "SELECT mark, steps, device_seconds, metric, text AS definition, item, value FROM scores"
            " JOIN definitions ON definitions.id = scores.definition WHERE run = ? ORDER BY mark, metric, item",
            (run,),
        )
        return [Score(**dict(row)) for row in rows]

    def replace_all(self, runs: Iterable[FoundRun]) -> None:
        """Make the whole record again, in one go: afterwards it holds these runs, or what it held before."""
        with self.writing():
            for table in ("scores", "events", "turns", "queue", "runs", "definitions"):
                self._db.execute(f"DELETE FROM {table}")
            found_runs = list(runs)
            for found in found_runs:
                self._insert_run(found.row)
            # In the order in which they had come to wait: a run that had a turn since stands behind one that had none.
            for found in sorted(found_runs, key=lambda found: found.queued):
                if not found.row.state.ended:
                    self._insert_queue(found.row.id, found.queued, found.wants, found.terms)
            for found in found_runs:
                row = found.row
                for change in found.changes:
                    self._event(row.id, change)
                    self._turns(row.id, change)
                self._insert_scores(row.id, found.scores)
            self._db.execute("DELETE FROM wanted WHERE run NOT IN (SELECT run FROM queue)")

    def _insert_run(self, run: RunRow) -> None:
        values = {**run.__dict__, "state": run.state.value}
        self._db.execute(
            f"INSERT INTO runs ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})",
            list(values.values()),
        )

    def _insert_queue(self, run: str, since: float, wants: str, terms: Terms) -> None:
        self._db.execute(
            "INSERT INTO queue (run, place, since, wants, priority, quantum_s, after, need_bytes, owner, own_only)"
            f" VALUES (?, ({_NEXT_PLACE}), ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                run,
                since,
                wants,
                terms.priority,
                terms.quantum_s,
                terms.after,
                terms.need_bytes,
                terms.owner,
                terms.own_only,
            ),
        )

    def _event(self, run: str, change: StateChange) -> None:
        values = (run, change.time, change.state.value, change.detail)
        self._db.execute("INSERT INTO events VALUES (?, ?, ?, ?)", values)


def _rows(rows: Iterable[sqlite3.Row]) -> list[RunRow]:
    return [RunRow(**{**dict(row), "state": State(row["state"])}) for row in rows]


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
