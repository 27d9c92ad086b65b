"""The gate's rules, by tables of plain numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from turntable.captures.gate import PhotoFacts, PoseReport, diagnose, reason, summary

GOOD = PhotoFacts("a.jpg", True, False, 4000, 500, 100.0, 120.0, "phone 4mm")


def report(
    photos: list[PhotoFacts], sizes: tuple[int, ...], track: float = 4.0, error: float = 0.5
) -> PoseReport:
    return PoseReport(tuple(photos), sizes, track, error)


def photos(count: int, *others: PhotoFacts) -> list[PhotoFacts]:
    return [replace(GOOD, name=f"{index:02d}.jpg") for index in range(count)] + list(others)


LOST = replace(GOOD, name="lost.jpg", registered=False)


def test_poses_that_keep_every_rule_have_no_finding() -> None:
    assert diagnose(report(photos(10), (10,))) == []


@pytest.mark.parametrize(("lost", "found"), [(2, False), (3, True)])
def test_four_of_five_photos_must_be_registered(lost: int, found: bool) -> None:
    missing = [replace(LOST, name=f"lost{index}.jpg", best_matches=20) for index in range(lost)]
    findings = diagnose(report(photos(8, *missing), (8,)))
    assert bool(findings) is found
    if found:
        assert findings[0].photos == ("lost0.jpg", "lost1.jpg", "lost2.jpg")
        assert findings[0].value == "8 of 11 photos (73%) were registered"
        assert (
            "shows too little of what the others show (lost0.jpg, lost1.jpg, lost2.jpg)" in findings[0].cause
        )


@pytest.mark.parametrize(("track", "found"), [(3.0, False), (2.5, True)])
def test_the_median_track_must_be_three_photos_long(track: float, found: bool) -> None:
    findings = diagnose(report(photos(10), (10,), track=track))
    assert [finding.value for finding in findings] == (
        ["The median sparse point is seen in 2.5 photos"] if found else []
    )


@pytest.mark.parametrize(("error", "found"), [(2.0, False), (2.01, True)])
def test_the_reprojection_error_must_be_two_pixels(error: float, found: bool) -> None:
    findings = diagnose(report(photos(10), (10,), error=error))
    assert [finding.value for finding in findings] == (
        ["The mean reprojection error is 2.01 px"] if found else []
    )


def test_separate_models_are_said_with_their_sizes_and_what_is_lost() -> None:
    elsewhere = [replace(LOST, name=f"room{index}.jpg", other_model=True) for index in range(3)]
    findings = diagnose(report(photos(15, *elsewhere), (15, 3)))
    assert len(findings) == 1
    assert "2 separate models of 15 and 3 photos" in findings[0].value
    assert "without room0.jpg, room1.jpg, room2.jpg" in findings[0].rule


def test_no_model_at_all_is_one_finding() -> None:
    findings = diagnose(report([replace(LOST, name=str(i), best_matches=3) for i in range(4)], (), 0, 0))
    assert [finding.value for finding in findings] == ["None of the 4 photos could be registered"]
    assert "(all)" in findings[0].cause


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"other_model": True}, "not connected"),
        ({"brightness": 5.0}, "too dark"),
        ({"brightness": 250.0}, "overexposed"),
        ({"sharpness": 10.0}, "blurred"),
        ({"keypoints": 40}, "texture"),
        ({"camera": "phone 12mm"}, "another camera or zoom"),
        ({"best_matches": 10}, "too little of what the others show"),
        ({}, "contradict"),
    ],
)
def test_the_most_telling_fact_is_the_reason(change: dict, why: str) -> None:
    photo = replace(LOST, **change)
    assert why in reason(photo, photos(9, photo))


def test_the_summary_is_one_paragraph_with_cause_and_remedy() -> None:
    missing = [replace(LOST, name=f"b{index}.jpg", sharpness=1.0) for index in range(9)]
    text = summary(diagnose(report(photos(11, *missing), (11,), track=2.0)))
    assert "\n" not in text
    assert "blurred (b0.jpg" in text and "a steadier hand" in text and "The median sparse point" in text
