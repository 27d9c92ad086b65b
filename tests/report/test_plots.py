"""The charts are plain data: one per metric that has a curve."""

from __future__ import annotations

from dataclasses import replace

import pytest

from turntable.lang import texts
from turntable.report.contestants import contestants
from turntable.report.plots import SLOTS, curve_charts, plotly_script


def charts_of(runs, metrics):
    return curve_charts(contestants(runs), metrics, texts())


def test_one_chart_per_metric_with_the_points_of_each_run(capture, run_of, data_of):
    run = run_of(capture, "splat", 5.0)
    data = data_of(capture, [run])
    charts = charts_of([run], data.metrics)
    assert [chart["metric"] for chart in charts] == ["psnr", "ssim", "flip"]
    trace = charts[0]["traces"][0]
    assert trace["x"] == [1.5625, 3.125, 6.25, 12.5]
    assert trace["y"] == [run.scores["psnr"]["mean"]] * 4
    assert trace["text"][-1] == f"{run.id}, 800 steps"


def test_the_floor_is_a_level_over_the_whole_time(capture, run_of, data_of):
    floor, other = run_of(capture, "nearest", 20.0), run_of(capture, "splat", 5.0)
    chart = charts_of([other, floor], data_of(capture, [floor, other]).metrics)[0]
    level = chart["traces"][1]
    assert level["name"] == "nearest (the floor)"
    assert level["x"] == [0.0, 12.5]
    assert level["y"] == [floor.scores["psnr"]["mean"]] * 2


def test_runs_without_a_curve_have_no_chart(capture, run_of, data_of):
    failed = run_of(capture, "splat", state="failed")
    assert charts_of([failed], data_of(capture, [run_of(capture, "a"), failed]).metrics) == []


def test_more_runs_than_colours_stay_distinguishable(capture, run_of, data_of):
    one = run_of(capture, "splat", 5.0)
    runs = [replace(one, id=f"run-{number}", method=f"m{number}") for number in range(SLOTS + 1)]
    traces = charts_of(runs, data_of(capture, runs).metrics)[0]["traces"]
    looks = {(trace["slot"], trace["dash"], trace["symbol"]) for trace in traces}
    assert len(looks) == SLOTS + 1


def test_runs_of_one_contestant_share_a_colour_and_one_entry_of_the_legend(capture, run_of, data_of):
    runs = [run_of(capture, "splat", 5.0, number=number) for number in (1, 2)]
    traces = charts_of(runs, data_of(capture, runs).metrics)[0]["traces"]
    assert [(trace["slot"], trace["name"], trace["shown"]) for trace in traces] == [
        (0, "splat", True),
        (0, "splat", False),
    ]


def test_the_script_comes_from_the_installed_package():
    if not (script := plotly_script()):
        pytest.fail("plotly has no script")
    assert "plotly.js" in script[:200]
