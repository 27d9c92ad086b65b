"""The tables of the record, as SQL: each part is what one version added to the one before."""

from __future__ import annotations

PARTS = (
    """
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
    why TEXT                     -- why it ended: done, failed, quantum, priority, pause … (how and pid came later: how the
                                 -- run left the device, and whose turn it was)
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
) STRICT
""",
    """
CREATE TABLE queue (             -- every run that has not ended
    run TEXT PRIMARY KEY REFERENCES runs (id),
    place INTEGER NOT NULL,      -- counts up with every run queued and every turn ended: the smallest waits longest
    since REAL NOT NULL,         -- since when it waits, seconds since the epoch
    wish TEXT,                   -- what is wanted of its supervisor: pause, cancel, resume, release
    wants TEXT NOT NULL,         -- the device: cpu, cuda, cuda:1
    began_on TEXT,               -- the model of the device that it had its first turn on
    priority INTEGER NOT NULL,
    quantum_s REAL,              -- how long it may hold a device while others wait; null: to its end
    after TEXT,                  -- the run that must end first
    need_bytes INTEGER NOT NULL, -- memory of the device, declared or learned; 0 where nobody knows
    fault TEXT,                  -- why nobody can work on it, in words
    owner INTEGER,               -- the number of the user whose supervisors work on it; null: anybody's
    kept_on TEXT,                -- the device for which its process is kept in memory, if it can't be moved to another
    own_only INTEGER NOT NULL DEFAULT 0, -- whether only a supervisor that answers for it may work on it
    pausing TEXT,                -- how it was paused last, or why it can't be, in words
    pausable INTEGER NOT NULL DEFAULT 1
) STRICT;
INSERT INTO queue (run, place, since, wants, priority, need_bytes)
    SELECT id, rowid, strftime('%s', 'now') + 0.0, device, 0, 0 FROM runs WHERE state NOT IN ('done', 'failed');
CREATE TABLE leases (            -- who holds a device; the kernel lock decides, this says
    device TEXT PRIMARY KEY,
    run TEXT NOT NULL,
    pid INTEGER NOT NULL,
    started INTEGER NOT NULL,
    boot TEXT NOT NULL,
    priority INTEGER NOT NULL,   -- what its run counted when the turn began
    began REAL NOT NULL,         -- by the machine's monotonic clock, as is
    heartbeat REAL NOT NULL      -- this
) STRICT;
CREATE TABLE supervisors (
    pid INTEGER NOT NULL,
    started INTEGER NOT NULL,
    boot TEXT NOT NULL,
    owner INTEGER NOT NULL,
    detached INTEGER NOT NULL,
    devices TEXT NOT NULL,       -- on which it gives turns, between blanks
    heartbeat REAL NOT NULL,
    PRIMARY KEY (boot, pid, started)
) STRICT;
CREATE TABLE wanted (            -- for which runs a supervisor answers: it doesn't leave before they have ended
    boot TEXT NOT NULL,
    pid INTEGER NOT NULL,
    started INTEGER NOT NULL,
    run TEXT NOT NULL,
    PRIMARY KEY (run, boot, pid, started)
) STRICT;
ALTER TABLE runs ADD COLUMN device_memory_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE turns ADD COLUMN how TEXT;
ALTER TABLE turns ADD COLUMN pid INTEGER
""",
)

VERSION = len(PARTS)
