"""``doctor``: what this machine and this bench can do, what they can't, and why."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata

from . import machine
from .bench import Bench
from .errors import TurntableError

SMALL_DISK_BYTES = 2 * 2**30
"""A capture of 500 photos with a few runs needs about this much."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: whether it is good, and what follows, in words."""

    what: str
    good: bool
    text: str


def examine(bench: Bench) -> list[Finding]:
    """Everything that a user may want to know before a long job."""
    described = machine.describe()
    findings = [
        Finding("Python", sys.version_info >= (3, 10), described["python"]),
        Finding("processor", True, described["processor"]),
        Finding("memory", True, described["memory"]),
        Finding("system", True, described["system"]),
        _graphics(),
        _poses(),
        *([_kernels()] if "splat" in bench.methods() else []),
        _package("av", "frames of videos", "a video can't be a source"),
        _package("flip-evaluator", "the score flip", "nothing can be scored"),
        *_protection(),
        _uv(),
        _containers(bench),
        *_turns(),
        *_bench(bench),
        _disk(bench),
    ]
    return findings


def _graphics() -> Finding:
    cards = machine.graphics_cards()
    if not cards:
        return Finding("GPU", False, "nvidia-smi finds none; the built-in methods run on the CPU")
    return Finding("GPU", True, f"{'; '.join(cards)} (the built-in methods run on the CPU all the same)")


def _poses() -> Finding:
    try:
        import pycolmap
    except ImportError as error:
        return Finding(
            "poses", False, f"pycolmap can't be imported ({error}): no raw photos, no undistortion"
        )
    cuda = "with CUDA" if pycolmap.has_cuda else "on the CPU"
    return Finding("poses", True, f"pycolmap {pycolmap.__version__}, {cuda}")


def _kernels() -> Finding:
    # A process of its own: a kernel that this processor can't run must not take the doctor with it.
    code = "from turntable.methods.splat import kernels; print(', '.join(kernels.available()))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        last = (answer.stderr.strip().splitlines() or [f"status {answer.returncode}"])[-1]
        return Finding("kernels of splat", False, f"can't be loaded: {last}")
    sets = answer.stdout.strip()
    return Finding("kernels of splat", bool(sets), f"built for {sets or 'nothing that this processor runs'}")


def _package(name: str, gives: str, otherwise: str) -> Finding:
    try:
        return Finding(gives, True, f"{name} {metadata.version(name)}")
    except metadata.PackageNotFoundError:
        return Finding(gives, False, f"package {name} is missing: {otherwise}")


def _uv() -> Finding:
    from .environments.uv import program

    try:
        return Finding("environments", True, f"built with {program()}")
    except TurntableError as error:
        return Finding("environments", False, str(error))


def _containers(bench: Bench) -> Finding:
    """Whether methods can live in images; a container is started to see."""
    from .environments.container import why_not
    from .environments.engine import look

    try:
        engine = look(bench.settings().engine)
    except TurntableError as error:
        return Finding("containers", False, str(error))
    if isinstance(engine, str):
        return Finding("containers", False, engine)
    whose = "as you" if engine.rootless else "as root"
    named = f"{engine.name} {engine.version}, {whose}"
    if (reason := why_not(engine)) is not None:
        return Finding("containers", False, f"{named}: {reason}")
    hasnt = ["memory"] * (not engine.memory) + ["processes"] * (not engine.processes)
    return Finding(
        "containers", True, f"{named}" + (f"; it can't limit {' and '.join(hasnt)}" if hasnt else "")
    )


def _protection() -> list[Finding]:
    """What protects this machine from its methods, and what doesn't."""
    from .environments import sandbox
    from .turns.cgroup import Cgroup
    from .turns.limits import limit
    from .turns.process import MOST_PROCESSES, most_memory_bytes

    reason = sandbox.why_not()
    seen = "methods see the system, their own files and the training photos alone; no network unless they ask for it"
    findings = [Finding("sandbox", reason is None, reason or f"bubblewrap: {seen}")]
    group = Cgroup.create("doctor")
    limits = limit("doctor", group, most_memory_bytes(), MOST_PROCESSES)
    if group is not None:
        group.remove()
    limits.remove()
    has = [f"{most_memory_bytes() / 2**30:.1f} GiB of memory"] * limits.memory
    has += [f"{MOST_PROCESSES} processes"] * limits.processes
    hasn = ["fill the memory"] * (not limits.memory) + ["start processes without end"] * (
        not limits.processes
    )
    parts = [f"a run has at most {' and '.join(has)}"] if has else []
    parts += [f"a method can {' and '.join(hasn)} (no control group can be limited here)"] if hasn else []
    return [*findings, Finding("limits", not hasn, "; ".join(parts))]


def _turns() -> list[Finding]:
    """How devices are shared here, and how programs that can't save are paused."""
    from .turns import cuda, swap
    from .turns.cgroup import Cgroup
    from .turns.device import locks_folder

    try:
        findings = [Finding("turns", True, f"devices are shared through {locks_folder()}")]
    except TurntableError as error:
        findings = [Finding("turns", False, str(error))]
    group = Cgroup.create("doctor")
    if group is not None:
        group.remove()
    way = (
        "frozen by a control group"
        if group is not None
        else "stopped by SIGSTOP (no control group can be made)"
    )
    free = swap.swap_free_bytes()
    memory = f"memory given up to {free / 2**30:.1f} GiB of swap" if free else "memory kept (no swap)"
    findings.append(Finding("pausing programs", True, f"on the processor: {way}, {memory}"))
    if machine.graphics_cards():
        reason = cuda.why_not()
        text = reason or "through the driver, which moves their memory to the host"
        findings.append(Finding("pausing programs", reason is None, f"on a card: {text}"))
    return findings


def _bench(bench: Bench) -> list[Finding]:
    """The bench, and everything of it that can't be read."""
    if not bench.exists:
        return [Finding("bench", True, f"{bench.folder}: not made yet")]
    try:
        bench.make()
        captures, runs = len(bench.captures()), len(bench.record.runs())
        faults = bench.faults()
        for capture in bench.captures().values():
            with contextlib.suppress(TurntableError):
                capture.check()
                continue
            faults.append(
                f"Capture {capture.name} is not what it was made as: a file was lost or changed. Add it again."
            )
    except TurntableError as error:
        return [Finding("bench", False, str(error))]
    good = Finding("bench", True, f"{bench.folder}: {captures} captures, {runs} runs")
    return [good, *(Finding("bench", False, fault) for fault in faults)]


def _disk(bench: Bench) -> Finding:
    place = bench.folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    return Finding("disk", free >= SMALL_DISK_BYTES, f"{free / 2**30:.1f} GiB free at {place}")
