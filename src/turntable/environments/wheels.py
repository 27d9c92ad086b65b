"""Wheels: the packages of locks as files, each once in the bench's store, under its sha256.

What a lock names only as a source (an sdist, a git repository) is built into a wheel once and kept like any other, with a
note of what it was built from. Whatever is in the store already is never asked of an index: a bench that was moved needs
no network.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from packaging.requirements import InvalidRequirement, Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags, platform_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from ..errors import TurntableError
from ..files import read_json, sha256_of, write_json
from .interpreters import Interpreter
from .locking import read_lock
from .recipe import Recipe, matches, platform_name
from .uv import uv, words_of

BUILT_FROM = "built-from.json"


@dataclass(frozen=True)
class Wanted:
    """A package that an environment needs.

    Args:
        requirement: as pip writes it, without hashes: ``numpy==1.26.4``, or ``name @ git+https://…``.
        sha256s: what its file's sha256 may be; () where the lock says nothing (a git commit, a replacement).
        has_wheels: whether some of these are of wheels that this machine takes; else it has to be built from its source.
        replaced: whether this bench takes it in place of what the lock names.
    """

    requirement: str
    sha256s: tuple[str, ...]
    has_wheels: bool = False
    replaced: bool = False

    @property
    def is_source(self) -> bool:
        """Whether it has to be built, which runs code of its own."""
        return not (self.has_wheels or self.replaced)

    @property
    def name(self) -> str:
        """The package's name, normalised."""
        return canonicalize_name(Requirement(self.requirement).name)


@dataclass(frozen=True)
class Wheel:
    """A wheel in the store."""

    path: Path
    sha256: str

    @property
    def name(self) -> str:
        """Its package's name, normalised."""
        return parse_wheel_filename(self.path.name)[0]

    @property
    def version(self) -> str:
        """Its package's version."""
        return str(parse_wheel_filename(self.path.name)[1])


def wanted(recipe: Recipe, interpreter: Interpreter) -> list[Wanted]:
    """The packages that an environment of a recipe needs on this machine, in order of their names.

    Args:
        recipe: whose lock is read.
        interpreter: what the environment will live on.

    Raises:
        TurntableError: the lock doesn't fit its project any more, or can't be understood.
    """
    text = read_lock(
        recipe.folder, "--format", "requirements.txt", "--offline", "--python", interpreter.executable
    )
    replaced = {canonicalize_name(Requirement(text).name): text for text in recipe.replaced}
    tags = set(tags_of(interpreter))
    has_wheels = {package.name for package in recipe.packages if fits(package.wheels, tags)}
    found = []
    for one in parse_requirements(text, interpreter.version):
        if matches(one.name, recipe.without):
            continue
        name = canonicalize_name(one.name)
        if name in replaced:
            found.append(Wanted(replaced[name], (), replaced=True))
        else:
            found.append(Wanted(one.requirement, one.sha256s, name in has_wheels))
    return found


def parse_requirements(text: str, python: str) -> list[Wanted]:
    """What ``uv export`` prints: requirements, and hashes on lines that continue theirs; not those of other machines.

    Raises:
        TurntableError: a line can't be understood.
    """
    about = {"python_full_version": python, "python_version": ".".join(python.split(".")[:2])}
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        words = re.split(r"(?:^|\s)#", line)[0].split(" --hash=")
        if not words[0].strip():
            continue
        try:
            requirement = Requirement(words[0].strip())
        except InvalidRequirement as error:
            raise TurntableError(
                f"A lock's requirement can't be understood: {line.strip()!r} ({error})."
            ) from None
        if requirement.marker is not None and not requirement.marker.evaluate(about):
            continue
        requirement.marker = None
        hashes = tuple(word.strip().removeprefix("sha256:") for word in words[1:])
        found.append(Wanted(str(requirement), hashes))
    return found


class Wheels:
    """The wheels of a store."""

    def __init__(self, store: Path) -> None:
        self.folder = store / "wheels"

    def all(self) -> list[Wheel]:
        """Every wheel that is there."""
        return [Wheel(path, path.parent.name) for path in sorted(self.folder.glob("*/*.whl"))]

    def find(self, needs: Iterable[Wanted], interpreter: Interpreter) -> dict[str, Wheel]:
        """The wheel for each of the packages that has one here, by the package's name."""
        tags = {tag: place for place, tag in enumerate(tags_of(interpreter))}
        by_name: dict[str, list[tuple[int, Wheel]]] = {}
        for wheel in self.all():
            try:
                name, _, _, its = parse_wheel_filename(wheel.path.name)
            except InvalidWheelFilename:
                continue
            if places := [tags[tag] for tag in its if tag in tags]:
                by_name.setdefault(name, []).append((min(places), wheel))
        found = {}
        for need in needs:
            fitting = [
                (place, wheel)
                for place, wheel in by_name.get(need.name, [])
                if self._is(wheel, need, interpreter)
            ]
            if fitting:
                found[need.name] = min(fitting, key=lambda pair: pair[0])[1]
        return found

    def _is(self, wheel: Wheel, need: Wanted, interpreter: Interpreter) -> bool:
        if wheel.sha256 in need.sha256s:
            return True
        if need.has_wheels:
            return False  # a lock that names wheels for this machine means these and no others
        note = wheel.path.parent / BUILT_FROM
        return note.is_file() and read_json(note) == self._note(need, interpreter)

    def _note(self, need: Wanted, interpreter: Interpreter) -> dict[str, object]:
        """What is kept beside a wheel whose own sha256 no lock names: what was asked for, and for what."""
        minor = ".".join(interpreter.version.split(".")[:2])
        return {
            "requirement": need.requirement,
            "sha256s": sorted(need.sha256s),
            "python": minor,
            "platform": platform_name(),
        }

    def fetch(
        self, needs: Sequence[Wanted], interpreter: Interpreter, log: Path, from_sources: bool = True
    ) -> None:
        """Get the packages that are lacking: files that locks name from the index, and others built from their source.

        Args:
            needs: the packages.
            interpreter: what they are for.
            log: gets all that is said.
            from_sources: whether anything may be built; else pip takes wheels alone.

        Raises:
            TurntableError: one can't be had; ``log`` has all that was said.
        """
        if not needs:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=self.folder, prefix=".fetch-") as folder:
            helper, out = Path(folder) / "pip", Path(folder) / "out"
            # pip, under the environment's own Python: it knows that one's tags and builds for it, and asks whatever index,
            # proxy or folder of wheels this machine is set up with.
            make_helper(helper, interpreter, log)
            locked = [need for need in needs if need.sha256s]
            free = [need for need in needs if not need.sha256s]
            wheels_only = () if from_sources else ("--only-binary", ":all:")
            for some, hashes in ((locked, ("--require-hashes",)), (free, ())):
                if some:
                    self._pip(helper, some, (*hashes, *wheels_only), out, log)
            names = {need.name: need for need in needs}
            for path in sorted(out.glob("*.whl")):
                self._put(path, names, interpreter)

    def _pip(
        self, helper: Path, needs: Sequence[Wanted], options: Sequence[str], out: Path, log: Path
    ) -> None:
        lines = [
            " ".join([need.requirement, *(f"--hash=sha256:{text}" for text in need.sha256s)])
            for need in needs
        ]
        (asked := helper.with_name("requirements.txt")).write_text("\n".join(lines) + "\n")
        command = [
            helper / "bin" / "python",
            "-m",
            "pip",
            "wheel",
            "--no-deps",
            "--no-input",
            "--no-cache-dir",
        ]
        command += [*options, "--wheel-dir", out, "-r", asked]
        with log.open("ab") as file:
            file.write(f"$ {' '.join(map(str, command))}\n".encode())
            file.flush()
            answer = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.PIPE,
                check=False,
                text=True,
                errors="replace",
            )
            file.write(answer.stderr.encode())
        if answer.returncode != 0:
            lines = [line for line in answer.stderr.splitlines() if line.startswith("ERROR")] or [
                answer.stderr
            ]
            raise TurntableError(f"{len(needs)} packages could not be fetched: {words_of(lines[0])}")

    def _put(self, path: Path, needs: Mapping[str, Wanted], interpreter: Interpreter) -> None:
        """Move a wheel into the store, with a note of its source unless a lock knows it by its own sha256."""
        sha256 = sha256_of(path)
        need = needs[canonicalize_name(parse_wheel_filename(path.name)[0])]
        target = self.folder / sha256
        if not target.exists():
            aside = path.with_suffix(".put")
            aside.mkdir()
            if sha256 not in need.sha256s:
                write_json(aside / BUILT_FROM, self._note(need, interpreter))
            path.rename(aside / path.name)
            try:
                aside.rename(target)
            except OSError:
                if not target.exists():  # else another builder was faster
                    raise


def tags_of(interpreter: Interpreter) -> list[Tag]:
    """What wheels an interpreter of this machine takes, the best first."""
    major, minor = (int(part) for part in interpreter.version.split(".")[:2])
    platforms = list(platform_tags())
    found = list(cpython_tags((major, minor), platforms=platforms))
    return found + list(compatible_tags((major, minor), f"cp{major}{minor}", platforms))


def make_helper(folder: Path, interpreter: Interpreter, log: Path) -> None:
    """A virtual environment with pip: the interpreter's own, which needs no index; where it brings none, one from uv's."""
    own = subprocess.run(
        [interpreter.executable, "-m", "venv", folder],
        stdin=subprocess.DEVNULL, capture_output=True, check=False, text=True, errors="replace",
    )  # fmt: skip
    if own.returncode == 0:
        return
    with log.open("a") as file:
        file.write(f"$ {interpreter.executable} -m venv {folder}\n{own.stdout}{own.stderr}\n")
    uv(
        "venv", "--clear", "--seed", "--python", interpreter.executable, folder,
        what="making room for pip", log=log,
    )  # fmt: skip


def fits(wheels: Iterable[str], tags: Container[Tag]) -> bool:
    """Whether one of ``wheels``, by their files' names, is for one of ``tags``.

    A lock that names a wheel for macOS and the source has none for Linux: there it is a package that has to be built.
    """
    for name in wheels:
        try:
            its = parse_wheel_filename(name)[3]
        except InvalidWheelFilename:
            continue
        if any(tag in tags for tag in its):
            return True
    return False


def remove_unused(store: Path, used: Iterable[str], names: Iterable[str]) -> int:
    """Remove wheels from a store; how many bytes that gives back.

    Args:
        store: the store.
        used: the sha256 of those that stay.
        names: packages whose wheels stay if they were built here.
    """
    keep, built_stay, freed = set(used), set(names), 0
    for wheel in Wheels(store).all():
        if wheel.sha256 not in keep and not (wheel.name in built_stay and read_note(wheel)):
            freed += wheel.path.stat().st_size
            shutil.rmtree(wheel.path.parent)
    return freed


def read_note(wheel: Wheel) -> str:
    """What a wheel was built from, or ""."""
    note = wheel.path.parent / BUILT_FROM
    return str(json.loads(note.read_text())["requirement"]) if note.is_file() else ""
