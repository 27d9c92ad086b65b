"""What an environment is made from: the files of a recipe, read and checked without running anything of it.

A recipe of kind ``uv`` is a ``pyproject.toml`` and the ``uv.lock`` that was made of it, beside ``method.toml``. Its
``requires-python`` names one Python (``==3.10.*``). A lock names every file of every package by its sha256; where it was
found when the lock was made is only a hint: the files are asked of whatever index this machine is set up with, and
anything else than these bytes is refused.

An environment is named by the hash of its recipe: the same recipe is the same environment, on every machine of a kind.
"""

from __future__ import annotations

import hashlib
import platform
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import TurntableError
from ..files import read_toml

FORMAT = 1
"""Counts the changes of how environments are built, so that one built otherwise isn't taken for it."""

PROJECT, LOCK = "pyproject.toml", "uv.lock"

_ONE_PYTHON = re.compile(r"==\s*(3\.\d+)(?:\.\*|\.\d+)")


@dataclass(frozen=True)
class Package:
    """A package of a lock.

    Args:
        name: as PyPI normalises it.
        version: its version.
        sha256s: of each file that it may come as: wheels, and the source.
        wheels: the names of its wheels; () where there is only the source.
        git: the address and commit of its source, for one that comes from a repository; else "".
    """

    name: str
    version: str
    sha256s: tuple[str, ...]
    wheels: tuple[str, ...]
    git: str = ""


@dataclass(frozen=True)
class Recipe:
    """What an environment of kind ``uv`` is made from.

    Args:
        folder: where the files lie.
        python: the Python that it needs: ``3.10``, or ``3.10.13``.
        packages: what the lock names.
        without: names of packages that this bench goes without, with ``*`` for any characters.
        replaced: what this bench takes instead of what the lock names, as requirements (``torch==2.13.0``): for
            machines that need another build of a package than the lock's.
    """

    folder: Path
    python: str
    packages: tuple[Package, ...]
    project_sha256: str
    lock_sha256: str
    replaced: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    @property
    def here(self) -> tuple[Package, ...]:
        """The packages as this bench has them: without those that it goes without, and others in place of some."""
        stand_ins = {normalised(_name(text)): text for text in self.replaced}
        found = []
        for package in self.packages:
            if text := stand_ins.get(package.name):
                version = text.rpartition("==")[2] if "==" in text else package.version
                found.append(Package(package.name, version, (), package.wheels or ("any",)))
            elif not matches(package.name, self.without):
                found.append(package)
        return tuple(found)

    @property
    def hash(self) -> str:
        """The environment's name: 16 hexadecimal digits."""
        lines = [
            f"turntable environment {FORMAT}",
            platform_name(),
            self.project_sha256,
            self.lock_sha256,
            *sorted(self.replaced),
            *sorted(f"without {pattern}" for pattern in self.without),
        ]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def platform_name() -> str:
    """The kind of machine that environments are built for: ``linux-x86_64``."""
    return f"{sys.platform}-{platform.machine()}"


def read_recipe(folder: Path, replaced: Iterable[str] = (), without: Iterable[str] = ()) -> Recipe:
    """Read the recipe beside a ``method.toml``.

    Args:
        folder: the method's.
        replaced: the bench's replacements; those of packages that the lock doesn't name are left out.
        without: names of packages that the bench goes without, with ``*`` for any characters; likewise.

    Raises:
        TurntableError: a file is missing or damaged, or names no single Python.
    """
    python = read_project(folder)
    project, lock = folder / PROJECT, folder / LOCK
    if not lock.is_file():
        raise TurntableError(
            f"{folder} has no {LOCK} yet. turntable env lock {folder} makes one (it asks the package index)."
        )
    packages = tuple(_packages(lock))
    names = {package.name for package in packages}
    used = tuple(text for text in replaced if normalised(_name(text)) in names)
    return Recipe(
        folder=folder,
        python=python,
        packages=packages,
        project_sha256=hashlib.sha256(project.read_bytes()).hexdigest(),
        lock_sha256=hashlib.sha256(lock.read_bytes()).hexdigest(),
        replaced=used,
        without=tuple(pattern for pattern in without if any(matches(name, [pattern]) for name in names)),
    )


def read_project(folder: Path) -> str:
    """The Python that a recipe's ``pyproject.toml`` names: ``3.10``, or ``3.10.13``.

    Raises:
        TurntableError: the file is missing or damaged, or names no single Python.
    """
    project = folder / PROJECT
    if not project.is_file():
        raise TurntableError(
            f"An environment of kind 'uv' needs a {PROJECT} beside method.toml; there is none in {folder}."
        )
    requires = str(read_toml(project).get("project", {}).get("requires-python")).strip()
    if _ONE_PYTHON.fullmatch(requires) is None:
        raise TurntableError(
            f"{project}: requires-python must name one Python, such as '==3.10.*', not {requires!r}."
        )
    return requires.removeprefix("==").strip().removesuffix(".*")


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a package's name is one of ``patterns``, in which ``*`` stands for any characters."""
    return any(re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), name) for pattern in patterns)


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement)[0]


def normalised(name: str) -> str:
    """A package's name as indexes write it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _packages(path: Path) -> Iterable[Package]:
    """The packages of a ``uv.lock``, without the project itself.

    Raises:
        TurntableError: it isn't a lock that can be understood.
    """
    table = read_toml(path)
    if table.get("version") != 1:
        raise TurntableError(
            f"{path}: only locks of uv's version 1 are understood, not {table.get('version')!r}."
        )
    for entry in table.get("package", []):
        source = entry.get("source", {})
        if {"virtual", "editable", "directory", "path"} & source.keys():
            if "virtual" in source or source.get("editable") == ".":
                continue  # the project itself
            raise TurntableError(
                f"{path}: package {entry.get('name')!r} comes from a folder of one machine; name an index or a git "
                "repository, so that the environment can be built elsewhere."
            )
        files = [*entry.get("wheels", []), *([entry["sdist"]] if "sdist" in entry else [])]
        hashes = [str(file.get("hash", "")) for file in files]
        if any(not text.startswith("sha256:") for text in hashes):
            raise TurntableError(f"{path}: package {entry.get('name')!r} has a file without a sha256.")
        yield Package(
            name=entry["name"],
            version=str(entry.get("version", "")),
            sha256s=tuple(text.removeprefix("sha256:") for text in hashes),
            wheels=tuple(
                str(wheel.get("url", wheel.get("path", ""))).rpartition("/")[2]
                for wheel in entry.get("wheels", [])
            ),
            git=str(source.get("git", "")),
        )
