"""The parts ``raster``, ``stages`` and ``view`` of ``benchmarks/splat.py``: milliseconds, and the floor below them.

The floor of a stage is the greater of two times: bytes that it can't avoid reading or writing, over the bandwidth of
copying arrays far larger than caches; and operations on single numbers (each lane of a vector counts, a fused
multiply-add is one), over half of the FLOP/s of a matrix product. Both are measured on the spot with as many threads
as the stage has. What happens to lie in a cache may be faster than the floor. Words: V Gaussians are visible, in G
groups of sixteen of which at least one is; P pairs of Gaussian and tile; R touched rows of a tile, of which the share
s is looked at before the tile is opaque (from every fourth view); N Gaussians; A pixels.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from _splat_runs import (
    THREADS,
    Plan,
    apart,
    camera_of,
    capture,
    configured,
    note,
    section,
    table,
    train,
    training_views,
)
from _splat_scenes import (
    TILE_Y,
    groups_of,
    looked_at,
    mean_pairs,
    percentiles,
    sized,
    smeared,
    thinned,
    tile_x,
    touched,
)

from turntable.captures.capture import Capture
from turntable.methods.splat.kernels import GROUP, RECORD, STAGES, Kernels, ViewStruct, available, view_struct
from turntable.methods.splat.model import Model
from turntable.methods.splat.splat import Splat
from turntable.worker.contract import Camera

LOAD = 66_604
"""Pairs of Gaussian and 16×16 tile that the prototype's rasteriser was timed with, at 320×240."""
LOAD_GAUSSIANS = 60_000
"""Trained to; the largest are cut in two where that doesn't meet the load."""
STEP_GAUSSIANS = 60_000
STEPS = 600
GROWTH_SECONDS = 60
"""Of the prototype's run."""

FORMULAS = """\
| stage | bytes | operations |
|---|---|---|
| project | 44 N + 3072 G (harmonics) + 73 V + 8 P | 300 N + 140 V |
| bin | 72 V (keys, two passes, spans) + 28 P | – |
| forward | 76 P s + 12 A | R s × W × 10 + starts × W × 30 |
| loss | 27 A | 600 A |
| backward | 124 P s + 24 A | R s × W × 30 (a division counts as 8) + starts × W × 30 + P s × W × 17 |
| update | 11,392 G (89 numbers read and written) + 48 P | 16 G × 1,100 |

W is a tile's width; a start is an exponential, one for each begun stretch of 24 rows. A pair has 68 bytes: where it is
touched 8, entry 12, gradient 48."""
OPERATIONS = {"row_forward": 10, "row_backward": 30, "start": 30, "pair_backward": 17}
STRETCH = 24
"""As in ``kernels/raster.h``."""


def raster(plan: Plan) -> None:
    """Forward and backward alone, at the prototype's load."""
    section(
        "Rasteriser alone",
        f"320×240, {LOAD:,} pairs of Gaussian and 16×16 tile (mean over views, exact ellipses of alpha 1/255). A "
        "repetition is one pass over the scene's views; ms per view; gradients of the image are random.",
    )
    repetitions = 3 if plan.quick else 25
    scenes = [*_demo_scene(plan), _synthetic_scene()]
    header = (
        "scene", "Gaussians", "visible", "16×16 pairs", "own pairs (tile)", "instruction set", "threads",
        "forward ms", "backward ms", "both: median", "least", "10 – 90 %",
    )  # fmt: skip
    table(header, _raster_rows(scenes, repetitions))


Scene = tuple[str, Model, list[ViewStruct]]


def _raster_rows(scenes: list[Scene], repetitions: int) -> Iterator[tuple[Any, ...]]:
    for name, model, views in scenes:
        pairs = mean_pairs(Kernels(1), model, views).sum()
        for instruction_set in available():
            for threads in THREADS:
                kernels = Kernels(threads, instruction_set)
                times = _raster_times(kernels, model, views, repetitions)
                both = times.sum(1)
                counts = np.mean([_counts(kernels, model, view) for view in views], axis=0)
                own = f"{counts[1]:,.0f} ({tile_x(instruction_set)}×{TILE_Y})"
                forward, backward = np.median(times, axis=0)
                yield (
                    name, f"{model.count:,}", f"{counts[0]:,.0f}", f"{pairs:,.0f}", own, instruction_set, threads,
                    f"{forward:.2f}", f"{backward:.2f}", f"**{np.median(both):.2f}**", f"{both.min():.2f}",
                    percentiles(both),
                )  # fmt: skip


def _raster_times(kernels: Kernels, model: Model, views: list[ViewStruct], repetitions: int) -> np.ndarray:
    """Milliseconds of forward and backward per view, ``float64[repetitions, 2]``; the first pass isn't among them."""
    generator = np.random.default_rng(0)
    gradient = generator.standard_normal((3, views[0].height, views[0].width), np.float32)
    times = []
    for _ in range(repetitions + 1):
        before = kernels.seconds()
        for view in views:
            kernels.forward(model.records, model.count, view)
            kernels.set_gradient(gradient)
            kernels.gradients(model.records)
        after = kernels.seconds()
        times.append([1e3 * (after[stage] - before[stage]) / len(views) for stage in ("forward", "backward")])
    return np.array(times[1:])


def _counts(kernels: Kernels, model: Model, view: ViewStruct) -> tuple[int, int]:
    kernels.forward(model.records, model.count, view)
    return kernels.counts()


def _demo_scene(plan: Plan) -> list[Scene]:
    of = capture(plan, "demo")
    assert of is not None
    steps = 60 if plan.quick else STEPS
    note(f"demo: {steps} steps to {LOAD_GAUSSIANS:,} Gaussians")
    method = _trained(of, LOAD_GAUSSIANS, steps)
    views, model = _views(method)[::4], method._model
    print(f"The demo's scene was trained to {model.count:,} Gaussians in {steps} steps.\n")
    while (thin := thinned(model, mean_pairs(method._kernels, model, views), LOAD)) is None:
        model = sized(model, model.count * 5 // 4)
        note(f"too few pairs: the largest were cut, {model.count:,} Gaussians")
    return [("demo", thin, views)]


def _synthetic_scene() -> Scene:
    """Gaussians of about 2 px in a cube before one camera."""
    camera = camera_of(320, 240, 320, np.eye(3), np.zeros(3))
    views = [view_struct(camera, 0.05, np.zeros(3, np.float32), 3)]
    model = smeared(np.random.default_rng(1), 60_000, np.array([0, 0, 4.0]), 0.016, 3.2)
    thin = thinned(model, mean_pairs(Kernels(1), model, views), LOAD)
    assert thin is not None
    return "synthetic", thin, views


def _trained(of: Capture, gaussians: int, steps: int) -> Splat:
    method = Splat(training_views(of), configured({"max_gaussians": str(gaussians)}), 0, "cpu")
    train(method, steps)
    return method


def _views(method: Splat) -> list[ViewStruct]:
    """The training cameras as ``step()`` sees them at the end of the budget."""
    return [view_struct(camera, method._near, method._background, 3) for camera in method._photos.cameras]


def stages(plan: Plan) -> None:
    """Milliseconds of each stage of a whole step, beside the floor."""
    section(
        "Stages of a step",
        f"fox, long side 384, {STEP_GAUSSIANS:,} Gaussians, full size, degree 3; ms, median over all training views.",
    )
    of = capture(plan, "fox")
    if of is None:
        return
    steps = 60 if plan.quick else STEPS
    note(f"fox: {steps} steps to {STEP_GAUSSIANS:,} Gaussians")
    method = _trained(of, STEP_GAUSSIANS, steps)
    print(
        f"Trained in {steps} steps to {method._model.count:,} Gaussians, then cut or topped up to {STEP_GAUSSIANS:,}.\n"
    )
    method._model = sized(method._model, STEP_GAUSSIANS)
    header = ("instruction set", "threads", *STAGES, "Python", "whole step", "10 – 90 %", "steps/s")
    with tempfile.TemporaryDirectory() as folder:
        method.save(Path(folder))
        measured: dict[tuple[str, int], np.ndarray] = {}
        table(header, _stage_rows(of, Path(folder), plan.quick, measured))
    _print_floors(method, measured, 2 if plan.quick else 12)
    _growing(plan)


def _growing(plan: Plan) -> None:
    """A step's milliseconds as the prototype's were taken, and at the end of the same run."""
    seconds = 5 if plan.quick else GROWTH_SECONDS
    section(
        "Steps while growing",
        f"fox at the prototype's size, a run of {seconds} device seconds to {STEP_GAUSSIANS:,} Gaussians, coarse to fine, "
        "all threads: mean over all steps of the run; then, full size, cut or topped up to exactly that many, the median "
        "over four rounds of the training views.",
    )
    of = capture(plan, "fox-320")
    if of is None:
        return
    method = Splat(training_views(of), configured({"max_gaussians": str(STEP_GAUSSIANS)}), 0, "cpu")
    header = ("what", "steps", "Gaussians", *STAGES, "Python", "whole step")
    table(header, _growing_rows(method, seconds, len(of.training)))


def _growing_rows(method: Splat, seconds: float, views: int) -> Iterator[tuple[Any, ...]]:
    times: list[np.ndarray] = []
    spent = 0.0
    while spent < seconds:
        method.progress(spent / seconds)
        times.append(_step_times(method, 0, 1)[0])
        spent += 1e-3 * float(times[-1][-1])
    method.progress(1.0)
    grown, mean = method._model.count, np.mean(times, axis=0)
    method._model = sized(method._model, STEP_GAUSSIANS)
    late = np.median(_step_times(method, views, 4 * views), axis=0)
    for what, steps, gaussians, row in (
        (f"mean over {seconds} s", len(times), f"to {grown:,}", mean),
        ("median at the end", 4 * views, f"{STEP_GAUSSIANS:,}", late),
    ):
        cells = (f"{value:.2f}" for value in row[:-1])
        yield what, f"{steps:,}", gaussians, *cells, f"**{row[-1]:.2f}**"


def _stage_rows(
    of: Capture, saved: Path, quick: bool, measured: dict[tuple[str, int], np.ndarray]
) -> Iterator[tuple[Any, ...]]:
    """A row for each instruction set and number of threads; medians of the stages go into ``measured``."""
    for instruction_set in available():
        for threads in THREADS:
            given = {"instruction_set": instruction_set, "threads": str(threads)}
            method = Splat(training_views(of), configured(given), 0, "cpu")
            with contextlib.redirect_stdout(sys.stderr):
                method.load(saved)
            views = len(of.training)
            times = _step_times(method, *((4, 12) if quick else (views, 4 * views)))
            middle = np.median(times, axis=0)
            measured[instruction_set, threads] = middle
            yield (
                instruction_set, threads, *(f"{value:.2f}" for value in middle[:-1]),
                f"**{middle[-1]:.2f}**", percentiles(times[:, -1]), f"{1e3 / times[:, -1].mean():.1f}",
            )  # fmt: skip


def _step_times(method: Splat, unmeasured: int, steps: int) -> np.ndarray:
    """Milliseconds of each stage, of Python and of the whole, ``float64[steps, 8]``."""
    times = []
    for _ in range(unmeasured + steps):
        before = method._kernels.seconds()
        start = time.perf_counter()
        method.step()
        wall = time.perf_counter() - start
        after = method._kernels.seconds()
        parts = [after[stage] - before[stage] for stage in STAGES]
        times.append([*parts, wall - sum(parts), wall])
    return 1e3 * np.array(times[unmeasured:])


def _print_floors(method: Splat, measured: dict[tuple[str, int], np.ndarray], sampled: int) -> None:
    """The floor of each stage, and how many times as long it took."""
    print(f"Floors, for the mean of {sampled} training views:\n\n{FORMULAS}\n")
    peaks = {threads: peak(threads) for threads in THREADS}
    for threads, (bandwidth, flops) in peaks.items():
        print(f"- {threads} threads: {bandwidth / 1e9:.1f} GB/s (read + written), {flops / 1e9:.0f} GFLOP/s")
    print()
    by_width = {tile_x(name): name for name, _ in measured}
    needs = {width: _needs(method, name, sampled) for width, name in by_width.items()}
    for width, (counts, _) in needs.items():
        print(f"- tiles {width} wide: " + ", ".join(f"{key} {value:,.6g}" for key, value in counts.items()))
    print()
    header = (
        "instruction set",
        "threads",
        *(f"{stage}: floor ms (bound), measured/floor" for stage in STAGES),
        "all",
    )
    table(
        header,
        (_floor_row(*key, needs[tile_x(key[0])][1], peaks[key[1]], times) for key, times in measured.items()),
    )


def _floor_row(
    name: str,
    threads: int,
    needs: dict[str, tuple[float, float]],
    peaks: tuple[float, float],
    measured: np.ndarray,
) -> tuple[Any, ...]:
    cells, total = [], 0.0
    for stage, milliseconds in zip(STAGES, measured[: len(STAGES)].tolist(), strict=True):
        by_bytes, by_operations = needs[stage][0] / peaks[0], needs[stage][1] / (peaks[1] / 2)
        floor = 1e3 * max(by_bytes, by_operations)
        total += floor
        bound = "bytes" if by_bytes > by_operations else "operations"
        cells.append(f"{floor:.2f} ({bound}), {milliseconds / floor:.1f}×")
    whole = float(measured[-1])
    return (name, threads, *cells, f"{total:.2f}, {whole / total:.1f}×")


Needs = dict[str, tuple[float, float]]


def _needs(method: Splat, instruction_set: str, sampled: int) -> tuple[dict[str, float], Needs]:
    """What was counted, and each stage's bytes and operations: see FORMULAS."""
    model, kernels, width = method._model, Kernels(1, instruction_set), tile_x(instruction_set)
    every = np.linspace(0, len(method._photos) - 1, sampled).astype(int)
    views = [_views(method)[index] for index in every]
    sums, shares = np.zeros(6), []
    for index, view in enumerate(views):
        kernels.forward(model.records, model.count, view)
        projected = kernels.projected()
        spans = touched(projected, view.width, view.height, width)
        drawn = projected[:, 10] > 0
        sums += (
            drawn.sum(), groups_of(drawn), spans.pairs(TILE_Y).sum(), kernels.counts()[1],
            spans.rows().sum(), spans.stretches(STRETCH).sum(),
        )  # fmt: skip
        if index % 4 == 0:
            shares.append(looked_at(projected, spans, view, width))
    visible, groups, pairs, own_pairs, rows, starts = (sums / len(views)).tolist()
    share, pixels = float(np.mean(shares)), method._photos.mean_pixels
    counts = {
        "N": model.count, "V": visible, "G": groups, "P": pairs, "P as the kernels count": own_pairs,
        "R": rows, "starts": starts, "s": share, "A": pixels, "W": width,
    }  # fmt: skip
    seen = pairs * share
    began = starts * share * width * OPERATIONS["start"]
    needs = {
        "project": (
            44 * model.count + 4 * 48 * GROUP * groups + 73 * visible + 8 * pairs,
            300 * model.count + 140 * visible,
        ),
        "bin": (72 * visible + 28 * pairs, 0.0),
        "forward": (76 * seen + 12 * pixels, rows * share * width * OPERATIONS["row_forward"] + began),
        "loss": (27 * pixels, 600 * pixels),
        "backward": (
            124 * seen + 24 * pixels,
            rows * share * width * OPERATIONS["row_backward"]
            + began
            + seen * width * OPERATIONS["pair_backward"],
        ),
        "update": (2 * 4 * RECORD * GROUP * groups + 48 * pairs, GROUP * groups * 1100),
    }
    return counts, needs


def peak(threads: int) -> tuple[float, float]:
    """Bytes a second (read and written) of copying, and FLOP/s of a matrix product, with so many threads."""
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(threads)))  # NumPy looks once, when it is imported
    try:
        return apart(_peak_here, threads)
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _peak_here(threads: int) -> tuple[float, float]:
    size, parts = 2**25, []
    for _ in range(threads):
        parts.append((np.ones(size, np.float32), np.ones(size, np.float32)))
    with ThreadPoolExecutor(threads) as pool:
        bandwidth = max(_rate(lambda: list(pool.map(lambda pair: np.copyto(*pair), parts))) for _ in range(5))
    one = np.ones((1536, 1536), np.float32)
    products = max(_rate(lambda: one @ one) for _ in range(10))
    return 8.0 * size * threads * bandwidth, 2.0 * 1536**3 * products


def _rate(work: Any) -> float:
    start = time.perf_counter()
    work()
    return 1 / (time.perf_counter() - start)


def view(plan: Plan) -> None:
    """Frames per second along a path through the training cameras."""
    section(
        "Viewing",
        "fox at 960×540 (the photos' vertical field of view), along a smooth path through the training cameras. "
        "`render` also makes depth, opacity and NumPy images; the kernels alone leave the image where it is.",
    )
    of = capture(plan, "fox")
    if of is None:
        return
    header = ("Gaussians", "threads", "what", "frames/s", "ms: median", "90 %", "most")
    table(header, _view_rows(plan, of))


def _view_rows(plan: Plan, of: Capture) -> Iterator[tuple[Any, ...]]:
    for gaussians in (20_000, 60_000):
        method = _trained(of, gaussians, 60 if plan.quick else STEPS)
        model = method._model = sized(method._model, gaussians)
        cameras = path(method._photos.cameras, 6 if plan.quick else 120)
        for threads in THREADS:
            kernels = method._kernels = Kernels(threads)

            def alone(
                camera: Camera, kernels: Kernels = kernels, of: Splat = method, model: Model = model
            ) -> None:
                kernels.forward(model.records, model.count, view_struct(camera, of._near, of._background, 3))

            for name, draw in (("render", method.render), ("kernels alone", alone)):
                draw(cameras[0])
                times = np.array(
                    [1e3 / _rate(lambda draw=draw, camera=camera: draw(camera)) for camera in cameras]
                )
                yield (
                    f"{gaussians:,}", threads, name, f"**{1e3 / times.mean():.1f}**", f"{np.median(times):.1f}",
                    f"{np.percentile(times, 90):.1f}", f"{times.max():.1f}",
                )  # fmt: skip


def path(cameras: list[Camera], frames: int) -> list[Camera]:
    """Cameras of 960×540 from one training camera to the nearest one not yet visited, and so on, evenly spaced."""
    centres = np.stack([camera.centre for camera in cameras])
    order, rest = [0], set(range(1, len(cameras)))
    while rest:
        nearest = min(rest, key=lambda index: float(np.linalg.norm(centres[index] - centres[order[-1]])))
        order.append(nearest)
        rest.remove(nearest)
    made = []
    for place in np.linspace(0, len(order) - 1, frames):
        index = min(int(place), len(order) - 2)
        one, other, share = cameras[order[index]], cameras[order[index + 1]], place - index
        left, _, right = np.linalg.svd((1 - share) * one.R + share * other.R)
        centre = (1 - share) * one.centre + share * other.centre
        made.append(camera_of(960, 540, one.fy * 540 / one.height, left @ right, centre))
    return made
