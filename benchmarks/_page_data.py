"""A bench's folder with many scored renderings, for ``page.py``: what a run leaves, without any method.

Photos are textured pictures, or real ones where they are at hand; a method's rendering is the photo, blurred and noisy, each
method and view by another amount. Of many views the pictures repeat after :data:`DISTINCT`: another file each, but the same
bytes, since building and showing a page take as long.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from scipy.ndimage import gaussian_filter

from turntable.captures.capture import FORMAT, Capture, content_hash
from turntable.report import kept
from turntable.report.data import MetricInfo, ReportData, ReportRun
from turntable.report.kept import Keeper
from turntable.tasks.metrics import metrics
from turntable.tasks.summary import summarise
from turntable.worker.png import read_png, write_png

DISTINCT = 12
"""So many views have pictures of their own: each of their renderings takes a second to keep."""

TRAINING = 8
"""Training photos: a rendering is compared with each of them when it is kept, never when a page is built."""

METHODS = ("nearest", "splat", "fields", "grid", "patches", "rays", "surfels", "planes")


def make_capture(folder: Path, views: int, size: tuple[int, int], photos: list[Path]) -> Capture:
    """A capture of ``views`` held-out views of ``size`` (width, height), and of a few training views."""
    (folder / "images").mkdir(parents=True)
    width, height = size
    entries = []
    for index in range(views + TRAINING):
        name = f"{index:04d}.jpg"
        file = folder / "images" / f"{name}.png"
        if DISTINCT <= index < views:
            os.link(folder / "images" / f"{index % DISTINCT:04d}.jpg.png", file)
        else:
            write_png(file, photo(index, size, photos))
        angle = 2 * np.pi * index / (views + TRAINING)
        turn = [[-np.sin(angle), np.cos(angle), 0.0], [0.0, 0.0, -1.0], [-np.cos(angle), -np.sin(angle), 0.0]]
        entries.append(
            {
                "name": name,
                "camera": {
                    "width": width,
                    "height": height,
                    "fx": 1.2 * height,
                    "fy": 1.2 * height,
                    "cx": width / 2,
                    "cy": height / 2,
                    "R": turn,
                    "t": [0.0, 0.0, 3.0],
                },
                "image": f"images/{name}.png",
                "mask": None,
                "held_out": index < views,
                "origin": {"path": name, "sha256": "0" * 64, "width": width, "height": height},
            }
        )
    document = {
        "format": FORMAT,
        "name": folder.name,
        "source_hash": "by hand",
        "source": {"format": "test", "path": "nowhere", "files": {}},
        "settings": {},
        "background": [1.0, 1.0, 1.0],
        "has_alpha": False,
        "views": entries,
        "left_out": [],
        "points": None,
        "poses": {},
        "notes": [],
        "truth": {},
        "versions": {},
    }
    document["hash"] = content_hash(document, folder)
    (folder / "capture.json").write_text(json.dumps(document))
    return Capture.load(folder)


def photo(index: int, size: tuple[int, int], photos: list[Path]) -> np.ndarray:
    """``uint8[H, W, 3]``: a real photo, resized, or noise of all scales with edges, as photos have them."""
    width, height = size
    if photos:
        with Image.open(photos[index % len(photos)]) as opened:
            return np.asarray(opened.convert("RGB").resize(size, Image.Resampling.LANCZOS))
    generator = np.random.default_rng(index)
    picture = np.zeros((height, width, 3))
    for blur in (64, 16, 4, 1):
        layer = gaussian_filter(generator.normal(0, 1, (height, width, 3)), (blur, blur, 0))
        picture += layer / layer.std() * (1.0 if blur > 16 else 0.4)
    picture = np.where(picture[..., :1] > 0.4, picture[..., ::-1], picture)
    return (128 + 48 * picture).clip(0, 255).astype(np.uint8)


def make_run(bench: Path, capture: Capture, method: int) -> ReportRun:
    """A run's renderings of every view, and their scores by PSNR and SSIM."""
    name = METHODS[method]
    run = bench / "runs" / f"{capture.name}-{name}-1"
    (folder := run / "views").mkdir(parents=True)
    generator = np.random.default_rng(method)
    chosen = {key: metric for key, metric in metrics().items() if key in ("psnr", "ssim")}
    per_item: dict[str, dict[str, float]] = {key: {} for key in chosen}
    for index, view in enumerate(capture.held_out):
        if index >= DISTINCT:
            first = capture.held_out[index % DISTINCT]
            os.link(folder / first.image_path.name, folder / view.image_path.name)
            for values in per_item.values():
                values[view.name] = values[first.name]
            continue
        truth = view.image()
        blur = 0.4 + 0.4 * (method + 3 * generator.random())
        blurred = np.asarray(Image.fromarray(truth).filter(ImageFilter.GaussianBlur(blur)), np.float32)
        rendering = (blurred + generator.normal(0, 2, truth.shape)).clip(0, 255).astype(np.uint8)
        write_png(folder / view.image_path.name, rendering)
        for key, metric in chosen.items():
            per_item[key][view.name] = metric.compute(truth, rendering, None)
    scores = {key: summarise(items, chosen[key].higher_is_better) for key, items in per_item.items()}
    curve = [
        {
            "device_seconds": 60.0 * mark,
            "steps": int(2000 * mark),
            "scores": {key: {"mean": summary["mean"]} for key, summary in scores.items()},
        }
        for mark in (0.125, 0.25, 0.5, 1.0)
    ]
    return ReportRun(
        id=run.name,
        method=name,
        title=f"The method {name}",
        license="",
        paper=None,
        seed=0,
        state="done",
        cause=None,
        settings={},
        budget="2000steps",
        device="cpu",
        device_seconds=60.0,
        setup_seconds=1.0,
        steps=2000,
        peak_memory_bytes=2**30,
        scores=scores,
        curve=curve,
        views_folder=folder,
        log_tail=[],
    )


def make_data(bench: Path, views: int, methods: int, size: tuple[int, int], photos: list[Path]) -> ReportData:
    """All that the page shows."""
    capture = make_capture(bench / "captures" / "large", views, size, photos)
    return ReportData(
        capture=capture,
        runs=[make_run(bench, capture, method) for method in range(methods)],
        metrics=[
            MetricInfo(one.name, one.title, one.unit, one.higher_is_better, one.definition)
            for one in metrics().values()
            if one.name in ("psnr", "ssim")
        ],
        machine={},
        versions={},
        command=None,
        created="today",
    )


def keep_all(data: ReportData) -> float:
    """Keep every rendering, as scoring it does; the CPU seconds that one takes."""
    keeper = Keeper(data.capture)
    took = []
    for run in data.runs:
        folder = run.views_folder.parent
        for index, view in enumerate(data.capture.held_out):
            if index >= DISTINCT:
                _copy_kept(folder, data.capture.held_out[index % DISTINCT].name, view.name)
                continue
            photo, rendering = view.image(), read_png(run.views_folder / view.image_path.name)
            start = time.process_time()
            keeper.keep(folder, f"views/{view.image_path.name}", view, photo, rendering, None)
            took.append(time.process_time() - start)
    return statistics.median(took)


def _copy_kept(run: Path, first: str, name: str) -> None:
    """What was kept of the first holds for the other, whose rendering is the same file under another name."""
    copied = [path for path in (run / kept.FOLDER).iterdir() if path.name.startswith(f"{first}.")]
    for path in copied:
        shutil.copyfile(path, path.with_name(f"{name}.{path.name.removeprefix(f'{first}.')}"))
