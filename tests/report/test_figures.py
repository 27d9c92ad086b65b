"""The page's own drawings put every number where it belongs."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest

from turntable.report.contestants import in_order, ranking
from turntable.report.figures import (
    BAR_WIDTH,
    LEFT,
    SLOTS,
    Scale,
    cost_chart,
    interval_bars,
    ticks,
    view_plot,
)


@pytest.fixture
def runs(capture, run_of):
    """A floor, and a method with two seeds, the second worse."""
    return [
        run_of(capture, "nearest", (50.0, 45.0)),
        run_of(capture, "splat", (4.0, 12.0), number=1),
        run_of(capture, "splat", (9.0, 20.0), number=2),
    ]


@pytest.fixture
def data(capture, data_of, runs):
    return data_of(capture, runs)


def views_of(data):
    return [
        {"name": view.name, "anchor": f"view-{n}", "index": n} for n, view in enumerate(data.capture.held_out)
    ]


@pytest.mark.parametrize(
    ("low", "high", "most", "wanted"),
    [
        (0.0, 60.0, 6, [0, 10, 20, 30, 40, 50, 60]),
        (0.83, 0.96, 5, [0.85, 0.9, 0.95]),
        (27.2, 39.9, 5, [30, 35]),
        (-3.0, 3.0, 3, [-2, 0, 2]),
        (0.0, 12345.0, 6, [0, 5000, 10000]),
        (7.0, 7.0, 5, [7.0]),
    ],
)
def test_ticks_are_round_numbers_in_the_range(low, high, most, wanted):
    assert ticks(low, high, most) == pytest.approx(wanted)


@pytest.mark.parametrize("span", [3e-5, 0.07, 0.99, 1.0, 2.5, 10.0, 31.0, 8e6])
@pytest.mark.parametrize("low", [0.0, -1.3, 17.77])
def test_there_are_neither_too_few_ticks_nor_too_many(low, span):
    found = ticks(low, low + span, 6)
    assert 2 <= len(found) <= 7
    steps = [after - before for before, after in itertools.pairwise(found)]
    assert max(steps) == pytest.approx(min(steps), rel=1e-3)
    mantissa = steps[0] / 10 ** math.floor(math.log10(steps[0]) + 1e-6)
    assert min(abs(mantissa - round_one) for round_one in (1, 2, 5)) < 1e-2


def test_a_scale_goes_from_its_start_to_its_end_downwards_too():
    up, down = Scale(10, 20, 100, 200), Scale(10, 20, 200, 100)
    assert [up(value) for value in (10, 15, 20)] == [100, 150, 200]
    assert [down(value) for value in (10, 12.5, 20)] == [200, 175, 100]


def test_a_scale_of_equal_ends_still_has_places():
    assert math.isfinite(Scale(3.0, 3.0, 0, 100)(3.0))


def test_every_view_of_every_contestant_has_a_point_that_leads_to_it(data):
    metric = data.metrics[0]
    order = in_order(data)
    plot = view_plot(order, metric, views_of(data))
    assert len(plot["points"]) == 2 * 2
    for point in plot["points"]:
        one = order[point["slot"]]
        name = point["title"].split(",")[0]
        assert views_of(data)[int(point["anchor"][-1])]["name"] == name
        assert point["value"] == pytest.approx(one.of_view(metric.name, name))
        worst = min(one.scored, key=lambda run: run.scores[metric.name]["per_item"][name])
        assert point["run"] == worst.id
    better = sorted(plot["points"], key=lambda point: point["value"])
    assert [point["y"] for point in better] == sorted((point["y"] for point in better), reverse=True)


def test_a_line_reaches_from_the_worst_run_to_the_best(data):
    points = view_plot(in_order(data), data.metrics[0], views_of(data))["points"]
    for point in points:
        if point["floor"]:
            assert point["low"] == point["y"] == point["high"]  # one run
        else:
            assert point["low"] > point["y"] > point["high"]  # y goes down


@pytest.mark.parametrize("metric", [0, 2], ids=["psnr", "flip"])
def test_the_worst_of_all_but_the_floor_is_marked_and_lies_on_top(data, metric):
    metric = data.metrics[metric]
    points = view_plot(in_order(data), metric, views_of(data))["points"]
    assert [point["worst"] for point in points] == [False] * 3 + [True]
    judged = [point["value"] for point in points if not point["floor"]]
    assert points[-1]["value"] == (min(judged) if metric.higher_is_better else max(judged))
    assert not points[-1]["floor"]


def test_the_floor_alone_has_its_worst_marked(capture, data_of, runs):
    data = data_of(capture, runs[:1])
    points = view_plot(in_order(data), data.metrics[0], views_of(data))["points"]
    assert points[-1]["worst"] and points[-1]["value"] == min(point["value"] for point in points)


def test_points_of_one_view_lie_beside_each_other_within_its_room(data):
    points = view_plot(in_order(data), data.metrics[0], views_of(data))["points"]
    by_anchor = {}
    for point in points:
        by_anchor.setdefault(point["anchor"], []).append(point["x"])
    (first, second) = (sorted(places) for places in (by_anchor["view-0"], by_anchor["view-1"]))
    assert first[0] < first[1] < second[0] < second[1]
    assert first[0] > LEFT


def test_names_of_many_views_do_not_run_into_each_other(data):
    per_view = {f"{n:04d}.jpg": 20.0 + n % 7 for n in range(300)}
    scores = {"psnr": {**data.runs[0].scores["psnr"], "per_item": per_view}}
    many = replace(data, runs=[replace(data.runs[0], scores=scores)])
    views = [{"name": name, "anchor": name, "index": n} for n, name in enumerate(per_view)]
    plot = view_plot(in_order(many), data.metrics[0], views)
    assert len(plot["points"]) == 300
    gaps = [
        after["at"] - before["at"] for before, after in zip(plot["names"], plot["names"][1:], strict=False)
    ]
    assert min(gaps) >= 80


def test_without_scores_there_is_nothing_to_plot(capture, data_of, run_of, data):
    failed = data_of(capture, [run_of(capture, "splat", state="failed")])
    assert view_plot(in_order(failed), data.metrics[0], views_of(data)) is None
    assert cost_chart(in_order(failed), data.metrics[0]) is None


def test_an_interval_lies_around_its_mean_and_its_runs_inside_the_drawing(data):
    metric = data.metrics[0]
    ranked = ranking(data, metric)
    drawing = interval_bars(in_order(data), metric, ranked)
    assert [len(drawing["bars"][name]["runs"]) for name in ("splat", "nearest")] == [2, 1]
    for bar in drawing["bars"].values():
        assert 0 < bar["start"] <= bar["at"] <= bar["end"] < BAR_WIDTH
        assert all(0 < run["at"] < BAR_WIDTH for run in bar["runs"])
    means = {run["title"].split(":")[0]: run["at"] for bar in drawing["bars"].values() for run in bar["runs"]}
    scores = {run.id: run.scores[metric.name]["mean"] for run in data.runs}
    assert sorted(means, key=means.__getitem__) == sorted(scores, key=scores.__getitem__)


def test_an_infinite_interval_ends_where_the_drawing_does(capture, data_of, runs):
    for view in capture.document["views"]:
        view["held_out"] = view["name"] == "0000.jpg"
    capture.__dict__.pop("views", None)
    runs = [runs[0], runs[1]]
    data = data_of(capture, runs)
    metric = data.metrics[0]
    ranked = ranking(data, metric)
    assert all(math.isinf(one.low) and math.isinf(one.high) for one in ranked.intervals.values())
    drawing = interval_bars(in_order(data), metric, ranked)
    for bar in drawing["bars"].values():
        assert (bar["start"], bar["end"]) == (5, BAR_WIDTH - 5)
        assert math.isfinite(bar["at"])
    assert "inf" not in drawing["low"] + drawing["high"]


def test_the_cost_chart_has_a_mark_for_each_part_of_the_budget_and_a_level_for_the_floor(data):
    chart = cost_chart(in_order(data), data.metrics[0])
    levels = [line["level"] for line in chart["lines"]]
    assert sorted(levels) == [False, False, True]
    for line in chart["lines"]:
        assert len(line["points"].split()) == (2 if line["level"] else 4)
        if line["level"]:
            assert (line["ends"][0]["x"], line["ends"][1]["x"]) == (chart["left"], chart["right"])
            assert line["ends"][0]["y"] == line["ends"][1]["y"]


def test_more_contestants_than_colours_get_another_shape(capture, data_of, runs):
    many = [replace(runs[1], id=f"run-{n}", method=f"m{n}") for n in range(SLOTS + 1)]
    data = data_of(capture, many)
    points = view_plot(in_order(data), data.metrics[0], views_of(data))["points"]
    looks = {(point["slot"], point["shape"]) for point in points}
    assert len(looks) == SLOTS + 1
