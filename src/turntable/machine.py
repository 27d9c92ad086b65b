"""What this machine is: for ``doctor``, for the page, and beside every measurement."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import threading
from importlib import metadata
from pathlib import Path


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """The processor's name, as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if platform.system() == "Darwin":
        answer = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False
        )
        if answer.returncode == 0:
            return answer.stdout.strip()
    return platform.processor() or platform.machine()


def graphics_cards() -> list[str]:
    """The NVIDIA cards with their memory and driver, as nvidia-smi lists them; [] where there is none."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=False, timeout=20)
    except subprocess.TimeoutExpired:
        return []
    return answer.stdout.strip().splitlines() if answer.returncode == 0 else []


def load_pycolmap() -> None:
    """Import pycolmap, and give SIGTERM back to whoever had it: its logging takes it, and ends the program with a trace."""
    handler = signal.getsignal(signal.SIGTERM)
    import pycolmap  # noqa: F401

    if threading.current_thread() is threading.main_thread() and handler is not None:
        signal.signal(signal.SIGTERM, handler)


def describe() -> dict[str, str]:
    """The machine in a few words, by what they describe."""
    import psutil

    return {
        "processor": f"{processor()}, {usable_cores()} usable cores",
        "memory": f"{psutil.virtual_memory().total / 2**30:.1f} GiB",
        "graphics": "; ".join(graphics_cards()) or "none",
        "system": f"{platform.system()} {platform.release()} ({platform.machine()})",
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """The versions of Turntable and of the packages that poses, pictures and scores depend on."""
    names = ("turntable", "numpy", "pillow", "pycolmap", "flip-evaluator")
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # run from a source tree that was never installed
            found[name] = "not installed"
    return found
