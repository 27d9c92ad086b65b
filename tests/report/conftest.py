"""What the page's tests share: captures with awkward names, and runs that look like real ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conftest import make_capture
from turntable.captures.capture import Capture
from turntable.report.data import MetricInfo, ReportData, ReportRun
from turntable.tasks.metrics import metrics
from turntable.tasks.summary import summarise
from turntable.worker.png import write_png

METRICS = [
    MetricInfo(one.name, one.title, one.unit, one.higher_is_better, one.definition)
    for one in metrics().values()
]


def rename_views(capture: Capture, names: dict[str, str]) -> Capture:
    """The same capture with some of its views called otherwise."""
    for view in capture.document["views"]:
        view["name"] = names.get(view["name"], view["name"])
    (capture.folder / "capture.json").write_text(json.dumps(capture.document))
    return Capture.load(capture.folder)


def make_run(
    folder: Path, capture: Capture, method: str, noise: float = 0.0, state: str = "done", number: int = 1
) -> ReportRun:
    """A run whose renderings are the photos with seeded noise, scored by the real metrics if it is done."""
    run_id = f"{capture.name}-{method}-{number}"
    key = hashlib.sha256(f"{run_id} {noise}".encode()).hexdigest()[:12]  # a method's name may be no file name
    views = folder / "runs" / key / "views"
    generator = np.random.default_rng(number)
    per_item: dict[str, dict[str, float]] = {name: {} for name in metrics()}
    if state == "done":
        views.mkdir(parents=True)
        for view in capture.held_out:
            photo = view.image()
            rendering = (photo + generator.normal(0, noise, photo.shape)).clip(0, 255).astype(np.uint8)
            write_png(views / view.image_path.name, rendering)
            for name, metric in metrics().items():
                per_item[name][view.name] = metric.compute(photo, rendering, view.mask())
    scores = {
        name: summarise(items, metrics()[name].higher_is_better) for name, items in per_item.items() if items
    }
    curve = [
        {
            "device_seconds": 12.5 * mark,
            "steps": int(800 * mark),
            "scores": {name: {"mean": summary["mean"]} for name, summary in scores.items()},
        }
        for mark in (0.125, 0.25, 0.5, 1.0)
    ]
    failed = state == "failed"
    return ReportRun(
        id=run_id,
        method=method,
        title=f"The method {method}",
        license="Apache-2.0",
        paper={"title": "A paper", "year": 2023, "url": "https://example.org/paper"},
        seed=number - 1,
        state=state,
        cause="killed by signal 11 (segmentation fault) at step 5" if failed else None,
        settings={"learning_rate": 0.01},
        budget="2000steps",
        device="cpu",
        device_seconds=12.5,
        setup_seconds=0.25,
        steps=800,
        peak_memory_bytes=300 * 2**20,
        scores=scores,
        curve=curve if scores else [],
        views_folder=views,
        log_tail=["loading photos", "Segmentation fault"] if failed else [],
    )


def make_data(capture: Capture, runs: list[ReportRun]) -> ReportData:
    return ReportData(
        capture=capture,
        runs=runs,
        metrics=METRICS if any(run.scores for run in runs) else [],
        machine={"processor": "a processor, 2 usable cores", "system": "Linux"},
        versions={"turntable": "0.1.0"},
        command="turntable compare photos -m splat",
        created="2026-11-24 03:00:00 +0000",
    )


@pytest.fixture
def capture(tmp_path: Path) -> Capture:
    """Ten photos of 24×16 pixels, two of them held out."""
    return make_capture(tmp_path / "captures" / "toys")


@pytest.fixture
def masked_capture(tmp_path: Path) -> Capture:
    """The same with masks."""
    return make_capture(tmp_path / "captures" / "masked", masked=True, size=(32, 24))


@pytest.fixture
def run_of(tmp_path: Path) -> Callable[..., ReportRun]:
    """``run_of(capture, method, noise, state, number)``: see make_run."""
    return lambda capture, method, noise=0.0, state="done", number=1: make_run(
        tmp_path, capture, method, noise, state, number
    )


@pytest.fixture
def data_of() -> Callable[[Capture, list[ReportRun]], ReportData]:
    """``data_of(capture, runs)``: all that a page of them shows."""
    return make_data


@pytest.fixture
def renamed() -> Callable[[Capture, dict[str, str]], Capture]:
    """``renamed(capture, names)``: see rename_views."""
    return rename_views
