"""What environments cost in seconds and bytes: building, packing and unpacking five that share torch; against what else one
could do to move them. Asserts nothing, but tries whether what was restored starts.

    python benchmarks/environments.py [--cpu-torch 2.13.0] [--folder DIR]

The five have torch, SciPy, OpenCV and NumPy, and one package each of their own. ``--cpu-torch`` takes that version from
wherever pip finds it here, in place of the lock's, and leaves out CUDA, as a bench.toml does for machines without a card;
else the lock's own is fetched, gigabytes of CUDA on Linux. The folder needs 15 GB, and a file system that knows hard links.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import zstandard

from turntable.bench import Bench
from turntable.environments import build, environments_of, lock, recipe_of
from turntable.environments.environment import remove_tree
from turntable.environments.uv import program
from turntable.machine import describe
from turntable.moving import pack, unpack
from turntable.turns.watcher import Watcher

SHARED = ("numpy==2.2.6", "scipy==1.15.3", "opencv-python-headless==4.12.0.88")
OWN = ("einops==0.8.1", "tqdm==4.67.1", "plyfile==1.1.2", "imageio==2.37.0", "trimesh==4.7.1")
IMPORTS = "import numpy, scipy.ndimage, cv2, torch; assert torch.ones(2).sum() == 2"
METHOD = """name = "{name}"
task = "views"
devices = ["cpu"]
title = "{name}"

[environment]
kind = "uv"

[run]
kind = "python"
entry = "method:Method"
"""
PROJECT = """[project]
name = "{name}"
version = "1"
requires-python = "==3.11.*"
dependencies = [{packages}]
"""


class Row(NamedTuple):
    """One way to move the five: seconds to make it, its bytes, seconds until they stand elsewhere, and how many start."""

    way: str
    make: float
    size: int
    restore: float
    starts: str


def quiet(text: str) -> None:
    """Nobody is told."""


def timed(work: Callable[[], object]) -> float:
    """The seconds that ``work`` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def sizes(folder: Path) -> tuple[int, int, int]:
    """Files, their bytes counted as often as they are linked, and what they take on the disk."""
    files = [path.lstat() for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()]
    once = {(file.st_dev, file.st_ino): file.st_blocks * 512 for file in files}
    return len(files), sum(file.st_size for file in files), sum(once.values())


def weight(folder: Path) -> int:
    """The bytes of a folder's files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def starts(pythons: Sequence[Path]) -> str:
    """How many of these Pythons can import what was installed."""
    good = 0
    for python in pythons:
        if python.exists():  # else it is a link to an interpreter that isn't there
            good += subprocess.run([python, "-c", IMPORTS], capture_output=True, check=False).returncode == 0
    return f"{good} of {len(pythons)}"


def make_bench(folder: Path, torch: str, cpu: bool) -> Bench:
    """A bench with the five methods, locked."""
    bench = Bench(folder)
    bench.make()
    if cpu:
        (folder / "bench.toml").write_text(
            f'[environments]\nreplace = ["torch=={torch}"]\nwithout = ["nvidia-*", "cuda-*", "triton"]\n'
        )
    for number, own in enumerate(OWN):
        method = bench.methods_folder / f"m{number}"
        method.mkdir(parents=True)
        packages = ", ".join(f'"{text}"' for text in (*SHARED, f"torch=={torch}", own))
        (method / "method.toml").write_text(METHOD.format(name=method.name))
        (method / "pyproject.toml").write_text(PROJECT.format(name=method.name, packages=packages))
        (method / "method.py").write_text("class Method:\n    pass\n")
        lock(bench, bench.method(method.name), quiet)
    return bench


def names() -> list[str]:
    """The five methods."""
    return [f"m{number}" for number in range(len(OWN))]


def build_all(bench: Bench) -> list[float]:
    """Seconds to build each."""
    return [timed(lambda name=name: build(bench, bench.method(name), quiet)) for name in names()]


def remove_all(bench: Bench) -> None:
    """Remove what was built and unpacked, but not the wheels."""
    for environment in environments_of(bench).all():
        environments_of(bench).remove(environment.hash)
    remove_tree(bench.folder / "store" / "uv")


def by_turntable(bench: Bench, scratch: Path) -> Iterator[Row]:
    """Pack and unpack; then what a second pack sends."""
    target, moved = scratch / "bench.tar", Bench(scratch / "unpacked")
    make = timed(lambda: pack(bench, target, Watcher()))
    os.environ.update(UV_OFFLINE="1", PIP_NO_INDEX="1")
    first = timed(lambda: unpack(target, moved, Watcher(), build_environments=False, trust_settings=True))
    built = build_all(moved)
    del os.environ["UV_OFFLINE"], os.environ["PIP_NO_INDEX"]
    pythons = [environment.python for environment in environments_of(moved).all()]
    size = target.stat().st_size
    yield Row("turntable pack, unpack", make, size, first + sum(built), starts(pythons))
    print(
        f"unpacking alone {first:.1f} s, then building {', '.join(f'{seconds:.1f}' for seconds in built)} s"
    )
    second = scratch / "second.tar"
    again = timed(lambda: pack(bench, second, Watcher(), since=target))
    print(f"a second pack --since the first: {again:.1f} s, {second.stat().st_size / 1e6:.2f} MB")
    remove_tree(moved.folder)


def by_tar(bench: Bench, scratch: Path) -> Row:
    """tar with hard links through zstd, level 3, all cores; without interpreters, and for this folder alone."""
    packed, out = scratch / "environments.tar.zst", scratch / "tar"

    def write() -> None:
        with packed.open("wb") as file:
            tar = subprocess.Popen(
                ["tar", "-C", str(bench.folder), "-cf", "-", "environments"], stdout=subprocess.PIPE
            )
            assert tar.stdout is not None
            zstandard.ZstdCompressor(level=3, threads=-1).copy_stream(tar.stdout, file)
            tar.wait()

    def read() -> None:
        out.mkdir()
        tar = subprocess.Popen(["tar", "-C", str(out), "-xf", "-"], stdin=subprocess.PIPE)
        assert tar.stdin is not None
        with packed.open("rb") as file:
            zstandard.ZstdDecompressor().copy_stream(file, tar.stdin)
        tar.stdin.close()
        tar.wait()

    make, restore = timed(write), timed(read)
    row = Row(
        "tar with hard links + zstd",
        make,
        packed.stat().st_size,
        restore,
        starts([venv / "bin" / "python" for venv in sorted(out.glob("environments/*/venv"))]),
    )
    remove_tree(out)
    return row


def by_venv_pack(bench: Bench, scratch: Path) -> Row:
    """venv-pack, a ``tar.gz`` for each; without interpreters."""
    tool, out = scratch / "venv-pack", scratch / "venv-packs"
    subprocess.run([sys.executable, "-m", "venv", tool], check=True)
    subprocess.run([tool / "bin" / "pip", "install", "-q", "venv-pack", "setuptools<81"], check=True)
    out.mkdir()
    environments = environments_of(bench).all()

    def write() -> None:
        for environment in environments:
            command = [tool / "bin" / "venv-pack", "-q", "-p", environment.venv, "-o"]
            subprocess.run([*command, out / f"{environment.hash}.tar.gz"], check=True)

    def read() -> None:
        for path in sorted(out.glob("*.tar.gz")):
            (folder := out / path.name.partition(".")[0]).mkdir()
            subprocess.run(["tar", "-C", folder, "-xzf", path], check=True)

    make = timed(write)
    size = sum(path.stat().st_size for path in out.glob("*.tar.gz"))
    restore = timed(read)
    row = Row(
        "venv-pack", make, size, restore, starts([folder / "python" for folder in sorted(out.glob("*/bin"))])
    )
    remove_tree(out)
    return row


def by_wheelhouse(bench: Bench, scratch: Path) -> Row:
    """A folder of all wheels, and ``uv pip install`` with hashes from it into five environments; without interpreters."""
    house, out = scratch / "wheelhouse", scratch / "from-wheelhouse"
    wheels = environments_of(bench).wheels.all()

    def write() -> None:
        house.mkdir()
        for wheel in wheels:
            shutil.copyfile(wheel.path, house / wheel.path.name)

    def read() -> None:
        for environment in environments_of(bench).all():
            venv, asked = out / environment.hash, out / f"{environment.hash}.txt"
            uv = {**os.environ, "UV_CACHE_DIR": str(out / "cache")}
            subprocess.run(
                [program(), "-q", "venv", "--python", environment.interpreter.executable, venv],
                check=True,
                env=uv,
            )
            asked.write_text(
                "".join(
                    f"{one['name']} @ {(house / one['file']).as_uri()} --hash=sha256:{one['sha256']}\n"
                    for one in environment.document["packages"]
                )
            )
            command = [
                program(),
                "-q",
                "pip",
                "install",
                "--no-deps",
                "--no-index",
                "--offline",
                "--require-hashes",
            ]
            subprocess.run([*command, "--python", venv / "bin" / "python", "-r", asked], check=True, env=uv)

    make, restore = timed(write), timed(read)
    row = Row(
        "wheelhouse + uv",
        make,
        weight(house),
        restore,
        starts([folder / "python" for folder in sorted(out.glob("*/bin"))]),
    )
    remove_tree(out)
    return row


def main() -> None:
    """Print what building costs, and a row for each way to move."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cpu-torch", metavar="VERSION", help="this machine's build of torch for CPUs")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder if left out")
    given = parser.parse_args()
    print("; ".join(f"{key} {value}" for key, value in describe().items()))
    with tempfile.TemporaryDirectory(dir=given.folder) as text:
        scratch = Path(text)
        bench = make_bench(scratch / "bench", given.cpu_torch or "2.9.1", given.cpu_torch is not None)
        print(f"load {os.getloadavg()[0]:.1f}\n")
        print("| building, seconds | first | the other four |\n|---|---|---|")
        cold = build_all(bench)
        remove_all(bench)
        warm = build_all(bench)
        there = build_all(bench)
        for what, seconds in (
            ("nothing there: packages are fetched", cold),
            ("wheels in the store", warm),
            ("built already", there),
        ):
            print(f"| {what} | {seconds[0]:.2f} | {', '.join(f'{one:.2f}' for one in seconds[1:])} |")
        files, bytes_, disk = sizes(bench.folder / "environments")
        packages = len(recipe_of(bench, bench.method("m0")).here)
        print(
            f"\nFive environments of {packages} packages: {files:,} files, {bytes_ / 1e9:.2f} GB counted one by one, "
            f"{disk / 1e9:.2f} GB on the disk; wheels {weight(bench.folder / 'store' / 'wheels') / 1e6:.0f} MB, interpreter "
            f"{weight(bench.folder / 'store' / 'interpreters') / 1e6:.0f} MB"
        )
        rows = list(by_turntable(bench, scratch))
        rows += [by_tar(bench, scratch), by_venv_pack(bench, scratch), by_wheelhouse(bench, scratch)]
        print("\n| moving | making s | MB | restoring s | start elsewhere |\n|---|---|---|---|---|")
        for row in rows:
            print(f"| {row.way} | {row.make:.1f} | {row.size / 1e6:.0f} | {row.restore:.1f} | {row.starts} |")
        remove_tree(scratch / "bench")


if __name__ == "__main__":
    main()
