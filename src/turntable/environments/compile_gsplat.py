# pyright: reportMissingImports=false
"""Compiles gsplat's CUDA kernels: run by an environment's own Python when the environment is built.

gsplat's wheel on the package index holds sources, which it would compile when it is first used: for minutes, in every run
anew, since a run's home folder is its own. It looks for a module ``gsplat.csrc`` before that; this makes it.

    python compile_gsplat.py OUT        writes OUT/csrc.so, and for what it is, OUT/architectures.txt

An nvcc among the environment's packages (NVIDIA's wheels, of CUDA 13 on) is preferred to the machine's. Code is made for the
cards of this machine, or for those that TORCH_CUDA_ARCH_LIST names.
"""

import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

BYTES_PER_JOB = 3 << 30
"""Memory that nvcc takes for the largest of the files, roughly."""


def toolkit(packages: Path, scratch: Path) -> "Path | None":
    """A folder such as CUDA's installer makes, of links into NVIDIA's wheels; None where these bring no nvcc.

    The wheels lack two names by which linkers go: ``lib64``, and ``libcudart.so`` without a version.
    """
    for root in sorted(packages.glob("nvidia/cu*")):
        if not (root / "bin" / "nvcc").is_file():
            continue
        found = scratch / "toolkit"
        (found / "lib64").mkdir(parents=True)
        for name in ("bin", "include", "nvvm"):
            (found / name).symlink_to(root / name)
        for library in (root / "lib").glob("lib*.so.*"):
            (found / "lib64" / (library.name.partition(".so")[0] + ".so")).symlink_to(library)
        for library in (root / "lib").glob("*.a"):
            (found / "lib64" / library.name).symlink_to(library)
        return found
    return None


def jobs() -> int:
    """Compilers at once: as many as there are processors, within the machine's memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(len(os.sched_getaffinity(0)), memory // BYTES_PER_JOB))


def main(out: Path) -> None:
    """Compile, and load what came of it, so that a module which doesn't fit is noticed here."""
    spec = importlib.util.find_spec("gsplat")  # found, not imported
    assert spec is not None and spec.origin is not None
    package = Path(spec.origin).parent
    scratch = Path(tempfile.mkdtemp(dir=out))
    if (own := toolkit(package.parent, scratch)) is not None:
        os.environ["CUDA_HOME"] = str(own)
        print("nvcc of the environment's own packages:", own, flush=True)
    import torch  # after CUDA_HOME is set: torch looks for it once

    if "TORCH_CUDA_ARCH_LIST" not in os.environ:
        cards = sorted({torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())})
        # PTX of the newest, so that a card that comes later can make do
        os.environ["TORCH_CUDA_ARCH_LIST"] = " ".join(f"{major}.{minor}" for major, minor in cards) + "+PTX"
    os.environ.setdefault("MAX_JOBS", str(jobs()))
    os.environ["PATH"] = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    )
    from torch.utils.cpp_extension import load

    cuda = package / "cuda"
    sources = [
        *sorted((cuda / "csrc").glob("*.cu")),
        *sorted((cuda / "csrc").glob("*.cpp")),
        cuda / "ext.cpp",
    ]
    # Flags as gsplat's own cuda/_backend.py has them
    module = load(
        name="csrc",
        sources=[str(source) for source in sources],
        extra_cflags=["-O3", "-Wno-attributes"],
        extra_cuda_cflags=["-O3", "-use_fast_math", "-diag-suppress=20012"],
        extra_include_paths=[str(cuda / "include"), str(cuda / "csrc" / "third_party" / "glm")],
        build_directory=str(scratch),
        verbose=True,
    )
    print("compiled for", os.environ["TORCH_CUDA_ARCH_LIST"], "with", len(dir(module)), "names", flush=True)
    (out / "architectures.txt").write_text(os.environ["TORCH_CUDA_ARCH_LIST"])
    shutil.copyfile(scratch / "csrc.so", out / "csrc.so")
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
