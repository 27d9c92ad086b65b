"""What the page tells beside its pictures: warnings, ranks, pairs, what was chosen to be said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from turntable.captures.leakage import Leak
from turntable.captures.split import HoldOut
from turntable.lang import texts
from turntable.report.context import MOST_PAIRS, context, paper_url, points_from, signed, split_text
from turntable.report.data import FLOOR
from turntable.report.images import Picture, RunPictures, ViewPictures
from turntable.report.kept import Recalled
from turntable.tasks.summary import summarise

VIEWS = [f"{index:04d}.jpg" for index in range(12)]


@pytest.fixture
def wide(capture):
    """Twelve held-out views."""
    first, *others = capture.document["views"]
    capture.document["views"] = [{**first, "name": name, "held_out": True} for name in VIEWS] + others[:3]
    capture.__dict__.pop("views", None)
    return capture


@pytest.fixture
def scored(wide, run_of):
    """``scored(method, mean, number)``: a run whose views lie around ``mean`` dB, alike for all runs but a little."""

    def make(method, mean, number=1, **changes):
        run = run_of(wide, method, state="failed", number=number)  # no renderings are needed
        shared = np.random.default_rng(0).normal(0, 1, len(VIEWS))
        own = np.random.default_rng(number).normal(0, 0.1, len(VIEWS))
        values = dict(zip(VIEWS, (mean + shared + own).tolist(), strict=True))
        done = {"state": "done", "cause": None, "scores": {"psnr": summarise(values, True)}}
        return replace(run, **{**done, **changes})

    return make


@pytest.fixture
def shown(wide, data_of):
    """``shown(runs, memorised, **changes)``: the context of a page; ``memorised`` by view and run, a training photo."""

    def make(runs, memorised=None, **changes):
        data = replace(data_of(wide, runs), **changes)
        if any(run.scores for run in runs):
            data = replace(data, metrics=[one for one in data.metrics if one.name == "psnr"])
        picture = Picture("images/x.webp", 24, 16)
        pictures = {}
        for view in VIEWS:
            of_view = {}
            for run in runs:
                training = (memorised or {}).get((view, run.id))
                recalled = Recalled(training, True) if training else None
                of_view[run.id] = (
                    RunPictures(picture, picture, memorised=recalled)
                    if run.scores
                    else RunPictures(None, None, "there is no file")
                )
            pictures[view] = ViewPictures(picture, None, of_view)
        return context(data, pictures, lossless=True)

    return make


def row(found, label):
    return next(one for one in found["contestants"] if one["label"] == label)


def test_a_planted_leak_is_told_on_top_and_at_its_view(scored, shown):
    leaks = (
        Leak(VIEWS[3], "0077.jpg", "identical", None),
        Leak(VIEWS[3], "0078.jpg", "near-duplicate", 41.0),
    )
    found = shown([scored("splat", 25.0)], leaks=leaks)
    (warning,) = found["warnings"]
    assert warning["text"].startswith("Leakage: 1 held-out view is also among the training photos")
    assert warning["names"] == [f"{VIEWS[3]} = 0077.jpg", f"{VIEWS[3]} = 0078.jpg"]
    marked = {view["name"]: view["marks"] for view in found["views"] if view["marks"]}
    assert set(marked) == {VIEWS[3]}


def test_memorised_renderings_are_counted_with_their_photos(scored, shown):
    run = scored("splat", 25.0)
    found = shown([run], {(VIEWS[0], run.id): "0050.jpg", (VIEWS[7], run.id): "0051.jpg"})
    (warning,) = found["warnings"]
    assert warning["text"].startswith("splat: 2 of 12 renderings are training photos")
    assert warning["names"] == [f"{VIEWS[0]} = 0050.jpg", f"{VIEWS[7]} = 0051.jpg"]


def test_of_several_seeds_the_run_that_memorised_is_named(scored, shown):
    runs = [scored("splat", 25.0, number) for number in (1, 2)]
    found = shown(runs, {(VIEWS[0], runs[1].id): "0050.jpg"})
    (warning,) = found["warnings"]
    assert warning["text"].startswith("splat: 1 of 24 renderings is a training photo")
    assert warning["names"] == [f"{VIEWS[0]} = 0050.jpg ({runs[1].id})"]


def test_the_floor_may_show_training_photos(scored, shown):
    run = scored(FLOOR, 15.0)
    (warning,) = shown([run], {(view, run.id): "0050.jpg" for view in VIEWS})["warnings"]
    assert "12 of 12 renderings are training photos, as they should be" in warning["text"]


def test_failed_runs_are_warned_of_and_in_no_mean(scored, shown):
    runs = [scored("splat", 25.0, 1), scored("splat", 27.0, 2)]
    crashed = scored("splat", 99.0, 3, state="failed", cause="out of memory", scores={})
    found = shown([*runs, crashed])
    (warning,) = found["warnings"]
    assert warning["text"].startswith("splat: 1 of 3 runs failed")
    splat = row(found, "splat")
    assert splat["runs_text"] == "2 of 3 done" and splat["failures"] == "1 failed"
    means = [run.scores["psnr"]["mean"] for run in runs]
    assert splat["interval"].mean == pytest.approx(sum(means) / 2)
    assert [entry["run"].id for entry in found["unfinished"]] == [crashed.id]


def test_nothing_is_warned_of_where_nothing_is_wrong(scored, shown):
    assert shown([scored("splat", 25.0), scored(FLOOR, 15.0)])["warnings"] == []


def test_ranks_are_ranges_where_the_data_cannot_tell(scored, shown):
    found = shown([scored("first", 30.0, 1), scored("second", 25.001, 2), scored("third", 25.0, 3)])
    assert [row(found, name)["rank"] for name in ("first", "second", "third")] == ["1", "2–3", "2–3"]
    pairs = {(pair["first"], pair["second"]): pair["decided"] for pair in found["pairs"]}
    assert pairs[("first", "second")] and pairs[("first", "third")]
    assert not any(decided for (first, _), decided in pairs.items() if first != "first")


def test_one_without_scores_has_no_rank(scored, shown):
    found = shown([scored("good", 30.0), scored("crasher", 0.0, 2, state="failed", scores={})])
    assert row(found, "crasher")["rank"] == "–"
    assert row(found, "crasher")["interval"] is None


def test_the_worst_view_is_that_of_the_worst_run(scored, shown):
    runs = [scored("splat", mean, number) for number, mean in ((1, 28.0), (2, 24.0), (3, 26.0))]
    splat = row(shown(runs), "splat")
    of_view = runs[1].scores["psnr"]["per_item"]
    worst = min(of_view, key=of_view.__getitem__)
    assert (splat["worst_run"], splat["worst_view"], splat["worst"]) == (runs[1].id, worst, of_view[worst])
    assert splat["worst_anchor"] == f"view-{VIEWS.index(worst) + 1}"


def test_what_runs_took_is_a_range_over_those_that_are_done(scored, shown):
    runs = [scored("splat", 25.0, n, device_seconds=took, steps=800) for n, took in ((1, 12.5), (2, 118.2))]
    crashed = scored("splat", 0.0, 3, state="failed", scores={}, device_seconds=0.5)
    splat = row(shown([*runs, crashed]), "splat")
    assert (splat["device_seconds"], splat["steps"]) == ("12.5–118", "800")


def test_seeds_are_offered_only_where_there_are_several(scored, shown):
    one = shown([scored("splat", 25.0, 1), scored("grid", 24.0, 1)])
    assert not one["several_seeds"] and one["called"] == {"toys-splat-1": "splat", "toys-grid-1": "grid"}
    several = shown([scored("splat", 25.0, 2), scored("splat", 25.0, 1), scored("grid", 24.0, 1)])
    assert several["several_seeds"] and several["seeds"] == [0, 1]
    assert several["called"]["toys-splat-2"] == "splat (toys-splat-2)"
    assert several["called"]["toys-grid-1"] == "grid"
    assert [entry["label"] for entry in several["runs"]] == ["toys-splat-1", "toys-splat-2", "toys-grid-1"]


def test_one_run_each_is_said_to_leave_chance_unmeasured(scored, shown):
    assert "chance between runs" in shown([scored("a", 25.0), scored("b", 24.0, 2)])["sure"]
    twice = [scored(name, 25.0, number) for name in "ab" for number in (1, 2)]
    assert shown(twice)["sure"] == ""


def test_of_many_contestants_the_pairs_with_the_first_are_listed(scored, shown):
    runs = [scored(f"m{n}", 20.0 + n, n + 1) for n in range(8)]
    few, many = shown(runs[:6])["pairs"], shown(runs)["pairs"]
    assert len(few) == MOST_PAIRS
    assert [pair["first"] for pair in many] == ["m7"] * 7


def test_views_are_listed_worst_first_and_those_without_scores_before_all(scored, shown):
    found = shown([scored("splat", 25.0), scored(FLOOR, 15.0)])
    of_view = row(found, "splat")["scored"][0].scores["psnr"]["per_item"]
    assert [view["name"] for view in found["views"]] == sorted(VIEWS, key=of_view.__getitem__)
    del of_view[VIEWS[5]]
    assert shown([row(found, "splat")["scored"][0]])["views"][0]["name"] == VIEWS[5]


def test_a_page_in_korean_says_it_in_korean(scored, shown):
    leaks = (Leak(VIEWS[3], "0077.jpg", "identical", None),)
    found = shown([scored("splat", 25.0)], leaks=leaks, lang="ko")
    assert any("가" <= letter <= "힣" for letter in found["warnings"][0]["text"])
    assert any("가" <= letter <= "힣" for letter in found["order_text"])


@pytest.mark.parametrize(("value", "wanted"), [(1.234, "+1.23"), (-1.234, "−1.23"), (0.0, "+0.00")])
def test_a_difference_has_its_sign(shown, scored, value, wanted):
    assert signed(value, shown([scored("splat", 25.0)])["metric"]) == wanted


@pytest.mark.parametrize(
    ("paper", "wanted"),
    [
        ({"url": "https://a.example/x"}, "https://a.example/x"),
        ({"url": "javascript:alert(1)"}, ""),
        ({"url": "data:text/html,x"}, ""),
        ({}, ""),
    ],
)
def test_only_addresses_of_the_web_are_linked(paper, wanted):
    assert paper_url(paper) == wanted


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ("every:5", "every 5th"),
        (None, "every 8th"),
        ("segment:0.2", "20 %"),
        ("list", "a list names"),
        ("source", "source’s own"),
        ("nobody knows", "wasn’t recorded"),
    ],
)
def test_the_split_is_told_by_its_rule(capture, settings, part):
    """As capture.json has it: see HoldOut.to_json and split_of."""
    if settings in ("source", "nobody knows"):
        capture.document["split"] = {"by": settings.partition(" ")[0].replace("nobody", ""), "words": ""}
    else:
        rule = (
            HoldOut("list", names=("0000.jpg",))
            if settings == "list"
            else HoldOut.parse(settings or "every:8")
        )
        capture.document["settings"] = {"hold_out": rule.to_json()} if settings else {"every": 8}
        capture.document["split"] = {"by": rule.rule, "words": rule.words()}
    assert part in split_text(capture, texts())


@pytest.mark.parametrize(
    ("origin", "part"),
    [
        ("triangulated from training views", "training views alone"),
        ("photos", "refined with the held-out photos too"),
        ("a scanner", "a scanner"),
    ],
)
def test_it_is_told_where_the_points_come_from(capture, origin, part):
    capture.document["points"] = {"from": origin}
    assert part in points_from(capture, texts())
