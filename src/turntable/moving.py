"""Moving a bench: packing it on one machine, and unpacking it on another that has no network."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .bench import Bench
from .environments import build, hash_of, images_of, is_idle, users_of
from .environments.images import IMAGES, Image, all_images
from .environments.pack import (
    Entry,
    Manifest,
    Reader,
    Writer,
    checked,
    chosen_parts,
    list_files,
)
from .environments.recipe import platform_name
from .errors import TurntableError, disk_error
from .files import sha256_of
from .settings import BENCH_TOML
from .turns.watcher import Watcher

NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
"""What file systems without hard links say."""


@dataclass(frozen=True)
class Packed:
    """What came of packing.

    Args:
        path: the pack.
        sha256: of its manifest: it stands for all that is in the pack.
        files: how many files it has.
        blobs: how many contents were written: the others were there already.
        size_bytes: what was written.
        seconds: what it took.
    """

    path: Path
    sha256: str
    files: int
    blobs: int
    size_bytes: int
    seconds: float


@dataclass(frozen=True)
class Unpacked:
    """What came of unpacking.

    Args:
        bench: the bench.
        sha256: of the pack's manifest.
        files: how many files are new.
        kept: how many were there already.
        environments: by method, the hash of its environment.
        cannot: a line for every method that can't run here, and why.
        seconds: what it took.
    """

    bench: Path
    sha256: str
    files: int
    kept: int
    environments: dict[str, str] = field(default_factory=dict)
    cannot: list[str] = field(default_factory=list)
    seconds: float = 0.0


def pack(
    bench: Bench,
    target: Path,
    watcher: Watcher,
    only: Sequence[str] = (),
    without: Sequence[str] = (),
    since: Path | None = None,
) -> Packed:
    """Write everything that a bench needs into one file, or into a folder (one that exists, or ends in ``/``).

    Args:
        bench: which.
        target: where to; a file that exists isn't overwritten.
        watcher: told how it goes.
        only: the parts that are wanted; all if empty.
        without: parts that aren't.
        since: an earlier pack, which the other side has: what is in it is left out.

    Raises:
        TurntableError: a wrong part, a missing file of an environment, a run that is going on, or a full disk.
    """
    began = time.monotonic()
    if not bench.exists:
        raise TurntableError(f"There is no bench in {bench.folder} to pack.")
    writer = Writer(target)
    if target.exists() and not target.is_dir():
        raise TurntableError(f"{target} is there already; packs are never overwritten. Choose another name.")
    parts = chosen_parts(only, without)
    running = [row.id for row in bench.record.runs(unended=True) if row.state.value == "running"]
    if running and "runs" in parts:
        raise TurntableError(
            f"A bench is packed while nothing is written to it, but {', '.join(running[:3])} runs. "
            "Pause it, or leave the runs out (--without runs)."
        )
    environments, store = _environments(bench, parts, watcher.note)
    watcher.job_progress("hashing", 0, 0)
    try:
        files = list_files(bench.folder, parts, store, watcher.note)
        there = _names_in(since)
        manifest = Manifest(tuple(files), environments, platform_name())
        sha256 = writer.write(
            bench.folder,
            manifest,
            there,
            lambda done, total: watcher.job_progress("packing", done, total),
        )
    except OSError as error:
        raise disk_error(error, str(target)) from error
    return Packed(
        target, sha256, len(files), writer.blobs, writer.written_bytes, round(time.monotonic() - began, 2)
    )


def _environments(
    bench: Bench, parts: Sequence[str], say: Callable[[str], None]
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """By method, what its environment is made from; and the folders of the store that this takes."""
    found: dict[str, dict[str, Any]] = {}
    store: list[str] = []
    if "environments" in parts:
        users = users_of(bench)
        made = {name for image in all_images(bench.folder) for name in users.get(image.hash, ())}
        for name, method in bench.methods().items():
            if method.environment["kind"] == "host" or is_idle(bench, method):
                continue  # an idle one has every Turntable, and nobody wanted it here
            in_image = method.environment["kind"] == "container"
            try:
                # Nobody has said of a Dockerfile that was never built that it may be run.
                environment = build(bench, method, say, from_sources=not in_image)
            except TurntableError as error:
                if not in_image or name in made:
                    raise
                say(f"{name} is packed without its image. {error}")
                continue
            document = environment.document
            found[name] = {key: document[key] for key in ("hash", "platform", "python")}
            if isinstance(environment, Image):
                images_of(bench).archive(environment, say)
                store.append(f"{IMAGES}/{environment.hash}")
            else:
                store += [f"wheels/{package['sha256']}" for package in document["packages"]]
                store.append(f"interpreters/{document['interpreter']}")
    if "weights" in parts:
        store.append("weights")
    return found, sorted(set(store))


def _names_in(pack: Path | None) -> set[str]:
    if pack is None:
        return set()
    reader = Reader(pack)
    try:
        return {file.sha256 for file in reader.manifest.files} | reader.names()
    finally:
        reader.close()


def unpack(
    source: Path,
    bench: Bench,
    watcher: Watcher,
    expected: str | None = None,
    others: Sequence[Path] = (),
    build_environments: bool = True,
    trust_settings: bool = False,
) -> Unpacked:
    """Make a bench of a pack, or add a pack to one. Nothing that is there is changed; no network is needed.

    Every file is written aside and checked against its sha256; only when all are there and right are they moved into
    the bench.

    Args:
        source: the pack.
        bench: where to.
        watcher: told how it goes.
        expected: the sha256 that the manifest must have.
        others: earlier packs, for what an incremental one left out.
        build_environments: build the environments of the methods at once.
        trust_settings: take the pack's ``bench.toml``, which may let methods read more of this machine, and have packages
            taken from elsewhere; else the bench has its own.

    Raises:
        TurntableError: the pack is damaged, hostile or not whole, or a file of the bench is another one.
    """
    began = time.monotonic()
    readers = [Reader(source)]
    try:
        reader = readers[0]
        if expected is not None and reader.sha256 != expected.lower():
            raise TurntableError(
                f"{source} isn't the pack that was meant: its manifest's sha256 is {reader.sha256}, not {expected}."
            )
        readers += [Reader(other) for other in others]
        try:
            new, kept = _take_in(readers, bench.folder, watcher, trust_settings)
        except OSError as error:
            raise disk_error(error, f"the bench {bench.folder}") from error
    finally:
        for one in readers:
            one.close()
    bench.make()
    bench.rebuild_record()
    made: dict[str, str] = {}
    cannot: list[str] = []
    if build_environments:
        made, cannot = _build(bench, reader.manifest, watcher)
    seconds = round(time.monotonic() - began, 2)
    return Unpacked(bench.folder, reader.sha256, new, kept, made, cannot, seconds)


def _take_in(
    readers: Sequence[Reader], folder: Path, watcher: Watcher, trust_settings: bool
) -> tuple[int, int]:
    """Bring the files of the first reader's manifest into a folder; how many are new, and how many were there."""
    manifest, where = readers[0].manifest, str(readers[0].source)
    new: list[Entry] = []
    there: dict[str, Path] = {}
    kept = 0
    for file in manifest.files:
        path = folder / file.path
        if file.path == "bench.toml" and not trust_settings:
            if file.sha256 != hashlib.sha256(BENCH_TOML.encode()).hexdigest():
                watcher.note(
                    "The pack's bench.toml is not taken: it may let methods read more of this machine (--trust-settings)."
                )
            continue
        _check_way(folder, path)
        if not path.exists():
            new.append(file)
        elif path.stat().st_size == file.size and sha256_of(path) == file.sha256:
            there[file.sha256] = path
            kept += 1
        else:
            raise TurntableError(
                f"{path} is there already and is another file than the pack's. Nothing is overwritten: unpack into another "
                "--bench."
            )
    total = sum(file.size for file in new)
    _check_room(folder, total)
    aside = folder / f".unpacking.{os.getpid()}"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        sizes = {file.sha256: file.size for file in new}
        done = [0]

        def put(sha256: str, pieces: Iterator[bytes]) -> None:
            half = aside / f"{sha256}.half"
            with half.open("xb") as out:
                for piece in pieces:
                    out.write(piece)
                    done[0] += len(piece)
                    watcher.job_progress("unpacking", min(done[0], total), total)
            half.replace(aside / sha256)
            del sizes[sha256]

        for sha256 in [sha256 for sha256 in sizes if sha256 in there]:
            with there[sha256].open("rb") as file:
                put(sha256, checked(file, sha256, "", sizes[sha256], where))
        for reader in readers:
            if sizes:
                reader.blobs(sizes, put)
        if sizes:
            missing = [file.path for file in new if file.sha256 in sizes]
            raise TurntableError(
                f"{where} isn't whole: {len(missing)} files are missing, {missing[0]} among them. If it was packed with "
                "--since, name that pack too (--with)."
            )
        _place(new, aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return len(new), kept


def _place(new: Sequence[Entry], aside: Path, folder: Path) -> None:
    """Move checked files to their places: the last use of a content takes it away, others are copies of their own."""
    left: dict[str, int] = {}
    for file in new:
        left[file.sha256] = left.get(file.sha256, 0) + 1
    # What tells what there is comes last: whoever looks meanwhile sees nothing that isn't whole.
    for file in sorted(
        new, key=lambda file: file.path.rpartition("/")[2] in ("capture.json", "run.json", "method.toml")
    ):
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_way(folder, path)
        left[file.sha256] -= 1
        content = aside / file.sha256
        if left[file.sha256]:
            shutil.copyfile(content, copy := aside / f"{file.sha256}.copy")
            content = copy
        content.chmod(0o755 if file.executable else 0o644)
        try:
            os.link(content, path)  # unlike a rename it never takes another file's place
        except OSError as error:
            if error.errno not in NO_LINKS or path.exists():
                raise
            content.rename(path)
        else:
            content.unlink()


def _check_way(folder: Path, path: Path) -> None:
    """Refuse to go through a link.

    Raises:
        TurntableError: one is on the way from ``folder`` to ``path``.
    """
    for place in (path, *path.parents):
        if place == folder:
            return
        if place.is_symlink():
            raise TurntableError(
                f"{place} is a link, and unpacking follows none. Nothing was unpacked through it."
            )


def _check_room(folder: Path, size: int) -> None:
    place = folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if size > free:
        raise TurntableError(f"The pack needs {size / 1e9:.1f} GB, and {place} has {free / 1e9:.1f} GB free.")


def _build(bench: Bench, manifest: Manifest, watcher: Watcher) -> tuple[dict[str, str], list[str]]:
    """Build the environments of a pack; what can't be built is said, and doesn't stop the rest."""
    made: dict[str, str] = {}
    cannot: list[str] = []
    methods = bench.methods()
    for name, asked in manifest.environments.items():
        if name not in methods:
            continue
        try:
            if asked.get("platform") != platform_name():
                raise TurntableError(
                    f"it was packed on {asked.get('platform')}, and this is {platform_name()}: its files don't run here. "
                    f"turntable env build {name} gets others, where there is a network."
                )
            if (hash := hash_of(bench, methods[name])) != asked.get("hash"):
                raise TurntableError(
                    f"its recipe has the hash {hash}, not {asked.get('hash')} as in the pack."
                )
            made[name] = build(bench, methods[name], watcher.note, from_sources=False).hash
        except TurntableError as error:
            cannot.append(f"{name} can't run here: {error}")
    return made, cannot
