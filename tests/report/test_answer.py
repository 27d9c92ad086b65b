"""The sentence on top says what the runs can show, and no more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from turntable.report.answer import answer


def with_means(run, psnr, ssim=0.5):
    scores = {name: {"mean": mean} for name, mean in (("psnr", psnr), ("ssim", ssim)) if mean is not None}
    return replace(run, scores=scores)


@pytest.fixture
def said(capture, run_of, data_of):
    """``said((method, state, psnr, ssim), …)``: the answer to those runs."""

    def say(*wanted):
        runs = []
        for number, (method, state, psnr, ssim) in enumerate(wanted, 1):
            run = run_of(capture, method, state=state, number=number)
            runs.append(with_means(run, psnr, ssim) if psnr is not None else replace(run, scores={}))
        data = data_of(capture, runs)
        return answer(replace(data, metrics=[one for one in data.metrics if one.name in ("psnr", "ssim")]))

    return say


def test_names_the_best_method_its_number_and_its_lead_over_the_floor(said):
    told = said(("nearest", "done", 14.618, 0.4), ("splat", "done", 27.514, 0.7))
    assert told.sentence == (
        "splat did best: 27.51 dB mean PSNR over 2 held-out views, "
        "12.89 dB above the floor, nearest (14.62 dB)."
    )
    assert "PSNR and SSIM agree." in told.remarks


def test_says_that_nothing_beat_the_floor(said):
    told = said(("nearest", "done", 20.0, 0.4), ("splat", "done", 19.0, 0.3))
    assert told.sentence.startswith("nearest did best: 20.00 dB")
    assert "no method beat showing the nearest training photo" in told.sentence


def test_says_that_the_floor_was_not_run(said):
    assert (
        "the floor, nearest, was not run" in said(("a", "done", 20.0, 0.4), ("b", "done", 19.0, 0.3)).sentence
    )


def test_says_that_metrics_disagree(said):
    told = said(("a", "done", 20.0, 0.4), ("b", "done", 19.0, 0.6))
    assert told.remarks[0] == "The metrics disagree: a leads by PSNR, b leads by SSIM."


def test_equal_to_the_digits_shown_is_level(said):
    told = said(("a", "done", 20.001, 0.4), ("b", "done", 20.002, 0.4))
    assert told.sentence == "b and a come out level: 20.00 dB mean PSNR over 2 held-out views."


@pytest.mark.parametrize(
    ("runs", "says"),
    [
        ([], "nothing has been run yet"),
        ([("a", "done", 20.0, 0.5)], "only a has scores (20.00 dB mean PSNR)"),
        ([("a", "failed", None, None)], "a failed"),
        ([("a", "done", 20.0, 0.5), ("b", "failed", None, None)], "b failed, and only a has scores"),
        ([("a", "done", 20.0, 0.5), ("b", "done", None, None)], "no scores of b, and only a has scores"),
        ([("a", "queued", None, None), ("b", "running", None, None)], "b is running, a is queued"),
    ],
)
def test_cannot_tell_without_two_methods_that_finished(said, runs, says):
    told = said(*runs)
    assert told.sentence.startswith("Can’t tell which method did best: ")
    assert says in told.sentence


def test_a_failed_run_makes_it_undecided_but_the_rest_is_told(said):
    told = said(("nearest", "done", 14.0, 0.4), ("splat", "done", 27.0, 0.7), ("nerf", "failed", None, None))
    assert told.sentence.startswith(
        "Can’t tell which method did best: nerf failed. Of those with scores, splat did"
    )


def test_seeds_of_one_method_count_as_their_mean_never_as_the_best_of_them(said):
    told = said(("a", "done", 10.0, 0.1), ("a", "done", 30.0, 0.9), ("nearest", "done", 25.0, 0.6))
    assert told.sentence.startswith("nearest did best: 25.00 dB")


def test_different_budgets_are_remarked(capture, run_of, data_of):
    runs = [with_means(run_of(capture, name), 20.0 + number) for number, name in enumerate("ab")]
    runs[1] = replace(runs[1], budget="9s")
    assert any("budgets differ" in remark for remark in answer(data_of(capture, runs)).remarks)
