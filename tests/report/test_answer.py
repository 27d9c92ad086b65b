"""The sentence on top says what the runs can show, and no more."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from turntable.report.answer import answer
from turntable.report.data import ReportRun
from turntable.tasks.summary import summarise

VIEWS = [f"{index:04d}.jpg" for index in range(12)]


@pytest.fixture
def said(capture, run_of, data_of):
    """``said((method, state, mean PSNR, mean SSIM, seed), …)``: the answer to those runs, over 12 views.

    Views differ from each other, and every run from the next a little, by seeded noise.
    """
    document = capture.document["views"]
    capture.document["views"] = [
        {**document[0], "name": name, "held_out": True} for name in VIEWS
    ] + document[1:3]
    capture.__dict__.pop("views", None)

    def scores(psnr, ssim, number, noisy):
        generator = np.random.default_rng(number)
        shared = np.random.default_rng(0).normal(0, 1, len(VIEWS))  # what makes one view harder than another
        noise = shared + generator.normal(0, noisy, len(VIEWS))
        noise -= noise.mean()
        found = {}
        for name, mean, scale in (("psnr", psnr, 1.0), ("ssim", ssim, 0.01)):
            if mean is not None:
                values = dict(zip(VIEWS, (mean + scale * noise).tolist(), strict=True))
                found[name] = summarise(values, True)
        return found

    def say(*wanted, lang="en", noise=None):
        runs: list[ReportRun] = []
        for number, (method, state, psnr, ssim, *seed) in enumerate(wanted, 1):
            run = run_of(capture, method, state="failed", number=number)  # no renderings are needed
            found = scores(psnr, ssim, number, (noise or {}).get(method, 0.1)) if psnr is not None else {}
            runs.append(replace(run, state=state, scores=found, curve=[], seed=seed[0] if seed else 0))
        data = data_of(capture, runs)
        metrics = [one for one in data.metrics if one.name in ("psnr", "ssim")]
        return answer(replace(data, metrics=metrics, lang=lang))

    return say


def test_names_the_best_method_its_number_its_lead_and_how_sure_that_is(said):
    told = said(("nearest", "done", 14.618, 0.4), ("splat", "done", 27.514, 0.7))
    assert told.sentence.startswith(
        "splat did best: 27.51 dB mean PSNR over 12 held-out views and 1 seed, 12.90 dB ahead of nearest (95 % interval 12."
    )
    assert told.sentence.endswith("), which is the floor.")
    assert "PSNR and SSIM agree on who is ahead." in told.remarks


def test_says_how_far_above_the_floor_the_best_is(said):
    told = said(("nearest", "done", 14.618, 0.4), ("a", "done", 20.0, 0.5), ("splat", "done", 27.514, 0.7))
    assert told.sentence.endswith("), 12.89 dB above the floor, nearest (14.62 dB).")


def test_says_that_it_cannot_tell_where_the_difference_may_be_chance(said):
    told = said(("a", "done", 20.00, 0.5), ("b", "done", 20.01, 0.5))
    assert told.sentence.startswith(
        "Can’t tell b and a apart with 12 held-out views and 1 seed: b has 20.01 dB mean PSNR, 0.01 dB ahead of a"
    )
    assert "(95 % interval −0." in told.sentence
    assert "best" not in told.sentence


def test_says_who_is_behind_those_that_cannot_be_told_apart(said):
    told = said(("a", "done", 20.0, 0.5), ("b", "done", 20.01, 0.5), ("c", "done", 9.0, 0.1))
    assert told.sentence.startswith("Can’t tell b and a apart")
    assert told.sentence.endswith("; c behind b.")


def test_says_that_nothing_beat_the_floor(said):
    told = said(("nearest", "done", 20.0, 0.4), ("splat", "done", 15.0, 0.3))
    assert told.sentence.startswith("nearest did best: 20.00 dB")
    assert "no method beat showing the nearest training photo" in told.sentence


def test_says_that_the_floor_was_not_run(said):
    told = said(("a", "done", 20.0, 0.4), ("b", "done", 15.0, 0.3))
    assert "the floor, nearest, was not run" in told.sentence


def test_says_that_metrics_disagree(said):
    told = said(("a", "done", 20.0, 0.4), ("b", "done", 15.0, 0.6))
    assert told.remarks[0] == "The metrics disagree: a leads by PSNR, b leads by SSIM."


def test_says_that_nothing_was_run(said):
    assert said().sentence == "Can’t tell which method did best: nothing has been run yet."


def test_a_failure_leaves_the_question_open(said):
    told = said(
        ("nearest", "done", 14.0, 0.4), ("splat", "done", 27.0, 0.7), ("crasher", "failed", None, None)
    )
    assert told.sentence.startswith(
        "Not the whole answer: crasher failed. Of those with scores: splat did best: 27.00 dB"
    )


def test_a_failure_that_was_answered_since_leaves_no_question_open(said):
    told = said(("splat", "failed", None, None), ("splat", "done", 27.0, 0.7), ("nearest", "done", 14.0, 0.4))
    assert told.sentence.startswith("splat did best")


def test_of_several_seeds_the_failed_ones_are_counted(said):
    told = said(
        ("a", "done", 20.0, 0.4, 0),
        ("a", "failed", None, None, 1),
        ("a", "failed", None, None, 2),
        ("b", "done", 9.0, 0.3),
    )
    assert told.sentence.startswith("Not the whole answer: a (2 of 3) failed.")


def test_what_has_not_ended_is_named(said):
    told = said(("a", "done", 20.0, 0.4), ("b", "running", None, None), ("c", "queued", None, None))
    assert told.sentence == (
        "Can’t tell which method did best: b still running, c still queued, and only a has scores (20.00 dB mean PSNR)."
    )


def test_runs_of_one_method_count_as_their_mean_and_the_seeds_are_told(said):
    told = said(
        ("splat", "done", 27.0, 0.7, 0), ("splat", "done", 27.2, 0.7, 1), ("splat", "done", 27.4, 0.7, 2),
        ("other", "done", 22.0, 0.5, 0), ("other", "done", 22.2, 0.5, 1), ("other", "done", 22.4, 0.5, 2),
    )  # fmt: skip
    assert told.sentence.startswith(
        "splat did best: 27.20 dB mean PSNR over 12 held-out views and 3 seeds, 5.0"
    )
    assert not any("once" in remark or "one run" in remark for remark in told.remarks)


def test_one_run_each_says_that_chance_between_runs_was_not_measured(said):
    told = said(("a", "done", 20.0, 0.4), ("b", "done", 15.0, 0.3))
    assert any("chance between runs was not measured" in remark for remark in told.remarks)
    some = said(("a", "done", 20.0, 0.4, 0), ("a", "done", 20.1, 0.4, 1), ("b", "done", 15.0, 0.3))
    assert any(remark.startswith("b had one run") for remark in some.remarks)


def test_seeds_that_differ_widely_leave_it_open(said):
    told = said(
        ("a", "done", 20.0, 0.4, 0),
        ("a", "done", 28.0, 0.4, 1),
        ("b", "done", 22.0, 0.4, 0),
        ("b", "done", 23.0, 0.4, 1),
    )
    assert told.sentence.startswith("Can’t tell a and b apart with 12 held-out views and 2 seeds")


def test_in_korean_too(said):
    told = said(("nearest", "done", 14.0, 0.4), ("splat", "done", 27.0, 0.7), lang="ko")
    assert told.sentence.startswith(
        "splat 방법이 가장 낫습니다: 평가용 시점 12개, 시드 1개에서 평균 PSNR 27.00 dB로"
    )


def test_of_those_that_cannot_be_told_apart_the_first_two_are_set_against_each_other(said):
    # b is behind a on every view by as much; c, though its mean is lower still, may be chance
    told = said(
        ("a", "done", 24.7, 0.4), ("b", "done", 23.7, 0.4), ("c", "done", 22.7, 0.4), noise={"c": 6.0}
    )
    assert told.sentence.startswith("Can’t tell a and c apart")
    assert "2.00 dB ahead of c" in told.sentence
    assert told.sentence.endswith("; b behind a.")


def test_the_same_seed_asked_again_is_no_second_seed(said):
    told = said(("a", "done", 20.0, 0.4, 0), ("a", "done", 20.0, 0.4, 0), ("b", "done", 15.0, 0.3, 0))
    assert "and 1 seed," in told.sentence
    assert any("chance between runs was not measured" in remark for remark in told.remarks)
