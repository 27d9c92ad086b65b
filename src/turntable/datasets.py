"""Data sets in a bench: where ``turntable get`` puts them, and which catalogues it looks into."""

from __future__ import annotations

from pathlib import Path

from .bench import Bench
from .captures.catalogue import find_entry
from .captures.get import LOCK_NAME, Got, Places, get
from .captures.source import Progress
from .errors import TurntableError, disk_error
from .turns.watcher import Watcher

CATALOGUE_NAME = "catalogue.toml"


def get_dataset(
    bench: Bench,
    name: str,
    watcher: Watcher,
    catalogue: Path | None = None,
    file: Path | None = None,
    out: Path | None = None,
) -> Got:
    """Fetch the data set called ``name``, or find that it is there.

    Args:
        bench: whose ``catalogue.toml``, ``datasets`` and ``downloads`` are meant; it is made.
        name: as a catalogue has it.
        watcher: told how far it is.
        catalogue: one that counts before the bench's.
        file: an archive that is here already.
        out: where data sets go, instead of the bench.

    Raises:
        TurntableError: as :func:`turntable.captures.get.get`; or the disk is full or can't be written.
    """
    if catalogue is not None and not catalogue.is_file():
        raise TurntableError(f"--catalogue is a TOML file, and there is none at {catalogue}.")
    own = bench.folder / CATALOGUE_NAME
    entry = find_entry(name, [*([catalogue] if catalogue else []), own])
    bench.make()
    places = Places(
        datasets=(out or bench.folder / "datasets").expanduser().resolve(),
        downloads=bench.folder / "downloads",
        record=bench.folder / LOCK_NAME,
        catalogue=catalogue or own,
    )
    try:
        return get(entry, places, Progress(watcher.job_progress), watcher.note, file)
    except OSError as error:
        raise disk_error(error, f"the data set {name}") from error
