"""The part ``growth`` of ``benchmarks/splat.py``: time and memory against pixels, Gaussians and photos."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from _splat_runs import Plan, apart, camera_of, configured, note, section, table
from _splat_scenes import smeared

from turntable.methods.splat.photos import Photos
from turntable.methods.splat.splat import Splat
from turntable.worker.contract import Camera, TrainingViews, View
from turntable.worker.png import write_png
from turntable.worker.session import peak_memory_bytes

SIZES = ((640, 400), (1160, 870), (2320, 1740), (4000, 3000))
GAUSSIANS = (10_000, 100_000, 1_000_000, 2_000_000)
PHOTOS = (10, 100, 500)
ASKED = 40
"""Photos asked for in a random order, as training at full size does: each is read from its file first."""
COVER = 8.0
"""Gaussians, two standard deviations wide, that lie over a pixel on average, however many there are."""
DISTANCE, SIDE = 4.0, 3.0


def growth(plan: Plan) -> None:
    """Step time and memory of synthetic scenes, and memory of photos."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _against_pixels_and_gaussians(folder, plan.quick)
        _against_photos(folder, plan.quick)


def _against_pixels_and_gaussians(folder: Path, quick: bool) -> None:
    section(
        "Growth: pixels and Gaussians",
        "Random Gaussians in a cube before two cameras, in the last row before as many as there are photos; sizes such "
        "that as many lie over each pixel whatever the numbers. A step at full size and degree 3 (median after two), in a "
        "process of its own; its peak memory while it steps, photos included. Bytes per Gaussian: what the peak has grown "
        "by since the first row of that size.",
    )
    sizes, counts = (SIZES[:2], GAUSSIANS[:2]) if quick else (SIZES, GAUSSIANS)
    cases = [(SIZES[1], count, 2) for count in counts]
    cases += [(size, 100_000, 2) for size in sizes if size != SIZES[1]]
    cases.append((sizes[-1], counts[-1], PHOTOS[0 if quick else -1]))
    header = (
        "photos",
        "pixels",
        "Gaussians",
        "step ms",
        "ns per pixel",
        "ns per Gaussian",
        "pairs",
        "memory MB",
        "bytes/Gaussian",
    )
    table(header, _growth_rows(folder, cases, 3 if quick else 8))


def _growth_rows(
    folder: Path, cases: list[tuple[tuple[int, int], int, int]], steps: int
) -> Iterator[tuple[Any, ...]]:
    first: dict[tuple[tuple[int, int], int], tuple[int, int]] = {}
    for size, count, photos in cases:
        note(f"growth: {photos} photos of {size[0]}×{size[1]}, {count:,} Gaussians")
        photo = _photo(folder, size)
        milliseconds, pairs, memory = apart(_step, [photo] * photos, size, count, steps)
        few, less = first.setdefault((size, photos), (count, memory))
        per = f"{(memory - less) / (count - few):,.0f}" if count > few else "–"
        pixels = size[0] * size[1]
        yield (
            photos, f"{pixels:,}", f"{count:,}", f"{milliseconds:.1f}", f"{1e6 * milliseconds / pixels:.1f}",
            f"{1e6 * milliseconds / count:.0f}", f"{pairs:,}", f"{memory / 1e6:,.0f}", per,
        )  # fmt: skip


def _photo(folder: Path, size: tuple[int, int]) -> Path:
    """A gradient with a little noise, whose file is about as large as a photo's of that size."""
    width, height = size
    path = folder / f"{width}.png"
    if not path.exists():
        ramp = np.add.outer(np.arange(height) * 100 // height, np.arange(width) * 100 // width)
        noise = np.random.default_rng(0).integers(0, 16, (height, width, 3))
        write_png(path, (ramp[:, :, None] + noise + 20).astype(np.uint8))
    return path


def _camera(size: tuple[int, int], aside: float) -> Camera:
    """Its picture shows the cube from side to side."""
    return camera_of(*size, max(size) * DISTANCE / SIDE, np.eye(3), np.array([aside, 0, 0]))


def _views_of(paths: list[Path], size: tuple[int, int]) -> TrainingViews:
    views = [View(path.name, _camera(size, 0.01 * (index % 2)), path) for index, path in enumerate(paths)]
    return TrainingViews(views, None, (0.0, 0.0, 0.0), has_alpha=True)


def _step(photos: list[Path], size: tuple[int, int], count: int, steps: int) -> tuple[float, int, int]:
    """Milliseconds of a step, its pairs of Gaussian and tile, and the peak memory while stepping."""
    settings = {"densification": "none", "start": "photos", "start_gaussians": "1000"}
    method = Splat(_views_of(photos, size), configured(settings), 0, "cpu")
    area = SIDE * SIDE * min(size) / max(size)
    scale = np.sqrt(COVER * area / (np.pi * 4 * count))
    middle = np.array([0, 0, DISTANCE])
    method._model = smeared(np.random.default_rng(0), count, middle, float(scale), SIDE)
    method.progress(1.0)
    _forget_peak()
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        method.step()
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times[2:])), method._kernels.counts()[1], peak_memory_bytes()


def _forget_peak() -> None:
    """Let Linux's high-water mark begin anew; elsewhere the peak of making the scene is in it."""
    marks = Path("/proc/self/clear_refs")
    if marks.exists():
        marks.write_text("5")


def _against_photos(folder: Path, quick: bool) -> None:
    size = (1000, 750) if quick else SIZES[-1]
    section(
        "Growth: photos",
        f"Photos of {size[0]}×{size[1]} (links to one file): memory and seconds of taking them in (with the border's "
        f"colour), then of asking for {ASKED} at random at full size, each read ahead from its file as in training.",
    )
    header = (
        "photos",
        "bound GB",
        "begin s",
        "memory MB",
        "asked for",
        "s per photo",
        "memory MB afterwards",
    )
    table(header, _photo_rows(_photo(folder, size), size, quick))


def _photo_rows(photo: Path, size: tuple[int, int], quick: bool) -> Iterator[tuple[Any, ...]]:
    cases: list[tuple[int, int | None]] = [(count, None) for count in (PHOTOS[:1] if quick else PHOTOS)]
    for count, bound in [*cases, (cases[-1][0], 10**9)]:
        note(f"growth: {count} photos")
        begin, before, asked, each, after = apart(_take_in, photo, size, count, bound)
        shown = "default" if bound is None else f"{bound / 1e9:g}"
        yield (
            count,
            shown,
            f"{begin:.1f}",
            f"{before / 1e6:,.0f}",
            asked,
            f"{each:.2f}",
            f"{after / 1e6:,.0f}",
        )


def _take_in(
    photo: Path, size: tuple[int, int], count: int, bound: int | None
) -> tuple[float, int, int, float, int]:
    with tempfile.TemporaryDirectory(dir=photo.parent) as temporary:
        paths = [Path(temporary) / f"{index}.png" for index in range(count)]
        for path in paths:
            os.link(photo, path)
        start = time.perf_counter()
        photos = Photos(_views_of(paths, size), bound=bound)
        photos.border_colour()
        begin, before = time.perf_counter() - start, peak_memory_bytes()
        order = np.random.default_rng(0).permutation(count)[:ASKED].tolist()
        start = time.perf_counter()
        for index, after in zip(order, [*order[1:], order[0]], strict=True):
            photos.photo(index, 0)
            photos.prefetch(after, 0)
        each = (time.perf_counter() - start) / len(order)
        return begin, before, len(order), each, peak_memory_bytes()
