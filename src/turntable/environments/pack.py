"""Packs: everything that a bench needs, in one file or folder that another machine can take without a network.

A pack is a manifest and blobs. The manifest lists every file: where it belongs, its size, its sha256, whether it can be
executed. A blob is the content of one or more files, named by that sha256 and stored once, compressed by zstd where that
saves anything. As a file, a pack is an uncompressed tar whose first member is the manifest; as a folder, it has the same
members as files. There are no links, no owners and no times in it.

The sha256 of the manifest stands for all that is in the pack: whoever is told it by another way than the pack can be sure.

Environments are not packed but what they are made from: wheels and interpreters from the store; the other machine builds
them anew, from these files alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from tempfile import TemporaryFile
from typing import IO, Any

import zstandard

from ..errors import TurntableError, unknown_name
from ..files import sha256_of
from .wheels import BUILT_FROM

FORMAT = 1
MANIFEST = "manifest.json"
BLOBS = "blobs"
LEVEL = 3
"""Wheels and photos are compressed already; what is left is little, and 3 is as fast as the disk."""

PARTS = ("captures", "methods", "runs", "reports", "environments", "weights")
"""What ``--only`` and ``--without`` name."""

ALREADY_SMALL = frozenset(
    {".whl", ".png", ".jpg", ".jpeg", ".webp", ".zip", ".gz", ".xz", ".zst", ".mp4", ".npz", ".spz"}
)
"""Kinds of files that compress no further: not tried."""

LARGEST_MANIFEST = 256 << 20
LARGE = 4 << 20
WORTH_IT = 0.95


@dataclass(frozen=True)
class Entry:
    """A file of a bench.

    Args:
        path: inside of the bench, with ``/``.
        sha256: of its content.
        size: in bytes.
        executable: whether it is a program.
    """

    path: str
    sha256: str
    size: int
    executable: bool = False


@dataclass(frozen=True)
class Manifest:
    """What is in a pack.

    Args:
        files: all of them.
        environments: by method, what its environment is made from.
        made_on: the kind of machine, ``linux-x86_64``.
    """

    files: tuple[Entry, ...]
    environments: dict[str, dict[str, Any]]
    made_on: str

    def encode(self) -> bytes:
        """As it is stored: the same bytes for the same content."""
        document = {
            "format": FORMAT,
            "program": "turntable",
            "made_on": self.made_on,
            "environments": self.environments,
            "files": [
                {"path": file.path, "sha256": file.sha256, "size": file.size, "executable": file.executable}
                for file in self.files
            ],
        }
        return (json.dumps(document, indent=0, sort_keys=True, ensure_ascii=False) + "\n").encode()

    @classmethod
    def decode(cls, data: bytes, where: str) -> Manifest:
        """What :meth:`encode` wrote.

        Raises:
            TurntableError: it is damaged, of another format, or names a file that has no place in a bench.
        """
        try:
            document = json.loads(data)
            if document["format"] != FORMAT:
                raise TurntableError(
                    f"{where} is of format {document['format']!r}; this version of Turntable unpacks format {FORMAT}."
                )
            files = tuple(
                Entry(str(f["path"]), str(f["sha256"]), int(f["size"]), bool(f["executable"]))
                for f in document["files"]
            )
            manifest = cls(files, dict(document["environments"]), str(document["made_on"]))
            if not all(isinstance(one, dict) for one in manifest.environments.values()):
                raise TypeError("an environment that is no table")
            "".join(file.path for file in files).encode()  # halves of characters are refused here
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise TurntableError(
                f"{where} is no pack, or damaged: its manifest can't be read ({error!r})."
            ) from None
        for file in files:
            check_entry(file, where)
        if len({file.path.casefold() for file in files}) != len(files):
            raise TurntableError(f"{where} names a file twice, or two that differ by capitals only.")
        folders = {str(parent).casefold() for file in files for parent in PurePosixPath(file.path).parents}
        for file in files:
            if file.path.casefold() in folders:
                raise TurntableError(f"{where} names {file.path!r} as a file and as a folder.")
        return manifest


def check_entry(file: Entry, where: str) -> None:
    """Refuse a file that would lie outside of its bench, or in the way of it.

    Raises:
        TurntableError: which, and why.
    """
    parts = PurePosixPath(file.path).parts
    known = {"bench.toml", *PARTS, "store"} - {"environments", "weights"}
    bad = (
        not parts
        or file.path != "/".join(parts)
        or file.path.startswith("/")
        or any(part in (".", "..") or "\0" in part or "\\" in part for part in parts)
        or parts[0] not in known
        or (len(parts) == 1) != (parts[0] == "bench.toml")
        or (parts[0] == "store" and not _belongs_into_store(parts[1:], file.sha256))
    )
    if bad:
        raise TurntableError(
            f"{where} has a file that belongs into no bench: {file.path!r}. Nothing was unpacked."
        )
    if len(file.sha256) != 64 or set(file.sha256) - set("0123456789abcdef") or file.size < 0:
        raise TurntableError(f"{where} has no valid sha256 or size for {file.path!r}. Nothing was unpacked.")


def _belongs_into_store(parts: tuple[str, ...], sha256: str) -> bool:
    """Whether a store takes a file: a wheel under its own sha256, the note of what it was built from, an interpreter's, an
    image."""
    match parts:
        case ("wheels", folder, name) if name.endswith(".whl"):
            return folder == sha256
        case ("wheels", folder, name):
            return len(folder) == 64 and name == BUILT_FROM
        case ("interpreters", _, _, *_):
            return True
        case ("images", folder, name):
            return len(folder) == 16 and name == "image.tar"
        case _:
            return parts[:1] == ("weights",) and len(parts) > 1


def list_files(
    bench: Path, parts: Iterable[str], store: Iterable[str], say: Callable[[str], None]
) -> list[Entry]:
    """The files of a bench that are packed, hashed.

    Args:
        bench: its folder.
        parts: those of :data:`PARTS` that are wanted.
        store: folders in the store that are wanted: ``wheels/<sha256>`` …
        say: told of what is left out.
    """
    folders = [bench / part for part in parts if part in ("captures", "methods", "runs", "reports")]
    folders += [bench / "store" / name for name in store]
    paths = [bench / "bench.toml"] if (bench / "bench.toml").is_file() else []
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            relative = path.relative_to(bench)
            if not _is_packed(relative.parts):
                continue
            if path.is_symlink():
                say(f"{relative} is a link; it is not packed")
            elif path.is_file():
                paths.append(path)
    entries = []
    for path in paths:
        mode = path.stat().st_mode
        relative = path.relative_to(bench).as_posix()
        entries.append(Entry(relative, sha256_of(path), path.stat().st_size, bool(mode & stat.S_IXUSR)))
    return entries


def _is_packed(parts: tuple[str, ...]) -> bool:
    """Whether a file of a bench is packed: not what is half written, locks, or what Python makes again."""
    if "__pycache__" in parts or ".git" in parts or parts[1].startswith("."):
        return False
    if parts[0] == "methods":  # what its fingerprint counts must come along
        return True
    return not any(part.startswith(".") for part in parts) and parts[2:] not in (
        ("lock",),
        ("supervisor.lock",),
    )


def chosen_parts(only: Iterable[str], without: Iterable[str]) -> list[str]:
    """The parts that ``--only`` and ``--without`` leave.

    Raises:
        TurntableError: there is no such part.
    """
    only, without = tuple(only), tuple(without)
    for name in (*only, *without):
        if name not in PARTS:
            raise unknown_name("part of a bench", name, PARTS)
    return [part for part in PARTS if (not only or part in only) and part not in without]


class Writer:
    """Writes a pack, as a file (aside first) or into a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.is_folder = target.is_dir()
        self.written_bytes = 0
        self.blobs = 0

    def write(
        self, bench: Path, manifest: Manifest, there: set[str], step: Callable[[int, int], None]
    ) -> str:
        """Write the pack; the sha256 of its manifest.

        Args:
            bench: where the files are.
            manifest: what is to be in it.
            there: the sha256 of blobs that the other side has already.
            step: told how many of how many bytes have been read.

        Raises:
            TurntableError: a file has changed meanwhile.
            OSError: the disk is full, or can't be written; nothing is left behind.
        """
        data = manifest.encode()
        total, done = sum(file.size for file in manifest.files), 0
        with self._open() as put:
            put(MANIFEST, BytesIO(data))
            seen = set(there) | self._there()
            for file in manifest.files:
                if file.sha256 not in seen:
                    seen.add(file.sha256)
                    with open_blob(bench / file.path, file, self._scratch) as (name, blob):
                        put(f"{BLOBS}/{name}", blob)
                    self.blobs += 1
                done += file.size
                step(done, total)
        return hashlib.sha256(data).hexdigest()

    @contextmanager
    def _open(self) -> Iterator[Callable[[str, IO[bytes]], None]]:
        if self.is_folder:
            (self.target / BLOBS).mkdir(parents=True, exist_ok=True)
            manifests: list[IO[bytes]] = []

            def put(name: str, blob: IO[bytes]) -> None:
                if name == MANIFEST:
                    manifests.append(blob)  # last: a pack that has its manifest is whole
                elif not (self.target / name).exists():
                    self._copy_aside(blob, self.target / name)

            yield put
            for blob in manifests:
                self._copy_aside(blob, self.target / MANIFEST)
            return
        aside = self.target.with_name(f".{self.target.name}.{os.getpid()}.tmp")
        try:
            with (
                aside.open("wb") as file,
                tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar,
            ):

                def put_into(name: str, blob: IO[bytes]) -> None:
                    member = tarfile.TarInfo(name)
                    member.size = blob.seek(0, os.SEEK_END)
                    blob.seek(0)
                    tar.addfile(member, blob)
                    self.written_bytes += member.size

                yield put_into
                tar.close()
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self.target)
        finally:
            aside.unlink(missing_ok=True)

    def _there(self) -> set[str]:
        """The sha256 of the blobs that the folder has already."""
        return (
            {path.name.partition(".")[0] for path in (self.target / BLOBS).glob("*")}
            if self.is_folder
            else set()
        )

    @property
    def _scratch(self) -> Path:
        return self.target if self.is_folder else self.target.parent

    def _copy_aside(self, blob: IO[bytes], path: Path) -> None:
        aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with aside.open("wb") as file:
                shutil.copyfileobj(blob, file, 1 << 20)
                self.written_bytes += file.tell()
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)


@contextmanager
def open_blob(path: Path, file: Entry, scratch: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """A file's content as a blob: its name, and the open blob.

    Args:
        path: the file.
        file: what the manifest says of it.
        scratch: a folder for what is compressed; nothing is left there.

    Raises:
        TurntableError: the file isn't what the manifest says any more.
    """
    digest = hashlib.sha256()
    compressing = path.suffix.lower() not in ALREADY_SMALL
    with path.open("rb") as raw, TemporaryFile(dir=scratch) as small:
        threads = -1 if file.size > LARGE else 0
        with zstandard.ZstdCompressor(level=LEVEL, threads=threads).stream_writer(
            small, closefd=False
        ) as writer:
            while piece := raw.read(1 << 20):
                digest.update(piece)
                if compressing:
                    writer.write(piece)
        if digest.hexdigest() != file.sha256:
            raise TurntableError(
                f"{path} was changed while it was packed. Pack again when nothing writes to the bench."
            )
        if compressing and small.tell() < WORTH_IT * file.size:
            small.seek(0)
            yield f"{file.sha256}.zst", small
        else:
            raw.seek(0)
            yield file.sha256, raw


class Reader:
    """Reads a pack, file or folder; believes nothing of it."""

    def __init__(self, source: Path) -> None:
        """Open it and read its manifest.

        Raises:
            TurntableError: there is none, or it isn't a pack.
        """
        self.source = source
        self._tar: tarfile.TarFile | None = None
        if source.is_dir():
            path = source / MANIFEST
            if not path.is_file() or path.is_symlink():
                raise TurntableError(f"{source} is no pack: it has no {MANIFEST}.")
            if path.stat().st_size > LARGEST_MANIFEST:
                raise TurntableError(f"{source} is no pack: its manifest is too large.")
            data = path.read_bytes()
        elif source.is_file():
            data = self._open_tar(source)
        else:
            raise TurntableError(f"There is no pack at {source}.")
        self.sha256 = hashlib.sha256(data).hexdigest()
        self.manifest = Manifest.decode(data, str(source))

    def _open_tar(self, source: Path) -> bytes:
        try:
            self._tar = tarfile.open(source, "r:")  # noqa: SIM115  # uncompressed alone: no bomb hides in the outer layer
            first = self._tar.next()
            if first is None or first.name != MANIFEST or not first.isreg() or first.size > LARGEST_MANIFEST:
                raise TurntableError(f"{source} is no pack: it doesn't begin with a {MANIFEST}.")
            file = self._tar.extractfile(first)
            assert file is not None
            return file.read()
        except (tarfile.TarError, OSError, EOFError) as error:
            raise TurntableError(f"{source} is no pack, or damaged ({error}).") from None

    def names(self) -> set[str]:
        """The sha256 of the blobs that are in it."""
        return {name.partition(".")[0] for name, _ in self._members()}

    def _members(self) -> Iterator[tuple[str, tarfile.TarInfo | Path]]:
        """Name and place of every blob; whatever else is there is passed over."""
        if self._tar is None:
            for path in sorted((self.source / BLOBS).glob("*")):
                if path.is_file() and not path.is_symlink():
                    yield path.name, path
            return
        try:
            while (member := self._tar.next()) is not None:
                folder, _, name = member.name.partition("/")
                if folder == BLOBS and member.isreg():
                    yield name, member
        except (tarfile.TarError, OSError, EOFError) as error:
            raise TurntableError(f"{self.source} is damaged ({error}).") from None

    def blobs(self, wanted: dict[str, int], put: Callable[[str, Iterator[bytes]], None]) -> None:
        """Pass on the content of the blobs that are wanted, each checked.

        Args:
            wanted: by sha256, the size in bytes that its content must have.
            put: gets a sha256 and its content, in pieces; the last one comes only if all of it was right.

        Raises:
            TurntableError: a blob isn't what its name says.
        """
        for name, place in self._members():
            sha256, _, kind = name.partition(".")
            if sha256 in wanted and kind in ("", "zst"):
                with self._raw(place) as raw:
                    put(sha256, checked(raw, sha256, kind, wanted[sha256], str(self.source)))

    @contextmanager
    def _raw(self, place: tarfile.TarInfo | Path) -> Iterator[IO[bytes]]:
        if isinstance(place, Path):
            with place.open("rb") as file:
                yield file
            return
        assert self._tar is not None
        file = self._tar.extractfile(place)
        assert file is not None
        yield file

    def close(self) -> None:
        """Let go of the file."""
        if self._tar is not None:
            self._tar.close()


def checked(raw: IO[bytes], sha256: str, kind: str, size: int, where: str) -> Iterator[bytes]:
    """The content of a blob in pieces; never more than ``size`` bytes, whatever it claims to unfold to.

    Raises:
        TurntableError: it has another size, or another sha256.
    """
    digest, left = hashlib.sha256(), size
    try:
        reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(raw) if kind else raw
        while piece := reader.read(1 << 20):
            left -= len(piece)
            if left < 0:
                raise TurntableError(
                    f"{where} is damaged or hostile: blob {sha256[:12]} is larger than {size} bytes."
                )
            digest.update(piece)
            yield piece
    except (zstandard.ZstdError, tarfile.TarError) as error:
        raise TurntableError(f"{where} is damaged: blob {sha256[:12]} can't be read ({error}).") from None
    if left or digest.hexdigest() != sha256:
        raise TurntableError(f"{where} is damaged or hostile: blob {sha256[:12]} isn't what its name says.")
