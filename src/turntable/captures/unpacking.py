"""Taking one folder out of an archive from the internet, which may be damaged or meant to do harm.

Only plain files are taken, only to below the folder that they are to go to, none over another, and never more than a
limit, whatever the archive says of itself. Links are refused. What lies outside of the folder that is wanted is passed over.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ..errors import TurntableError

MOST_FILES = 200_000

PIECE = 1 << 20

LARGEST_READ = 1 << 26
"""Nothing but a hostile header makes tarfile ask for more at once."""

_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    gzip.BadGzipFile,
)


_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
"""How a zip archive begins: with a file's header, or, where there is none, with its end. (APPNOTE 4.3)"""


class BadArchive(TurntableError):
    """The archive itself is damaged or hostile: nobody can unpack it, and it has to come anew."""


@dataclass(frozen=True)
class Unpacked:
    """How much came out of an archive."""

    files: int
    bytes: int


@dataclass
class _Budget:
    """What may still come out."""

    most: int
    bytes: int = 0
    files: int = 0

    def take(self, count: int) -> None:
        self.bytes += count
        if self.bytes > self.most:
            raise TurntableError(
                f"it unfolds to more than {self.most / 1e6:.0f} MB; if that is right, say so by `unpacked` in the catalogue"
            )

    def file(self) -> None:
        self.files += 1
        if self.files > MOST_FILES:
            raise TurntableError(f"it holds more than {MOST_FILES} files")


Report = Callable[[int, int], None]


def unpack(archive: Path, inside: str, into: Path, most_bytes: int, report: Report) -> Unpacked:
    """Take the folder ``inside`` out of an archive.

    Args:
        archive: the file; zip, or tar, which may be packed by gzip, bzip2 or xz: its first bytes say which.
        inside: the folder, with ``/``; "" for all that there is.
        into: an empty folder that its content goes to.
        most_bytes: what may come out at most.
        report: told the files done and their total (0 where that isn't known).

    Raises:
        BadArchive: the archive is damaged or hostile; ``into`` holds what came before.
        TurntableError: it has no such folder, is larger than allowed, or the disk has no room.
    """
    take = _take_zip if _begin(archive).startswith(_ZIP) else _take_tar
    budget = _Budget(most_bytes)
    seen: set[str] = set()
    try:
        take(archive, inside, into, budget, seen, report)
    except TurntableError as error:
        raise type(error)(f"{archive.name} was not unpacked: {error}.") from None
    except _DAMAGED as error:
        raise _damaged(archive, error) from None
    except OSError as error:
        if error.errno is not None:  # the disk's; bz2 says so that its data are damaged
            raise
        raise _damaged(archive, error) from None
    if budget.files == 0:
        there = ", ".join(repr(name)[:80] for name in sorted(seen)[:10]) or "nothing"
        raise TurntableError(
            f"{archive.name} has no files in {inside or 'it'}; it holds {there}. Say by `inside` in the catalogue where "
            "they are."
        )
    return Unpacked(budget.files, budget.bytes)


def _damaged(archive: Path, error: Exception) -> BadArchive:
    return BadArchive(f"{archive.name} is damaged, or no zip or tar archive ({error}).")


def _take_zip(
    archive: Path, inside: str, into: Path, budget: _Budget, seen: set[str], report: Report
) -> None:
    with zipfile.ZipFile(archive) as opened:
        wanted = []
        for member in opened.infolist():
            way = _way(member.filename, inside, seen)
            if way is None or member.is_dir():
                continue
            mode = member.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise BadArchive(f"{member.filename!r} is a link or something else than a file")
            if member.flag_bits & 1:
                raise BadArchive(f"{member.filename!r} is encrypted")
            wanted.append((member, way))
        _check_room(into, sum(member.file_size for member, _ in wanted), budget)
        for done, (member, way) in enumerate(wanted, 1):
            with opened.open(member) as source:
                _write(source, into, way, budget)
            report(done, len(wanted))


def _take_tar(
    archive: Path, inside: str, into: Path, budget: _Budget, seen: set[str], report: Report
) -> None:
    passed_over = _Budget(max(budget.most, archive.stat().st_size * 20))
    with _decompressed(archive) as stream:
        bounded = _Bounded(stream)
        _take_members(bounded, inside, into, budget, passed_over, seen, report)
        if not bounded.at_end():
            raise BadArchive("it was cut off: a tar archive ends with empty blocks, and this one doesn't")
        for piece in _pieces(stream):  # to the end of the packing, whose checksum stands there
            passed_over.take(len(piece))


def _take_members(
    bounded: _Bounded,
    inside: str,
    into: Path,
    budget: _Budget,
    passed_over: _Budget,
    seen: set[str],
    report: Report,
) -> None:
    with tarfile.open(fileobj=bounded, mode="r:") as opened:  # type: ignore[arg-type]
        while (member := opened.next()) is not None:
            passed_over.file()
            way = _way(member.name, inside, seen)
            if way is None or member.isdir():
                passed_over.take(member.size)
                continue
            if not member.isreg():
                raise BadArchive(f"{member.name!r} is a link or something else than a file")
            source = opened.extractfile(member)
            assert source is not None, "tarfile has a file for every regular member"
            _check_room(into, member.size, budget)
            with source:
                _write(source, into, way, budget)
            report(budget.files, 0)
            opened.members = []  # type: ignore[assignment]  # else it remembers every one of them


def _begin(archive: Path) -> bytes:
    with archive.open("rb") as file:
        return file.read(6)


def _decompressed(archive: Path) -> Any:
    begin = _begin(archive)
    if begin.startswith(b"\x1f\x8b"):
        return gzip.open(archive, "rb")
    if begin.startswith(b"BZh"):
        return bz2.open(archive, "rb")
    if begin == b"\xfd7zXZ\x00":
        return lzma.open(archive, "rb")
    return archive.open("rb")


class _Bounded:
    """A file that is never asked for a lot at once: a header may claim to be gigabytes long, and tarfile believes it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._last = b""

    def read(self, count: int = -1) -> bytes:
        if not 0 <= count <= LARGEST_READ:
            raise BadArchive("it has a header that is too large")
        self._last = self._file.read(count)
        return self._last

    def at_end(self) -> bool:
        """Whether what was read last is the empty block that stands at an archive's end, and not the end of the file."""
        return len(self._last) == tarfile.BLOCKSIZE and not any(self._last)

    def seek(self, place: int) -> int:
        return self._file.seek(place)

    def tell(self) -> int:
        return self._file.tell()


def _way(name: str, inside: str, seen: set[str]) -> tuple[str, ...] | None:
    """Where a member goes below the target; None for what isn't wanted.

    Raises:
        TurntableError: it would go elsewhere.
    """
    parts = PurePosixPath(name).parts
    if parts:
        seen.add(parts[0] if parts[0] != "/" else name)
    wanted = PurePosixPath(inside).parts
    if parts[: len(wanted)] != wanted or _is_litter(parts):
        return None
    way = parts[len(wanted) :]
    if (
        name.startswith("/")
        or "\\" in name
        or "\0" in name
        or ".." in parts
        or any(":" in part for part in way)
    ):
        raise BadArchive(f"{name!r} would not stay in its folder")
    return way or None


def _is_litter(parts: tuple[str, ...]) -> bool:
    """What macOS puts into archives beside the files."""
    return "__MACOSX" in parts or any(part.startswith("._") or part == ".DS_Store" for part in parts[-1:])


def _write(source: IO[bytes], into: Path, way: tuple[str, ...], budget: _Budget) -> None:
    budget.file()
    target = into.joinpath(*way)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            for piece in _pieces(source):
                budget.take(len(piece))
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
    except (FileExistsError, NotADirectoryError):
        raise BadArchive(f"{'/'.join(way)!r} stands in it twice") from None
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise TurntableError(f"{max(way, key=len)[:60]!r}… is too long a name for this disk") from None


def _pieces(source: IO[bytes]) -> Iterator[bytes]:
    while piece := source.read(PIECE):
        yield piece


def _check_room(folder: Path, wanted: int, budget: _Budget) -> None:
    if budget.bytes + wanted > budget.most:
        budget.take(wanted)
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise TurntableError(
            f"it needs {wanted / 1e9:.2f} GB, and {folder.parent} has {free / 1e9:.2f} GB free"
        )
