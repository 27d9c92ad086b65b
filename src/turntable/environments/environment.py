"""Environments of kind ``uv``: built beside and moved into place, read-only from then on.

An environment is a folder ``environments/<hash of its recipe>`` in the bench, with the virtual environment ``venv`` and
``environment.json``, which says what is in it. Its files are hard links into one cache (``store/uv``), so that environments
share what they share; that is why they are read-only: a write in one would reach all others.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import TurntableError, disk_error
from ..files import holding, read_json, write_json, write_text
from . import interpreters, probe
from .compiling import Workshop
from .interpreters import Interpreter
from .recipe import FORMAT, Recipe, platform_name
from .uv import uv
from .wheels import Wanted, Wheel, Wheels, read_note, remove_unused, wanted

NOTE = "environment.json"
REQUIREMENTS = "requirements.txt"


@dataclass(frozen=True)
class Environment:
    """An environment that has been built.

    Args:
        folder: where it lies.
        document: what ``environment.json`` says.
    """

    folder: Path
    document: dict[str, Any]

    @property
    def hash(self) -> str:
        """Its name: the hash of its recipe."""
        return self.folder.name

    @property
    def venv(self) -> Path:
        """The virtual environment."""
        return self.folder / "venv"

    @property
    def python(self) -> Path:
        """Its Python."""
        return self.venv / "bin" / "python"

    @property
    def interpreter(self) -> Interpreter:
        """What it lives on."""
        store = self.folder.parent.parent / "store"
        return Interpreter(store / "interpreters" / self.document["interpreter"], self.document["python"])

    @property
    def size_bytes(self) -> int:
        """What its files take, those that it shares with others among them."""
        return sum(path.lstat().st_size for path in self.folder.rglob("*"))


class Environments:
    """The environments of a bench."""

    def __init__(self, bench: Path) -> None:
        """The environments of a bench's folder."""
        self.folder = bench / "environments"
        self.store = bench / "store"
        self.wheels = Wheels(self.store)

    def all(self) -> list[Environment]:
        """Those that are there, in order of their hashes."""
        found = []
        for path in sorted(self.folder.glob(f"*/{NOTE}")):
            if not path.parent.name.startswith("."):
                found.append(Environment(path.parent, read_json(path)))
        return found

    def find(self, recipe: Recipe) -> Environment | None:
        """The environment of a recipe, if it has been built; its interpreter is found again if the bench was moved."""
        path = self.folder / recipe.hash / NOTE
        if not path.is_file():
            return None
        environment = Environment(path.parent, read_json(path))
        interpreter = environment.interpreter
        if not interpreter.executable.is_file():
            raise TurntableError(
                f"Environment {recipe.hash} needs its interpreter, and {interpreter.folder} is gone. "
                f"turntable env remove {recipe.hash} and env build make it again."
            )
        home = f"home = {interpreter.executable.parent}\n"
        settings = environment.venv / "pyvenv.cfg"
        if home not in (text := settings.read_text()):
            self._move(environment, settings, text, home)
        return environment

    def build(self, recipe: Recipe, say: Callable[[str], None], from_sources: bool = True) -> Environment:
        """Build the environment of a recipe, unless it is there; two builders of one recipe wait for each other.

        Args:
            recipe: what it is made from.
            say: told what is being done, a line each.
            from_sources: whether packages that have only a source may be built, which runs their code.

        Raises:
            TurntableError: it can't be built; a log is left at ``environments/<hash>.log``, and nothing else.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with alone(self.folder, f"Environment {recipe.hash}", recipe.hash, say):
                if (found := self.find(recipe)) is not None:
                    return found
                with self._store_in_use(fcntl.LOCK_SH):
                    return self._build(recipe, say, from_sources)
        except OSError as error:
            raise disk_error(error, f"the environments in {self.folder}") from error

    @contextlib.contextmanager
    def _store_in_use(self, how: int) -> Iterator[None]:
        """Builders use the store together; whoever removes something from it waits for them."""
        self.store.mkdir(parents=True, exist_ok=True)
        with holding(self.store / ".lock", how):
            yield

    def _build(self, recipe: Recipe, say: Callable[[str], None], from_sources: bool) -> Environment:
        log = self.folder / f"{recipe.hash}.log"
        log.unlink(missing_ok=True)
        aside = (
            self.folder / f".{recipe.hash}.tmp"
        )  # we have the lock: what is there was left by a killed builder
        remove_tree(aside)
        began = time.monotonic()
        try:
            interpreter = interpreters.provide(self.store, recipe.python)
            needs = wanted(recipe, interpreter)
            wheels = self._gather(recipe, needs, interpreter, log, say, from_sources)
            say(
                f"Environment {recipe.hash}: installing {len(wheels)} packages on Python {interpreter.version} …"
            )
            aside.mkdir()
            self._install(aside / "venv", wheels, interpreter, log)
            (aside / REQUIREMENTS).unlink()
            workshop = Workshop(aside / "venv", interpreter, log, from_sources)
            compiled = workshop.compile(wheels, say) if compiles_here(recipe) else {}
            document = {
                "format": FORMAT,
                "hash": recipe.hash,
                "platform": platform_name(),
                "python": interpreter.version,
                "interpreter": interpreter.folder.name,
                "replaced": list(recipe.replaced),
                "without": list(recipe.without),
                "compiled": compiled,
                "packages": [
                    {
                        "name": wheel.name,
                        "version": wheel.version,
                        "file": wheel.path.name,
                        "sha256": wheel.sha256,
                        "built_from": read_note(wheel),
                    }
                    for wheel in wheels
                ],
                "built": time.time(),
                "seconds": round(time.monotonic() - began, 2),
            }
            write_json(aside / NOTE, document)
            make_read_only(aside)
            aside.rename(self.folder / recipe.hash)
        except TurntableError as error:
            remove_tree(aside)
            raise TurntableError(
                f"The environment of {recipe.folder.name} can't be built. {error}{all_of_it(log)}"
            ) from error
        except BaseException:
            remove_tree(aside)
            raise
        log.unlink(missing_ok=True)
        return Environment(self.folder / recipe.hash, document)

    def gather(self, recipe: Recipe, say: Callable[[str], None], sources_only: bool = False) -> None:
        """Have the wheels of a recipe in the store.

        Args:
            recipe: whose.
            say: told what is being done, a line each.
            sources_only: get only what has to be built from its source.

        Raises:
            TurntableError: one can't be had.
        """
        self.store.mkdir(parents=True, exist_ok=True)
        log = self.store / f"{recipe.hash}.log"
        with self._store_in_use(fcntl.LOCK_SH):
            interpreter = interpreters.provide(self.store, recipe.python)
            needs = wanted(recipe, interpreter)
            if sources_only:
                needs = [need for need in needs if need.is_source]
            try:
                self._gather(recipe, needs, interpreter, log, say, from_sources=True)
            except TurntableError as error:
                raise TurntableError(f"{error}{all_of_it(log)}") from error
        log.unlink(missing_ok=True)

    def _gather(
        self,
        recipe: Recipe,
        needs: list[Wanted],
        interpreter: Interpreter,
        log: Path,
        say: Callable[[str], None],
        from_sources: bool,
    ) -> list[Wheel]:
        """A wheel for every package.

        Raises:
            TurntableError: one can't be had, or has only a source, and to build that runs its code with the user's rights.
        """
        found = self.wheels.find(needs, interpreter)
        if lacking := [need for need in needs if need.name not in found]:
            unbuilt = sorted(need.name for need in lacking if need.is_source)
            if unbuilt and not from_sources:
                raise TurntableError(
                    f"{', '.join(unbuilt)} must be built from source, which runs code of theirs with your rights: turntable "
                    f"env build {recipe.folder.name} does it, if you trust them."
                )
            say(f"Fetching {len(lacking)} of {len(needs)} packages …")
            self.wheels.fetch(lacking, interpreter, log, from_sources)
            found = self.wheels.find(needs, interpreter)
        still = [need.requirement for need in needs if need.name not in found]
        if still:
            raise TurntableError(f"No file that this machine can use came for {', '.join(still[:5])}.")
        return [found[need.name] for need in needs]

    def _install(self, venv: Path, wheels: list[Wheel], interpreter: Interpreter, log: Path) -> None:
        cache = {"UV_CACHE_DIR": str(self.store / "uv")}
        uv(
            "venv", "--relocatable", "--python", interpreter.executable, venv,
            what="making the environment", log=log, variables=cache,
        )  # fmt: skip
        asked = venv.with_name(REQUIREMENTS)
        asked.write_text(
            "".join(f"{one.name} @ {one.path.as_uri()} --hash=sha256:{one.sha256}\n" for one in wheels)
        )
        if wheels:
            uv(
                "pip", "install", "--no-deps", "--no-index", "--offline", "--require-hashes", "--link-mode", "hardlink",
                "--python", venv / "bin" / "python", "-r", asked, what="installing", log=log, variables=cache,
            )  # fmt: skip
        # Where the bench lies now is nobody's business later.
        relative = os.path.relpath(interpreter.executable, self.folder / venv.parent.name / "venv" / "bin")
        for name in ("python", "python3", interpreter.executable.name):
            (venv / "bin" / name).unlink(missing_ok=True)
            (venv / "bin" / name).symlink_to(relative)

    def _move(self, environment: Environment, settings: Path, text: str, home: str) -> None:
        """Tell an environment where its interpreter is, after the bench was moved."""
        lines = [home if line.startswith("home = ") else line for line in text.splitlines(keepends=True)]
        with _writable(settings.parent):
            write_text(settings, "".join(lines))
            settings.chmod(0o444)

    def remove(self, hash: str) -> None:
        """Remove an environment.

        Raises:
            TurntableError: there is none of that name.
        """
        if not (self.folder / hash / NOTE).is_file():
            known = ", ".join(environment.hash for environment in self.all()) or "none"
            raise TurntableError(f"There is no environment {hash!r}; known: {known}.")
        with holding(self.folder / f".{hash}.lock"):
            aside = self.folder / f".{hash}.tmp"
            remove_tree(aside)
            (self.folder / hash).chmod(0o755)
            (self.folder / hash).rename(aside)
            remove_tree(aside)

    def prune(self, keep: Callable[[], Sequence[Recipe]]) -> int:
        """Remove every environment but those of some recipes, and what the store holds for none of them.

        What a recipe could be built from stays, built or not: without a network it couldn't be had again.

        Args:
            keep: asked for the recipes when nobody builds any more.

        Returns:
            The bytes given back.
        """
        with self._store_in_use(fcntl.LOCK_EX):
            return self._prune(keep())

    def _prune(self, keep: Sequence[Recipe]) -> int:
        hashes = {recipe.hash for recipe in keep}
        before = shutil.disk_usage(self.folder.parent).free
        for environment in self.all():
            if environment.hash not in hashes:
                self.remove(environment.hash)
        left = self.all()
        used = {package["sha256"] for environment in left for package in environment.document["packages"]}
        locked = {sha256 for recipe in keep for package in recipe.packages for sha256 in package.sha256s}
        names = {package.name for recipe in keep for package in recipe.packages}
        remove_unused(self.store, used | locked, names)
        if (self.store / "uv").is_dir():
            uv("cache", "prune", what="tidying the cache", variables={"UV_CACHE_DIR": str(self.store / "uv")})
        needed = {environment.document["interpreter"] for environment in left}
        for interpreter in interpreters.kept(self.store):
            wanted_still = any(interpreters.fits(interpreter.version, recipe.python) for recipe in keep)
            if interpreter.folder.name not in needed and not wanted_still:
                remove_tree(interpreter.folder)
        return max(0, shutil.disk_usage(self.folder.parent).free - before)


def all_of_it(log: Path) -> str:
    """What ends the message of a failure: where all that was said lies, if anything was."""
    return f" All of it: {log}" if log.exists() else ""


def compiles_here(recipe: Recipe) -> bool:
    """Whether kernels can be compiled for some card: one of this machine's, or one that TORCH_CUDA_ARCH_LIST names."""
    has_cuda = probe.torch_cuda(recipe.here) is not None
    return has_cuda and bool(os.environ.get("TORCH_CUDA_ARCH_LIST") or probe.look().cards)


def make_read_only(folder: Path) -> None:
    """Take the right to write from everything in a folder, and from the folder."""
    for path in [*folder.rglob("*"), folder]:
        if not path.is_symlink():
            path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o222)


def remove_tree(folder: Path) -> None:
    """Remove a folder, read-only or not; quiet if it isn't there."""
    if not folder.exists():
        return
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(folder)


@contextlib.contextmanager
def _writable(folder: Path) -> Iterator[None]:
    mode = stat.S_IMODE(folder.stat().st_mode)
    folder.chmod(mode | 0o200)
    try:
        yield
    finally:
        folder.chmod(mode)


@contextlib.contextmanager
def alone(folder: Path, what: str, hash: str, say: Callable[[str], None]) -> Iterator[None]:
    """Nobody else makes the same environment or image; whoever does is waited for.

    Args:
        folder: the bench's ``environments``.
        what: is made.
        hash: its recipe's.
        say: told if there is somebody to wait for.
    """
    with (folder / f".{hash}.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{what} is being made by another turntable; waiting …")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
