"""Walls around a run's processes, by bubblewrap: what they can see, write to and reach.

A method is somebody else's code. Inside, it finds the system's programs and libraries, its interpreter and environment, its
own folder and the training photos, all of them read-only; the parts of its run's folder that are its own to write; a
private /tmp and home; the graphics cards. Nothing else is there: no home folder, no held-out photo, no other run, no
other process, no network, and of our environment's variables only those that are known to be harmless.

How much memory and how many processes it may have is a control group's business (:mod:`turntable.turns.cgroup`).
"""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PROGRAM = "bwrap"

HOME = "/tmp/home"

SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/opt/cuda",
    "/nix/store",
    "/gnu/store",
    "/sys",
)

CONFIGURATION = (
    "/etc/alternatives", "/etc/fonts", "/etc/group", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d",
    "/etc/localtime", "/etc/nsswitch.conf", "/etc/passwd", "/etc/OpenCL", "/etc/vulkan",
)  # fmt: skip

KERNELS_OWN = ("/proc/sys", "/proc/sysrq-trigger", "/proc/fs")

OF_THE_NETWORK = ("/etc/ca-certificates", "/etc/hosts", "/etc/pki", "/etc/resolv.conf", "/etc/ssl")

CARDS = (
    "nvidia*", "nvidia-caps", "dri", "kfd", "dxg",
)  # fmt: skip

VARIABLES = frozenset(
    {
        "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "NVIDIA_DRIVER_CAPABILITIES", "NVIDIA_TF32_OVERRIDE",
        "NVIDIA_VISIBLE_DEVICES", "PATH", "TERM", "TZ",
    }
)  # fmt: skip
FAMILIES = (
    "CUDA_", "GOMP_", "HIP_", "KMP_", "LC_", "LIBGL_", "MKL_", "NCCL_", "NUMEXPR_", "OMP_", "OPENBLAS_", "PYTORCH_", "ROCR_",
    "TF_CPP_", "TF_FORCE_", "TORCH_", "XLA_",
)  # fmt: skip
"""Variables, and beginnings of names, that a method gets from our environment; what else is there may be a secret."""


@dataclass(frozen=True)
class Walls:
    """What is inside.

    Args:
        read: files and folders that can be read, at their own paths.
        write: those that can be written to; inside of ``read``, or not.
        hidden: files and folders inside of those that can't be seen.
        network: whether the network can be reached.
    """

    read: tuple[Path, ...]
    write: tuple[Path, ...]
    hidden: tuple[Path, ...] = ()
    network: bool = False

    def around(self, words: Sequence[str], cwd: Path, held: int | None = None) -> list[str]:
        """The command that runs ``words`` inside.

        Args:
            words: a program and its arguments.
            cwd: the folder that it works in.
            held: a descriptor that stays open as long as anything lives inside.
        """
        command = [
            str(shutil.which(PROGRAM) or PROGRAM), *(() if held is None else ("--sync-fd", str(held))),
            "--die-with-parent", "--cap-drop", "ALL", "--unshare-user-try",
            "--unshare-pid", "--unshare-ipc",
            "--unshare-uts", "--unshare-cgroup-try", *(() if self.network else ("--unshare-net",)),
            "--proc", "/proc", *_kernels_own(), "--dev", "/dev", "--tmpfs", "/tmp", "--dir", HOME,
        ]  # fmt: skip
        for path in map(Path, (*SYSTEM, *CONFIGURATION, *(OF_THE_NETWORK if self.network else ()))):
            if path.is_symlink() and len(path.parts) == 2:  # /bin → usr/bin
                command += ["--symlink", str(path.readlink()), str(path)]
            elif path.exists():
                command += ["--ro-bind", str(path), str(path)]
        wake_cards()
        for pattern in CARDS:
            for path in sorted(Path("/dev").glob(pattern)):
                command += ["--dev-bind", str(path), str(path)]
        bound = {*self.read, *self.write}
        for how, paths in (("--ro-bind", self.read), ("--bind", self.write)):
            for path in outermost_first(name for one in paths for name in names_of(one, bound)):
                command += [how, str(path), str(path)]
        for path in self.hidden:
            command += ["--tmpfs", str(path)] if path.is_dir() else ["--ro-bind", "/dev/null", str(path)]
        command += ["--remount-ro", "/"]
        return [*command, "--chdir", str(cwd), "--", *words]


def wake_cards(devices: Path = Path("/dev")) -> None:
    """Have NVIDIA's driver make the device node without which CUDA begins nowhere; no program inside can.

    It isn't there before the machine's first program has used CUDA. nvidia-modprobe, which the driver installs with
    root's rights, makes it.
    """
    if (devices / "nvidiactl").exists() and not (devices / "nvidia-uvm").exists():
        program = shutil.which("nvidia-modprobe")
        if program is not None:
            subprocess.run([program, "-c", "0", "-u"], capture_output=True, check=False)


def names_of(path: Path, bound: set[Path]) -> list[Path]:
    """Where a path must be found inside: under its own name, and under that to which links lead.

    A link that lies in a folder of ``bound`` is seen there as the link that it is.
    """
    real = path.resolve()
    if path.is_symlink() and not bound.isdisjoint(path.parents):
        return [real]
    return list({path, real})


def _kernels_own() -> list[str]:
    """What covers the kernel's own switches: where root runs methods, their files would take whatever is written."""
    return [word for path in KERNELS_OWN if Path(path).exists() for word in ("--ro-bind", path, path)]


def outermost_first(paths: Iterable[Path]) -> list[Path]:
    """Paths, those that hold others before them: what is mounted later lies on top."""
    return sorted(set(paths), key=lambda path: (len(path.parts), path))


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """What of an environment a method gets to see."""
    kept = {
        name: value for name, value in environment.items() if name in VARIABLES or name.startswith(FAMILIES)
    }
    return {**kept, "HOME": HOME, "TMPDIR": "/tmp", "XDG_CACHE_HOME": f"{HOME}/.cache"}


@functools.lru_cache(maxsize=1)
def why_not() -> str | None:
    """Why there can be no walls here and what to do about it, one line; None if there can."""
    if sys.platform != "linux":
        return "methods are only walled in on Linux: elsewhere they run with your rights"
    if shutil.which(PROGRAM) is None:
        return "bubblewrap is missing (apt install bubblewrap, dnf install bubblewrap): methods run with your rights"
    walls = Walls(read=(), write=())
    answer = subprocess.run(
        walls.around(["true"], Path("/")), capture_output=True, text=True, errors="replace", check=False
    )
    if answer.returncode == 0:
        return None
    last = (answer.stderr.strip().splitlines() or [f"status {answer.returncode}"])[-1]
    return f"bubblewrap doesn't work here ({last}): methods run with your rights"
