"""Runs are one contestant where they differ by their seed alone, and called by what sets them apart."""

from __future__ import annotations

from dataclasses import replace

import pytest

from turntable.report.contestants import contestants, in_order, ranking, samples_of


@pytest.fixture
def run(capture, run_of):
    """A run that failed: who it is needs no scores."""
    return replace(run_of(capture, "splat", state="failed"), fingerprint="a1b2c3d4e5", budget="2m")


def labels(*runs):
    return [one.label for one in contestants(runs)]


def test_seeds_are_gathered_whatever_became_of_them(run):
    found = contestants([run, replace(run, id="2", seed=1, state="done"), replace(run, id="3", seed=2)])
    assert [[each.id for each in one.runs] for one in found] == [[run.id, "2", "3"]]
    assert found[0].label == "splat"


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"budget": "10m"}, ["splat (2m)", "splat (10m)"]),
        ({"wants": "cuda:0"}, ["splat (cpu)", "splat (cuda:0)"]),
        ({"fingerprint": "ffff00001111"}, ["splat (code a1b2c3)", "splat (code ffff00)"]),
        ({"settings": {"learning_rate": 0.1}}, ["splat (learning_rate=0.01)", "splat (learning_rate=0.1)"]),
        (
            {"budget": "10m", "settings": {"learning_rate": 0.1}},
            ["splat (2m, learning_rate=0.01)", "splat (10m, learning_rate=0.1)"],
        ),
        ({"method": "grid"}, ["splat", "grid"]),
    ],
)
def test_a_label_tells_what_is_different_and_nothing_else(run, change, wanted):
    assert labels(run, replace(run, id="2", **change)) == wanted


def test_where_a_run_was_does_not_make_another_contestant_but_what_it_asked_for_does(run):
    assert labels(run, replace(run, id="2", seed=1, device="cuda:1")) == ["splat"]
    assert len(labels(run, replace(run, id="2", seed=1, wants="cuda"))) == 2


def test_settings_that_one_of_them_lacks_are_told_by_the_other(run):
    other = replace(run, id="2", settings={**run.settings, "depth": 3})
    assert labels(run, other)[1] == "splat (depth=3)"
    assert len(set(labels(run, other))) == 2


def test_labels_are_unique_where_fingerprints_begin_alike(run):
    found = labels(run, replace(run, id="other", fingerprint="a1b2c3ffffff"))
    assert found == [f"splat (code a1b2c3) [{run.id}]", "splat (code a1b2c3) [other]"]


def test_a_method_that_is_called_like_another_ones_label_is_told_apart(run):
    sly = replace(run, id="sly", method="splat (2m)")
    found = labels(run, replace(run, id="2", budget="10m"), sly)
    assert len(set(found)) == 3


def test_the_best_comes_first_and_those_without_scores_last(capture, run_of, data_of):
    runs = [
        run_of(capture, "crasher", state="failed"),
        run_of(capture, "bad", 30.0),
        run_of(capture, "good", 3.0),
    ]
    data = data_of(capture, runs)
    assert [one.label for one in in_order(data)] == ["good", "bad", "crasher"]
    flip = replace(data, metrics=[metric for metric in data.metrics if metric.name == "flip"])
    assert [one.label for one in in_order(flip)] == ["good", "bad", "crasher"]  # lower is better there


def test_failures_are_counted_and_a_seed_that_was_run_again_is_answered(capture, run_of):
    failed = run_of(capture, "splat", state="failed", number=1)
    again = replace(run_of(capture, "splat", 3.0, number=2), seed=failed.seed)
    (one,) = contestants([failed, again])
    assert (one.scored, one.failed, one.unanswered) == ((again,), (failed,), ())
    (alone,) = contestants([failed])
    assert alone.unanswered == (failed,)


def test_means_are_over_all_scored_runs(capture, run_of):
    runs = [run_of(capture, "splat", noise, number=n) for n, noise in ((1, 3.0), (2, 12.0))]
    (one,) = contestants(runs)
    first, second = (run.scores["psnr"] for run in runs)
    assert one.mean_of("psnr") == pytest.approx((first["mean"] + second["mean"]) / 2)
    view = capture.held_out[0].name
    assert one.of_view("psnr", view) == pytest.approx(
        (first["per_item"][view] + second["per_item"][view]) / 2
    )
    assert one.mean_of("lpips") is None and one.of_view("lpips", view) is None


def test_a_run_that_lacks_a_view_is_in_no_ranking(capture, run_of, data_of):
    whole, part = run_of(capture, "whole", 3.0), run_of(capture, "part", 6.0)
    view = capture.held_out[0].name
    del part.scores["psnr"]["per_item"][view]
    data = data_of(capture, [whole, part])
    assert {one.name: one.scores.shape for one in samples_of(data, data.metrics[0])} == {
        "whole": (1, 2),
        "part": (0, 2),
    }
    assert set(ranking(data, data.metrics[0]).intervals) == {"whole"}
    assert set(ranking(data, data.metrics[1]).intervals) == {"whole", "part"}


def test_without_scores_there_is_no_ranking(capture, run_of, data_of):
    data = data_of(capture, [run_of(capture, "good", 3.0)])
    none = data_of(capture, [run_of(capture, "crasher", state="failed")])
    assert ranking(none, data.metrics[0]) is None
