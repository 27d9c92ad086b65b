"""Locking: a recipe's ``uv.lock``, made by uv of its ``pyproject.toml``; and what others can build from it."""

from __future__ import annotations

from pathlib import Path

from ..errors import TurntableError, unknown_name
from .interpreters import Interpreter
from .recipe import LOCK, PROJECT, read_project
from .uv import uv

FORMS = ("dockerfile", "requirements", "pylock")


def write_lock(folder: Path, interpreter: Interpreter) -> Path:
    """Resolve ``pyproject.toml`` into ``uv.lock``; a lock that still fits stays as it is.

    Args:
        folder: the recipe's.
        interpreter: of the Python that it names.

    Returns:
        The lock.

    Raises:
        TurntableError: there is no ``pyproject.toml``, or no set of packages fits it.
    """
    read_project(folder)
    uv("lock", "--project", folder, "--python", interpreter.executable, what=f"locking {folder / PROJECT}")
    return folder / LOCK


def read_lock(folder: Path, *options: str | Path) -> str:
    """A recipe's lock as requirements with hashes, or as uv's ``options`` want it.

    Raises:
        TurntableError: it doesn't fit its project any more, or can't be understood.
    """
    return uv(
        "export", "--frozen", "--no-emit-project", "--no-dev", "--no-header", "--no-annotate",
        *(options or ("--format", "requirements.txt")), "--project", folder,
        what=f"reading the lock in {folder}",
    )  # fmt: skip


def export(folder: Path, form: str, python: str) -> str:
    """A recipe as others can build it.

    Args:
        folder: the recipe's.
        form: one of :data:`FORMS`.
        python: the Python that it needs.

    Raises:
        TurntableError: no such form.
    """
    if form not in FORMS:
        raise unknown_name("form", form, FORMS)
    if form == "pylock":
        return read_lock(folder, "--format", "pylock.toml")
    requirements = read_lock(folder)
    return requirements if form == "requirements" else dockerfile(folder.name, python, requirements)


def dockerfile(name: str, python: str, requirements: str) -> str:
    """A Dockerfile that builds the same environment: the same files of the same packages, by their hashes.

    Args:
        name: the method's.
        python: ``3.10``.
        requirements: of the lock, with hashes.
    """
    template = (Path(__file__).parent / "Dockerfile.template").read_text(encoding="utf-8")
    if "EOF" in requirements:
        raise TurntableError(f"The lock of {name} can't be written into a Dockerfile: it holds the word EOF.")
    values = {"name": name, "python": python, "requirements": requirements.rstrip()}
    for key, value in values.items():
        template = template.replace(f"{{{{ {key} }}}}", value)
    return template
