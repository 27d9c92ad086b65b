"""New methods in a bench: begun from a template, or installed from elsewhere. Nothing of a method runs here."""

from __future__ import annotations

import http.client
import lzma
import os
import re
import shutil
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from ..errors import TurntableError
from .registry import find_methods
from .spec import Method

TEMPLATE = Path(__file__).parent / "_template"

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}")

LARGEST_BYTES = 2 << 30
"""An archive of a method's code that is larger holds something else."""

MOST_FILES = 20_000

LEFT_OUT = (".git", "__pycache__", ".venv", "venv", "node_modules")


def new(methods: Path, name: str) -> Path:
    """Begin a method: a folder that runs at once, with comments that teach.

    Args:
        methods: the bench's ``methods``.
        name: what to call it; a path, if it has a ``/``, says where it is to lie.

    Raises:
        TurntableError: the name can't be a method's, or there is such a folder already.
    """
    folder = Path(name).expanduser().resolve() if "/" in name else methods / name
    if NAME.fullmatch(folder.name) is None:
        raise TurntableError(
            f"A method's name has small letters, digits, - and _ only, at most 41, not {folder.name!r}."
        )
    if folder.exists():
        raise TurntableError(f"{folder} is there already; choose another name.")
    _check_not_built_in(folder.name)
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        aside.mkdir(parents=True)
        text = (TEMPLATE / "method.toml.txt").read_text(encoding="utf-8")
        (aside / "method.toml").write_text(text.replace("{{ name }}", folder.name), encoding="utf-8")
        shutil.copyfile(TEMPLATE / "method.py", aside / "method.py")
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def install(methods: Path, source: str, say: Callable[[str], None]) -> list[Method]:
    """Copy methods into a bench: every folder with a ``method.toml`` that ``source`` has.

    Args:
        methods: the bench's ``methods``.
        source: a folder; the address of a git repository (``https://….git``, with ``@COMMIT``) or of an archive;
            or the name of a Python package that brings methods.
        say: told what is being done, a line each.

    Raises:
        TurntableError: it can't be had, brings no method, or one is there already and is another one.
    """
    with TemporaryDirectory(prefix="turntable-install-") as scratch:
        folder = _fetch(source, Path(scratch), say)
        found = [
            Method.load(path.parent, elsewhere=True)
            for path in sorted(folder.rglob("method.toml"))
            if not _left_out(path, folder)
        ]
        if not found:
            raise TurntableError(f"A method is a folder with a method.toml; {source} brings none.")
        return [_take(methods, method) for method in found]


def _fetch(source: str, scratch: Path, say: Callable[[str], None]) -> Path:
    place = Path(source).expanduser()
    if source.strip() and place.is_dir():
        return place.resolve()
    if place.is_file():
        return _unfold(place, scratch / "unfolded")
    address, _, commit = (
        source.partition("@") if source.count("@") == 1 and "://" in source else (source, "", "")
    )
    if address.endswith(".git") or address.startswith(("git+", "git@", "ssh://")):
        say(f"Cloning {address} …")
        return _clone(address.removeprefix("git+"), commit, scratch / "clone")
    if source.startswith(("https://", "http://", "file://")):
        say(f"Downloading {source} …")
        return _unfold(_download(source, scratch), scratch / "unfolded")
    if "/" in source or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*(==[A-Za-z0-9.+!]+)?", source):
        raise TurntableError(
            f"A method is installed from a folder, an address or a package; {source!r} is none of them."
        )
    say(f"Asking the package index for {source} …")
    return _unfold(_package(source, scratch), scratch / "unfolded")


def _clone(address: str, commit: str, target: Path) -> Path:
    # No hooks, no submodules, no filters of ours: a repository's files are copied, and that is all.
    quiet = ["git", "-c", "core.hooksPath=/dev/null", "-c", "protocol.ext.allow=never"]
    commands = [[*quiet, "clone", "--no-recurse-submodules", "--", address, str(target)]]
    if commit and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]*", commit):
        raise TurntableError(f"A commit is a hash, a tag or a branch, not {commit!r}.")
    if commit:
        commands.append([*quiet, "-C", str(target), "checkout", "--detach", commit])
    for command in commands:
        answer = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1"},
        )
        if answer.returncode != 0:
            last = (answer.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise TurntableError(f"{address} can't be cloned: {last}")
    return target


def _download(address: str, scratch: Path) -> Path:
    target = scratch / (PurePosixPath(address).name or "archive")
    try:
        with urllib.request.urlopen(address, timeout=60) as answer, target.open("wb") as file:
            while piece := answer.read(1 << 20):
                file.write(piece)
                if file.tell() > LARGEST_BYTES:
                    raise TurntableError(
                        f"{address} is larger than {LARGEST_BYTES >> 30} GiB: that is no method's code."
                    )
    except (OSError, http.client.HTTPException) as error:
        raise TurntableError(f"{address} can't be downloaded: {error}.") from None
    return target


def _package(name: str, scratch: Path) -> Path:
    """The wheel of a package: a file that is only looked into."""
    from ..environments.uv import uv, words_of

    helper, out = scratch / "pip", scratch / "out"
    uv("venv", "--seed", "--python", sys.executable, helper, what="making room for pip")
    command = [
        helper / "bin" / "python",
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "-d",
        out,
        name,
    ]
    answer = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    wheels = list(out.glob("*.whl"))
    if answer.returncode != 0 or not wheels:
        raise TurntableError(f"Package {name} can't be had as a wheel: {words_of(answer.stderr)}")
    return wheels[0]


def _unfold(archive: Path, target: Path) -> Path:
    """Unpack an archive; nothing leaves ``target``, no links, no devices.

    Raises:
        TurntableError: it is no archive, too large, or holds something that isn't a plain file inside.
    """
    target.mkdir(parents=True)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                _check_names(archive, [(info.filename, info.file_size, True) for info in opened.infolist()])
                opened.extractall(target)
        else:
            with tarfile.open(archive) as opened:
                members = []
                for member in opened:  # one by one: a bomb is noticed before it has unfolded
                    members.append(member)
                    _check_names(archive, [(member.name, member.size, member.isreg() or member.isdir())])
                    if sum(one.size for one in members) > LARGEST_BYTES or len(members) > MOST_FILES:
                        raise TurntableError(f"{archive.name} unfolds to too much. Not installed.")
                for member in members:  # plain files and folders inside: see above
                    opened.extract(member, target, set_attrs=False)
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        EOFError,
        RuntimeError,
        zlib.error,
        lzma.LZMAError,
    ) as error:
        raise TurntableError(f"{archive.name} is no archive that can be read ({error}).") from None
    return target


def _check_names(archive: Path, members: list[tuple[str, int, bool]]) -> None:
    total = 0
    for name, size, plain in members:
        total += size
        if not plain or name.startswith(("/", "\\")) or ".." in PurePosixPath(name.replace("\\", "/")).parts:
            raise TurntableError(
                f"{archive.name} holds {name!r}, which is no plain file inside of it. Not installed."
            )
        if total > LARGEST_BYTES:
            raise TurntableError(
                f"{archive.name} unfolds to more than {LARGEST_BYTES >> 30} GiB. Not installed."
            )


def _left_out(path: Path, folder: Path) -> bool:
    return any(part in LEFT_OUT for part in path.relative_to(folder).parts)


def _check_not_built_in(name: str) -> None:
    """A bench's method stands before a built-in one: under its name, pages would say of one what is true of the other."""
    if name in find_methods():
        raise TurntableError(
            f"{name!r} is the name of a built-in method; give it another, such as {'my-' + name!r}."
        )


def _take(methods: Path, method: Method) -> Method:
    """Copy a method's folder into the bench.

    Raises:
        TurntableError: there is another one of that name, or it holds a link that leads out of it.
    """
    if NAME.fullmatch(method.name) is None:
        raise TurntableError(
            f"A method's name has small letters, digits, - and _ only, not {method.name!r}. Not installed."
        )
    _check_not_built_in(method.name)
    target = methods / method.name
    size = 0
    for path in method.folder.rglob("*"):
        if _left_out(path, method.folder):
            continue
        if path.is_symlink() and (
            path.is_dir() or not path.resolve().is_relative_to(method.folder.resolve())
        ):
            raise TurntableError(
                f"{path.relative_to(method.folder)} of method {method.name} is a link to a folder, or leads out of the "
                "method's. Not installed."
            )
        size += path.stat().st_size if path.is_file() else 0
        if size > LARGEST_BYTES:
            raise TurntableError(f"{method.folder} holds more than {LARGEST_BYTES >> 30} GiB. Not installed.")
    if target.exists():
        if Method.load(target).fingerprint() == method.fingerprint():
            return Method.load(target)
        raise TurntableError(
            f"Method {method.name} is in the bench already, and is another one. Move {target} away first."
        )
    aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        shutil.copytree(method.folder, aside, ignore=shutil.ignore_patterns(*LEFT_OUT, "*.pyc"))
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Method.load(target)
