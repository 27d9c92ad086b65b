"""A place: an environment with the walls around it, as whoever starts a run's processes needs it."""

from __future__ import annotations

import os
import shutil
import site
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .sandbox import Walls, variables


@dataclass(frozen=True)
class Place:
    """Where a method's processes run.

    Args:
        environment: what the user is told: ``host``, or the hash of an environment.
        python: the interpreter.
        programs: the folder of the environment's programs, searched first.
        read: the files and folders that are needed, to be seen where there are walls.
        network: whether the network may be reached.
        no_walls: why there are no walls, in words; None where there are.
        python_path: folders of packages that the interpreter doesn't look into by itself.
    """

    environment: str
    python: Path
    programs: Path
    read: tuple[Path, ...] = ()
    network: bool = False
    no_walls: str | None = None
    python_path: tuple[Path, ...] = ()

    def command(
        self,
        words: Sequence[str],
        cwd: Path,
        read: Sequence[Path],
        write: Sequence[Path],
        hidden: Sequence[Path],
        held: int | None = None,
    ) -> list[str]:
        """The command that runs ``words`` here.

        Args:
            words: a program and its arguments.
            cwd: the folder that it works in.
            read: what else can be read.
            write: what can be written to; folders and files that exist.
            hidden: what of all that can't be seen.
            held: a descriptor that is to stay open as long as anything of it lives.
        """
        if self.no_walls is not None:
            return list(words)
        walls = Walls((*self.read, *read), tuple(write), tuple(hidden), self.network)
        return walls.around(words, cwd, held)

    def has_program(self, name: str, folder: Path) -> bool:
        """Whether a program that is called ``name``, or lies at that path in ``folder``, can be started here."""
        return shutil.which(name, path=self.variables()["PATH"]) is not None or (folder / name).exists()

    def variables(self) -> dict[str, str]:
        """The environment's variables."""
        kept = dict(os.environ) if self.no_walls is not None else variables(os.environ)
        path = os.pathsep.join([str(self.programs), kept.get("PATH", os.defpath)])
        # Cards are counted as the driver counts them, not fastest first: as the locks of devices are.
        found = {**kept, "PATH": path, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", "PYTHONNOUSERSITE": "1"}
        if self.python_path:
            found["PYTHONPATH"] = os.pathsep.join(map(str, self.python_path))
        return found


def host(method: Path, no_walls: str | None, network: bool = False, read: Sequence[Path] = ()) -> Place:
    """The place of methods that live in Turntable's own environment.

    Args:
        method: the method's folder.
        no_walls: why there are to be no walls; None for walls.
        network: whether the network may be reached.
        read: what else the bench lets its methods read.
    """
    import numpy

    prefixes = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.base_prefix).resolve()} - {Path("/usr")}
    # Installed for one user, it lies in the home folder, where no other prefix leads.
    packages = Path(numpy.__file__).parents[1]
    return Place(
        environment="host",
        python=Path(sys.executable),
        programs=Path(sys.executable).parent,
        read=(*prefixes, packages, worker_folder(), method, *read),
        network=network,
        no_walls=no_walls,
        python_path=(packages,)
        if site.ENABLE_USER_SITE and packages == Path(site.getusersitepackages())
        else (),
    )


def worker_folder() -> Path:
    """The folder of the worker's code."""
    from ..worker import protocol

    return Path(protocol.__file__).parent
