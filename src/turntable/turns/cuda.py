"""Pausing a process that uses CUDA, by the driver's checkpoint calls, so that its GPU memory is free for another's turn.

The process needs no change and knows nothing of it: its GPU memory is moved to the host's, and whatever it asks of CUDA
meanwhile waits. The driver keeps one of these states for each process that has started CUDA:

    running → (lock) → locked → (checkpoint) → checkpointed → (restore) → locked → (unlock) → running

Whoever freezes the process as well (SIGSTOP, a cgroup) does so after :meth:`CudaPause.checkpoint` and unfreezes it before
:meth:`CudaPause.restore`: a thread of the process itself does the driver's work.

Cards are counted as NVML and ``nvidia-smi`` count them, which isn't always how CUDA counts them. The packages that this
needs (``cuda-bindings``, ``nvidia-ml-py``) are optional and imported where they are used.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import psutil

from ..errors import TurntableError
from .identity import started
from .process import printable

OLDEST_DRIVER = 570
OLDEST_CUDA = 12080  # what driver 570 brings
INSTALL = "pip install 'turntable[cuda]'"

LOCKED, CHECKPOINTED, FAILED = 1, 2, 3

# NVML follows the driver within milliseconds; this is for a machine that is busy with something else.
PATIENCE_S = 10.0
POLL_S = 0.05
# A lock ends by its own timeout, but not where a locked peer holds it up (NVIDIA/cuda-checkpoint#30).
LOCK_GRACE_S = 5.0
# The driver's own structures come on top of what it moves, and the machine must still be able to work.
SPARE_SHARE = 0.1
SPARE_BYTES = 1 << 30
# Idle cards show a few megabytes in use, any CUDA context hundreds.
UNEXPLAINED_BYTES = 512 << 20

# What GetState says of a process that never started CUDA, or is gone.
NO_CUDA = ("CUDA_ERROR_INVALID_VALUE", "CUDA_ERROR_NOT_INITIALIZED")
HINTS = {
    "CUDA_ERROR_ILLEGAL_STATE": "another program is pausing it too",
    "CUDA_ERROR_INVALID_VALUE": "it has ended",
    "CUDA_ERROR_NO_DEVICE": "CUDA_VISIBLE_DEVICES may hide the cards from this process",
    "CUDA_ERROR_NOT_PERMITTED": "root or CAP_SYS_PTRACE may be needed",
    "CUDA_ERROR_NOT_READY": "the GPU work it had queued did not end in time",
    "CUDA_ERROR_NOT_SUPPORTED": "it uses what the driver can't pause, as unified memory or memory shared by processes",
    "CUDA_ERROR_OPERATING_SYSTEM": "root or CAP_SYS_PTRACE may be needed, or a restore has failed before",
    "CUDA_ERROR_OUT_OF_MEMORY": "the driver can't try this twice: the process can only be ended",
}
STEPS = {"Lock": "locking", "Checkpoint": "checkpointing", "Restore": "restoring", "Unlock": "unlocking"}


class CannotCheckpoint(Exception):
    """The processes could not be paused. They run on as before, except where the message, one line, says otherwise."""


class CannotRestore(Exception):
    """Processes that were paused could not go on, and never can: the message, one line, says which and why."""


class NoRoom(CannotRestore):
    """A card has no room for what they had there. They are as they were, and it may be tried again."""


class _DriverFailed(Exception):
    """A call of the driver failed: the message says which, on which process, and by what error."""


class _NvmlFailed(Exception):
    """NVML can't be asked: the message says why and what to do."""


@dataclass(frozen=True)
class Card:
    """A card, as NVML describes it."""

    index: int
    name: str
    memory_bytes: int
    free_bytes: int
    uuid: str


def cards() -> list[Card]:
    """The NVIDIA cards of this machine; [] where NVML or its package is missing."""
    try:
        with _nvml() as nvml:
            found = []
            for index in range(nvml.nvmlDeviceGetCount()):
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                memory = nvml.nvmlDeviceGetMemoryInfo(handle)
                name, uuid = nvml.nvmlDeviceGetName(handle), nvml.nvmlDeviceGetUUID(handle)
                found.append(Card(index, name, memory.total, memory.free, uuid))
            return found
    except _NvmlFailed:
        return []


def gpu_processes(index: int) -> dict[int, int]:
    """Who computes on a card: process id to bytes of GPU memory, 0 where NVML doesn't know them.

    Raises:
        TurntableError: there is no such card, or NVML can't be asked.
    """
    try:
        with _nvml() as nvml:
            return {pid: held or 0 for pid, held in _held(nvml, index).items()}
    except _NvmlFailed as error:
        raise TurntableError(str(error)) from None


def why_not(index: int | None = None) -> str | None:
    """Why processes can't be paused here and what to do about it, one line; None if they can.

    Args:
        index: the card that matters; if None, one that will do is enough.
    """
    if sys.platform != "linux":
        return "Only NVIDIA's driver for Linux can pause CUDA processes."
    try:
        with _nvml() as nvml:
            reason = _why_not_by_nvml(nvml, index)
        if reason is None:
            _check_version(_bindings())
    except (_NvmlFailed, _DriverFailed) as error:
        return str(error)
    return reason


def _why_not_by_nvml(nvml: Any, index: int | None) -> str | None:
    count = nvml.nvmlDeviceGetCount()
    if count == 0:
        return "There is no NVIDIA card here."
    if index is not None and not 0 <= index < count:
        return f"There is no card {index}; known: {', '.join(map(str, range(count)))}."
    version = str(nvml.nvmlSystemGetDriverVersion())
    major = version.partition(".")[0]
    if major.isdecimal() and int(major) < OLDEST_DRIVER:
        return _too_old(f"NVIDIA's driver here is {version}")
    split = [n for n in (range(count) if index is None else [index]) if _has_mig(nvml, n)]
    if split and (index is not None or len(split) == count):
        return (
            f"MIG is enabled on card {split[0]}, where the driver can't pause processes: "
            f"'nvidia-smi -i {split[0]} -mig 0' turns it off."
        )
    return None


def _has_mig(nvml: Any, index: int) -> bool:
    try:
        return nvml.nvmlDeviceGetMigMode(nvml.nvmlDeviceGetHandleByIndex(index))[0] == 1
    except nvml.NVMLError:  # most cards have no such thing
        return False


def _too_old(what: str) -> str:
    return f"{what}, and pausing CUDA processes needs {OLDEST_DRIVER} or newer: update the driver."


@contextlib.contextmanager
def _nvml() -> Iterator[Any]:
    """NVML's Python module, started.

    Raises:
        _NvmlFailed: it isn't there, or failed then or while it was used.
    """
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        raise _NvmlFailed(f"Pausing CUDA processes needs the package nvidia-ml-py: {INSTALL}.") from None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise _NvmlFailed(
            f"NVIDIA's management library can't be used ({printable(str(error))}): "
            f"install the NVIDIA driver, {OLDEST_DRIVER} or newer."
        ) from None
    try:
        yield nvml
    except nvml.NVMLError as error:
        raise _NvmlFailed(f"NVIDIA's management library failed: {printable(str(error))}.") from error
    finally:
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def _held(nvml: Any, index: int) -> dict[int, int | None]:
    """Process id to bytes held on a card; None where NVML lists a process and doesn't say how much it holds."""
    processes = nvml.nvmlDeviceGetComputeRunningProcesses(nvml.nvmlDeviceGetHandleByIndex(index))
    unknown = nvml.NVML_VALUE_NOT_AVAILABLE_ulonglong.value
    return {p.pid: None if p.usedGpuMemory == unknown else p.usedGpuMemory for p in processes}


def _bindings() -> Any:
    """The driver's Python module, not yet started.

    Raises:
        _DriverFailed: it isn't there, or it is too old.
    """
    try:
        driver = importlib.import_module("cuda.bindings.driver")
    except ImportError:
        raise _DriverFailed(f"Pausing CUDA processes needs the package cuda-bindings: {INSTALL}.") from None
    if not hasattr(driver, "cuCheckpointProcessLock"):
        raise _DriverFailed(f"The package cuda-bindings is too old to pause CUDA processes: {INSTALL} -U.")
    return driver


def _check_version(driver: Any) -> None:
    """Check that the CUDA library is there and can checkpoint. It may be older than the driver, as in a container.

    Raises:
        _DriverFailed: it isn't there, or it is too old.
    """
    try:
        _, version = driver.cuDriverGetVersion()
    except RuntimeError as error:
        raise _DriverFailed(
            f"The CUDA driver library can't be used ({printable(str(error))}): "
            f"install the NVIDIA driver, {OLDEST_DRIVER} or newer."
        ) from None
    if version < OLDEST_CUDA:
        raise _DriverFailed(
            _too_old(f"The CUDA driver library here is of CUDA {version // 1000}.{version % 1000 // 10}")
        )


class CudaPause:
    """Pauses the processes of one run and lets them go on. It remembers what they will need to go on."""

    def __init__(self) -> None:
        self._driver: Any = None
        self._needs: dict[int, dict[int, int]] = {}
        """GPU memory by process id and card, in bytes, as it was when they were paused."""

    def needs_bytes(self, index: int) -> int:
        """How much memory of a card the paused processes need, in bytes, to go on."""
        return sum(by_card.get(index, 0) for by_card in self._needs.values())

    def checkpoint(self, pids: Iterable[int], index: int, timeout_s: float = 30.0) -> list[int]:
        """Move all GPU memory of these processes to the host, so that the card is free of them.

        Args:
            pids: every process of the run; those that don't use CUDA are left alone. None may be frozen.
            index: the card that must be free afterwards.
            timeout_s: how long, in seconds, to wait for the GPU work that they have queued.

        Returns:
            The processes that were paused, for :meth:`restore`; [] where none uses CUDA.

        Raises:
            CannotCheckpoint: they could not be paused, or the card was not free afterwards. They run on as before.
        """
        pids = list(dict.fromkeys(pids))
        if reason := why_not(index):
            raise CannotCheckpoint(reason)
        locks: dict[int, threading.Thread] = {}
        try:
            self._start()
            # Asked of all before the first is locked: where processes wait on each other, as NCCL's ranks do, even this
            # question hangs while a peer is locked.
            using = [pid for pid in pids if self._uses_cuda(pid)]
            self._measure(pids, using, index)
            # All are locked before the first is checkpointed. A lock waits for the process's queued work, which may wait
            # for a peer: if that never ends, unlocking puts everything right at once, without gigabytes having been
            # moved to and fro; and no process computes on while a peer's memory has gone.
            deadline = time.monotonic() + timeout_s
            for pid in using:
                with _unless_ended(pid):
                    self._lock(pid, max(deadline - time.monotonic(), 0.001), locks)
            for pid in using:
                with _unless_ended(pid):
                    self._do("Checkpoint", pid)
            self._await_absence(pids, index)
        except BaseException as error:
            left = self._undo(locks)
            if isinstance(error, (CannotCheckpoint, _DriverFailed, _NvmlFailed)):
                raise CannotCheckpoint(" ".join([str(error), *left])) from error
            raise
        return using

    def restore(self, pids: Iterable[int]) -> None:
        """Give paused processes their GPU memory back and let them go on. Those that run already are left alone.

        Args:
            pids: what :meth:`checkpoint` returned. None may be frozen. Room on the card is only looked for where it was
                this object that paused them.

        Raises:
            NoRoom: the card has no room; none was touched.
            CannotRestore: some can't go on; all others do.
        """
        try:
            self._start()
        except _DriverFailed as error:
            raise CannotRestore(str(error)) from error
        if failures := self._put_back(list(dict.fromkeys(pids))):
            raise CannotRestore(" ".join(failures))

    def _start(self) -> None:
        """Start CUDA in this process, once: without it (or persistence mode) the driver can't restore. It makes no
        context, which is what would take GPU memory. Children that are forked afterwards can't use CUDA unless they
        start another program, as workers do.
        """
        if self._driver is not None:
            return
        driver = _bindings()
        _check_version(driver)
        (error,) = driver.cuInit(0)
        if error != 0:
            raise _DriverFailed(f"Starting CUDA gave {error.name}{_hint(error.name)}.")
        self._driver = driver

    def _call(self, name: str, *arguments: Any) -> tuple[str, Any]:
        """Call the driver: the error's name and what came back.

        Raises:
            _DriverFailed: the driver doesn't know the call, or cuda-bindings doesn't know what the driver said.
        """
        try:
            error, *values = getattr(self._driver, name)(*arguments)
        except (RuntimeError, ValueError, KeyError) as problem:
            raise _DriverFailed(f"{name} failed: {printable(repr(problem))}.") from problem
        return error.name, values[0] if values else None

    def _do(self, step: str, pid: int, arguments: Any = None) -> None:
        error, _ = self._call(f"cuCheckpointProcess{step}", pid, arguments)
        if error != "CUDA_SUCCESS":
            raise _DriverFailed(f"{STEPS[step].capitalize()} process {pid} gave {error}{_hint(error)}.")

    def _state(self, pid: int) -> int:
        error, state = self._call("cuCheckpointProcessGetState", pid)
        if error != "CUDA_SUCCESS":
            raise _DriverFailed(f"Asking for the state of process {pid} gave {error}{_hint(error)}.")
        return int(state)

    def _uses_cuda(self, pid: int) -> bool:
        """Whether a process has started CUDA.

        Raises:
            _DriverFailed: the driver can't say, or the process isn't running: somebody else has it.
        """
        error, state = self._call("cuCheckpointProcessGetState", pid)
        if error in NO_CUDA:
            return False
        if error != "CUDA_SUCCESS":
            raise _DriverFailed(f"Asking for the state of process {pid} gave {error}{_hint(error)}.")
        if int(state) != 0:
            raise _DriverFailed(f"Process {pid} isn't running but in the driver's state {state.name}.")
        return True

    def _measure(self, pids: list[int], using: list[int], index: int) -> None:
        """Remember what the processes hold, and check that NVML sees it and that the host has room for it.

        Raises:
            CannotCheckpoint: it doesn't.
        """
        with _nvml() as nvml:
            held = {index: _held(nvml, index)}
            for card in set(range(nvml.nvmlDeviceGetCount())) - {index}:
                with contextlib.suppress(nvml.NVMLError):  # a broken card is no reason to fail on this one
                    held[card] = _held(nvml, card)
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            in_use: int = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2).used
        needs = {pid: {card: by[pid] or 0 for card, by in held.items() if pid in by} for pid in pids}
        for pid in needs:
            if needs[pid] and pid not in using:
                raise CannotCheckpoint(f"Process {pid} uses the GPU, but the driver's checkpoints miss it.")
        # In a container NVML may list the host's process ids, or none. Then it would call any card free of us.
        explained = sum(memory or 0 for pid, memory in held[index].items() if psutil.pid_exists(pid))
        if using and not any(needs.values()) and in_use - explained > UNEXPLAINED_BYTES:
            raise CannotCheckpoint(
                f"NVML doesn't list the processes that use card {index}, so nobody could tell whether it is free: "
                "in a container, share the host's process ids (--pid=host)."
            )
        moved = sum(sum(by_card.values()) for by_card in needs.values())
        wanted = int(moved * (1 + SPARE_SHARE)) + SPARE_BYTES
        available = psutil.virtual_memory().available
        if using and available < wanted:
            raise CannotCheckpoint(
                f"Pausing needs {wanted / 2**30:.1f} GiB of host memory, {available / 2**30:.1f} GiB are free."
            )
        self._needs.update({pid: needs[pid] for pid in using})

    def _lock(self, pid: int, timeout_s: float, locks: dict[int, threading.Thread]) -> None:
        """Lock a process. The call has a thread of its own, which is put into ``locks``, since it may never end.

        Raises:
            _DriverFailed: it could not be locked, or the driver didn't answer.
        """
        arguments = self._driver.CUcheckpointLockArgs()
        arguments.timeoutMs = max(int(timeout_s * 1000), 1)  # 0 means for ever
        failure: list[_DriverFailed] = []

        def lock() -> None:
            try:
                self._do("Lock", pid, arguments)
            except _DriverFailed as error:
                failure.append(error)

        locks[pid] = threading.Thread(target=lock, name=f"lock {pid}", daemon=True)
        locks[pid].start()
        locks[pid].join(timeout_s + LOCK_GRACE_S)
        if locks[pid].is_alive():
            raise _DriverFailed(
                f"Locking process {pid} did not end within {timeout_s:.0f} s: it may be waiting for a process that is "
                "locked already, as those do that use several GPUs together."
            )
        if failure:
            raise failure[0]

    def _await_absence(self, pids: list[int], index: int) -> None:
        """Wait until NVML lists none of these processes on the card.

        Raises:
            CannotCheckpoint: it still does after ``PATIENCE_S``.
        """
        deadline = time.monotonic() + PATIENCE_S
        with _nvml() as nvml:
            while True:
                held = _held(nvml, index)
                there = [pid for pid in pids if held.get(pid, 0) != 0]
                if not there:
                    return
                if time.monotonic() > deadline:
                    raise CannotCheckpoint(
                        f"Card {index} is not free: {_named(there)} still held GPU memory {PATIENCE_S:.0f} s after "
                        "the checkpoint."
                    )
                time.sleep(POLL_S)

    def _undo(self, locks: dict[int, threading.Thread]) -> list[str]:
        """Let processes go on after a pause that failed; what could not be undone, in sentences."""
        tried = list(reversed(locks))
        # A lock that hangs on a locked peer ends when that peer is unlocked; so those are put back last.
        hanging = [pid for pid in tried if locks[pid].is_alive()]
        try:
            failures = self._put_back([pid for pid in tried if pid not in hanging])
            for pid in hanging:
                locks[pid].join(PATIENCE_S)
                if locks[pid].is_alive():
                    failures.append(f"Locking process {pid} still hangs.")
                else:
                    failures += self._put_back([pid])
        except NoRoom as error:  # somebody else was faster
            return [str(error)]
        return failures

    def _put_back(self, pids: list[int]) -> list[str]:
        """Let processes go on from wherever they are; what failed, in sentences. One that has ended needs nothing.

        Nothing but the driver's own word says where a process is: so this also holds after an interrupt between a call
        and the note of it. All are restored before the first is unlocked, so that none runs while a peer's memory is
        still missing.

        Raises:
            NoRoom: there is none for those whose memory has gone; none was touched.
        """
        states: dict[int, int] = {}
        failures: dict[int, str] = {}
        for pid in pids:
            try:
                with _unless_ended(pid):
                    states[pid] = self._state(pid)
            except _DriverFailed as error:
                failures[pid] = str(error)
        paused = [pid for pid, state in states.items() if state == CHECKPOINTED]
        self._await_room(paused)
        for pid in states:
            try:
                if states[pid] == CHECKPOINTED:
                    with _unless_ended(pid):
                        self._do("Restore", pid)
                elif states[pid] == FAILED:
                    failures[pid] = f"The driver has failed process {pid}: it can only be ended."
            except _DriverFailed as error:
                failures[pid] = str(error)
        for pid in states:
            try:
                with _unless_ended(pid):
                    if pid not in failures and self._state(pid) == LOCKED:
                        self._do("Unlock", pid)
                        self._needs.pop(pid, None)
            except _DriverFailed as error:
                failures[pid] = str(error)
        return list(failures.values())

    def _await_room(self, pids: list[int]) -> None:
        """Wait until the cards have room for these processes.

        A restore that runs out of GPU memory can never be done again (NVIDIA/cuda-checkpoint#44), so it is not tried
        where it can be foreseen.

        Raises:
            NoRoom: they still have none after ``PATIENCE_S``.
        """
        wanted: dict[int, int] = {}
        for pid in pids:
            for card, memory in self._needs.get(pid, {}).items():
                wanted[card] = wanted.get(card, 0) + memory
        deadline = time.monotonic() + PATIENCE_S
        while True:
            free = {card.index: card.free_bytes for card in cards()}
            short = [card for card, memory in wanted.items() if card in free and free[card] < memory]
            if not short:
                return
            if time.monotonic() > deadline:
                card = short[0]
                raise NoRoom(
                    f"Card {card} has {free[card] / 2**30:.1f} GiB free, and to go on, {_named(pids)} must have "
                    f"{wanted[card] / 2**30:.1f} GiB: still paused; free the card and resume again."
                )
            time.sleep(POLL_S)


@contextlib.contextmanager
def _unless_ended(pid: int) -> Iterator[None]:
    """Let what the driver can't do with a process pass where the process has ended: it holds nothing any more."""
    try:
        yield
    except _DriverFailed:
        if started(pid) is not None:
            raise


def _hint(error: str) -> str:
    return f" ({HINTS[error]})" if error in HINTS else ""


def _named(pids: list[int]) -> str:
    return f"process{'es' if len(pids) > 1 else ''} {', '.join(map(str, pids))}"
