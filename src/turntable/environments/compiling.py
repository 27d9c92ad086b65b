"""Compiling what an environment would else compile in every run: CUDA kernels that come as sources in a wheel.

Done once, when the environment is built; the module lies with the package from then on, as if its wheel had brought
it. This runs code of packages, so it happens within walls; where there are none, only when the user asked to build.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import TurntableError
from . import sandbox
from .interpreters import Interpreter
from .uv import words_of
from .wheels import Wheel

ARCHITECTURES = "architectures.txt"
COMPILERS_OWN = ("CC", "CXX", "MAX_JOBS", "NVCC_CCBIN")
"""Variables by which a user chooses compilers, which a method has no business with."""

SCRIPTS = {"gsplat": (Path(__file__).with_name("compile_gsplat.py"), "csrc.so")}
"""By package: what compiles it, run as ``python SCRIPT OUT`` in the environment, and the file that it leaves in OUT, which
belongs into the package's folder."""


@dataclass(frozen=True)
class Workshop:
    """Where something is compiled.

    Args:
        venv: the environment, not read-only yet.
        interpreter: what it lives on.
        log: gets all that is said.
        from_sources: whether the user asked for packages' code to be run.
    """

    venv: Path
    interpreter: Interpreter
    log: Path
    from_sources: bool

    def compile(self, wheels: Sequence[Wheel], say: Callable[[str], None]) -> dict[str, str]:
        """Compile what has to be, for the cards of this machine or those that TORCH_CUDA_ARCH_LIST names.

        Args:
            wheels: the environment's.
            say: told what is being done, a line each.

        Returns:
            By package, the architectures that it was compiled for, as TORCH_CUDA_ARCH_LIST has them.

        Raises:
            TurntableError: it can't be compiled.
        """
        made = {}
        for wheel in wheels:
            if wheel.name in SCRIPTS:
                script, file = SCRIPTS[wheel.name]
                (package,) = self.venv.glob(f"lib/python*/site-packages/{wheel.name}")
                if not (package / file).exists():  # else its wheel brings it
                    made[wheel.name] = self._compile(wheel, script, package / file, say)
        return made

    def _compile(self, wheel: Wheel, script: Path, target: Path, say: Callable[[str], None]) -> str:
        no_walls = sandbox.why_not()
        if no_walls is not None and not self.from_sources:
            raise TurntableError(
                f"{wheel.name} must be compiled, which runs code of packages with your rights ({no_walls}): turntable env "
                "build METHOD does it, if you trust them."
            )
        say(f"Compiling {wheel.name} {wheel.version} for this machine's cards (minutes) …")
        out = self.venv.with_name("compiled")
        out.mkdir()
        words = [str(self.venv / "bin" / "python"), "-B", str(script), str(out)]
        variables = dict(os.environ)
        if no_walls is None:
            read = (self.venv, self.interpreter.folder, script)
            words = sandbox.Walls(read, (out,)).around(words, out)
            chosen = {name: os.environ[name] for name in COMPILERS_OWN if name in os.environ}
            variables = {**sandbox.variables(os.environ), **chosen}
        with self.log.open("ab") as log:
            log.write(f"$ {' '.join(words)}\n".encode())
            log.flush()
            answer = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=variables,
                check=False,
            )
        if answer.returncode != 0:
            said = self.log.read_text(errors="replace").splitlines()
            faults = [line for line in said if "error:" in line.lower()] or said[-1:]
            raise TurntableError(f"{wheel.name} can't be compiled: {words_of(faults[0])}")
        architectures = (out / ARCHITECTURES).read_text()
        shutil.move(out / target.name, target)
        shutil.rmtree(out)
        return architectures
