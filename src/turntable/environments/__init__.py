"""Where methods live: environments that are locked, hashed, shared where they can share, and that move.

:func:`place_of` is what everybody else needs of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import TurntableError
from . import probe
from .place import Place, host, worker_folder

if TYPE_CHECKING:
    from ..bench import Bench
    from ..methods.spec import Method
    from .environment import Environment, Environments
    from .recipe import Recipe


KINDS = ("host", "uv")
"""The kinds of environments that this version runs methods in."""


def environments_of(bench: Bench) -> Environments:
    """The environments of a bench."""
    from .environment import Environments

    return Environments(bench.folder)


def recipe_of(bench: Bench, method: Method) -> Recipe:
    """The recipe of a method's environment, of kind ``uv``.

    Raises:
        TurntableError: a file is missing or damaged.
    """
    from .recipe import read_recipe

    settings = bench.settings()
    return read_recipe(method.folder, settings.replace, settings.without)


def build(bench: Bench, method: Method, say: Callable[[str], None], from_sources: bool = True) -> Environment:
    """The environment of a method, of kind ``uv``; built if it isn't there.

    Args:
        bench: where it is.
        method: whose.
        say: told what is being done, a line each.
        from_sources: whether packages that have only a source may be built, which runs their code.

    Raises:
        TurntableError: it can't be built, or the method has no environment of its own.
    """
    _check_own(method)
    recipe = recipe_of(bench, method)
    environments = environments_of(bench)
    if (found := environments.find(recipe)) is not None:
        return found
    if reasons := probe.refusals(recipe.here, probe.look(), needs_card=method.devices == ("cuda",)):
        raise TurntableError(f"Method {method.name} can't live here: {'; '.join(reasons)}.")
    return environments.build(recipe, say, from_sources)


def lock(bench: Bench, method: Method, say: Callable[[str], None]) -> Path:
    """Make the lock of a method's environment, and build into wheels what it names as a source only; the lock.

    Raises:
        TurntableError: nothing fits, or the method has no environment of its own.
    """
    from .interpreters import provide
    from .locking import write_lock
    from .recipe import read_project

    _check_own(method)
    environments = environments_of(bench)
    path = write_lock(method.folder, provide(environments.store, read_project(method.folder)))
    environments.gather(recipe_of(bench, method), say, sources_only=True)
    return path


def export(bench: Bench, method: Method, form: str) -> str:
    """A method's environment as others can build it: ``dockerfile``, ``requirements`` or ``pylock``.

    Raises:
        TurntableError: no such form, or the method has no environment of its own.
    """
    from .locking import export as do

    _check_own(method)
    return do(method.folder, form, recipe_of(bench, method).python)


def is_idle(bench: Bench, method: Method) -> bool:
    """Whether a method of kind ``uv`` came with Turntable and has no environment here: the bench doesn't need it."""
    return method.origin == "built in" and environments_of(bench).find(recipe_of(bench, method)) is None


def recipes_of(bench: Bench) -> list[Recipe]:
    """The recipes of all environments that a bench needs: of its own methods, of built-in ones that aren't idle, and of
    methods elsewhere that it has runs of.

    Raises:
        TurntableError: a method of the bench is broken, so that nobody knows what it needs.
    """
    from ..methods.spec import Method

    folders = {path.parent for path in bench.methods_folder.glob("*/method.toml")}
    own_kind = [method for method in bench.methods().values() if method.environment["kind"] == "uv"]
    folders |= {method.folder for method in own_kind if not is_idle(bench, method)}
    for row in bench.record.runs():
        with contextlib.suppress(TurntableError):
            folders.add(Path(bench.run_folder(row.id).asked().method_folder))
    found = []
    for folder in folders:
        own = folder.parent == bench.methods_folder
        with contextlib.nullcontext() if own else contextlib.suppress(TurntableError):
            method = Method.load(folder)
            if method.environment["kind"] == "uv" and (folder / "uv.lock").is_file():
                found.append(recipe_of(bench, method))
    return found


def users_of(bench: Bench) -> dict[str, list[str]]:
    """By the hash of an environment, the methods of the bench that live in it."""
    found: dict[str, list[str]] = {}
    for method in bench.methods().values():
        if method.environment["kind"] == "uv":
            with contextlib.suppress(TurntableError):  # one without a lock lives nowhere yet
                found.setdefault(recipe_of(bench, method).hash, []).append(method.name)
    return found


def _check_own(method: Method) -> None:
    kind = method.environment["kind"]
    if kind != "uv":
        raise TurntableError(
            f"Only environments of kind 'uv' are built and locked; that of {method.name} is {kind!r}."
        )


def place_of(bench: Bench, method: Method, walls: bool, say: Callable[[str], None]) -> Place:
    """Where a method's processes run; its environment is built if it isn't there.

    Args:
        bench: whose environments there are.
        method: which.
        walls: whether it is walled in, where that can be done.
        say: told what is being done, a line each.

    Raises:
        TurntableError: the environment can't be built.
    """
    from . import sandbox

    no_walls = sandbox.why_not() if walls else "walls were not wanted (--no-sandbox)"
    network = bool(method.environment.get("network", False))
    read = tuple(bench.settings().read)
    kind = method.environment["kind"]
    if kind == "host":
        return host(method.folder, no_walls, network, read)
    environment = build(bench, method, say, from_sources=False)
    return Place(
        environment=environment.hash,
        python=environment.python,
        programs=environment.venv / "bin",
        read=(environment.folder, environment.interpreter.folder, worker_folder(), method.folder, *read),
        network=network,
        no_walls=no_walls,
    )


__all__ = [
    "Place",
    "build",
    "environments_of",
    "export",
    "is_idle",
    "lock",
    "place_of",
    "recipe_of",
    "recipes_of",
    "users_of",
]
