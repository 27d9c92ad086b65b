"""A worker process: started, talked to, and ended with everything it started.

It has a session of its own, so that Ctrl-C in the terminal reaches the supervisor alone. The run's lock and the device's are
held as long as it lives, so that nobody starts the run again or uses the device: outside of its walls, where it can't let
go of them; without walls, by itself.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NoReturn

import psutil

from ..environments.container import Allowance, Container, Mounts, message
from ..environments.engine import Engine
from ..environments.place import Place
from ..run import RunFolder
from ..worker import protocol
from ..worker.inside import NOT_RUN
from .cgroup import Cgroup
from .door import Door
from .family import MARK, Family
from .limits import Limits, limit

WORKER = Path(protocol.__file__).parent / "__main__.py"
LAUNCH = Path(protocol.__file__).parent / "launch.py"
GRACE_S = 5.0
LONGEST_CAUSE = 500
OUT_OF_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
TICK_S = 0.1
MOST_PROCESSES = 4096
"""A program that uses every core of a large machine has hundreds of threads; a fork bomb has all that it is given."""

NOT_STARTED = (125, 126, 127)
"""How an engine's command ends where no container, or nothing in it, could be started."""

FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
"""Signals that a crash doesn't raise: somebody sent them, and the method isn't to blame."""


class WorkerFailed(Exception):
    """The worker failed: the message is the cause, one line."""


class WorkerKilled(WorkerFailed):
    """Somebody killed the worker: not its own fault, as far as can be seen."""


@dataclass(frozen=True)
class Quarters:
    """Where a run's processes live, and what they may have of this machine.

    Args:
        folder: the run's.
        place: the method's environment, and whether there are walls around it.
        read: what they may read beside what the place has; the run's folder always.
        write: what is theirs to write to.
        hidden: what of all that they may not see: whatever is held out.
        device: the one that they run on: ``cpu``, ``cuda:0``.
        most_memory_bytes: more is refused by the kernel, where a control group can be limited.
        most_processes: so many, threads among them.
    """

    folder: Path
    place: Place
    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()
    device: str = "cpu"
    most_memory_bytes: int = field(default_factory=lambda: most_memory_bytes())
    most_processes: int = field(default_factory=lambda: MOST_PROCESSES)

    def command(self, words: Sequence[str], cwd: Path, held: int | None = None) -> list[str]:
        """The command that runs ``words`` there; ``held`` as :meth:`turntable.environments.place.Place.command` has it."""
        return self.place.command(words, cwd, (self.folder, *self.read), self.write, self.covered, held)

    @property
    def covered(self) -> tuple[Path, ...]:
        """What is hidden, by every name that it would have: a folder that a link leads to is seen where it is, too."""
        bound = {one: one.resolve() for one in (self.folder, *self.read, *self.write)}
        others = [
            real / path.relative_to(one)
            for path in self.hidden
            for one, real in bound.items()
            if real != one and path.is_relative_to(one)
        ]
        return (*self.hidden, *others)


@dataclass(frozen=True)
class Program:
    """What is started for a run.

    Args:
        words: the program and its arguments.
        log: where its output goes.
        cwd: the folder that it works in.
        variables: its environment's.
        locks: descriptors that stay open as long as it lives: the run's lock and the device's.
        channel: descriptors that it inherits, to talk to us.
    """

    words: Sequence[str]
    log: IO[bytes]
    cwd: Path
    variables: dict[str, str]
    locks: Sequence[int]
    channel: Sequence[int]


class RunProcess:
    """The process that a run was started with, and whatever that started."""

    def __init__(
        self,
        words: Sequence[str],
        quarters: Quarters,
        log: IO[bytes],
        locks: Sequence[int],
        cwd: Path | None = None,
        channel: Sequence[int] = (),
    ) -> None:
        """Start it.

        Args:
            words: the program and its arguments.
            quarters: where, and with what around it.
            log: where its output goes.
            locks: descriptors that stay open as long as it lives: the run's lock and the device's.
            cwd: the folder that it works in; the run's if None.
            channel: descriptors that it inherits, to talk to us.

        Raises:
            OSError: it can't be started.
        """
        self.kills_before = out_of_memory_kills()
        self._log = Path(log.name)
        self._walled = quarters.place.no_walls is None
        self._container: InContainer | None = None
        self._cgroup: Cgroup | None = None
        variables = {
            **quarters.place.variables(),
            "PYTHONUNBUFFERED": "1",
            "PYTHONHASHSEED": "0",
            MARK: str(quarters.folder),
        }
        program = Program(words, log, cwd or quarters.folder, variables, locks, channel)
        if isinstance(quarters.place, Container):
            self._start_in_container(program, quarters, quarters.place)
        else:
            self._start(program, quarters)
        self.pid = self.process.pid
        door = None if self._container is None else self._container.door
        self.family = Family(
            self.pid, str(quarters.folder), cgroup=self._cgroup, heir=lambda: door and door.first
        )

    def _start(self, program: Program, quarters: Quarters) -> None:
        name = cgroup_name(quarters.folder)
        cgroup = self._cgroup = Cgroup.create(name)
        self.limits = limit(name, cgroup, quarters.most_memory_bytes, quarters.most_processes)
        groups = [*self.limits.groups, *([] if cgroup is None else [cgroup.folder])]
        joined = os.pathsep.join(str(group / "cgroup.procs") for group in groups) or "-"
        log, cwd, variables, locks = program.log, program.cwd, program.variables, program.locks
        if not self._walled or not locks:
            command = quarters.command(program.words, cwd)
            self.process = launch(command, joined, log, cwd, variables, (*program.channel, *locks))
            return
        theirs, ours = socket.socketpair()
        with theirs, ours:
            command = quarters.command(program.words, cwd, theirs.fileno())
            outside = (theirs.fileno(), ours.fileno(), *locks)
            self.process = launch(command, joined, log, cwd, variables, program.channel, outside)

    def _start_in_container(self, program: Program, quarters: Quarters, place: Container) -> None:
        """Start it as the engine's child: ours is only the engine's command line, which is told what comes out.

        The engine puts the container into control groups of its own, with the limits that it is given; and the program is
        known by its mark, in there as anywhere, and as the first process's child.
        """
        self.limits = Limits(place.engine.memory, place.engine.processes)
        container = self._container = InContainer(place.engine, f"turntable-{cgroup_name(quarters.folder)}")
        try:
            mounts = Mounts((quarters.folder, *quarters.read), quarters.write, quarters.covered)
            cards = quarters.device.startswith("cuda")
            allowance = Allowance(quarters.most_memory_bytes, quarters.most_processes, cards)
            command = place.start(container.name, container.door.folder, mounts, allowance)
            process = self.process = launch(command, "-", program.log, Path("/"), dict(os.environ), ())
        except BaseException:
            container.end()
            raise
        told = message(program.words, program.cwd, program.variables)
        container.door.hand_over(told, program.channel, program.locks, lambda: process.poll() is None)

    def end(self, grace_s: float = GRACE_S) -> None:
        """End it and everything that it started: asked first, killed after a grace period."""
        self.family.kill(0 if self.process.poll() is not None else grace_s)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE_S)
        if self._cgroup is not None:
            self._cgroup.remove()
        self.limits.remove()
        if self._container is not None:
            self._container.end()

    @property
    def in_container(self) -> bool:
        """Whether it is an engine's child, and not ours."""
        return self._container is not None

    def why_it_died(self) -> WorkerFailed:
        """What its end means for the run."""
        status = self.process.returncode
        if self._container is not None and status in NOT_STARTED:
            lines = self._log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
            # A program may end like this by itself.
            if not self._container.door.passed or NOT_RUN in lines[-1]:
                return WorkerFailed(printable(f"{self._container.engine.name} could not run it: {lines[-1]}"))
        if self._walled and status is not None and 128 < status < 128 + signal.NSIG:
            status = 128 - status  # so says the wall, as a shell would, of who died inside by a signal
        out_of_memory = out_of_memory_kills() > self.kills_before
        kind = (
            WorkerKilled
            if status is not None and -status in FROM_OUTSIDE and not out_of_memory
            else WorkerFailed
        )
        return kind(describe_end(status, out_of_memory))


class InContainer:
    """The container of one run: there is never a second one, and none is left."""

    def __init__(self, engine: Engine, name: str) -> None:
        """Make sure that none of that name is left by a killed supervisor, and open the door.

        Raises:
            OSError: no door can be made.
        """
        self.engine = engine
        self.name = name
        engine.remove_container(name)
        self.door = Door()

    def end(self) -> None:
        """Kill it, if it lives still, and see that the engine has forgotten it."""
        self.door.close()
        self.engine.remove_container(self.name)


def launch(
    command: Sequence[str],
    groups: str,
    log: IO[bytes],
    cwd: Path,
    variables: dict[str, str],
    inherited: Sequence[int],
    outside: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own, that dies with us.

    Args:
        command: the program and its arguments.
        groups: as :mod:`turntable.worker.launch` takes them.
        log: where its output goes.
        cwd: the folder that it works in.
        variables: its environment's.
        inherited: descriptors that it keeps.
        outside: those that are held beside it, as :mod:`turntable.worker.launch` takes them.

    Raises:
        OSError: it can't be started.
    """
    held = ":".join(map(str, outside)) or "-"
    # Isolated, and without site: it only asks to die with us, joins the groups and becomes the command.
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(LAUNCH), str(os.getpid()), groups, held, *command],
        cwd=cwd,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=(*inherited, *outside),
        start_new_session=True,
    )


class WorkerProcess:
    """A worker and the socket to it."""

    def __init__(self, quarters: Quarters, log: IO[bytes], locks: Sequence[int], patience_s: float) -> None:
        """Start a worker.

        Args:
            quarters: where; its interpreter is the place's.
            log: where its output goes.
            locks: descriptors that stay open as long as it lives: the run's lock and the device's.
            patience_s: how long, in seconds, it may say nothing before it counts as hung.
        """
        self.patience_s = patience_s
        self.tick: Callable[[], None] = lambda: None
        """Called several times a second while the worker is waited for; what it raises ends the waiting."""
        self._folder = quarters.folder
        ours, theirs = socket.socketpair()
        with theirs:
            self._run = RunProcess(
                [str(quarters.place.python), str(WORKER), str(theirs.fileno())],
                quarters,
                log,
                locks,
                channel=(theirs.fileno(),),
            )
        self._channel = protocol.Channel(ours)
        self.pid = self._run.pid

    def greet(self) -> dict[str, Any]:
        """Exchange hellos; the worker's.

        Raises:
            WorkerFailed: it doesn't start, or speaks another protocol.
        """
        hello = self.await_("hello")
        if hello.get("protocol") != protocol.VERSION:
            raise WorkerFailed(
                f"the worker speaks protocol {hello.get('protocol')!r}, not {protocol.VERSION}"
            )
        self.send("hello", protocol=protocol.VERSION)
        return hello

    def send(self, kind: str, **fields: Any) -> None:
        """Send a message.

        Raises:
            WorkerFailed: the worker has died.
        """
        try:
            self._channel.send(kind, **fields)
        except protocol.Closed:
            self._raise_why_it_died()

    def receive(self) -> dict[str, Any]:
        """The next message.

        Raises:
            WorkerFailed: it says that it failed, it has died, it talks nonsense, or it has said nothing for
                ``patience_s``.
            OSError: the worker found the disk full: no fault of the method, so the run isn't failed by it.
        """
        deadline = time.monotonic() + self.patience_s
        message = None
        try:
            while message is None and time.monotonic() < deadline:
                self.tick()
                message = self._channel.receive(min(TICK_S, self.patience_s))
        except protocol.Closed:
            self._raise_why_it_died()
        except ValueError as error:
            raise WorkerFailed(f"the worker sent what is no message ({error})") from None
        if message is None:
            raise WorkerFailed(f"hung: no message for {self.patience_s:g} s (--patience)")
        if message["type"] == "failed":
            if self._is_the_disks_fault(message):
                raise OSError(message["errno"], os.strerror(message["errno"]), str(self._folder))
            raise WorkerFailed(printable(message["cause"]))
        return message

    def _is_the_disks_fault(self, message: dict[str, Any]) -> bool:
        """Whether the bench's disk is full, or became read-only: not every such error of a method is about the bench."""
        file = message.get("file")
        inside = file is not None and (self._folder / file).resolve().is_relative_to(self._folder.resolve())
        return message.get("errno") in OUT_OF_DISK and (
            inside or (file is None and message["errno"] == errno.ENOSPC)
        )

    def await_(self, kind: str) -> dict[str, Any]:
        """The next message, which must be of this kind.

        Raises:
            WorkerFailed: as :meth:`receive`, or it is of another kind.
        """
        message = self.receive()
        expect(message, kind)
        return message

    def _raise_why_it_died(self) -> NoReturn:
        # The socket closes a moment before the process can be waited for.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._run.process.wait(GRACE_S)
        raise self._run.why_it_died()

    def end(self) -> None:
        """End the worker and everything that it started: asked first, killed after a grace period."""
        self._channel.close()
        self._run.end()

    def pids(self) -> list[int]:
        """The worker and what it started."""
        return [member.pid for member in self._run.family.members()]

    def resident_bytes(self) -> int:
        """Memory that the worker has resident, in bytes; not what it started."""
        if self._run.in_container:
            return max((rss_bytes(member) for member in self._run.family.members()), default=0)
        with contextlib.suppress(psutil.Error):
            # Inside of walls it is the child of their own processes, which hold next to nothing.
            process = psutil.Process(self.pid)
            return max(one.memory_info().rss for one in (process, *process.children(recursive=True)))
        return 0

    def stop(self) -> None:
        """Let the worker end by itself, then make sure of it."""
        with contextlib.suppress(WorkerFailed):
            self.send("stop")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._run.process.wait(GRACE_S)
        self.end()


def rss_bytes(process: psutil.Process) -> int:
    """Memory that a process has resident, in bytes; 0 if it is gone."""
    with contextlib.suppress(psutil.Error):
        return process.memory_info().rss
    return 0


def printable(cause: str) -> str:
    """A cause as one line that every file, database and terminal takes."""
    line = " ".join(cause.encode("utf-8", "backslashreplace").decode().replace("\0", "").split())
    return line if len(line) <= LONGEST_CAUSE else line[:LONGEST_CAUSE] + " …"


SPARE_SHARE = 0.05
"""Of the machine's memory, what a run may never take: the system, the desktop and we ourselves need it."""


def most_memory_bytes() -> int:
    """The most memory that a run's processes may have together, in bytes."""
    return int(psutil.virtual_memory().total * (1 - SPARE_SHARE))


NOBODY = -1
"""No process's number. (0 is one: the session of those that were started outside of this container.)"""


def kill_leftovers(folder: RunFolder) -> None:
    """Kill what a killed supervisor's worker left behind: its children, which it couldn't take with it."""
    # Nobody's number, if the supervisor was killed before it wrote down its worker's: the mark and the group know it too.
    leader, started = NOBODY, None
    for event in folder.events():
        if event.get("type") == "worker":
            leader, started = event["pid"], event["time"]
    cgroup = Cgroup.create(cgroup_name(folder.path))
    Family(leader, str(folder.path), started, cgroup).kill(0)
    if cgroup is not None:
        cgroup.remove()


def cgroup_name(folder: Path) -> str:
    """The name of a run's control group: the same for every supervisor of the run, and no other run's of the machine."""
    return hashlib.sha256(str(folder).encode()).hexdigest()[:12]


def expect(message: dict[str, Any], kind: str) -> None:
    """Check that a message is of the kind that is due.

    Raises:
        WorkerFailed: it isn't.
    """
    if message["type"] != kind:
        raise WorkerFailed(f"the worker said {message['type']!r} where {kind!r} was due")


def describe_end(status: int | None, out_of_memory: bool) -> str:
    """Why a worker that said nothing is gone, from its exit status (negative: a signal's number)."""
    if status is None:
        return "the worker closed its socket but did not end"
    if status == -signal.SIGKILL and out_of_memory:
        return "out of memory: killed by the kernel (signal 9); use a smaller capture or settings"
    if status == -signal.SIGKILL:
        return "killed by signal 9 (SIGKILL) from outside; the kernel counted no out-of-memory kill"
    if status < 0:
        name = signal.Signals(-status).name
        return f"{'killed from outside by' if -status in FROM_OUTSIDE else 'crashed with'} signal {-status} ({name})"
    return f"ended with status {status} without a word; see the log"


def out_of_memory_kills() -> int:
    """How many processes the Linux kernel has killed for want of memory, as far as can be seen; else 0."""
    if not sys.platform.startswith("linux"):
        return 0
    total = 0
    for path in (Path("/proc/vmstat"), Path("/sys/fs/cgroup/memory.events")):
        with contextlib.suppress(OSError):
            for line in path.read_text().splitlines():
                key, _, value = line.partition(" ")
                if key == "oom_kill":
                    total += int(value)
    return total
