"""How long the demo's capture takes to render: its light, and all of it. Asserts nothing.

python benchmarks/demo_capture.py [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from turntable.captures.demo import Scene, demo_source


def main() -> None:
    """Print one row per round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    print(f"cores {os.cpu_count()}, load {os.getloadavg()[0]:.1f}")
    print("| round | light alone, one thread (s) | whole capture (s) | its CPU time (s) | photos |")
    print("|---|---|---|---|---|")
    for number in range(1, rounds + 1):
        start = time.perf_counter()
        Scene.build()
        light = time.perf_counter() - start
        with tempfile.TemporaryDirectory() as folder:
            start, cpu = time.perf_counter(), time.process_time()
            source = demo_source(Path(folder))
            whole, cpu = time.perf_counter() - start, time.process_time() - cpu
        print(f"| {number} | {light:.1f} | {whole:.1f} | {cpu:.1f} | {len(source.views)} |")


if __name__ == "__main__":
    main()
