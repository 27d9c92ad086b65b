"""The queue, as it stands in the record: runs that wait, who holds which device, and which supervisors live.

What a supervisor says here of itself is only believed while its process lives (see :mod:`.identity`) and, of a device,
while its heart beats: a row of somebody dead counts for nothing. Times between processes are taken from the monotonic clock,
which they share and nobody can set.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..record import Record, RunRow, State, Terms
from .identity import Who, alive
from .policy import Turn, Waiting

HEARTBEAT_S = 5.0
"""How often a supervisor says that it lives."""

EXPIRES_S = 60.0
"""A supervisor whose heart has not beaten for so long has hung or was stopped; who needs its device may end it."""

PAUSE, CANCEL, RESUME = "pause", "cancel", "resume"
"""What a user may wish of a run that a supervisor has."""

GIVEN_UP = "given up by its user"
"""The cause of a run that was cancelled."""

RELEASE = "release"
"""What another device's supervisor wishes: that a process which is kept in memory ends, so that its run can go on there."""


@dataclass(frozen=True)
class Entry:
    """A run that has not ended, as the record knows it; see the schema."""

    run: str
    state: State
    method: str
    capture: str
    capture_hash: str
    device: str
    fraction: float
    steps: int
    place: int
    since: float
    wish: str | None
    wants: str
    began_on: str | None
    priority: int
    quantum_s: float | None
    after: str | None
    need_bytes: int
    owner: int | None
    kept_on: str | None
    fault: str | None
    own_only: int
    pausing: str | None
    pausable: int
    device_memory_bytes: int

    @property
    def needs_bytes(self) -> int:
        """The memory that it needs for its next turn, of the device that it has it on.

        A process that is kept in memory has what it needs already, but for a card: there it has given it up.
        """
        if self.kept_on is None:
            return self.need_bytes
        return 0 if self.kept_on == "cpu" else self.device_memory_bytes


@dataclass(frozen=True)
class Lease:
    """Who holds a device, for which run; ``began`` and ``heartbeat`` by the monotonic clock."""

    device: str
    run: str
    who: Who
    priority: int
    began: float
    heartbeat: float

    @property
    def stands(self) -> bool:
        """Whether its holder may still be alive."""
        return alive(self.who) is not False

    @property
    def expired(self) -> bool:
        """Whether its holder, alive or not, has not been heard of for too long."""
        return time.monotonic() - self.heartbeat > EXPIRES_S


@dataclass(frozen=True)
class SupervisorRow:
    """A process that works on runs."""

    who: Who
    owner: int
    detached: bool
    devices: frozenset[str]
    heartbeat: float

    @property
    def works(self) -> bool:
        """Whether it may be alive, and has been heard of: nobody leaves a turn to one that hangs."""
        return alive(self.who) is not False and time.monotonic() - self.heartbeat < EXPIRES_S


@dataclass(frozen=True)
class Snapshot:
    """The queue at one moment."""

    entries: dict[str, Entry]
    """By run."""
    leases: dict[str, Lease]
    """By device; those alone whose holders may be alive."""
    supervisors: list[SupervisorRow]
    """Those that are at work."""
    wanted: dict[str, list[Who]]
    """By run, the supervisors that answer for it."""

    def state_of(self, row: RunRow) -> str:
        """What a run's state is called: one that says ``running`` and holds no device is ``interrupted``."""
        held = any(lease.run == row.id for lease in self.leases.values())
        return row.state.value if row.state is not State.RUNNING or held else "interrupted"

    def waiting(self, entry: Entry) -> Waiting:
        """A run of the queue, as the policy wants it."""
        return Waiting(
            run=entry.run,
            place=entry.place,
            since=entry.since,
            priority=entry.priority,
            wants=entry.wants,
            began_on=entry.began_on,
            need_bytes=entry.needs_bytes,
            quantum_s=entry.quantum_s,
            after=entry.after if entry.after in self.entries else None,
            served_on=self._served_on(entry),
            kept_on=entry.kept_on,
            fault=entry.fault,
            pausable=bool(entry.pausable),
        )

    def _served_on(self, entry: Entry) -> frozenset[str]:
        """The devices on which somebody gives turns who may give this run one."""
        answering = self.wanted.get(entry.run, []) if entry.own_only else []
        found: frozenset[str] = frozenset()
        for row in self.supervisors:
            if entry.owner in (None, row.owner) and (row.who in answering or not entry.own_only):
                found |= row.devices
        return found

    def waits(self) -> list[Waiting]:
        """The runs that wait for a turn: queued, or left behind by a supervisor that was killed."""
        held = {lease.run for lease in self.leases.values()}
        return [
            self.waiting(entry)
            for entry in self.entries.values()
            if entry.state in (State.QUEUED, State.RUNNING)
            and entry.run not in held
            and entry.wish in (None, RELEASE)
        ]

    def turn(self, device: str) -> Turn | None:
        """Who holds a device of this bench's runs."""
        lease = self.leases.get(device)
        entry = None if lease is None else self.entries.get(lease.run)
        if lease is None or entry is None:
            return None
        return Turn(self.waiting(entry), time.monotonic() - lease.began, lease.priority)


_Rows = tuple[dict[str, Entry], list[Lease], list[SupervisorRow], dict[str, list[Who]]]


class Queue:
    """The queue's part of a record. Not to be shared between threads."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._read_at: tuple[int, int] | None = None
        self._rows: _Rows | None = None

    def snapshot(self) -> Snapshot:
        """The queue as it is now."""
        # Looked at many times a second by every supervisor: what has not been written to is not read again.
        with self._record.reading():
            version = self._record.version()
            if self._rows is None or version != self._read_at:
                self._rows, self._read_at = self._read(), version
        entries, leases, supervisors, wanted = self._rows
        return Snapshot(
            entries,
            {lease.device: lease for lease in leases if lease.stands},
            [row for row in supervisors if row.works],
            wanted,
        )

    def _read(self) -> _Rows:
        rows = self._record.read(
            "SELECT queue.*, state, method, capture, capture_hash, device, fraction, steps, device_memory_bytes FROM queue"
            " JOIN runs ON runs.id = queue.run ORDER BY place"
        )
        wanted: dict[str, list[Who]] = {}
        for row in self._record.read("SELECT * FROM wanted"):
            wanted.setdefault(row["run"], []).append(_who(row))
        entries = {row["run"]: Entry(**{**dict(row), "state": State(row["state"])}) for row in rows}
        return entries, self.leases(), self.supervisors(), wanted

    def entry(self, run: str) -> Entry | None:
        """A run of the queue, or None: it has ended, or there is none."""
        return self.snapshot().entries.get(run)

    def leases(self) -> list[Lease]:
        """All leases, those of the dead among them."""
        return [
            Lease(row["device"], row["run"], _who(row), row["priority"], row["began"], row["heartbeat"])
            for row in self._record.read("SELECT * FROM leases")
        ]

    def holds_device(self, run: str) -> bool:
        """Whether somebody who may be alive holds a device for a run."""
        return any(lease.run == run and lease.stands for lease in self.leases())

    def take_lease(self, device: str, run: str, who: Who, priority: int) -> None:
        """Write down that we hold ``device`` (whose kernel lock we have) for ``run``."""
        now = time.monotonic()
        with self._record.writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (device, run, who.pid, who.started, who.boot, priority, now, now),
            )

    def drop_lease(self, device: str) -> None:
        """Write down that nobody holds ``device``: we, who have its kernel lock, don't."""
        with self._record.writing() as db:
            db.execute("DELETE FROM leases WHERE device = ?", (device,))

    def supervisors(self) -> list[SupervisorRow]:
        """The supervisors that may be alive."""
        rows = self._record.read("SELECT * FROM supervisors")
        found = [
            SupervisorRow(
                _who(row),
                row["owner"],
                bool(row["detached"]),
                frozenset(row["devices"].split()),
                row["heartbeat"],
            )
            for row in rows
        ]
        return [row for row in found if alive(row.who) is not False]

    def enter(self, who: Who, runs: Iterable[str], on: Iterable[str], detached: bool) -> None:
        """Write down that we give turns on the devices ``on``, and answer for ``runs``; what the dead had written goes."""
        with self._record.writing() as db:
            for row in db.execute("SELECT boot, pid, started FROM supervisors").fetchall():
                # Looked at inside of the transaction: one that has come since would seem dead.
                if alive(_who(row)) is False:
                    for table in ("supervisors", "wanted"):
                        db.execute(f"DELETE FROM {table} WHERE {_IS_WHO}", _values(_who(row)))
            db.execute(
                "INSERT OR REPLACE INTO supervisors VALUES (?, ?, ?, ?, ?, ?, ?)",
                (who.pid, who.started, who.boot, os.getuid(), detached, " ".join(on), time.monotonic()),
            )
            for run in runs:
                db.execute(
                    "INSERT OR IGNORE INTO wanted VALUES (?, ?, ?, ?)", (who.boot, who.pid, who.started, run)
                )
                # What was wrong with it may have been mended: it is tried again.
                db.execute("UPDATE queue SET fault = NULL WHERE run = ?", (run,))

    def leave(self, who: Who) -> None:
        """Write down that we no longer work."""
        with self._record.writing() as db:
            for table in ("supervisors", "wanted", "leases"):
                db.execute(f"DELETE FROM {table} WHERE {_IS_WHO}", _values(who))

    def beat(self, who: Who) -> None:
        """Say that we live."""
        with self._record.writing() as db:
            for table in ("supervisors", "leases"):
                db.execute(
                    f"UPDATE {table} SET heartbeat = ? WHERE {_IS_WHO}", (time.monotonic(), *_values(who))
                )

    def answering(self, run: str) -> list[Who]:
        """The supervisors that answer for a run."""
        live = {row.who for row in self.supervisors()}
        rows = self._record.read("SELECT * FROM wanted WHERE run = ?", (run,))
        return [who for who in map(_who, rows) if who in live]

    def wish(self, run: str, wish: str) -> None:
        """Leave a wish for the supervisor that has the run; it takes the place of another."""
        with self._record.writing() as db:
            db.execute("UPDATE queue SET wish = ? WHERE run = ?", (wish, run))

    def ask_to_release(self, run: str) -> None:
        """Ask whoever keeps a run's process to let it go, unless something else is wished of it."""
        with self._record.writing() as db:
            db.execute("UPDATE queue SET wish = ? WHERE run = ? AND wish IS NULL", (RELEASE, run))

    def take_back(self, run: str, wish: str) -> None:
        """Take a wish back, since it has been granted or isn't wished any more; another that took its place stays."""
        with self._record.writing() as db:
            db.execute("UPDATE queue SET wish = NULL WHERE run = ? AND wish = ?", (run, wish))

    def wish_of(self, run: str) -> str | None:
        """What is wished of a run."""
        rows = self._record.read("SELECT wish FROM queue WHERE run = ?", (run,))
        return rows[0]["wish"] if rows else None

    def note_fault(self, run: str, text: str) -> None:
        """Note why nobody can work on a run: all supervisors pass it over, until somebody asks for it again."""
        with self._record.writing() as db:
            db.execute("UPDATE queue SET fault = ? WHERE run = ?", (text, run))

    def adopt(self, run: str, owner: int) -> None:
        """Make a run another user's: its supervisors work on it from now on."""
        with self._record.writing() as db:
            db.execute("UPDATE queue SET owner = ? WHERE run = ?", (owner, run))

    def set_terms(self, run: str, terms: Terms) -> None:
        """Change on what terms a run takes its turns."""
        with self._record.writing() as db:
            db.execute(
                "UPDATE queue SET priority = ?, quantum_s = ?, after = ?, need_bytes = max(need_bytes, ?)"
                " WHERE run = ?",
                (terms.priority, terms.quantum_s, terms.after, terms.need_bytes, run),
            )

    def note_pausing(self, run: str, text: str | None, pausable: bool) -> None:
        """Note how a run was paused, or why it can't be."""
        with self._record.writing() as db:
            db.execute("UPDATE queue SET pausing = ?, pausable = ? WHERE run = ?", (text, int(pausable), run))

    def note_kept(self, run: str, device: str | None) -> None:
        """Note for which device a run's process is kept in memory that can't go elsewhere."""
        with self._record.writing() as db:
            db.execute("UPDATE queue SET kept_on = ? WHERE run = ?", (device, run))

    def learned_need(self, method: str, capture: str, capture_hash: str, wants: str) -> int:
        """The most memory, in bytes, that a finished run of this method on this capture has needed of such a device.

        0 if there is none. Of a processor it is the machine's memory, of a card the card's.
        """
        column, kind = ("peak_memory_bytes", "cpu") if wants == "cpu" else ("device_memory_bytes", "cuda%")
        rows = self._record.read(
            f"SELECT max({column}) FROM runs WHERE capture = ? AND method = ? AND capture_hash = ?"
            " AND state = 'done' AND device LIKE ?",
            (capture, method, capture_hash, kind),
        )
        return rows[0][0] or 0

    def learn(self, run: str, device: str, most_bytes: int) -> None:
        """Give a run, and those of its kind that wait and whose need isn't known, the need of earlier ones.

        Args:
            run: one that was just queued, or has just ended.
            device: the device, or kind of device, that it wants or has had.
            most_bytes: what no need may be above: a run that has fitted once fits again, whatever was counted twice then.
        """
        row = self._record.run(run)
        if row is None:
            return
        kind = device.partition(":")[0]
        need = min(self.learned_need(row.method, row.capture, row.capture_hash, kind), most_bytes)
        if need:
            with self._record.writing() as db:
                db.execute(
                    "UPDATE queue SET need_bytes = ? WHERE need_bytes = 0 AND wants LIKE ? AND run IN"
                    " (SELECT id FROM runs WHERE capture = ? AND capture_hash = ? AND method = ?)",
                    (need, f"{kind}%", row.capture, row.capture_hash, row.method),
                )


_IS_WHO = "boot = ? AND pid = ? AND started = ?"


def _values(who: Who) -> tuple[str, int, int]:
    return who.boot, who.pid, who.started


def _who(row: Any) -> Who:
    return Who(row["pid"], row["started"], row["boot"])
