"""How long a page of many views takes to build, and to be used in a browser; how large it is. Asserts nothing.

    python benchmarks/page.py [--views 300] [--methods 6] [--size 540x960] [--photos FOLDER] [--single-file]

Needs Playwright and Chromium. What takes longest of a page is kept when a run is scored, ꟻLIP's error map above all: that is
done first, and timed apart.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _page_data import DISTINCT, keep_all, make_data

from turntable.report.data import ReportData
from turntable.report.page import build_page

FLAGS = ["--no-sandbox", "--disable-quic", "--disable-background-networking", "--enable-precise-memory-info"]

SCROLL = """async (step) => {
  const times = [];
  let before = await new Promise(requestAnimationFrame);
  const most = () => document.documentElement.scrollHeight - innerHeight;
  document.documentElement.style.scrollBehavior = "auto";
  for (let at = 0; at < most(); at += step) {
    scrollTo(0, at);
    const now = await new Promise(requestAnimationFrame);
    times.push(now - before);
    before = now;
  }
  return times;
}"""
"""Scrolls through the whole page, a step a frame: the milliseconds from each frame to the next."""


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--views", type=int, default=300)
    parser.add_argument("--methods", type=int, default=6, help="1 to 8")
    parser.add_argument("--size", default="540x960", help="of every picture, width and height in pixels")
    parser.add_argument("--photos", type=Path, help="a folder of photos to take instead of textures")
    parser.add_argument("--keep", type=Path, help="make bench and page here, and leave them")
    parser.add_argument("--single-file", action="store_true", help="the page as one file, for mail")
    asked = parser.parse_args()
    width, height = (int(part) for part in asked.size.split("x"))
    photos = sorted(path for path in asked.photos.iterdir() if path.is_file()) if asked.photos else []
    with _folder(asked.keep) as bench:
        data = make_data(bench, asked.views, asked.methods, (width, height), photos)
        print(
            f"{asked.views} views × {asked.methods} methods at {width}×{height}, {min(DISTINCT, asked.views)} views"
        )
        print(f"with pictures of their own; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
        print(f"one keep, as it is done when a rendering is scored: {keep_all(data):.2f} s (CPU)\n")
        print("| build | time (s) | CPU time (s) |\n|---|---|---|")
        for number in (1, 2):
            index, took, cpu = _timed_apart(data, bench / "page", asked.single_file)
            print(f"| {number} | {took:.1f} | {cpu:.1f} |")
        _print_sizes(index)
        _print_use(index)


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    else:
        keep.mkdir(parents=True)
        yield keep


def _timed_apart(data: ReportData, page: Path, single_file: bool) -> tuple[Path, float, float]:
    """The page, and wall clock and CPU seconds of its build, in a process of its own that has loaded everything."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        start, cpu = time.perf_counter(), time.process_time()
        index = build_page(data, page, single_file=single_file)
        os.write(write, f"{time.perf_counter() - start} {time.process_time() - cpu} {index}".encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        took, cpu, made = answer.read().split(maxsplit=2)
    os.waitpid(child, 0)
    return Path(made), float(took), float(cpu)


def _print_sizes(index: Path) -> None:
    beside = index.parent.rglob("*") if index.name == "index.html" else [index]
    files = [path for path in beside if path.is_file()]
    packed = subprocess.run(["gzip", "-c", index], capture_output=True, check=True).stdout
    print(
        f"\npage: {sum(path.stat().st_size for path in files) / 1e6:.1f} MB in {len(files)} files;", end=" "
    )
    print(f"{index.name} {index.stat().st_size / 1e6:.2f} MB ({len(packed) / 1e6:.2f} MB by gzip)\n")


def _print_use(index: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sys.exit("Playwright is not installed: the browser's part is left out.")
    if chromium is None:
        sys.exit("There is no Chromium: the browser's part is left out.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        print(
            f"Chromium {browser.version}, headless, software rendering, 1400×900; times from the start of navigation\n"
        )
        print(
            "| visit | DOM ready (s) | first paint (s) | first screen's pictures (s) | DOM nodes | JS heap (MB) |"
        )
        print("|---|---|---|---|---|---|")
        for number in (1, 2, 3):
            print(f"| {number} | {' | '.join(_use(browser, index))} |")
        print("\n| scrolled by | frames | median (ms) | p95 (ms) | longest (ms) |\n|---|---|---|---|---|")
        for step in (300, 900):
            _print_scrolling(browser, index, step)
        browser.close()


def _use(browser: Any, index: Path) -> list[str]:
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(index.as_uri())
    ready = page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
    page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length")
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    page.wait_for_function(
        """[...document.images].filter((image) => image.getBoundingClientRect().top < innerHeight && image.offsetParent)
        .every((image) => image.complete && image.naturalWidth)"""
    )
    seen = page.evaluate("performance.now()")
    found = {entry["name"]: entry["value"] for entry in _metrics(page)}
    page.close()
    return [
        f"{ready / 1000:.2f}",
        f"{paint / 1000:.2f}",
        f"{seen / 1000:.2f}",
        f"{found['Nodes']:.0f}",
        f"{found['JSHeapUsedSize'] / 1e6:.1f}",
    ]


def _metrics(page: Any) -> list[dict[str, Any]]:
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    return session.send("Performance.getMetrics")["metrics"]


def _print_scrolling(browser: Any, index: Path, step: int) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(index.as_uri())
    page.wait_for_timeout(2000)  # the first screen's pictures are there
    times = page.evaluate(SCROLL, step)
    p95 = statistics.quantiles(times, n=20)[-1]
    print(
        f"| {step} px a frame | {len(times)} | {statistics.median(times):.0f} | {p95:.0f} | {max(times):.0f} |"
    )
    page.close()


if __name__ == "__main__":
    main()
