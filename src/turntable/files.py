"""Writing files so that nobody ever sees half of one, and hashing them.

Every file of a bench is written to a temporary name beside it, flushed to the disk, and renamed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from .errors import TurntableError


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically: afterwards it holds all of it or what it held before.

    Raises:
        OSError: the disk is full or the folder can't be written; the temporary file is removed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically (see :func:`write_bytes`)."""
    write_bytes(path, text.encode())


def write_json(path: Path, document: Any) -> None:
    """Write ``document`` as indented JSON, atomically. NaN and infinities are refused (ValueError)."""
    write_text(path, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The JSON file ``path``.

    Raises:
        TurntableError: it is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TurntableError(f"{path} is missing; it is needed to read {path.parent}.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise TurntableError(f"{path} is damaged ({error}); move {path.parent} away.") from None


def link_or_copy(source: Path, target: Path) -> None:
    """Have a file lie at ``target``, too: one file with two names where that can be, else a copy."""
    source = source.resolve()  # a link to a link would be a symbolic one
    try:
        os.link(source, target)
    except OSError:  # another file system, one without hard links, or somebody else's file
        write_bytes(target, source.read_bytes())


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A file beside ``target``, of the same suffix, that takes its place when the block ends well, and is removed else."""
    aside = target.with_name(f".{target.stem}.{os.getpid()}.tmp{target.suffix}")
    try:
        yield aside
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def holding(lock: Path, how: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Hold the kernel's lock on a file, made if it isn't there; waits for those who hold it now.

    Args:
        lock: the file; its folder exists.
        how: ``fcntl.LOCK_EX``, alone, or ``fcntl.LOCK_SH``, with others who say so.
    """
    with lock.open("ab") as file:
        fcntl.flock(file, how)
        yield


def open_beneath(folder: Path, name: str) -> IO[bytes]:
    """Open a file in a folder that somebody else may write to: no link is followed below ``folder``, and nothing but a plain
    file is opened.

    Args:
        folder: whose content isn't trusted.
        name: the file's path inside of it, with ``/``.

    Raises:
        OSError: it isn't there, or a link or something else is.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        *way, last = name.split("/")
        if ".." in (*way, last) or "" in (*way, last):
            raise OSError(errno.EINVAL, "it leads out of its folder", str(folder / name))
        for part in way:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        # Not to wait for whoever might write into a pipe.
        file = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=descriptor)
    finally:
        os.close(descriptor)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "it is no plain file", str(folder / name))
    return os.fdopen(file, "rb")


def read_toml(path: Path) -> dict[str, Any]:
    """The TOML file ``path``, which must be there.

    Raises:
        TurntableError: it is no TOML.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:  # the same parser, before it came with Python
        import tomli as tomllib  # pyright: ignore[reportMissingImports]
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TurntableError(f"{path} is not valid TOML: {error}.") from None


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hash_of(file)


def hash_of(file: IO[bytes]) -> str:
    """The sha256 of what is left of an open file, in hexadecimal."""
    import hashlib  # not above: it takes 5 ms, and `turntable status` needs no hash

    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()
