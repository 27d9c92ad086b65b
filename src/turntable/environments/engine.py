"""The container engine of this machine, Podman or Docker: found, asked what it can do, and called.

Both take nearly the same words; where they differ, it is here. Nothing is assumed of the user's rights: an engine without
root, one with it, and one in which control groups can't be limited are told apart by asking it.
"""

from __future__ import annotations

import functools
import json
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import TurntableError
from .uv import words_of

ENGINES = ("podman", "docker")
"""In the order in which they are looked for: Podman needs no service, and no rights that are as good as root's."""

CDI_FOLDERS = ("/etc/cdi", "/var/run/cdi")
CDI_CARDS = "nvidia.com/gpu"
LABEL = "turntable"

LONG = ("pull", "build", "save", "load", "rmi", "untag", "container")
"""What may take as long as it takes: it moves or removes gigabytes. Whatever else isn't answered is never answered."""

PATIENCE_S = 60.0


@dataclass(frozen=True)
class Engine:
    """A container engine that answers.

    Args:
        name: ``podman`` or ``docker``.
        program: its command line's path.
        version: as it says.
        rootless: whether it runs without root: then root inside of a container is the user outside.
        memory: whether it can limit a container's memory.
        processes: whether it can limit how many processes a container has.
    """

    name: str
    program: str
    version: str
    rootless: bool
    memory: bool
    processes: bool

    def call(self, *words: str, what: str, log: Path | None = None) -> str:
        """Have it do something, to its end.

        Args:
            words: its arguments.
            what: what is done, for the message.
            log: gets all that it says.

        Returns:
            What it printed on standard output.

        Raises:
            TurntableError: it failed; the message has its last words. Or it doesn't answer.
        """
        answer = _ask(self.program, *words)
        if log is not None:
            with log.open("a") as file:
                file.write(f"$ {self.name} {' '.join(words)}\n{answer.stdout}{answer.stderr}\n")
        if answer.returncode != 0:
            last = "\n".join(answer.stderr.strip().splitlines()[-3:])
            raise TurntableError(f"{what[:1].upper()}{what[1:]} failed: {words_of(last)}")
        return answer.stdout

    def inspect(self, image: str) -> dict[str, Any] | None:
        """What it knows of an image: ``Id``, ``Size``, ``RepoDigests`` …; None where it has no such image.

        Raises:
            TurntableError: it doesn't answer.
        """
        answer = _ask(self.program, "image", "inspect", image)
        if answer.returncode != 0:
            return None
        return json.loads(answer.stdout)[0]

    def remove_container(self, name: str) -> None:
        """Kill and remove a container; quiet if there is none of that name.

        Raises:
            TurntableError: it doesn't answer.
        """
        at_once = ("--time", "0") if self.name == "podman" else ()
        _ask(self.program, "rm", "--force", *at_once, name)

    def user(self) -> list[str]:
        """The options with which files that a container writes are the user's own."""
        uid, gid = os.getuid(), os.getgid()
        if not self.rootless:
            return ["--user", f"{uid}:{gid}"]
        return ["--userns", "keep-id"] if self.name == "podman" else ["--user", "0:0"]

    def cards(self) -> list[str]:
        """The options with which a container has the machine's NVIDIA cards.

        Raises:
            TurntableError: Podman has no description of them.
        """
        if self.name == "docker":
            return ["--gpus", "all"]
        if not any(CDI_CARDS in path.read_text(errors="replace") for path in _cdi_files()):
            raise TurntableError(
                f"Podman gives cards to containers by CDI, and {' and '.join(CDI_FOLDERS)} don't describe {CDI_CARDS}. "
                "NVIDIA's container toolkit writes one: sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
            )
        return ["--device", f"{CDI_CARDS}=all"]


def _cdi_files() -> list[Path]:
    return [path for folder in CDI_FOLDERS for path in sorted(Path(folder).glob("*")) if path.is_file()]


def limits_of_a_process() -> list[str]:
    """The options that give a container our own limits of open files and processes.

    Engines that run as root set higher ones by themselves, and can't where they may not raise any; Podman has gone down to
    the kernel's largest process id before that.
    """
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    largest = int(Path("/proc/sys/kernel/pid_max").read_text())
    processes = tuple(
        largest if value == resource.RLIM_INFINITY else min(value, largest)
        for value in resource.getrlimit(resource.RLIMIT_NPROC)
    )
    return [
        "--ulimit", f"nofile={files[0]}:{files[1]}",
        "--ulimit", f"nproc={processes[0]}:{processes[1]}",
    ]  # fmt: skip


def find(wanted: str | None = None) -> Engine:
    """The engine of this machine.

    Args:
        wanted: the one that the bench is set to; the first that answers if None.

    Raises:
        TurntableError: there is none, or it doesn't answer; the message says why and what to do.
    """
    found = look(wanted)
    if isinstance(found, str):
        raise TurntableError(found)
    return found


@functools.lru_cache(maxsize=4)
def look(wanted: str | None = None) -> Engine | str:
    """As :func:`find`, but why there is none as a text."""
    if sys.platform != "linux":
        return "Containers run methods on Linux only: elsewhere they live in a machine of their own."
    reasons: list[str] = []
    for name in (wanted,) if wanted else ENGINES:
        program = shutil.which(name)
        if program is None:
            continue
        try:
            answer = _ask(program, "info", "--format", "json" if name == "podman" else "{{json .}}")
        except TurntableError as error:
            reasons.append(str(error).rstrip("."))
            continue
        if answer.returncode == 0:
            try:
                return understood(name, program, json.loads(answer.stdout))
            except (ValueError, KeyError, TypeError) as error:
                reasons.append(f"{name} info isn't understood ({error!r})")
        else:
            reasons.append(f"{name} doesn't answer ({words_of(answer.stderr)})")
    if reasons:
        return f"Methods of kind 'container' need Podman or Docker, and {'; '.join(reasons)}."
    return f"Methods of kind 'container' need {wanted or 'Podman or Docker'}: apt install podman, dnf install podman."


def understood(name: str, program: str, info: dict[str, Any]) -> Engine:
    """What an engine's ``info`` says of it.

    Raises:
        KeyError, TypeError, ValueError: it lacks what every version has, or an engine's command line has no service.
    """
    if name == "podman":
        host = info["host"]
        controllers = host.get("cgroupControllers") or []
        return Engine(
            name,
            program,
            str(info["version"]["Version"]),
            bool(host["security"]["rootless"]),
            "memory" in controllers,
            "pids" in controllers,
        )
    if info.get("ServerErrors"):
        raise ValueError(" ".join(info["ServerErrors"]))
    return Engine(
        name,
        program,
        str(info["ServerVersion"]),
        any("name=rootless" in option for option in info.get("SecurityOptions") or []),
        bool(info.get("MemoryLimit")),
        bool(info.get("PidsLimit")),
    )


def _ask(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            (program, *words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=None if words[0] in LONG else PATIENCE_S,
        )
    except subprocess.TimeoutExpired:
        raise TurntableError(
            f"{Path(program).name} doesn't answer for {PATIENCE_S:g} s ({words[0]})."
        ) from None
