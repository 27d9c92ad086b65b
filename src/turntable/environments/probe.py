"""Whether what an environment compiles or runs on a graphics card fits this machine; asked before anything is built.

The field's worst trap for newcomers: a package that compiles against CUDA takes an hour and ends in a page of errors, since
there is no compiler, or it is of another CUDA than torch was built with, or torch's build doesn't know the card. All of that
can be known beforehand, from the lock and from what the machine says of itself.

Everything here is decided by pure functions of plain data; :func:`look` alone asks the machine.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .recipe import Package

COMPILE_AT_BUILD = frozenset(
    {
        "curope", "diff-gaussian-rasterization", "diff-surfel-rasterization", "fused-ssim", "gridencoder",
        "nvdiffrast", "pointops", "pytorch3d", "raymarching", "simple-knn", "tinycudann", "torch-scatter", "torchsparse",
    }
)  # fmt: skip
"""Packages that run nvcc when they are built from their source."""

COMPILE_AT_START = frozenset({"gsplat", "nerfacc"})
"""Packages whose wheels hold CUDA sources, which torch compiles when they are first used; gsplat's are compiled when an
environment is built (``compiling.py``)."""

OWN_NVCC = "nvidia-cuda-nvcc"
"""NVIDIA's wheels of nvcc, of CUDA 13 on: those of older CUDAs lack the program."""

NEEDED_DRIVER = {11: 450, 12: 525, 13: 580}
"""By the major version of CUDA, the oldest NVIDIA driver for Linux that runs its programs (CUDA's release notes, table
"CUDA Toolkit and minimum required driver version for CUDA minor version compatibility")."""

NEWEST_GCC = {(11, 8): 11, (12, 0): 12, (12, 1): 12, (12, 2): 12, (12, 3): 12, (12, 4): 13, (12, 5): 13, (12, 6): 13,
              (12, 8): 14, (12, 9): 14, (13, 0): 15}  # fmt: skip
"""By CUDA's version, the newest GCC that its nvcc takes (CUDA's installation guide for Linux, "host compiler support")."""


@dataclass(frozen=True)
class Graphics:
    """What a machine has for CUDA.

    Args:
        driver: NVIDIA's, ``(570, 86)``; None where there is none.
        cards: name and compute capability of each card, ``("V100", (7, 0))``.
        nvcc: CUDA's version of the compiler, ``(12, 4)``; None where there is none.
        gcc: the major version of the C++ compiler; None where there is none.
    """

    driver: tuple[int, ...] | None = None
    cards: tuple[tuple[str, tuple[int, int]], ...] = ()
    nvcc: tuple[int, int] | None = None
    gcc: int | None = None


def torch_cuda(packages: Sequence[Package]) -> tuple[int, int] | None:
    """The version of CUDA that a lock's torch was built with; None where it has no torch, or one without CUDA.

    Read from its own version (``2.5.1+cu124``), else from the CUDA runtime that is locked with it.
    """
    by_name = {package.name: package for package in packages}
    torch = by_name.get("torch")
    if torch is None:
        return None
    if match := re.search(r"\+cu(\d\d)(\d)", torch.version):
        return int(match[1]), int(match[2])
    for name in (
        "nvidia-cuda-runtime",
        "nvidia-cuda-runtime-cu13",
        "nvidia-cuda-runtime-cu12",
        "nvidia-cuda-runtime-cu11",
    ):
        if name in by_name:
            return _two(by_name[name].version)
    return None


def oldest_capability(cuda: tuple[int, int], torch: tuple[int, int]) -> tuple[int, int]:
    """The oldest compute capability that PyPI's builds of torch hold code for.

    Source: PyTorch's release notes and the issues pytorch/pytorch#157517 and #172352. Builds with CUDA 13 begin at 7.5, as
    CUDA 13 itself does; with CUDA 12.8 and later at 7.0 since torch 2.8, and at 7.5 since 2.11; earlier ones at 5.0, of
    CUDA 11 at 3.7.
    """
    if cuda >= (13, 0) or (cuda >= (12, 8) and torch >= (2, 11)):
        return 7, 5
    if cuda >= (12, 8) and torch >= (2, 8):
        return 7, 0
    return (5, 0) if cuda >= (12, 0) else (3, 7)


def newest_capability(cuda: tuple[int, int]) -> tuple[int, int]:
    """The newest compute capability that a version of CUDA can make code for (its release notes)."""
    for since, capability in (((12, 8), (12, 1)), ((11, 8), (9, 0)), ((11, 1), (8, 6))):
        if cuda >= since:
            return capability
    return 8, 0


def refusals(packages: Sequence[Package], machine: Graphics, needs_card: bool) -> list[str]:
    """Why an environment can't be built or used here, each with what to do about it; [] if nothing speaks against it.

    Args:
        packages: the lock's.
        machine: what is here.
        needs_card: whether the method can't do without a card.
    """
    found: list[str] = []
    cuda = torch_cuda(packages)
    names = {package.name: package for package in packages}
    if needs_card and not machine.cards:
        found.append(
            "it needs an NVIDIA card, and nvidia-smi finds none: install the driver, or choose a method that runs on the CPU"
        )
    if cuda is not None and machine.driver is not None and machine.driver[0] < NEEDED_DRIVER.get(cuda[0], 0):
        found.append(
            f"its torch {names['torch'].version} is built with CUDA {_text(cuda)}, which needs driver "
            f"{NEEDED_DRIVER[cuda[0]]} or newer, and {'.'.join(map(str, machine.driver))} is installed: update the driver, "
            "or lock a torch built with an older CUDA"
        )
    if cuda is not None:
        torch = _two(names["torch"].version)
        oldest, newest = oldest_capability(cuda, torch), newest_capability(cuda)
        for name, capability in machine.cards:
            if capability < oldest:
                found.append(
                    f"{name} has compute capability {_text(capability)}, and torch {names['torch'].version} with CUDA "
                    f"{_text(cuda)} holds code for {_text(oldest)} and newer only: lock an older torch, such as "
                    "torch==2.6.*, or one of its builds with CUDA 12.6"
                )
            elif capability > newest:
                found.append(
                    f"{name} has compute capability {_text(capability)}, which CUDA {_text(cuda)} of torch "
                    f"{names['torch'].version} doesn't know yet: lock a newer torch"
                )
    compiled = sorted(
        name
        for name, package in names.items()
        if name in COMPILE_AT_START or (name in COMPILE_AT_BUILD and not package.wheels)
    )
    if compiled and (needs_card or any(name in COMPILE_AT_BUILD for name in compiled)):
        if (own := names.get(OWN_NVCC)) is not None and _two(own.version) >= (13, 0):
            machine = replace(machine, nvcc=_two(own.version))
        found += _compiler_refusals(", ".join(compiled), cuda, machine)
    return found


def _compiler_refusals(what: str, cuda: tuple[int, int] | None, machine: Graphics) -> list[str]:
    if machine.nvcc is None:
        wanted = f"CUDA toolkit {_text(cuda)}" if cuda else "CUDA toolkit"
        return [
            f"{what} must be compiled by nvcc, and there is none: install the {wanted}, and put its bin on the PATH"
        ]
    found = []
    if cuda is not None and machine.nvcc[0] != cuda[0]:
        found.append(
            f"{what} must be compiled by the CUDA that torch was built with, {_text(cuda)}, and nvcc is of CUDA "
            f"{_text(machine.nvcc)}: install CUDA toolkit {_text(cuda)} and point CUDA_HOME at it, or lock another torch"
        )
    if machine.gcc is None:
        found.append(f"{what} must be compiled, and there is no g++: apt install g++")
    elif machine.gcc > (newest := NEWEST_GCC.get(machine.nvcc, machine.gcc)):
        found.append(
            f"nvcc of CUDA {_text(machine.nvcc)} takes g++ {newest} at most, and g++ is {machine.gcc}: install "
            f"g++-{newest} and set NVCC_CCBIN=g++-{newest}"
        )
    return found


def not_covered(architectures: str, machine: Graphics) -> str:
    """The first of a machine's cards on which code for ``architectures`` doesn't run, with its capability; "" if it does.

    Args:
        architectures: as TORCH_CUDA_ARCH_LIST has them, ``8.0 8.6+PTX``. Code for 8.0 runs on 8.x from there on, PTX on
            all that came later (CUDA's guide, "binary compatibility").
        machine: what is here.
    """
    made = [
        (_two(text.removesuffix("+PTX")), text.endswith("+PTX")) for text in re.split(r"[ ;]+", architectures)
    ]
    for name, card in machine.cards:
        if not any(one <= card and (portable or one[0] == card[0]) for one, portable in made):
            return f"{name} ({_text(card)})"
    return ""


def look() -> Graphics:
    """What this machine has."""
    driver: tuple[int, ...] | None = None
    cards: list[tuple[str, tuple[int, int]]] = []
    for line in _ask(
        "nvidia-smi", "--query-gpu=driver_version,compute_cap,name", "--format=csv,noheader"
    ).splitlines():
        version, capability, name = (part.strip() for part in (line + ",,").split(",", 2))
        name = name.rstrip(",")
        if re.fullmatch(r"\d+(\.\d+)+", version) and re.fullmatch(r"\d+\.\d+", capability):
            driver = tuple(int(part) for part in version.split("."))
            cards.append((name, _two(capability)))
    nvcc = re.search(r"release (\d+)\.(\d+)", _ask(_where_nvcc_is(), "--version"))
    gcc = re.match(r"\d+", _ask(os.environ.get("NVCC_CCBIN") or "g++", "-dumpversion"))
    return Graphics(
        driver, tuple(cards), (int(nvcc[1]), int(nvcc[2])) if nvcc else None, int(gcc[0]) if gcc else None
    )


def _where_nvcc_is() -> str:
    """Where torch would look for nvcc: what CUDA_HOME names, else the PATH, else where CUDA's installer puts it."""
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if home := os.environ.get(name):
            return str(Path(home) / "bin" / "nvcc")
    return shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"


def _ask(program: str, *words: str) -> str:
    path = shutil.which(program)
    if path is None:
        return ""
    try:
        answer = subprocess.run(
            [path, *words], capture_output=True, text=True, errors="replace", check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):  # a driver that hangs has no answer
        return ""
    return answer.stdout if answer.returncode == 0 else ""


def _two(version: str) -> tuple[int, int]:
    parts = [int(part) for part in re.findall(r"\d+", version)[:2]]
    return (parts[0], parts[1]) if len(parts) == 2 else (parts[0] if parts else 0, 0)


def _text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
