"""A method's place inside a container: the command that starts one, with the same walls as :mod:`.sandbox` has.

What can be read and written lies inside at the paths that it has outside, so that nothing has to be translated: the
worker's code, the method's folder, the capture, the run's folder. Everything else is the image's, read-only. There are no
capabilities, no network unless the method asks for it, and no more memory and processes than a run outside may have.

An engine's processes are not our children, and inherit nothing. What starts a run's process therefore comes in by a door: a
socket of the file system, at :data:`DOOR` inside (:mod:`turntable.turns.door` is its side here,
:mod:`turntable.worker.inside` that in there). The container lives as long as this connection.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import TurntableError
from .engine import LABEL, Engine, limits_of_a_process
from .place import Place
from .sandbox import HOME, names_of, outermost_first, variables

DOOR = "/run/turntable"
"""The folder inside with what comes in by the door."""

SOCKET, NO_FILE, NO_FOLDER = "door", "nothing", "none"
"""In that folder: the socket, and what hidden files and folders are covered with."""

OF_THE_MACHINE = frozenset(
    {"PATH", "LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH", "CUDA_ROOT", "NVIDIA_VISIBLE_DEVICES"}
)
"""Variables that name places and things of this machine, where the image has its own."""


PROGRAMS = ("/usr", "/bin", "/lib", "/lib64", "/nix/store", "/gnu/store")
TRIAL = "/bin/true"
TAR_END = 1024
"""So many zeros end an archive, and are an empty one."""


@dataclass(frozen=True)
class Allowance:
    """What a container may have.

    Args:
        memory_bytes: the most memory.
        processes: the most processes, threads among them.
        cards: whether it needs the graphics cards.
    """

    memory_bytes: int
    processes: int
    cards: bool = False


@dataclass(frozen=True)
class Mounts:
    """What of this machine is in a container, at its own paths.

    Args:
        read: files and folders that can be read.
        write: those that can be written to.
        hidden: files and folders inside of those that can't be seen.
    """

    read: tuple[Path, ...]
    write: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()

    def options(self, door: Path) -> list[str]:
        """The options of the engine; ``door`` is the folder that comes in at :data:`DOOR`.

        A place is mounted once: one that can be written to isn't the lesser for being among what can be read.
        """
        bound = {*self.read, *self.write}
        mounts = {Path(DOOR): (door, True)}
        for readonly, paths in ((True, self.read), (False, self.write)):
            mounts |= {name: (name.resolve(), readonly) for one in paths for name in names_of(one, bound)}
        for path in self.hidden:
            mounts[path] = (door / (NO_FOLDER if path.is_dir() else NO_FILE), True)
        return [
            word
            for path in outermost_first(mounts)
            for word in _mount(mounts[path][0], path, mounts[path][1])
        ]


@dataclass(frozen=True)
class Container(Place):
    """The place of a method whose environment is an image.

    Args:
        engine: what starts it.
        image: the image's id.
    """

    engine: Engine = field(kw_only=True)
    image: str = field(kw_only=True)

    def has_program(self, name: str, folder: Path) -> bool:
        return True  # what is in the image is only known inside

    def variables(self) -> dict[str, str]:
        """What is set inside, on top of what the image sets."""
        kept = {name: text for name, text in variables(os.environ).items() if name not in OF_THE_MACHINE}
        return {**kept, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", "PYTHONNOUSERSITE": "1"}

    def start(self, name: str, door: Path, mounts: Mounts, allowance: Allowance) -> list[str]:
        """The command that starts a container which waits at its door for what to run.

        Args:
            name: of the container.
            door: the folder with the socket.
            mounts: what is to be seen beside what the place has.
            allowance: what it may have.

        Raises:
            TurntableError: the engine has no way to the cards that it needs.
        """
        from ..worker import protocol

        engine = self.engine
        whole = Mounts((*self.read, *mounts.read), mounts.write, mounts.hidden)
        return [
            *run_alone(engine, name, allowance), *confined(engine, self.network),
            # Data loaders share memory here; the engines' own 64 MB are a tenth of what they take. It counts as memory.
            "--shm-size", str(allowance.memory_bytes),
            *(engine.cards() if allowance.cards else ()),
            *whole.options(door),
            "--workdir", "/", "--entrypoint", str(self.python), self.image,
            "-I", "-S", str(Path(protocol.__file__).parent / "inside.py"), f"{DOOR}/{SOCKET}",
        ]  # fmt: skip


def run_alone(engine: Engine, name: str, allowance: Allowance) -> list[str]:
    """The beginning of a command that runs a container: known by its name and removed in the end, with its limits."""
    limits = ["--memory", str(allowance.memory_bytes)] if engine.memory else []
    limits += ["--pids-limit", str(allowance.processes)] if engine.processes else []
    return [
        engine.program, "run", "--rm", "--name", name, "--label", LABEL, "--pull", "never",
        "--log-driver", "none", *limits,
    ]  # fmt: skip


def confined(engine: Engine, network: bool) -> list[str]:
    """The options that put walls around whatever is started in a container."""
    return [
        *(() if network else ("--network", "none")),
        "--read-only", "--tmpfs", "/tmp:rw,exec,nosuid,nodev,mode=1777",
        "--cap-drop", "all", "--security-opt", "no-new-privileges", "--security-opt", "label=disable",
        *engine.user(), *limits_of_a_process(),
    ]  # fmt: skip


def why_not(engine: Engine) -> str | None:
    """Why an engine starts no container here, one line; None if it does. It is tried, with this machine's own programs."""
    name = f"localhost/turntable/trial:{os.getpid()}"
    system = Mounts(tuple(path for path in map(Path, PROGRAMS) if path.exists()))
    with tempfile.TemporaryDirectory(prefix="turntable-trial-") as scratch:
        (empty := Path(scratch) / "empty.tar").write_bytes(bytes(TAR_END))
        (door := Path(scratch) / "door").mkdir()
        try:
            engine.call("import", str(empty), name, what="making an empty image")
            engine.call(
                "run", "--rm", *confined(engine, network=False), *system.options(door), "--entrypoint", TRIAL, name,
                what="starting a container",
            )  # fmt: skip
        except TurntableError as error:
            return str(error)
        finally:
            with contextlib.suppress(TurntableError):
                engine.call("rmi", name, what="removing the empty image")
    return None


def _mount(source: Path, target: Path, readonly: bool) -> list[str]:
    parts = ["type=bind", f"source={source}", f"target={target}", *(["readonly"] if readonly else [])]
    return ["--mount", _one_line(parts)]


def _one_line(parts: Iterable[str]) -> str:
    """Words as both engines read them: a line of CSV, in which a path may hold commas and quotes."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(list(parts))
    return line.getvalue()


def message(words: Sequence[str], cwd: Path, inside: Mapping[str, str]) -> dict[str, object]:
    """What is told to a container at its door: what to run, where, and with which variables."""
    return {"words": list(words), "cwd": str(cwd), "variables": dict(inside), "home": HOME}
