"""The page: one folder that shows all that happened on one capture, and opens without any network.

``build_page`` turns a :class:`ReportData` into ``index.html``, ``assets/`` and ``images/``. It is built aside
and moved into place whole. This module decides what stands where; how it looks is the template's and the
style sheet's business, what the numbers mean is :mod:`.answer`'s.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import psutil

from .. import files
from ..captures.capture import Capture
from ..errors import TurntableError, disk_error
from .answer import answer, number, with_unit
from .data import FLOOR, MetricInfo, ReportData, ReportRun, labels
from .images import LOSSLESS_MEGAPIXELS, QUALITY, SCALE_COLOURS, ViewPictures, write_pictures
from .plots import SLOTS, curve_charts, plotly_script

HERE = Path(__file__).parent
GENERATOR = "Turntable"
_MARK = f'<meta name="generator" content="{GENERATOR}">'
"""By this line in its ``index.html`` a folder is known to be a page, and may be replaced."""

PICTURE_HEIGHT = 400
PICTURE_WIDTH = 440
"""The most that a picture gets in the list of views, in CSS pixels: one view fits on a laptop's screen."""

PICTURE_LEAST = 200
"""Smaller pictures are drawn at least this wide, so that there is something to see."""


def build_page(
    data: ReportData, folder: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> Path:
    """Write the page of ``data`` to ``folder``, in place of the page that may be there.

    Args:
        data: what to show.
        folder: becomes the page; its parents are made.
        progress: told how many held-out views have their pictures, of how many.

    Returns:
        The path of ``index.html``.

    Raises:
        TurntableError: ``folder`` holds something that is not a page, the capture's photos can't be read, or
            the disk can't be written.
    """
    _check_replaceable(folder)
    new = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        new.mkdir()
        _fill(new, data, progress)
        _move_into_place(new, folder)
    except OSError as error:
        raise disk_error(error, f"the page {folder}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return folder / "index.html"


def _fill(folder: Path, data: ReportData, progress: Callable[[int, int], None]) -> None:
    assets = folder / "assets"
    assets.mkdir()
    for name in ("page.css", "page.js"):
        shutil.copyfile(HERE / "assets" / name, assets / name)
    charts = curve_charts(ranked(data), data.metrics)
    if charts:
        files.write_text(assets / "plotly.min.js", plotly_script())
    pictures, lossless = write_pictures(folder, data.capture.held_out, ranked(data), progress)
    files.write_text(folder / "index.html", render(data, pictures, lossless, charts))


def render(
    data: ReportData, pictures: dict[str, ViewPictures], lossless: bool, charts: list[dict[str, Any]]
) -> str:
    """The text of ``index.html``."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=number, with_unit=with_unit, seconds=seconds, memory=memory, words=words
    )
    runs = ranked(data)
    called = labels(data.runs)
    views = _views(data, pictures)
    return environment.get_template("index.html").render(
        data=data,
        capture=data.capture,
        document=data.capture.document,
        generator=GENERATOR,
        answer=answer(data),
        floor=FLOOR,
        runs=[{"run": run, "label": called[run.id], "slot": slot % SLOTS} for slot, run in enumerate(runs)],
        sizes=_sizes(data),
        table=_table(data),
        strips=_strips(data),
        charts=charts,
        views=views,
        layout=_layout(data),
        masked=sum(1 for view in views if view["pictures"].counted is not None),
        lossless=lossless,
        lossless_megapixels=LOSSLESS_MEGAPIXELS,
        quality=QUALITY,
        scale=SCALE_COLOURS,
        points_from=points_from(data.capture),
        point_count=len(data.capture.points()[0]),
        background=_colour(data.capture.background),
        paper_url=paper_url,
        inline=_inline(data, views, charts),
    )


def ranked(data: ReportData) -> list[ReportRun]:
    """The runs as the page lists them: best mean of the first metric first, then those without scores."""

    def key(run: ReportRun) -> tuple[Any, ...]:
        for metric in data.metrics[:1]:
            if metric.name in run.scores and run.state == "done":
                mean = run.scores[metric.name]["mean"]
                return (0, -mean if metric.higher_is_better else mean, run.id)
        return (1, ("done", "running", "paused", "queued", "cancelled", "failed").index(run.state), run.id)

    return sorted(data.runs, key=key)


def seconds(value: float) -> str:
    """Seconds, in as many digits as matter."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def memory(value: int) -> str:
    """Bytes as MiB or GiB; a dash where nobody measured."""
    if value <= 0:
        return "–"
    return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"


def words(value: Any) -> str:
    """Any value of a JSON document in words."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return "; ".join(f"{key.replace('_', ' ')} {words(entry)}" for key, entry in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(words(entry) for entry in value) or "none"
    return str(value)


def points_from(capture: Capture) -> str:
    """Where the sparse points come from, in words: some sources' points may hold what held-out views show."""
    origin = str((capture.document.get("points") or {}).get("from", ""))
    if origin.startswith("triangulated"):
        return "triangulated from the known poses, by training views alone"
    if origin in ("photos", "colmap"):
        return (
            "those of the structure from motion over all photos that at least two training views saw; poses and points "
            "were refined with the held-out photos too"
        )
    return f"as the source ({origin}) brings them, maybe from held-out views too"


def paper_url(paper: dict[str, Any]) -> str:
    """Where a paper is, if that is a web address: a method's file may say anything, ``javascript:`` too."""
    url = str(paper.get("url", ""))
    return url if url.startswith(("https://", "http://")) else ""


def _colour(background: tuple[float, float, float]) -> str:
    named = {(1.0, 1.0, 1.0): "white", (0.0, 0.0, 0.0): "black"}
    return named.get(background, "sRGB " + ", ".join(f"{channel:.3g}" for channel in background))


def _table(data: ReportData) -> dict[str, dict[str, dict[str, Any]]]:
    """By run and metric: ``mean``, ``worst``, ``tenth``: a value, and whether it is its column's best."""
    cells: dict[str, dict[str, dict[str, Any]]] = {run.id: {} for run in data.runs}
    for metric in data.metrics:
        best_of = max if metric.higher_is_better else min
        tenth = "p10" if metric.higher_is_better else "p90"
        scored = [run for run in data.runs if metric.name in run.scores]
        for column, key in (("mean", "mean"), ("worst", "worst"), ("tenth", tenth)):
            values = {run.id: run.scores[metric.name][key] for run in scored}
            whole = [values[run.id] for run in scored if run.state == "done"]
            best = best_of(whole, default=0.0)
            for run in scored:
                run_id, value = run.id, values[run.id]
                ended = run.state == "done" and len(whole) > 1
                is_best = ended and number(value, metric) == number(best, metric)
                cells[run_id].setdefault(metric.name, {})[column] = {"value": value, "best": is_best}
    return cells


def _strips(data: ReportData) -> dict[str, Any] | None:
    """For each run, where its views lie between the least and the greatest score (first metric), 0 to 1."""
    if not data.metrics:
        return None
    metric = data.metrics[0]
    scores = {run.id: run.scores[metric.name]["per_item"] for run in data.runs if metric.name in run.scores}
    values = [value for per_item in scores.values() for value in per_item.values()]
    if not values:
        return None
    low, high = min(values), max(values)
    spread = (high - low) or 1.0
    return {
        "low": low,
        "high": high,
        "runs": {
            run_id: [
                {"at": round((value - low) / spread, 4), "view": view}
                for view, value in sorted(items.items())
            ]
            for run_id, items in scores.items()
        },
    }


def _views(data: ReportData, pictures: dict[str, ViewPictures]) -> list[dict[str, Any]]:
    """The held-out views, worst first: by the first metric, mean over the runs that are not the floor."""
    runs = [run for run in data.runs if run.scores]
    judged = [run for run in runs if run.method != FLOOR] or runs

    def badness(name: str, metric: MetricInfo) -> float:
        values = [
            run.scores[metric.name]["per_item"][name]
            for run in judged
            if name in run.scores.get(metric.name, {}).get("per_item", {})
        ]
        if not values:
            return float("inf")  # never scored: before the worst, where it is seen
        return -sum(values) / len(values) if metric.higher_is_better else sum(values) / len(values)

    views = list(data.capture.held_out)
    if data.metrics:
        views.sort(key=lambda view: (-badness(view.name, data.metrics[0]), view.name))
    return [
        {
            "name": view.name,
            "anchor": f"view-{number}",
            "origin": view.origin,
            "pictures": pictures[view.name],
            "scores": {
                run.id: {
                    metric.name: run.scores[metric.name]["per_item"][view.name]
                    for metric in data.metrics
                    if view.name in run.scores.get(metric.name, {}).get("per_item", {})
                }
                for run in data.runs
            },
        }
        for number, view in enumerate(views, 1)
    ]


def _layout(data: ReportData) -> dict[str, Any]:
    """How wide a picture is drawn, in CSS pixels, and whether pictures stand side by side within a pair."""
    views = data.capture.held_out
    if not views:
        return {"width": PICTURE_LEAST, "pair": "below"}
    width = max(view.camera.width for view in views)
    aspect = sum(view.camera.width / view.camera.height for view in views) / len(views)
    fitting = min(PICTURE_WIDTH, PICTURE_HEIGHT * aspect)
    return {
        "width": round(min(fitting, max(width, PICTURE_LEAST))),
        "pair": "beside" if aspect < 0.9 else "below",
    }


def _sizes(data: ReportData) -> str:
    sizes = sorted({(view.camera.width, view.camera.height) for view in data.capture.views})
    if not sizes:
        return "–"
    first, last = (f"{width}×{height}" for width, height in (sizes[0], sizes[-1]))
    return first if len(sizes) == 1 else f"{first} to {last} ({len(sizes)} sizes)"


def _inline(data: ReportData, views: list[dict[str, Any]], charts: list[dict[str, Any]]) -> dict[str, Any]:
    """What the page's script needs to know, as JSON."""
    called = labels(data.runs)
    return {
        "metrics": [
            {
                "name": metric.name,
                "title": metric.title,
                "unit": metric.unit,
                "digits": 2 if metric.unit == "dB" else 3,
                "higherIsBetter": metric.higher_is_better,
            }
            for metric in data.metrics
        ],
        "runs": [
            {"id": run.id, "label": called[run.id], "floor": run.method == FLOOR, "scored": bool(run.scores)}
            for run in ranked(data)
        ],
        "views": [
            {
                "anchor": view["anchor"],
                "name": view["name"],
                "scores": view["scores"],
                "photo": _picture(view["pictures"].photo),
                "runs": {
                    run_id: {"rendering": _picture(found.rendering), "error": _picture(found.error_map)}
                    for run_id, found in view["pictures"].runs.items()
                    if found.rendering is not None
                },
            }
            for view in views
        ],
        "charts": charts,
    }


def _picture(picture: Any) -> dict[str, Any]:
    return {"file": picture.file, "width": picture.width, "height": picture.height}


def _check_replaceable(folder: Path) -> None:
    if not folder.exists():
        return
    index = folder / "index.html"
    if folder.is_dir():
        is_page = index.is_file() and _MARK in index.read_text(encoding="utf-8", errors="replace")
        if is_page or not any(folder.iterdir()):
            return
    raise TurntableError(
        f"A page replaces only a page; {folder} holds something else. Move it away, or choose another folder."
    )


def _remove_leftovers(folder: Path) -> None:
    """Remove what killed builds left beside ``folder``; never what one that still runs is writing."""
    for kind in ("new", "old"):
        for left in folder.parent.glob(f".{_literal(folder.name)}.*.{kind}"):
            pid = left.name[len(folder.name) + 2 : -len(kind) - 1]
            if pid.isdigit() and (int(pid) == os.getpid() or not psutil.pid_exists(int(pid))):
                shutil.rmtree(left)


def _literal(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _move_into_place(new: Path, folder: Path) -> None:
    if folder.exists():
        old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
        folder.rename(old)
        try:
            new.rename(folder)
        except OSError:
            old.rename(folder)
            raise
        shutil.rmtree(old)
    else:
        new.rename(folder)
