"""What the template shows of a page's data: every number worked out, every text chosen, nothing left to decide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..captures.capture import Capture
from ..captures.split import EVERY, numbers_by_value, split_of
from ..lang import Texts, texts
from ..tasks.published import Beside
from ..tasks.sensitivity import VARIANTS, sensitivity
from ..tasks.statistics import Ranking
from .answer import answer, lead, listed, number, with_unit
from .contestants import Contestant, in_order, ranking, samples_of
from .data import MetricInfo, ReportData, ReportRun
from .figures import SLOTS, cost_chart, interval_bars, view_plot
from .images import ViewPictures
from .kept import LOSSLESS_MEGAPIXELS, QUALITY, SCALE_COLOURS
from .plots import curve_charts

PICTURE_HEIGHT = 400
PICTURE_WIDTH = 440
"""The most that a picture gets in the list of views, in CSS pixels: one view fits on a laptop's screen."""

PICTURE_LEAST = 200
"""Smaller pictures are drawn at least this wide, so that there is something to see."""

MOST_PAIRS = 15
"""All pairs of six contestants; of more, those with the first alone are listed, which is what decides."""


def context(
    data: ReportData, pictures: dict[str, ViewPictures], lossless: bool, single_file: bool = False
) -> dict[str, Any]:
    """All that the template names, but for its filters."""
    t = texts(data.lang)
    order = in_order(data)
    metric = data.metrics[0] if data.metrics else None
    ranked = ranking(data, metric) if metric else None
    views = _views(data, order, pictures, t)
    slots = {run.id: slot % SLOTS for slot, one in enumerate(order) for run in one.runs}
    runs = _runs(data, order)
    return {
        "t": t,
        "data": data,
        "capture": data.capture,
        "document": data.capture.document,
        "answer": answer(data),
        "metric": metric if ranked else None,
        "level": f"{ranked.level * 100:g}" if ranked else "95",
        "block": ranked.block if ranked else 1,
        "sure": _sure(ranked, t) if ranked else "",
        "contestants": [
            _contestant(one, slot, data, ranked, metric, views, t) for slot, one in enumerate(order)
        ],
        "bars": interval_bars(order, metric, ranked) if metric and ranked else None,
        "cost": cost_chart(order, metric) if metric else None,
        "pairs": _pairs(order, ranked, metric) if metric and ranked else [],
        "warnings": _warnings(data, order, pictures, t),
        "plots": _plots(data, order, views),
        "runs": [{"run": run, "label": run.id, "slot": slots[run.id]} for run in runs],
        "called": called(order),
        "unfinished": [{"run": run, "slot": slots[run.id]} for run in runs if run.state != "done"],
        "sizes": _sizes(data),
        "table": _table(data),
        "charts": curve_charts(order, data.metrics, t),
        "views": views,
        "order_text": t("views.worst_first", metric=metric.title)
        if ranked and metric
        else t("views.by_name"),
        "several_seeds": any(len(one.runs) > 1 for one in order),
        "seeds": sorted({run.seed for run in data.runs}),
        "layout": _layout(data),
        "masked": sum(1 for view in views if view["pictures"].counted is not None),
        "lossless": lossless,
        "lossless_megapixels": LOSSLESS_MEGAPIXELS,
        "quality": QUALITY,
        "scale": SCALE_COLOURS,
        "split_text": split_text(data.capture, t),
        "points_from": points_from(data.capture, t),
        "point_count": len(data.capture.points()[0]),
        "background": _colour(data.capture.background, t),
        "paper_url": paper_url,
        "films": _films(data, order),
        "sensitivity": _sensitivity(data, order, pictures, ranked, metric, t) if ranked and metric else None,
        "published": [_beside(one, data, t) for one in data.published],
        "single_file": single_file,
        "inline": _inline(data, order, views, t, single_file),
    }


def called(order: Sequence[Contestant]) -> dict[str, str]:
    """What each run is called beside a picture: its contestant, and its seed where that has several."""
    return {
        run.id: one.label if len(one.runs) == 1 else f"{one.label} ({run.id})"
        for one in order
        for run in one.runs
    }


def _runs(data: ReportData, order: Sequence[Contestant]) -> list[ReportRun]:
    """Every run, as the contestants are listed; a contestant's own in the order of their seeds."""
    return [run for one in order for run in sorted(one.runs, key=lambda run: (run.seed, run.id))]


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


def points_from(capture: Capture, t: Texts) -> str:
    """Where the sparse points come from, in words: some sources' points may hold what held-out views show."""
    origin = str((capture.document.get("points") or {}).get("from", ""))
    if origin.startswith("triangulated"):
        return t("measured.triangulated")
    if origin in ("photos", "colmap"):
        return t("measured.from_all_photos")
    return t("measured.from_source", source=origin)


def split_text(capture: Capture, t: Texts) -> str:
    """By which rule the views were held out."""
    settings = capture.document.get("settings") or {}
    by = split_of({"settings": settings, **capture.document})["by"]
    rule = settings.get("hold_out") or {}
    if by == "segment":
        return t("measured.segment", percent=f"{rule['value'] * 100:g}")
    if by == "every":
        return t("measured.every", every=rule.get("value", settings.get("every", EVERY)))
    return t({"list": "measured.list", "source": "measured.own"}.get(by, "measured.unknown"))


def paper_url(paper: dict[str, Any]) -> str:
    """Where a paper is, if that is a web address: a method's file may say anything, ``javascript:`` too."""
    url = str(paper.get("url", ""))
    return url if url.startswith(("https://", "http://")) else ""


def _colour(background: tuple[float, float, float], t: Texts) -> str:
    named = {(1.0, 1.0, 1.0): t("asked.white"), (0.0, 0.0, 0.0): t("asked.black")}
    return named.get(background, "sRGB " + ", ".join(f"{channel:.3g}" for channel in background))


def _sure(ranked: Ranking, t: Texts) -> str:
    return "" if ranked.between_runs_measured else t("pairs.one_run")


def _between(values: Sequence[float], text: Any) -> str:
    """One value, or from the least to the greatest."""
    if not values:
        return "–"
    low, high = text(min(values)), text(max(values))
    return low if low == high else f"{low}–{high}"


def _contestant(
    one: Contestant,
    slot: int,
    data: ReportData,
    ranked: Ranking | None,
    metric: MetricInfo | None,
    views: Sequence[dict[str, Any]],
    t: Texts,
) -> dict[str, Any]:
    runs = sorted(one.runs, key=lambda run: (run.seed, run.id))
    shown: dict[str, Any] = {
        "label": one.label,
        "title": one.title,
        "is_floor": one.is_floor,
        "slot": slot % SLOTS,
        "runs": runs,
        "scored": one.scored,
        "rank": "–",
        "interval": None,
        "device_seconds": _between([run.device_seconds for run in one.scored or one.runs], seconds),
        "steps": _between([run.steps for run in one.scored or one.runs], lambda steps: f"{steps:,}"),
        "memory": memory(max(run.peak_memory_bytes for run in one.runs)),
        "setup_seconds": _between([run.setup_seconds for run in one.scored or one.runs], seconds),
        "runs_text": t("ranking.done", count=len(one.scored), total=len(one.runs)),
        "failures": t("ranking.failed", count=len(one.failed)) if one.failed else "",
    }
    if ranked is None or metric is None or (interval := ranked.intervals.get(one.label)) is None:
        return shown
    best, last = ranked.ranks[one.label]
    worst_of = min if metric.higher_is_better else max
    scores = [
        (run.scores[metric.name]["per_item"][view["name"]], run.id, view)
        for run in one.scored
        for view in views
        if view["name"] in run.scores[metric.name]["per_item"]
    ]
    worst, worst_run, worst_view = worst_of(scores, key=lambda entry: entry[0])
    return {
        **shown,
        "rank": str(best) if best == last else f"{best}–{last}",
        "interval": interval,
        "interval_text": t(
            "ranking.interval_text",
            mean=with_unit(interval.mean, metric),
            low=number(interval.low, metric),
            high=number(interval.high, metric),
            level=f"{interval.level * 100:g}",
        ),
        "worst": worst,
        "worst_run": worst_run,
        "worst_view": worst_view["name"],
        "worst_anchor": worst_view["anchor"],
    }


def _pairs(order: Sequence[Contestant], ranked: Ranking, metric: MetricInfo) -> list[dict[str, Any]]:
    names = [one.label for one in order if one.label in ranked.intervals]
    pairs = [(first, second) for place, first in enumerate(names) for second in names[place + 1 :]]
    if len(pairs) > MOST_PAIRS:
        pairs = [pair for pair in pairs if pair[0] == names[0]]
    shown = []
    for first, second in pairs:
        found = lead(ranked, first, second)
        shown.append(
            {
                "first": first,
                "second": second,
                "decided": found.decided,
                "difference": signed(found.mean, metric),
                "low": signed(found.low, metric),
                "high": signed(found.high, metric),
                "views_better": found.views_better,
                "views": ranked.views,
                "p": "<0.001" if found.p_holm < 0.001 else f"{found.p_holm:.3f}",
            }
        )
    return shown


def signed(value: float, metric: MetricInfo) -> str:
    """A difference of scores, with its sign."""
    return ("+" if value >= 0 else "−") + number(abs(value), metric)


def _warnings(
    data: ReportData, order: Sequence[Contestant], pictures: dict[str, ViewPictures], t: Texts
) -> list[dict[str, Any]]:
    """What a reader should know before believing the numbers."""
    found: list[dict[str, Any]] = []
    if data.leaks:
        names = [f"{leak.held_out} = {leak.training}" for leak in data.leaks]
        found.append(
            {"text": t("warnings.leak", count=len({leak.held_out for leak in data.leaks})), "names": names}
        )
    for one in order:
        if outdated := [run for run in one.runs if run.outdated]:
            titles = {metric.name: metric.title for metric in data.metrics}
            names = dict.fromkeys(titles[name] for run in outdated for name in run.outdated)
            found.append(
                {
                    "text": t(
                        "warnings.outdated", name=one.label, count=len(outdated), metrics=listed(names, t)
                    ),
                    "names": [run.id for run in outdated],
                }
            )
        if one.failed:
            found.append(
                {
                    "text": t("warnings.failed", name=one.label, count=len(one.failed), total=len(one.runs)),
                    "names": [],
                }
            )
    for one in order:
        memorised = [
            f"{view} = {shown.memorised.training}" + (f" ({run.id})" if len(one.runs) > 1 else "")
            for view, of_view in pictures.items()
            for run in one.runs
            if (shown := of_view.runs.get(run.id)) is not None and shown.memorised is not None
        ]
        total = sum(
            1
            for of_view in pictures.values()
            for run in one.runs
            if (s := of_view.runs.get(run.id)) and s.rendering
        )
        if memorised:
            text = t(
                "warnings.memorised_floor" if one.is_floor else "warnings.memorised",
                name=one.label,
                count=len(memorised),
                total=total,
            )
            found.append({"text": text, "names": memorised})
    return found


def _plots(
    data: ReportData, order: Sequence[Contestant], views: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    by_name = sorted(views, key=lambda view: numbers_by_value(view["name"]))
    plots = ((metric, view_plot(order, metric, by_name)) for metric in data.metrics)
    return [{"metric": metric, "chart": chart} for metric, chart in plots if chart is not None]


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


def _views(
    data: ReportData, order: Sequence[Contestant], pictures: dict[str, ViewPictures], t: Texts
) -> list[dict[str, Any]]:
    """The held-out views, worst first: by the first metric, mean over the contestants that are not the floor."""
    judged = [one for one in order if not one.is_floor and one.scored] or [one for one in order if one.scored]
    leaked = {
        leak.held_out: leak for leak in reversed(data.leaks)
    }  # the photo that is the most like it comes first

    def badness(name: str, metric: MetricInfo) -> float:
        values = [value for one in judged if (value := one.of_view(metric.name, name)) is not None]
        if not values:
            return float("inf")  # never scored: before the worst, where it is seen
        return -sum(values) / len(values) if metric.higher_is_better else sum(values) / len(values)

    views = list(enumerate(data.capture.held_out))
    if data.metrics:
        views.sort(key=lambda numbered: (-badness(numbered[1].name, data.metrics[0]), numbered[1].name))
    return [
        {
            "name": view.name,
            "index": index,
            "anchor": f"view-{index + 1}",
            "pictures": pictures[view.name],
            "marks": [t("views.leaked", photo=leaked[view.name].training)] if view.name in leaked else [],
            "scores": {
                run.id: {
                    metric.name: run.scores[metric.name]["per_item"][view.name]
                    for metric in data.metrics
                    if view.name in run.scores.get(metric.name, {}).get("per_item", {})
                }
                for run in data.runs
            },
        }
        for index, view in views
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
    return first if len(sizes) == 1 else f"{first}–{last} ({len(sizes)})"


def _films(data: ReportData, order: Sequence[Contestant]) -> list[dict[str, Any]]:
    return [
        {
            "label": one.label,
            "slot": slot % SLOTS,
            "run": film.run,
            "video": f"films/{film.file('mp4')}" if film.video else None,
            "scene": f"scenes/{film.file('html')}" if film.scene else None,
            "no_video": film.no_video,
            "no_scene": film.no_scene,
        }
        for slot, one in enumerate(order)
        if (film := data.films.get(one.label)) is not None
    ]


def _sensitivity(
    data: ReportData,
    order: Sequence[Contestant],
    pictures: dict[str, ViewPictures],
    ranked: Ranking,
    metric: MetricInfo,
    t: Texts,
) -> dict[str, Any] | None:
    """How the order of the contestants depends on the metric, the size, the quantisation and the way to sum up."""
    names = [one.label for one in order if one.label in ranked.intervals]
    if len(names) < 2:
        return None
    samples = {one.name: samples_of(data, one) for one in data.metrics}
    shifts = sensitivity(samples, ranked, _variant_means(data, order, pictures))
    titles = {one.name: one.title for one in data.metrics}
    first = {
        "title": metric.title,
        "definition": metric.definition,
        "cells": [number(ranked.intervals[name].mean, metric) for name in names],
        "swaps": [],
    }
    rows = [
        {
            "title": titles.get(shift.variant.name) or t(f"variants.{shift.variant.name}"),
            "definition": shift.variant.definition,
            "cells": [
                _digits(shift.means[name], shift.variant.name) if name in shift.means else "–"
                for name in names
            ],
            "swaps": [
                t(
                    "sensitivity.decided" if swap.decided else "sensitivity.swap",
                    first=swap.behind,
                    second=swap.ahead,
                )
                for swap in shift.swaps
            ],
        }
        for shift in shifts
        if shift.means
    ]
    return {"names": names, "rows": [first, *rows]}


def _digits(value: float, variant: str) -> str:
    return f"{value:.2f}" if variant.startswith("psnr") else f"{value:.3f}"


def _variant_means(
    data: ReportData, order: Sequence[Contestant], pictures: dict[str, ViewPictures]
) -> dict[str, dict[str, float]]:
    """By variant and contestant, the mean over its runs and all views; where one view lacks a value, none."""
    means: dict[str, dict[str, float]] = {name: {} for name in VARIANTS}
    for name in VARIANTS:
        for one in order:
            values = [
                (pictures[view.name].runs[run.id].variants or {}).get(name)
                for run in one.scored
                for view in data.capture.held_out
            ]
            known = [value for value in values if value is not None]
            if known and len(known) == len(values):
                means[name][one.label] = sum(known) / len(known)
    return means


def _beside(one: Beside, data: ReportData, t: Texts) -> dict[str, Any]:
    metric = next((metric for metric in data.metrics if metric.name == one.metric), None)

    def text(value: float) -> str:
        return with_unit(value, metric) if metric else f"{value:g}"

    return {
        "method": one.method,
        "metric": metric.title if metric else one.metric,
        "theirs": text(one.value),
        "ours": f"{text(one.ours)} ({one.our_method})" if one.ours is not None and one.agrees else "–",
        "agrees": one.agrees,
        "differences": one.differences,
        "source": one.source if one.checked else t("published.unchecked", source=one.source),
        "note": one.note,
    }


def _inline(
    data: ReportData,
    order: Sequence[Contestant],
    views: Sequence[dict[str, Any]],
    t: Texts,
    single_file: bool,
) -> dict[str, Any]:
    """What the page's script needs to know, as JSON; pictures it finds in the page itself."""
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
        "contestants": [
            {
                "label": one.label,
                "floor": one.is_floor,
                "runs": [
                    {"id": run.id, "seed": run.seed, "scored": run in one.scored}
                    for run in sorted(one.runs, key=lambda run: (run.seed, run.id))
                ],
            }
            for one in order
        ],
        "views": [
            {"anchor": view["anchor"], "name": view["name"], "scores": view["scores"]} for view in views
        ],
        "charts": [] if single_file else curve_charts(order, data.metrics, t),
        "texts": {**t.part("script"), "photo": t("views.photo")},
    }
