"""Fetching a data set that a catalogue names: once, whole, and always the same.

An archive whose hash nobody published is believed the first time: its hash is recorded in the bench, in
``catalogue.lock.toml``, and whatever comes later must have it. Everything may be interrupted at any moment, and the same
call goes on; two processes that want the same wait for each other.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from ..errors import TurntableError
from ..files import holding, read_json, read_toml, sha256_of, write_json, write_text
from .catalogue import Entry, check_address, shown
from .dataset import MARKER
from .download import fetch
from .source import Progress
from .unpacking import BadArchive, unpack

LOCK_NAME = "catalogue.lock.toml"

UNFOLDS = 10
"""Pictures hardly unfold: an archive that grows by more than this (and a bit) is a bomb, or its catalogue says otherwise."""

A_BIT_BYTES = 100_000_000

LOCK_HEAD = """\
# The sha256 of archives whose authors publish none, as each came the first time: made by `turntable get`, which refuses any
# other since. Remove a table only if you know why the file has changed.
"""


@dataclass(frozen=True)
class Places:
    """Where things go.

    Args:
        datasets: the data sets, each scene in a folder called after it.
        downloads: archives, and parts of them.
        record: the file of recorded hashes.
        catalogue: the user's own, for messages.
    """

    datasets: Path
    downloads: Path
    record: Path
    catalogue: Path


@dataclass(frozen=True)
class Got:
    """What there is now.

    Args:
        name: of the scene.
        folder: where it lies.
        sha256: of its archive.
        archive: where that lies, or None where it isn't needed to be kept.
        was_there: whether nothing had to be done.
        recorded: whether this was the first download, whose hash was recorded.
    """

    name: str
    folder: Path
    sha256: str
    archive: Path | None
    was_there: bool
    recorded: bool


def get(
    entry: Entry,
    places: Places,
    progress: Progress,
    say: Callable[[str], None] = lambda text: None,
    file: Path | None = None,
) -> Got:
    """Have a scene's folder, with a marker that says what it is.

    Args:
        entry: of the scene.
        places: where things go; the folders are made.
        progress: told how far it is.
        say: told what the user should know, a line each.
        file: an archive that is here already, instead of the entry's address.

    Raises:
        TurntableError: there is no address, it can't be fetched, or what came is not what was meant.
        OSError: the disk.
    """
    if file is None and not entry.address:
        raise no_address(entry, places.catalogue)
    if file is None:
        check_address(entry.address, entry.sha256)
    elif not file.is_file():
        raise TurntableError(f"--file is an archive, and there is none at {file}.")
    folder = places.datasets / entry.name
    places.downloads.mkdir(parents=True, exist_ok=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # The lock lies beside the folder: another bench may have been given the same --out.
    with _alone(folder.with_name(f".{folder.name}.lock"), say):
        for left in folder.parent.iterdir():  # of a process that was killed: we are alone
            if re.fullmatch(rf"\.getting-{re.escape(folder.name)}-[0-9a-f]{{8}}", left.name):
                shutil.rmtree(left)
        if folder.exists():
            return _found(entry, folder)
        # A file by hand may be of another make than what the address gives: it is held to itself.
        key = entry.key if file is None else f"file:{entry.name}"
        recorded = recorded_hash(places.record, key)
        wanted = replace(entry, sha256=entry.sha256 or recorded)
        said_by = "the catalogue" if entry.sha256 else str(places.record)
        archive = places.downloads / _archive_name(entry)
        with _alone(places.downloads / f".{archive.name}.lock", say):
            if file is None:
                sha256 = fetch(
                    wanted.address,
                    archive,
                    wanted.sha256,
                    entry.size,
                    lambda done, total: progress("downloading", done, total),
                    said_by=said_by,
                )
            else:
                archive, sha256 = file, _checked(file, wanted, said_by)
            try:
                _unpack(archive, wanted, sha256, folder, progress)
            except BadArchive:
                if (
                    file is None and not wanted.sha256
                ):  # nobody vouches for it, and it may come better the next time
                    archive.unlink()
                raise
            first = not wanted.sha256
            if first:
                record_hash(places.record, key, sha256, archive.stat().st_size, entry.address)
    return Got(entry.name, folder, sha256, None if file else archive, False, first)


def no_address(entry: Entry, catalogue: Path) -> TurntableError:
    """The error for an entry that nobody gave an address to: which line to write where."""
    key = entry.key if "/" not in entry.key else f'"{entry.key}"'
    where = f" Its authors describe it at {entry.described}." if entry.described else ""
    return TurntableError(
        f"{entry.name} has no address in any catalogue, because none could be checked.{where} Find its "
        f'archive there, and write into {catalogue} the line {key}.address = "https://…" (and {key}.sha256 = "…" if '
        "they publish one); or give an archive that you have with --file."
    )


def _found(entry: Entry, folder: Path) -> Got:
    marker = folder / MARKER
    told = read_json(marker) if marker.is_file() else {}
    if not isinstance(told, dict) or told.get("name") != entry.name:
        raise TurntableError(
            f"{folder} is there already, and doesn't say that it is {entry.name}. Move it away, or choose another --out."
        )
    sha256 = str(told.get("sha256", ""))
    if entry.sha256 and sha256 != entry.sha256:
        raise TurntableError(
            f"{folder} came from an archive with the sha256 {sha256 or '(unknown)'}, and the catalogue says {entry.sha256}. "
            "Move it away, and get it again."
        )
    return Got(entry.name, folder, sha256, None, True, False)


def _checked(file: Path, entry: Entry, said_by: str) -> str:
    if entry.size is not None and (length := file.stat().st_size) != entry.size:
        raise TurntableError(
            f"{file} has {length} bytes, not {entry.size} as the catalogue says: it is another file than was meant."
        )
    found = sha256_of(file)
    if entry.sha256 and found != entry.sha256:
        raise TurntableError(
            f"{file} has the sha256 {found}, not {entry.sha256} as {said_by} says: it is another file than was meant."
        )
    return found


def _unpack(archive: Path, entry: Entry, sha256: str, folder: Path, progress: Progress) -> None:
    aside = folder.parent / f".getting-{folder.name}-{secrets.token_hex(4)}"
    aside.mkdir()
    try:
        most = entry.unpacked or archive.stat().st_size * UNFOLDS + A_BIT_BYTES
        unpack(
            archive,
            entry.inside,
            aside,
            most,
            lambda done, total: progress("unpacking", done, total),
        )
        marker = aside / MARKER
        marker.unlink(missing_ok=True)  # who made the archive has no say in it
        write_json(marker, {"name": entry.name, "sha256": sha256, "licence": entry.licence})
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def _alone(lock: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock; who has to wait for it is told."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(holding(lock, fcntl.LOCK_EX | fcntl.LOCK_NB))
        except BlockingIOError:
            say("Another process is fetching the same; waiting for it.")
            stack.enter_context(holding(lock))
        yield


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _archive_name(entry: Entry) -> str:
    base = PurePosixPath(urlsplit(entry.address).path).name
    return f"{_short(entry.address)}-{re.sub(r'[^A-Za-z0-9._-]+', '_', base)[-80:] or 'archive'}"


def recorded_hash(record: Path, key: str) -> str:
    """The hash that was recorded of a key's first download, or "".

    Raises:
        TurntableError: the record is damaged.
    """
    if not record.is_file():
        return ""
    sha256 = read_toml(record).get(key, {}).get("sha256", "")
    if sha256 and not (isinstance(sha256, str) and re.fullmatch(r"[0-9a-f]{64}", sha256)):
        raise TurntableError(
            f"{record}: {key}.sha256 must be 64 hexadecimal digits, not {sha256!r}. Mend or remove it."
        )
    return sha256


def record_hash(record: Path, key: str, sha256: str, size: int, address: str = "") -> None:
    """Record the hash of a first download; one that is there already stands.

    Raises:
        TurntableError: another process has recorded another one meanwhile, or the record is damaged.
    """
    with holding(record.with_name(f".{record.name}.lock")):
        there = recorded_hash(record, key)
        if there and there != sha256:
            raise TurntableError(f"{record} has the sha256 {there} for {key}, and what came has {sha256}.")
        if not there:
            before = record.read_text(encoding="utf-8") if record.is_file() else LOCK_HEAD
            table = {
                "sha256": sha256,
                "bytes": size,
                "address": shown(address),
                "first": time.strftime("%Y-%m-%d"),
            }
            lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in table.items()]
            write_text(record, f"{before}\n[{json.dumps(key)}]\n" + "\n".join(lines) + "\n")
