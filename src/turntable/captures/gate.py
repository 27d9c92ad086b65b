"""The gate: whether poses that were found for raw photos can be trusted, and what to do where not.

Deciding is apart from doing: :func:`diagnose` is a pure function of plain numbers. The field's worst silent
failure is a reconstruction of a few photos that goes on as if it were all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MIN_REGISTERED_SHARE = 0.8
MIN_TRACK_LENGTH = 3.0
"""Median number of photos that a sparse point was seen in; at 2 nothing checks the poses against each other."""
MAX_REPROJECTION_PX = 2.0

FEW_KEYPOINTS = 300
"""SIFT finds thousands on a textured photo; with fewer than this matching is a matter of luck."""
FEW_MATCHES = 60
"""Verified matches with the best other photo; COLMAP itself wants 30 that agree with the model."""
BLURRED_SHARE = 0.35
"""Sharpness (variance of the Laplacian) against the median photo's, below which a photo counts as blurred."""
DARK, BRIGHT = 25.0, 235.0
"""Mean grey value, of 255."""


@dataclass(frozen=True)
class PhotoFacts:
    """What is known of one photo.

    Args:
        name: of the photo.
        registered: whether it is in the model that is kept.
        other_model: whether it is in another, smaller model.
        keypoints: how many SIFT features were found.
        best_matches: verified matches with the other photo that it shares most with.
        sharpness: variance of the Laplacian of its grey picture at a common size.
        brightness: mean grey value, of 255.
        camera: size, make, model and focal length as EXIF has them: tells cameras, and zooms, apart.
    """

    name: str
    registered: bool
    other_model: bool
    keypoints: int
    best_matches: int
    sharpness: float
    brightness: float
    camera: str = ""


@dataclass(frozen=True)
class PoseReport:
    """What structure from motion came to.

    Args:
        photos: all that it was given.
        model_sizes: registered photos of each model, the kept one first; () where none was found.
        median_track_length: photos per sparse point of the kept model.
        reprojection_px: its mean error in pixels.
    """

    photos: tuple[PhotoFacts, ...]
    model_sizes: tuple[int, ...]
    median_track_length: float
    reprojection_px: float


@dataclass(frozen=True)
class Finding:
    """One rule that was broken.

    Args:
        rule: what should hold, with the limit.
        value: what was found.
        photos: those that have no pose.
        cause: the probable cause, in plain words.
        remedy: what to try.
    """

    rule: str
    value: str
    photos: tuple[str, ...]
    cause: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.value}; {self.rule}. Probable cause: {self.cause}. Try {self.remedy}."


def diagnose(report: PoseReport) -> list[Finding]:
    """The rules that the poses break; [] where they can be trusted."""
    if not report.model_sizes:
        return [_unregistered(report)]
    findings = []
    registered = sum(photo.registered for photo in report.photos)
    if registered < MIN_REGISTERED_SHARE * len(report.photos):
        findings.append(_unregistered(report))
    if len(report.model_sizes) > 1:
        sizes = [str(size) for size in report.model_sizes]
        lost = tuple(photo.name for photo in report.photos if photo.other_model)
        named = "" if findings else f", without {_listed(lost)}"  # the first finding names them already
        findings.append(
            Finding(
                f"all must connect into one, and only the largest is kept{named}",
                f"The photos fall into {len(sizes)} separate models of {', '.join(sizes[:-1])} and {sizes[-1]} photos",
                lost,
                "no photo shows enough of both parts (two rooms, two sides of a thing, day and night, two scenes)",
                "photos that lead from one part to the other, or each part as a capture of its own",
            )
        )
    if report.median_track_length < MIN_TRACK_LENGTH:
        findings.append(
            Finding(
                f"it must be at least {MIN_TRACK_LENGTH:g}",
                f"The median sparse point is seen in {report.median_track_length:g} photos",
                (),
                "neighbouring photos overlap too little",
                "more photos from places in between, so that each part is seen in three or more",
            )
        )
    if report.reprojection_px > MAX_REPROJECTION_PX:
        findings.append(
            Finding(
                f"it must be at most {MAX_REPROJECTION_PX:g} px",
                f"The mean reprojection error is {report.reprojection_px:.2f} px",
                (),
                "the scene moved, the zoom or focus changed between photos, or the lens distorts strongly",
                "photos of a still scene with fixed zoom and focus, or --mapper global",
            )
        )
    return findings


def summary(findings: Sequence[Finding]) -> str:
    """The findings as one short paragraph for a person."""
    return " ".join(str(finding) for finding in findings)


def reason(photo: PhotoFacts, photos: Sequence[PhotoFacts]) -> str:
    """Why one photo of ``photos`` was probably not registered: the most telling fact about it."""
    if photo.other_model:
        return _ELSEWHERE
    if photo.brightness < DARK:
        return _DARK
    if photo.brightness > BRIGHT:
        return _BRIGHT
    if photo.sharpness < BLURRED_SHARE * sorted(other.sharpness for other in photos)[len(photos) // 2]:
        return _BLURRED
    if photo.keypoints < FEW_KEYPOINTS:
        return _PLAIN
    kept_cameras = {other.camera for other in photos if other.registered}
    if kept_cameras and photo.camera not in kept_cameras:
        return _ZOOM
    if photo.best_matches < FEW_MATCHES:
        return _APART
    return _CONTRADICTS


_ELSEWHERE = "belongs to a part that is not connected to the rest"
_DARK = "too dark"
_BRIGHT = "overexposed"
_BLURRED = "blurred"
_PLAIN = "hardly any texture"
_ZOOM = "taken with another camera or zoom than the rest"
_APART = "shows too little of what the others show"
_CONTRADICTS = "its matches contradict the others' (moving things, reflections or repeated patterns)"

_REMEDIES = {
    _ELSEWHERE: "photos that lead from one part to the other",
    _DARK: "more light",
    _BRIGHT: "a shorter exposure",
    _BLURRED: "a steadier hand or a shorter exposure",
    _PLAIN: "a patterned cloth or newspaper under plain things",
    _ZOOM: "one camera at one zoom",
    _APART: "photos with two thirds of overlap, or leave these out",
    _CONTRADICTS: "photos of a still, matt scene",
}


def _unregistered(report: PoseReport) -> Finding:
    total = len(report.photos)
    missing = [photo for photo in report.photos if not photo.registered]
    by_reason: dict[str, list[str]] = {}
    for photo in missing:
        by_reason.setdefault(reason(photo, report.photos), []).append(photo.name)
    ranked = sorted(by_reason.items(), key=lambda item: -len(item[1]))
    found = total - len(missing)
    return Finding(
        f"at least {MIN_REGISTERED_SHARE:.0%} must be",
        f"{found} of {total} photos ({found / total:.0%}) were registered"
        if found
        else f"None of the {total} photos could be registered",
        tuple(photo.name for photo in missing),
        "; ".join(f"{why} ({'all' if len(names) == total else _listed(names)})" for why, names in ranked),
        "; ".join(_REMEDIES[why] for why, _ in ranked),
    )


def _listed(names: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
