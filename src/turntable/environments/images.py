"""Environments of kind ``container``: images, named by a digest or built from a Dockerfile beside ``method.toml``.

An image lies with the container engine, not in the bench; ``environments/<hash of its recipe>/image.json`` says which one
it is, and a tag of this bench's own keeps the engine from tidying it away. The recipe is the digest, or the bytes of the
Dockerfile and of the files that it may copy (``context`` under ``[environment]``): what else lies in the method's folder is
mounted when it runs, so that changing the method's code builds nothing anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import posixpath
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from ..errors import TurntableError, disk_error, unknown_name
from ..files import holding, read_json, sha256_of, write_json, write_text
from .container import Allowance, confined, run_alone
from .engine import LABEL, Engine
from .environment import all_of_it, alone, remove_tree
from .recipe import platform_name
from .uv import words_of

FORMAT = 1
"""Counts the changes of how images are built, so that one built otherwise isn't taken for it."""

NOTE = "image.json"
DOCKERFILE = "Dockerfile"
KEYS = ("kind", "image", "python", "context", "network")
IMAGES, ARCHIVE = "images", "image.tar"
"""The folder of the store, and the file in it, of an image that came with a pack or goes into one."""

LISTS = ("manifest.json", "repositories", "index.json")
"""What in an archive names images, for one engine or another."""

NAMES_IN_INDEX = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
LARGEST_LIST = 1 << 20
COMPRESSED = (
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ\0",
    b"\x28\xb5\x2f\xfd",
    *(bytes([0x50 + n]) + b"\x2a\x4d\x18" for n in range(16)),
)
"""How what engines expand begins: gzip, bzip2, xz, zstd (which may begin with a frame to skip)."""

LONGEST_MAGIC = 6
PLAIN_TYPES = (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE)
HARMLESS = frozenset({"size", "mtime", "atime", "ctime", "uid", "gid", "uname", "gname"})
"""Longer headers that an archive's member may have: none that names it."""

NOT_CONTEXT = frozenset({"__pycache__", ".git"})
OLDEST_PYTHON = (3, 8)

LOOK_ALLOWANCE = Allowance(memory_bytes=4 << 30, processes=4096)
"""What an image's Python may have to say which one it is. NumPy starts a thread for every core."""

LONGEST_LOOK_S = 600.0
"""A rootless engine may have to give every file of the image another owner first."""

MOST_SAID = 1 << 16
POLL_S = 0.05

_BY_DIGEST = re.compile(r"(?P<registry>[^/]+)/(?P<path>[a-z0-9._/-]+)(?::[\w.-]+)?@sha256:[0-9a-f]{64}")

_LOOK = (
    "import ctypes, json, sys, numpy;"
    "print(json.dumps({'version': list(sys.version_info[:3]), 'numpy': numpy.__version__}))"
)


@dataclass(frozen=True)
class ImageRecipe:
    """What an environment of kind ``container`` is made from.

    Args:
        folder: the method's.
        python: the image's Python that the worker runs on: a name, or a path inside.
        image: an image by its digest; "" where there is a Dockerfile.
        files: path and content, as a sha256, of the Dockerfile and of each file that it may copy; () where there is an
            image.
    """

    folder: Path
    python: str
    image: str = ""
    files: tuple[tuple[str, str], ...] = ()

    @property
    def hash(self) -> str:
        """The environment's name: 16 hexadecimal digits."""
        lines = [f"turntable image {FORMAT}", platform_name(), f"python {self.python}", f"image {self.image}"]
        lines += [f"{path}\0{content}" for path, content in self.files]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Image:
    """An image that a method lives in.

    Args:
        folder: where its note lies.
        document: what ``image.json`` says: ``id``, ``engine``, ``tag``, ``python``, ``numpy``, ``bytes`` …
    """

    folder: Path
    document: dict[str, Any]

    @property
    def hash(self) -> str:
        """Its name: the hash of its recipe."""
        return self.folder.name


def read_image_recipe(folder: Path, environment: dict[str, Any]) -> ImageRecipe:
    """Read the recipe of an image.

    Args:
        folder: the method's.
        environment: ``[environment]`` of its ``method.toml``.

    Raises:
        TurntableError: neither an image nor a Dockerfile, both, an image without its digest, or a file that isn't there.
    """
    path = folder / "method.toml"
    for key in environment:
        if key not in KEYS:
            raise unknown_name(f"key of [environment] in {path}:", key, KEYS)
    python = environment.get("python", "python3")
    if not isinstance(python, str) or not python or any(character.isspace() for character in python):
        raise TurntableError(
            f"{path}: environment.python is the name or path of a Python in the image, not {python!r}."
        )
    image, has_dockerfile = environment.get("image"), (folder / DOCKERFILE).is_file()
    if image is None and not has_dockerfile:
        raise TurntableError(
            f"{path}: an environment of kind 'container' needs image = \"…@sha256:…\", or a {DOCKERFILE} beside method.toml."
        )
    if (folder / DOCKERFILE).is_symlink():
        raise TurntableError(
            f"{folder / DOCKERFILE} is a link: what it leads to changes without the method. Put the file itself there."
        )
    if image is None:
        return ImageRecipe(folder, python, files=tuple(_files(folder, environment.get("context", []))))
    if has_dockerfile or "context" in environment:
        there = f"a {DOCKERFILE}" if has_dockerfile else "context"
        raise TurntableError(
            f"{path}: there is an image and {there}; a method lives in one of them. Take one away."
        )
    return ImageRecipe(folder, python, _by_digest(path, image))


def _by_digest(path: Path, image: Any) -> str:
    found = _BY_DIGEST.fullmatch(image) if isinstance(image, str) else None
    if found is None:
        raise TurntableError(
            f"{path}: environment.image names an image by its digest, docker.io/name@sha256:…, not {image!r}: what a tag "
            f"stands for changes. turntable env lock {path.parent} finds the digest of a tag."
        )
    registry = found["registry"]
    if registry != "localhost" and not set(".:") & set(registry):
        raise TurntableError(
            f"{path}: environment.image begins with a registry, since engines look in different ones: "
            f"docker.io/{image}, for instance."
        )
    return str(image)


def _files(folder: Path, context: Any) -> Iterator[tuple[str, str]]:
    """Path and content of the Dockerfile and of what it may copy, in order of the paths.

    Raises:
        TurntableError: ``context`` isn't a list of files and folders inside of ``folder``.
    """
    path = folder / "method.toml"
    if not isinstance(context, list) or not all(isinstance(name, str) for name in context):
        raise TurntableError(
            f"{path}: environment.context must be a list of files and folders, not {context!r}."
        )
    found = {folder / DOCKERFILE}
    for name in context:
        place = folder / name
        inside = place.resolve().is_relative_to(folder.resolve())
        if not inside or ".." in PurePosixPath(name).parts or not place.exists():
            raise TurntableError(
                f"{path}: environment.context names what lies in the method's folder, and {name!r} doesn't."
            )
        found |= {place} if place.is_file() else {one for one in place.rglob("*") if is_content(one)}
    for one in sorted(found):
        relative = one.relative_to(folder)
        if not NOT_CONTEXT & set(relative.parts) and one.suffix != ".pyc":
            yield relative.as_posix(), _content(one)


def is_content(path: Path) -> bool:
    """Whether a path is something that a Dockerfile can copy by itself: a file, or a link, wherever that leads."""
    return path.is_symlink() or path.is_file()


def _content(path: Path) -> str:
    """A text that stands for a file, and whether it can be executed, or for a link: copied, it stays one."""
    if path.is_symlink():
        return f"link {path.readlink()}"
    return sha256_of(path) + (" executable" if path.stat().st_mode & 0o100 else "")


class Images:
    """The images that the methods of a bench live in, with one engine."""

    def __init__(self, bench: Path, engine: Engine) -> None:
        """Those of a bench's folder."""
        self.folder = bench / "environments"
        self.store = bench / "store"
        self.engine = engine

    def find(self, recipe: ImageRecipe) -> Image | None:
        """The image of a recipe, if the engine has it."""
        image = read_note(self.folder / recipe.hash)
        if image is None or image.document["engine"] != self.engine.name:
            return None
        return image if self.engine.inspect(image.document["id"]) is not None else None

    def build(self, recipe: ImageRecipe, say: Callable[[str], None], from_dockerfile: bool = True) -> Image:
        """Have the image of a recipe; two who want the same wait for each other.

        Args:
            recipe: what it is made from.
            say: told what is being done, a line each.
            from_dockerfile: whether it may be built, which runs what the Dockerfile says; else it is fetched only.

        Raises:
            TurntableError: it can't be had; a log is left at ``environments/<hash>.log``, and nothing else.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with alone(self.folder, f"Image {recipe.hash}", recipe.hash, say):
                if (found := self.find(recipe)) is not None:
                    return found
                packed = archive_of(self.store, recipe.hash).is_file()
                if not recipe.image and not from_dockerfile and not packed:
                    raise TurntableError(
                        f"The image of {recipe.folder.name} has to be built, which runs what its {DOCKERFILE} says: "
                        f"turntable env build {recipe.folder.name} does it, if you trust it."
                    )
                return self._build(recipe, say)
        except OSError as error:
            raise disk_error(error, f"the environments in {self.folder}") from error

    def _build(self, recipe: ImageRecipe, say: Callable[[str], None]) -> Image:
        log = self.folder / f"{recipe.hash}.log"
        log.unlink(missing_ok=True)
        began = time.monotonic()
        tag = self._tag(recipe)
        had_before = bool(recipe.image) and self.engine.inspect(recipe.image) is not None
        archive = archive_of(self.store, recipe.hash)
        try:
            if archive.is_file() and not had_before:
                say(f"Image {recipe.hash}: taking it from {archive} …")
                id = load(self.engine, archive, recipe.hash, log)
                self.engine.call("tag", id, tag, what="naming the image", log=log)
                forget(self.engine, packed_name(recipe.hash), had_before=True)
            elif recipe.image:
                id = self._fetch(recipe.image, had_before, log, say)
                self.engine.call("tag", id, tag, what="naming the image", log=log)
            else:
                id = self._build_dockerfile(recipe, tag, log, say)
            found = self.engine.inspect(id)
            assert found is not None, f"{self.engine.name} lost the image {id}"
            python = self._look(recipe, id, log)
            document = {
                "format": FORMAT,
                "hash": recipe.hash,
                "platform": platform_name(),
                "engine": self.engine.name,
                "id": id,
                "tag": tag,
                "reference": recipe.image,
                "had_before": had_before,
                **python,
                "bytes": int(found.get("Size") or 0),
                "built": time.time(),
                "seconds": round(time.monotonic() - began, 2),
            }
            (self.folder / recipe.hash).mkdir(exist_ok=True)
            write_json(self.folder / recipe.hash / NOTE, document)
        except BaseException as error:
            try:
                forget(self.engine, tag, had_before, recipe.image)
            except TurntableError as left:  # what went wrong at first is what is raised
                say(str(left))
            if not isinstance(error, TurntableError):
                raise
            said = str(error).rstrip(".")
            raise TurntableError(
                f"The image of {recipe.folder.name} can't be had. {said}.{all_of_it(log)}"
            ) from error
        log.unlink(missing_ok=True)
        return Image(self.folder / recipe.hash, document)

    def archive(self, image: Image, say: Callable[[str], None]) -> Path:
        """Have an image as a file in the store, for packs; one that is there stays as it is.

        Raises:
            TurntableError: the engine can't write it.
        """
        path = archive_of(self.store, image.hash)
        if path.is_file():
            return path
        say(f"Writing image {image.hash} into the store ({image.document['bytes'] / 1e9:.1f} GB) …")
        name = packed_name(image.hash)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as scratch:
            aside = Path(scratch) / ARCHIVE
            self.engine.call("tag", image.document["id"], name, what="naming the image")
            try:
                self.engine.call("save", "--output", str(aside), name, what=f"writing image {image.hash}")
            finally:
                forget(self.engine, name, had_before=True)
            check(self.engine, aside, image.hash)
            aside.rename(path)
        return path

    def _tag(self, recipe: ImageRecipe) -> str:
        """The name by which this bench holds an image: another bench's tag of the same image is its own."""
        bench = hashlib.sha256(str(self.folder.resolve()).encode()).hexdigest()[:8]
        return f"localhost/turntable/{bench}:{recipe.hash}"

    def _fetch(self, reference: str, had_before: bool, log: Path, say: Callable[[str], None]) -> str:
        if not had_before:
            say(f"Fetching {reference} …")
            self.engine.call("pull", reference, what=f"fetching {reference}", log=log)
        found = self.engine.inspect(reference)
        if found is None:
            raise TurntableError(f"{self.engine.name} fetched {reference}, and doesn't know it.")
        return str(found["Id"])

    def _build_dockerfile(self, recipe: ImageRecipe, tag: str, log: Path, say: Callable[[str], None]) -> str:
        for base in bases_by_tag((recipe.folder / DOCKERFILE).read_text(errors="replace")):
            say(
                f"FROM {base} names a tag, which may stand for another image tomorrow; with its digest (@sha256:…) it can't."
            )
        say(f"Image {recipe.hash}: building {recipe.folder / DOCKERFILE} with {self.engine.name} …")
        with tempfile.TemporaryDirectory(prefix="turntable-image-") as scratch:
            # What was hashed is what the engine gets: no more, and no .dockerignore has a say in it.
            context = Path(scratch) / "context"
            for relative, _ in recipe.files:
                (context / relative).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(recipe.folder / relative, context / relative, follow_symlinks=False)
            answer = Path(scratch) / "id"
            try:
                self.engine.call(
                    "build", "--label", LABEL, "--tag", tag, "--iidfile", str(answer),
                    "--file", str(context / DOCKERFILE), str(context),
                    what=f"building {recipe.folder / DOCKERFILE}", log=log,
                )  # fmt: skip
            except TurntableError as error:
                copied = [name for name, _ in recipe.files if name != DOCKERFILE]
                raise TurntableError(
                    f'{error}. It may copy {", ".join(copied[:5]) or "nothing"}: context = ["…"] under [environment] names '
                    "what."
                ) from error
            return answer.read_text().strip().removeprefix("sha256:")

    def _look(self, recipe: ImageRecipe, id: str, log: Path) -> dict[str, str]:
        """The versions of the image's Python and NumPy, asked of them.

        Raises:
            TurntableError: there is no such Python, it is too old, or it has no NumPy.
        """
        bench, _, hash = self._tag(recipe).rpartition("/")[2].partition(":")
        name = f"turntable-{bench}-{hash}"
        words = [
            *run_alone(self.engine, name, LOOK_ALLOWANCE),
            *confined(self.engine, network=False), "--entrypoint", recipe.python, id, "-c", _LOOK,
        ]  # fmt: skip
        answer = run_bounded(self.engine, name, words)
        with log.open("a") as file:
            file.write(f"$ {' '.join(words)}\n{answer.stdout}{answer.stderr}\n")
        needs = "Turntable's worker needs a Python from 3.8 on with NumPy in the image"
        if answer.returncode != 0:
            last = words_of((answer.stderr.strip().splitlines() or [""])[-1])
            raise TurntableError(
                f'{needs}, and {recipe.python!r} is none ({last}). Name another (python = "…" under [environment]), or '
                "install them in the image."
            )
        try:
            found = json.loads(answer.stdout.strip().splitlines()[-1])
            version = [int(part) for part in found["version"]]
            numpy = str(found["numpy"])
        except (ValueError, IndexError, KeyError, TypeError):
            raise TurntableError(f"{needs}; {recipe.python!r} answered {answer.stdout[:100]!r}.") from None
        written = ".".join(map(str, version))
        if tuple(version[:2]) < OLDEST_PYTHON:
            raise TurntableError(f"{needs}; {recipe.python!r} is Python {written}.")
        return {"python": written, "numpy": numpy}


def run_bounded(engine: Engine, name: str, words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a container that nobody trusts: not for ever, and not to hear whatever it has to say.

    Args:
        engine: what runs it.
        name: of the container; one that is left of a killed turntable is removed.
        words: the command that runs it.

    Raises:
        TurntableError: it took too long, or said too much.
    """
    engine.remove_container(name)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        deadline, said = time.monotonic() + LONGEST_LOOK_S, 0
        try:
            while process.poll() is None and said <= MOST_SAID and time.monotonic() < deadline:
                time.sleep(POLL_S)
                said = max(os.fstat(file.fileno()).st_size for file in (out, err))
            ended = process.poll() is not None
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            engine.remove_container(name)
        if not ended:
            how = f"said more than {MOST_SAID} bytes" if said > MOST_SAID else f"took {LONGEST_LOOK_S:g} s"
            raise TurntableError(f"The image's Python was asked for its version, and {how}.")
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read(MOST_SAID).decode(errors="replace"))
        return subprocess.CompletedProcess(words, process.returncode, *texts)


def archive_of(store: Path, hash: str) -> Path:
    """Where a store has an image as a file."""
    return store / IMAGES / hash / ARCHIVE


def packed_name(hash: str) -> str:
    """The name that an image has in an archive: the same in every bench."""
    return f"localhost/turntable/packed:{hash}"


def load(engine: Engine, archive: Path, hash: str, log: Path) -> str:
    """Give an engine the image of an archive; its id.

    Raises:
        TurntableError: as :func:`check`, or the engine can't read it.
    """
    check(engine, archive, hash)
    engine.call("load", "--input", str(archive), what=f"loading {archive}", log=log)
    found = engine.inspect(packed_name(hash))
    if found is None:
        raise TurntableError(f"{archive} holds no image that {engine.name} understands.")
    return str(found["Id"])


def check(engine: Engine, archive: Path, hash: str) -> None:
    """Hold an archive to what is loaded.

    Raises:
        TurntableError: it isn't an image's archive, or would give the engine another image under a name of the user's.
    """
    name = packed_name(hash)
    try:
        names = names_in(archive)
    except (tarfile.TarError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TurntableError(f"{archive} is no image, or damaged ({error!r}).") from None
    # Docker writes the tag alone beside the whole name, and Podman makes a name without a registry of it.
    if names - {hash} != {name}:
        raise TurntableError(
            f"{archive} would bring the names {', '.join(sorted(names)) or '(none)'} into {engine.name}, not {name} alone. "
            "It is not loaded."
        )


def names_in(archive: Path) -> set[str]:
    """The names that loading an archive of an image gives, by any of the three lists that engines read.

    Engines read archives by rules of their own: some take the first of two files of a name, some the last, some unpack all
    and follow links. So only what can be read in one way is taken: plain headers, every name once and in its shortest form,
    no file behind a link. Nor are layers taken that an engine would have to expand, to whatever size they please.

    Raises:
        tarfile.TarError, ValueError, KeyError, TypeError, AttributeError, RecursionError: it is no such archive.
    """
    names: set[str] = set()
    kinds: dict[str, bytes] = {}
    with tarfile.open(archive, "r:") as tar, archive.open("rb") as raw:
        if raw.read(LONGEST_MAGIC).startswith(COMPRESSED):
            raise ValueError("it is compressed, or can be read as if it were")
        for member in tar:
            _check_plain(member, raw)
            name = member.name
            if name in kinds or posixpath.normpath(name) != name or name.startswith(("/", "..")):
                raise ValueError(f"{name!r} is there twice, or no plain path")
            kinds[name] = member.type
            file = tar.extractfile(member) if member.isreg() else None
            if file is not None and file.read(LONGEST_MAGIC).startswith(COMPRESSED):
                raise ValueError(
                    f"{name} is compressed, to whatever size; podman save writes layers as they are"
                )
            if name not in LISTS:
                continue
            if file is None or member.size > LARGEST_LIST:
                raise ValueError(f"{name} is no file of at most {LARGEST_LIST} bytes")
            file.seek(0)
            names |= _names_in_list(name, json.load(file, object_pairs_hook=_caseless))
        if tar.pax_headers:
            raise ValueError("it has headers for all files")
    for name in kinds:
        for folder in PurePosixPath(name).parents:
            if kinds.get(str(folder), tarfile.DIRTYPE) != tarfile.DIRTYPE:
                raise ValueError(f"{name} lies in {folder}, which is no folder")
    return names


def _check_plain(member: tarfile.TarInfo, raw: BinaryIO) -> None:
    """Hold the headers of an archive's member to what every reader understands alike.

    Raises:
        ValueError: they are otherwise.
    """
    first, last = member.offset, member.offset_data - tarfile.BLOCKSIZE
    plain = member.type in PLAIN_TYPES and member.pax_headers.get("size", "0").isdecimal()
    plain = plain and member.pax_headers.keys() <= HARMLESS
    # One header; or another two blocks before it, for what doesn't fit into it: sizes from 8 GiB on.
    plain = plain and last - first in (0, 2 * tarfile.BLOCKSIZE)
    for offset, kind in {first: tarfile.XHDTYPE, last: member.type}.items():
        raw.seek(offset)
        block = raw.read(tarfile.BLOCKSIZE)
        plain = plain and block[156:157] == kind and block[257:265] == b"ustar\x0000"
        plain = plain and re.fullmatch(rb"[0-7]{11}[\0 ]", block[124:136]) is not None
    if not plain:
        raise ValueError(f"{member.name!r} has a header that isn't plain")


def _caseless(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object with small keys: to the engines, written in Go, ``repotags`` is ``RepoTags``."""
    found = {key.casefold(): value for key, value in pairs}
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _names_in_list(which: str, content: Any) -> set[str]:
    if which == "manifest.json":
        return {name for image in content for name in image["repotags"] or ()}
    if which == "repositories":
        return {f"{name}:{tag}" for name, tags in content.items() for tag in tags}
    notes = [entry.get("annotations") or {} for entry in content["manifests"]]
    return {note[key] for note in notes for key in NAMES_IN_INDEX if key in note}


def bases_by_tag(dockerfile: str) -> list[str]:
    """The images that a Dockerfile builds on and doesn't name by their digests."""
    stages: set[str] = {"scratch"}
    found: list[str] = []
    for line in dockerfile.splitlines():
        words = [word for word in line.split() if not word.startswith("--")]
        if len(words) > 1 and words[0].upper() == "FROM":
            if words[1].lower() not in stages and "@sha256:" not in words[1]:
                found.append(words[1])
            if len(words) > 3 and words[2].upper() == "AS":
                stages.add(words[3].lower())
    return found


def export(recipe: ImageRecipe, form: str) -> str:
    """An image as others can have it: a Dockerfile.

    Raises:
        TurntableError: another form is asked for.
    """
    if form != "dockerfile":
        raise TurntableError(
            f"An image has no list of packages to export; it is exported as dockerfile, not as {form}."
        )
    if recipe.image:
        return f"FROM {recipe.image}\n"
    return (recipe.folder / DOCKERFILE).read_text(encoding="utf-8")


def pin(folder: Path, environment: dict[str, Any], engine: Engine, say: Callable[[str], None]) -> Path:
    """Write the digest of an image that is named by a tag into ``method.toml``; the file.

    Args:
        folder: the method's.
        environment: ``[environment]`` of its ``method.toml``.
        engine: asks the registry.
        say: told what is being done, a line each.

    Raises:
        TurntableError: there is nothing to lock, or no such image.
    """
    path, image = folder / "method.toml", environment.get("image")
    if image is None:
        raise TurntableError(
            f"There is nothing to lock in {folder}: its {DOCKERFILE} is the recipe. What it builds on is pinned by "
            "FROM name@sha256:…"
        )
    if isinstance(image, str) and "@" in image:
        raise TurntableError(f"There is nothing to lock in {folder}: {image} is named by its digest already.")
    text = path.read_text(encoding="utf-8")
    if not isinstance(image, str) or text.count(f'"{image}"') != 1:
        raise TurntableError(
            f'{path}: environment.image must be a text in double quotes, "docker.io/…", not {image!r}.'
        )
    say(f"Fetching {image} …")
    engine.call("pull", image, what=f"fetching {image}")
    # A port has a colon too, but stands before the last slash.
    before, slash, last = image.rpartition("/")
    repository = f"{before}{slash}{last.partition(':')[0]}"
    # The engine may have the same image from other places too, which give it other digests.
    of = [digest.partition("@") for digest in (engine.inspect(image) or {}).get("RepoDigests") or []]
    digests = [digest for name, _, digest in of if _short(name) == _short(repository)]
    if not digests:
        raise TurntableError(
            f"{engine.name} knows no digest of {image}: it was made here, and comes from no registry."
        )
    pinned = f"{repository}@{digests[0]}"
    _by_digest(path, pinned)
    write_text(path, text.replace(f'"{image}"', f'"{pinned}"'))
    say(f"{image} is {pinned}")
    return path


def _short(repository: str) -> str:
    """A repository's name as Docker writes it: without Docker's own registry."""
    return repository.removeprefix("docker.io/").removeprefix("library/")


def read_note(folder: Path) -> Image | None:
    """What is noted of an image in an environment's folder; None where nothing is.

    Raises:
        TurntableError: the note is damaged.
    """
    path = folder / NOTE
    return Image(folder, read_json(path)) if path.is_file() else None


def all_images(bench: Path) -> list[Image]:
    """The images that are noted in a bench's folder, whichever engine has them, in order of their hashes."""
    found = []
    for path in sorted((bench / "environments").glob(f"*/{NOTE}")):
        image = read_note(path.parent)
        if image is not None and not path.parent.name.startswith("."):
            found.append(image)
    return found


def forget(engine: Engine, tag: str, had_before: bool, reference: str = "") -> None:
    """Give up this bench's name of an image; the engine removes one that has no other name, unless it had it before.

    Args:
        engine: the one that has it.
        tag: this bench's name.
        had_before: whether the engine had the image before the bench did.
        reference: the digest by which the bench fetched it; it is a name too.

    Raises:
        TurntableError: the engine keeps it, for a container for instance.
    """
    untag = "untag" if had_before and engine.name == "podman" else "rmi"
    for words in ((untag, tag), *((("rmi", reference),) if reference and not had_before else ())):
        try:
            engine.call(*words, what="removing the image")
        except TurntableError:
            found = engine.inspect(words[1])
            # Gone already; or another bench has it too, and keeps the digest's name with its own.
            if found is not None and (words[1] == tag or not found.get("RepoTags")):
                raise


def remove_image(image: Image, engine: Engine | None) -> None:
    """Remove an image from a bench, its archive in the store too, and from the engine that has it.

    Args:
        image: which.
        engine: the one that has it; None where it isn't there any more: then the bench alone forgets it.

    Raises:
        TurntableError: the engine keeps it; then the bench does, too.
    """
    with holding(image.folder.parent / f".{image.hash}.lock"):
        if engine is not None:
            note = image.document
            forget(engine, note["tag"], note["had_before"], note["reference"])
        remove_tree(image.folder)
        remove_tree(archive_of(image.folder.parents[1] / "store", image.hash).parent)


def prune_images(bench: Path, keep: Collection[str], engine_of: Callable[[str], Engine | None]) -> int:
    """Remove every image but those of some recipes, and what is left of containers that ended badly.

    Args:
        bench: the bench's folder.
        keep: the hashes of the recipes.
        engine_of: an engine by its name; None where it isn't there.

    Returns:
        The bytes that the images had, layers that others share with them among them.

    Raises:
        TurntableError: an engine keeps an image.
    """
    freed = 0
    noted = [(image, engine_of(image.document["engine"])) for image in all_images(bench)]
    # The containers first: an engine keeps the image of one.
    for engine in {engine.name: engine for _, engine in noted if engine is not None}.values():
        with contextlib.suppress(TurntableError):
            engine.call("container", "prune", "--force", "--filter", f"label={LABEL}", what="tidying")
    for image, engine in noted:
        if image.hash not in keep:
            archive = archive_of(bench / "store", image.hash)
            freed += image.document["bytes"] + (archive.stat().st_size if archive.is_file() else 0)
            remove_image(image, engine)
    for archive in (bench / "store" / IMAGES).glob(f"*/{ARCHIVE}"):
        if archive.parent.name not in keep:
            freed += archive.stat().st_size
            remove_tree(archive.parent)
    return freed
