"""Where methods live: environments that are locked, hashed, shared where they can share, and that move.

:func:`place_of` is what everybody else needs of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import TurntableError
from . import probe
from .place import Place, host, worker_folder

if TYPE_CHECKING:
    from ..bench import Bench
    from ..methods.spec import Method
    from .engine import Engine
    from .environment import Environment, Environments
    from .images import Image, ImageRecipe, Images
    from .recipe import Recipe


KINDS = ("host", "uv", "container")
"""The kinds of environments that this version runs methods in."""


def environments_of(bench: Bench) -> Environments:
    """The environments of a bench."""
    from .environment import Environments

    return Environments(bench.folder)


def images_of(bench: Bench) -> Images:
    """The images of a bench, with the engine that it is set to.

    Raises:
        TurntableError: there is no such engine here.
    """
    from .engine import find
    from .images import Images

    return Images(bench.folder, find(bench.settings().engine))


def image_recipe_of(method: Method) -> ImageRecipe:
    """The recipe of a method's environment, of kind ``container``.

    Raises:
        TurntableError: it names no image, or a file is missing.
    """
    from .images import read_image_recipe

    return read_image_recipe(method.folder, method.environment)


def recipe_of(bench: Bench, method: Method) -> Recipe:
    """The recipe of a method's environment, of kind ``uv``.

    Raises:
        TurntableError: a file is missing or damaged.
    """
    from .recipe import read_recipe

    settings = bench.settings()
    return read_recipe(method.folder, settings.replace, settings.without)


def hash_of(bench: Bench, method: Method) -> str:
    """The hash of the recipe of a method's environment, of kind ``uv`` or ``container``.

    Raises:
        TurntableError: a file is missing or damaged.
    """
    if method.environment["kind"] == "container":
        return image_recipe_of(method).hash
    return recipe_of(bench, method).hash


def remove(bench: Bench, hash: str) -> None:
    """Remove an environment of either kind.

    Raises:
        TurntableError: there is none of that name, processes live in it, or an engine keeps it.
    """
    from ..record import State
    from .images import all_images, remove_image

    for row in bench.record.runs(unended=True):
        # One that is queued may have its process, stopped, in memory. For a paused one it is built again.
        if row.state in (State.RUNNING, State.QUEUED) and _environment_of(bench, row.id) == hash:
            raise TurntableError(
                f"{row.id} is {row.state.value}, and lives in environment {hash}: pause or cancel it first."
            )

    images = all_images(bench.folder)
    for image in images:
        if image.hash == hash:
            remove_image(image, _engine_of(image.document["engine"]))
            return
    environments = environments_of(bench)
    known = [one.hash for one in (*environments.all(), *images)]
    if hash not in known:
        raise TurntableError(f"There is no environment {hash!r}; known: {', '.join(known) or 'none'}.")
    environments.remove(hash)


def _environment_of(bench: Bench, run: str) -> str | None:
    try:
        return bench.run_folder(run).asked().versions.get("environment")
    except TurntableError:  # a run whose folder is damaged doesn't go on
        return None


def prune(bench: Bench) -> int:
    """Remove all environments in which no method of a bench lives, and what only they needed; the bytes given back.

    Raises:
        TurntableError: a method of the bench is broken, so that nobody knows what it needs.
    """
    from .images import prune_images

    freed = environments_of(bench).prune(lambda: recipes_of(bench))
    keep = {recipe.hash for recipe in image_recipes_of(bench)}
    return freed + prune_images(bench.folder, keep, _engine_of)


def _engine_of(name: str) -> Engine | None:
    from .engine import look

    found = look(name)
    return None if isinstance(found, str) else found


def build(
    bench: Bench, method: Method, say: Callable[[str], None], from_sources: bool = True
) -> Environment | Image:
    """The environment of a method, of kind ``uv`` or ``container``; built if it isn't there.

    Args:
        bench: where it is.
        method: whose.
        say: told what is being done, a line each.
        from_sources: whether what comes as a source only may be built, which runs its code: packages, Dockerfiles.

    Raises:
        TurntableError: it can't be built, or the method has no environment of its own.
    """
    if method.environment["kind"] == "container":
        return images_of(bench).build(image_recipe_of(method), say, from_sources)
    return _build_packages(bench, method, say, from_sources)


def _build_packages(
    bench: Bench, method: Method, say: Callable[[str], None], from_sources: bool
) -> Environment:
    _check_own(method)
    recipe = recipe_of(bench, method)
    environments = environments_of(bench)
    if (found := environments.find(recipe)) is not None:
        for package, architectures in found.document.get("compiled", {}).items():
            if lacking := probe.not_covered(architectures, probe.look()):
                raise TurntableError(
                    f"In environment {found.hash}, {package} was compiled for compute capability {architectures}, not for "
                    f"{lacking}: turntable env remove {found.hash}, then env build {method.name}."
                )
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

    if method.environment["kind"] == "container":
        from .images import pin

        return pin(method.folder, method.environment, images_of(bench).engine, say)
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

    if method.environment["kind"] == "container":
        from .images import export as do_image

        return do_image(image_recipe_of(method), form)
    _check_own(method)
    return do(method.folder, form, recipe_of(bench, method).python)


def is_idle(bench: Bench, method: Method) -> bool:
    """Whether a method came with Turntable and its own environment isn't built here: the bench doesn't need it."""
    return (
        method.origin == "built in"
        and method.environment["kind"] == "uv"
        and environments_of(bench).find(recipe_of(bench, method)) is None
    )


def recipes_of(bench: Bench) -> list[Recipe]:
    """The recipes of all environments of kind ``uv`` that a bench needs: of its own methods, of built-in ones that aren't
    idle, and of methods elsewhere that it has runs of.

    Raises:
        TurntableError: a method of the bench is broken, so that nobody knows what it needs.
    """
    locked = [method for method in _needed(bench, "uv") if (method.folder / "uv.lock").is_file()]
    return [recipe_of(bench, method) for method in locked]


def image_recipes_of(bench: Bench) -> list[ImageRecipe]:
    """As :func:`recipes_of`, of kind ``container``.

    Raises:
        TurntableError: a method of the bench is broken, so that nobody knows what it needs.
    """
    needed = [(method, method.environment.get("image")) for method in _needed(bench, "container")]
    # One that names an image by a tag has none yet.
    return [image_recipe_of(method) for method, image in needed if not isinstance(image, str) or "@" in image]


def _needed(bench: Bench, kind: str) -> Iterator[Method]:
    """The methods of a bench whose environment is of a kind."""
    from ..methods.spec import Method

    folders = {path.parent for path in bench.methods_folder.glob("*/method.toml")}
    own_kind = [method for method in bench.methods().values() if method.environment["kind"] == "uv"]
    folders |= {method.folder for method in own_kind if not is_idle(bench, method)}
    for row in bench.record.runs():
        with contextlib.suppress(TurntableError):
            folders.add(Path(bench.run_folder(row.id).asked().method_folder))
    for folder in folders:
        own = folder.parent == bench.methods_folder
        with contextlib.nullcontext() if own else contextlib.suppress(TurntableError):
            method = Method.load(folder)
            if method.environment["kind"] == kind:
                yield method


def users_of(bench: Bench) -> dict[str, list[str]]:
    """By the hash of an environment, the methods of the bench that live in it."""
    found: dict[str, list[str]] = {}
    for method in bench.methods().values():
        if method.environment["kind"] != "host":
            with contextlib.suppress(TurntableError):  # one without a lock lives nowhere yet
                found.setdefault(hash_of(bench, method), []).append(method.name)
    return found


def _check_own(method: Method) -> None:
    kind = method.environment["kind"]
    if kind != "uv":
        raise TurntableError(
            f"Only environments of kind 'uv' and 'container' are built and locked; that of {method.name} is {kind!r}."
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
    if kind == "container":
        return _in_container(bench, method, network, read, say)
    environment = _build_packages(bench, method, say, from_sources=False)
    return Place(
        environment=environment.hash,
        python=environment.python,
        programs=environment.venv / "bin",
        read=(environment.folder, environment.interpreter.folder, worker_folder(), method.folder, *read),
        network=network,
        no_walls=no_walls,
    )


def _in_container(
    bench: Bench, method: Method, network: bool, read: tuple[Path, ...], say: Callable[[str], None]
) -> Place:
    """The place of a method in an image. Its engine is the wall: there are no walls to go without."""
    from .container import Container

    recipe = image_recipe_of(method)
    images = images_of(bench)
    image = images.build(recipe, say, from_dockerfile=False)
    return Container(
        environment=image.hash,
        python=Path(recipe.python),
        programs=Path("/"),
        read=(worker_folder(), method.folder, *read),
        network=network,
        engine=images.engine,
        image=image.document["id"],
    )


__all__ = [
    "Place",
    "build",
    "environments_of",
    "export",
    "hash_of",
    "image_recipes_of",
    "images_of",
    "is_idle",
    "lock",
    "place_of",
    "prune",
    "recipe_of",
    "recipes_of",
    "remove",
    "users_of",
]
