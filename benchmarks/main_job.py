"""The main job on the real captures and the demo: quality against device seconds, as a Markdown table.

    python benchmarks/main_job.py [--bench DIR] [--data ../shared/data]

Runs that the bench has answered already are not run again, so a second call prints the same table at once. Captures
that aren't there are left out, and said so.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from turntable.machine import describe

JOBS = (
    ("fox", ("--long-side", "384"), "120s"),
    ("banana", ("--long-side", "400"), "60s"),
    ("temple", (), "60s"),
)


def turntable(*arguments: str) -> Any:
    """Run a command of the installed Turntable; its JSON."""
    code = "import sys; sys.argv[0] = 'turntable'; from turntable.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments, "--json"], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout)


def rows(document: dict[str, Any], budget: str) -> list[str]:
    """A table row for each mark of each run with this budget."""
    made = []
    for run in document["runs"]:
        if run["budget"] != budget and run["method"] != "nearest":
            continue
        for point in run["curve"]:
            scores = point["scores"]
            psnr, ssim, flip = scores["psnr"], scores["ssim"], scores["flip"]
            made.append(
                f"| {document['capture']} ({document['training']} + {len(document['held_out'])}) | {run['method']} "
                f"| {point['device_seconds']:.1f} | {point['steps']:,} | {psnr['mean']:.2f} ({psnr['worst']:.2f}) "
                f"| {ssim['mean']:.3f} | {flip['mean']:.3f} | {run['peak_memory_bytes'] / 1e6:.0f} |"
            )
    return made


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bench", type=Path, help="where to run; a temporary folder if left out")
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        bench = str(given.bench or Path(temporary) / "bench")
        lines = rows(turntable("demo", "--bench", bench), "40s")
        for name, options, budget in JOBS:
            if (given.data / name).is_dir():
                asked = ("compare", str(given.data / name), *options, "--budget", budget, "--bench", bench)
                lines += rows(turntable(*asked, "-m", "nearest", "-m", "splat"), budget)
            else:
                lines.append(f"| {name} | left out: {given.data / name} isn't there |")
    print("; ".join(f"{key} {value}" for key, value in describe().items()), end="\n\n")
    print(
        "| capture (training + held-out) | method | device s | steps | PSNR dB, mean (worst) | SSIM | ꟻLIP | memory MB |"
    )
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
