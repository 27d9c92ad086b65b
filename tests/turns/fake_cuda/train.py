"""A training program that uses CUDA and knows nothing of Turntable: takes GPU memory, and asks CUDA before every step.

Its losses depend on the seed alone, and go to its output; at its end it leaves the renderings of the held-out views.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import struct
import sys
import time
import zlib
from pathlib import Path


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())  # at once, so that whoever is killed leaves whole lines


def train(options: argparse.Namespace) -> float:
    driver = ctypes.CDLL("libcuda.so.1")
    pointer = ctypes.c_uint64()
    assert driver.cuInit(0) == 0
    assert driver.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(options.gpu_bytes)) == 0
    say("begins")
    state, weight = options.seed, 1.0
    for step in range(options.steps):
        while step == options.steps - 10 and options.gate.exists():
            assert driver.cuCtxSynchronize() == 0
            time.sleep(0.01)
        assert driver.cuCtxSynchronize() == 0
        state = (1103515245 * state + 12345) % 2**31
        weight += 0.05 * (0.5 - weight) + 0.02 * (state / 2**31 - 0.5)
        say(f"loss {step} {abs(weight - 0.5)!r}")
        time.sleep(0.01)
    return weight


def write_grey(path: Path, width: int, height: int, value: int) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes([value]) * 3 * width) * height
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


parser = argparse.ArgumentParser()
parser.add_argument("--cameras", type=Path, required=True)
parser.add_argument("--out", type=Path, required=True)
parser.add_argument("--steps", type=int, required=True)
parser.add_argument("--seed", type=int, required=True)
parser.add_argument("--gpu-bytes", type=float, required=True)
parser.add_argument("--gate", type=Path, help="while it is there, the last ten steps wait", required=True)
parser.add_argument(
    "--ranks", type=float, default=0, help="train in so many children, as torchrun does; 0: here"
)
options = parser.parse_args()
options.gpu_bytes = int(options.gpu_bytes)
if options.ranks:
    import subprocess

    command = [sys.executable, "-S", "-E", *sys.argv, "--ranks", "0"]
    ranks = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL if n else None) for n in range(int(options.ranks))
    ]
    failed = [rank for rank in ranks if rank.wait() != 0]
    sys.exit("a rank has failed" if failed else 0)
shade = int(255 * min(max(train(options), 0.0), 1.0))
(options.out / "test").mkdir(exist_ok=True)
for frame in json.loads(options.cameras.read_text())["frames"]:
    name = Path(frame["file_path"]).stem.split(".")[0] + ".png"
    write_grey(options.out / "test" / name, frame["w"], frame["h"], shade)
