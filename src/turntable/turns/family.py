"""A run's processes: its worker and whatever that started, however far it went.

A method is foreign code: it starts data loaders, servers and shells, which may take a session of their own, lose their
parents, close every descriptor, or ignore being asked to end. They are known by the first of these that holds:

- the run's control group holds them (:mod:`.cgroup`), where one can be made;
- they are in the process group or session that the worker leads;
- their environment carries the run's mark, which children inherit;
- they were known before;
- their parent is one of these, or their process group has one of these in it;
- their parent is the run's heir: a container's first process, to which whoever in there loses its parent is given. It is
  none of the family itself: a pause leaves it awake.

Podman's conmon is none of it either, though its parent is the engine's client for a moment: stopped or killed, it would
never take note that the container has ended, which would count as running for ever.

What escapes: a process that has cleared its environment, taken a session of its own and lost its parent before anyone
looked, where there's no control group and no heir.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from ..environments.sandbox import PROGRAM as WALL
from .cgroup import Cgroup

MARK = "TURNTABLE_RUN"
"""The environment variable by which a run's processes are known; its value is the run's alone."""

CLOCKS_APART_S = 1.0
"""How much later than ``started`` a leader may seem to be created: the kernel counts ticks from a rounded boot time."""
LONGEST_KILL_S = 10.0
LONGEST_THAW_S = 1.0
ROUND_S = 0.001
POLL_S = 0.02
QUIET_ROUNDS = 2
"""How many looks in a row must find nothing to do: a program that is just being loaded has no environment for a moment,
and may be missed once."""
MOST_LISTINGS = 30
"""A machine on which something is started in every millisecond is never seen at rest."""

MINDER = "conmon"
"""What Podman leaves beside each container: it buries the container's first process and calls for the tidying up."""

STOPPED = frozenset("T")
WILL_STOP = frozenset("Dt")
"""Waiting in the kernel (D) or for a debugger (t): runs nothing of its own before it takes the SIGSTOP that was sent. A
parent whose vfork child was stopped waits like this for as long as the child is."""
DEAD = frozenset("ZX")


class CannotFreeze(Exception):
    """Some of a run's processes go on running: the message says which, one line."""


class Family:
    """A run's processes, looked for anew whenever they are asked for."""

    def __init__(
        self,
        leader: int,
        mark: str,
        started: float | None = None,
        cgroup: Cgroup | None = None,
        heir: Callable[[], psutil.Process | None] = lambda: None,
    ) -> None:
        """The family of a worker, which may have ended.

        Args:
            leader: the worker's process id, which is its process group's and its session's too; -1 where it isn't known.
            mark: the value of :data:`MARK` in the worker's environment.
            started: when the worker was started, in seconds since the epoch. A process that was created later, and
                doesn't carry the mark, is a stranger who came by the leader's number: it is left alone, and its group
                too. If absent, the number is taken to be the worker's still.
            cgroup: the control group that the worker was put into.
            heir: the first process of the container that the worker was put into, once that is known.
        """
        self._leader = leader
        self._mark = mark
        self._started = started
        self._cgroup = cgroup
        self._heir = heir
        self._known: set[psutil.Process] = set()

    def members(self) -> list[psutil.Process]:
        """The family's living processes: no zombies, and never ourselves."""
        return list(self._look())

    def cpu_seconds(self) -> float:
        """Processor time that the living members have used, user and system, in seconds."""
        total = 0.0
        for member in self._look():
            with contextlib.suppress(psutil.Error):
                times = member.cpu_times()
                total += times.user + times.system
        return total

    def resident_bytes(self) -> int:
        """Memory that the members have resident, in bytes; what they share is counted once for each."""
        total = 0
        for member in self._look():
            with contextlib.suppress(psutil.Error):
                total += member.memory_info().rss
        return total

    def freeze(self, timeout_s: float = 5.0) -> str:
        """Stop every member where it is, and what it starts meanwhile.

        Args:
            timeout_s: how long, in seconds, it may take.

        Returns:
            By what: ``"cgroup"`` or ``"SIGSTOP"``.

        Raises:
            CannotFreeze: some member runs still. All are thawed again.
        """
        deadline = time.monotonic() + timeout_s
        by_cgroup = self._cgroup is not None and bool(self._cgroup.pids()) and self._cgroup.freeze(timeout_s)
        running = self._stop_all(deadline, by_cgroup)
        if running:
            self.thaw()
            pids = ", ".join(str(member.pid) for member in running[:5])
            raise CannotFreeze(
                f"{len(running)} of the run's processes still ran after {timeout_s:g} s of freezing (pid {pids})"
            )
        return "cgroup" if by_cgroup else "SIGSTOP"

    def _stop_all(self, deadline: float, by_cgroup: bool) -> list[psutil.Process]:
        """Stop what the control group doesn't hold, in rounds until nothing runs; what runs still at the deadline."""
        told: set[psutil.Process] = set()
        pause_s = ROUND_S
        quiet = 0
        while True:
            held = set(self._cgroup.pids()) if self._cgroup is not None and by_cgroup else set[int]()
            running: list[psutil.Process] = []
            for member in self._look():
                harmless = STOPPED | DEAD | (WILL_STOP if member in told else frozenset[str]())
                if member.pid not in held and not _states(member) <= harmless:
                    stop(member)
                    told.add(member)
                    running.append(member)
            quiet = 0 if running else quiet + 1
            if quiet == QUIET_ROUNDS or (running and time.monotonic() >= deadline):
                return running
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, POLL_S)

    def thaw(self) -> None:
        """Let every member go on; one that had stopped itself goes on too."""
        if self._cgroup is not None:
            self._cgroup.thaw()
        deadline = time.monotonic() + LONGEST_THAW_S
        # In rounds: after a freeze that failed, there may be some that were born stopped while we looked.
        stopped = True
        while stopped and time.monotonic() < deadline:
            stopped = False
            for member in self._look():
                stopped |= bool(_states(member) & STOPPED)
                send(member, signal.SIGCONT)

    def kill(self, grace_s: float) -> list[int]:
        """End every member, frozen or not: asked first by SIGTERM, then killed.

        Our own children among them stay as zombies until they are waited for.

        Args:
            grace_s: how long, in seconds, they may take to end by themselves; 0 kills at once.

        Returns:
            The process ids of those that live still, 10 s after they were killed: none, unless they are another
            user's, or hang in the kernel.
        """
        if grace_s > 0:
            # Asked once: what they start from now on to tidy up isn't to be asked to end.
            for member in self.members():
                # Walls take everything inside with them, at once: they end when all inside have ended.
                if not _is_wall(member):
                    send(member, signal.SIGTERM)
            # Thawed after they were asked, so that they do nothing else before they act on it.
            self.thaw()
            deadline = time.monotonic() + grace_s
            while self.members() and time.monotonic() < deadline:
                time.sleep(POLL_S)
        if self._cgroup is not None:
            # Its members are seen first: whoever is killed stays known until it has given up its memory and devices.
            self.members()
            self._cgroup.kill()
        deadline = time.monotonic() + LONGEST_KILL_S
        pause_s = ROUND_S
        quiet = 0
        while True:
            caught: list[psutil.Process] = []
            # All are stopped before one is killed, or a parent would see its child die and start another.
            for member in self._look():
                stop(member)
                caught.append(member)
            for member in caught:
                send(member, signal.SIGKILL)
            quiet = 0 if caught else quiet + 1
            if quiet == QUIET_ROUNDS or (caught and time.monotonic() >= deadline):
                return [member.pid for member in caught if _is_alive(member)]
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, POLL_S)

    def _look(self) -> Iterator[psutil.Process]:
        """Members, each as soon as it is recognised and newest first: one that lives for milliseconds only must be met
        while it does."""
        held = set(self._cgroup.pids()) if self._cgroup is not None else set[int]()
        number_is_ours = self._number_is_ours()
        known: set[psutil.Process] = set()
        pids: set[int] = set()
        groups: set[int] = set()
        heirs_group = 0
        with contextlib.suppress(psutil.Error, OSError):
            if (heir := self._heir()) is not None and heir.is_running():
                # Its children have a session of their own, all but those that are just born: to stop these is to stop it.
                heirs_group = os.getpgid(heir.pid)
                pids.add(heir.pid)
        others: list[tuple[psutil.Process, int, int]] = []

        def lives(member: psutil.Process, group: int) -> bool:
            pids.add(member.pid)
            if is_foreign(member.pid):
                groups.add(group)
            if alive := _is_alive(member):
                known.add(member)
            return alive

        for pid in every_pid():
            with contextlib.suppress(psutil.Error, OSError):
                group = os.getpgid(pid)
                # Group 0 is the kernel's own threads.
                if group in (0, heirs_group) or pid == os.getpid():
                    continue
                process = psutil.Process(pid)
                if _minds_a_container(process):
                    continue
                if (
                    pid in held
                    or (number_is_ours and self._leader in (pid, group, os.getsid(pid)))
                    or process in self._known
                    or self._carries_the_mark(process)
                ):
                    if lives(process, group):
                        yield process
                else:
                    others.append((process, process.ppid(), group))
        related = True
        while related:
            related = [other for other in others if other[1] in pids or other[2] in groups]
            others = [other for other in others if other not in related]
            for process, _, group in related:
                with contextlib.suppress(psutil.Error, OSError):
                    if lives(process, group):
                        yield process
        self._known = known

    def _number_is_ours(self) -> bool:
        """Whether the leader's number, which is its group's and session's, isn't a stranger's by now."""
        if self._started is None:
            return True
        latest = self._started + CLOCKS_APART_S
        try:
            holder = psutil.Process(self._leader)
            # A clock that was set since moves every creation time; the mark doesn't depend on it.
            return holder.create_time() <= latest or self._carries_the_mark(holder)
        except psutil.NoSuchProcess:
            # A number isn't given anew while a group or session has it, unless the machine started anew.
            return psutil.boot_time() <= latest

    def _carries_the_mark(self, process: psutil.Process) -> bool:
        # Another user's environment can't be read; OSError and ValueError are of ones that change as they are read.
        with contextlib.suppress(psutil.Error, OSError, ValueError):
            return process.environ().get(MARK) == self._mark
        return False


def every_pid() -> Iterator[int]:
    """All process ids, newest first, then those that have appeared meanwhile, until none has.

    Only then none was missed: a chain of processes, of which each starts the next and ends, may pass by one listing.
    """
    seen: set[int] = set()
    for _ in range(MOST_LISTINGS):
        new = set(psutil.pids()) - seen
        if not new:
            return
        seen |= new
        yield from sorted(new, reverse=True)


def send(process: psutil.Process, signal_number: int) -> None:
    """Send a signal, to a process that may be gone or out of our reach."""
    with contextlib.suppress(psutil.Error):
        process.send_signal(signal_number)


def stop(process: psutil.Process) -> None:
    """Send SIGSTOP to a process and its process group: a group gets it at once, with the children that are just born."""
    send(process, signal.SIGSTOP)
    with contextlib.suppress(OSError):
        if process.is_running() and is_foreign(process.pid):
            os.killpg(os.getpgid(process.pid), signal.SIGSTOP)


def is_foreign(pid: int) -> bool:
    """Whether a process is in another session than we are; a process group in ours may be our own.

    Raises:
        OSError: it is gone.
    """
    return os.getsid(pid) != os.getsid(0)


def _is_wall(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.name() == WALL
    return False


def _minds_a_container(process: psutil.Process) -> bool:
    """Whether it is conmon, and no program in a container that only calls itself so."""
    if process.name() != MINDER:
        return False
    here, there = (Path(f"/proc/{pid}/ns/pid").stat().st_ino for pid in ("self", process.pid))
    return here == there


def _is_alive(process: psutil.Process) -> bool:
    return process.is_running() and not _states(process) <= DEAD


def _states(process: psutil.Process) -> set[str]:
    """The states of a process's threads as Linux's letters (proc_pid_stat(5)); empty if it is gone.

    All threads: the first one may be stopped, or have ended, while others run.
    """
    if not sys.platform.startswith("linux"):
        with contextlib.suppress(psutil.Error):
            return {{psutil.STATUS_STOPPED: "T", psutil.STATUS_ZOMBIE: "Z"}.get(process.status(), "R")}
        return set()
    states: set[str] = set()
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{process.pid}/task").iterdir():
            with contextlib.suppress(OSError):
                # The name before the state stands in parentheses, and may have some of its own.
                states.add((thread / "stat").read_text(errors="replace").rpartition(")")[2].split()[0])
    return states
