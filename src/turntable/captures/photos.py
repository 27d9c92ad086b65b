"""Raw photos or a video without cameras: poses are found by pycolmap, behind the gate.

The photos are set upright first (EXIF orientation), because all that follows takes cameras to be those of upright
photos, and pycolmap looks at pixels as they lie in the file.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from ..errors import TurntableError
from . import gate
from .colmap import find_mask
from .images import Unusable, composite, is_picture, read_rgba
from .poses import find_poses
from .sharpness import sharpness_of
from .source import LeftOut, Source, SourceOptions
from .video import SUFFIXES as VIDEO_SUFFIXES
from .video import Frames, frames_of

FORMAT = "photos"

LOOK_SIDE = 512
"""Pixels: the size at which sharpness and brightness are compared, so that a big photo isn't sharper for it."""

MIN_PHOTOS = 3
"""Poses from two photos are nothing that a third could check."""

EXHAUSTIVE_UP_TO = 80
"""Photos; 80 are 3,160 pairs to match, half a second each where photos are big and full of texture."""

FILM_DIAGONAL_MM = math.hypot(36, 24)


def recognise(source: Path) -> bool:
    """Whether ``source`` is a video, or a folder with photos in it or in its ``images``, or with a video."""
    if source.is_file():
        return source.suffix.lower() in VIDEO_SUFFIXES
    return bool(_photos_in(source) or _videos_in(source))


def source_files(source: Path) -> list[Path]:
    """The files besides pictures that the capture depends on."""
    return _videos_in(source) if source.is_dir() else []


@dataclass(frozen=True)
class Photo:
    """A photo that can be read, and a copy of it that is set upright.

    Args:
        name: its file name.
        original: the file.
        upright: the copy, without EXIF, in the scratch folder.
        width, height: in pixels, upright.
        sharpness, brightness: see :class:`gate.PhotoFacts`.
        focal_px: the focal length in pixels that EXIF tells, or None.
        camera: size, make, model and focal length: the same for all photos of one camera at one zoom.
    """

    name: str
    original: Path
    upright: Path
    width: int
    height: int
    sharpness: float
    brightness: float
    focal_px: float | None
    camera: str


def load(source: Path, options: SourceOptions) -> Source:
    """Find the poses of all photos.

    Raises:
        TurntableError: too few photos, or the gate doesn't trust the poses (unless ``options.accept_poses``).
    """
    originals, video = _originals(source, options)
    left_out: list[LeftOut] = []
    photos = _set_upright(originals, options, left_out)
    if len(photos) < MIN_PHOTOS:
        detail = "; ".join(f"{entry.name}: {entry.why}" for entry in left_out[:5])
        raise TurntableError(
            f"Finding poses needs at least {MIN_PHOTOS} different photos of one still scene; {source} has "
            + (f"{len(photos)} (left out: {detail})." if detail else f"{len(photos)}.")
        )
    matching = options.matching
    if matching == "auto":
        matching = "sequential" if video or len(photos) > EXHAUSTIVE_UP_TO else "exhaustive"
    found = find_poses(photos, matching, options)
    findings = gate.diagnose(found.report)
    if findings and not found.views:
        raise TurntableError(gate.summary(findings))
    if findings and not options.accept_poses:
        raise TurntableError(
            f"The photos' poses can't be trusted. {gate.summary(findings)} "
            "Or go on with what was found: --accept-poses."
        )
    for photo in found.report.photos:
        if not photo.registered:
            why = gate.reason(photo, found.report.photos)
            left_out.append(LeftOut(photo.name, f"no pose was found: {why}"))
    masks = (source if source.is_dir() else source.parent) / "masks"
    return Source(
        FORMAT,
        [
            replace(
                found.view(photo, None if video else find_mask(masks, photo.name)),
                origin=f"{video.video}#{photo.name}" if video else "",
            )
            for photo in photos
            if photo.name in found.views
        ],
        left_out=left_out,
        points=found.points,
        point_colours=found.colours,
        point_views=found.point_views,
        poses=found.facts | {"matching": matching, "mapper": options.mapper},
        notes=[
            *([video.note] if video and video.note else []),
            *(f"Poses accepted although: {finding}" for finding in findings),
        ],
    )


def _originals(source: Path, options: SourceOptions) -> tuple[list[Path], Frames | None]:
    """The photos, or a video's frames (then with what is to be said of it)."""
    photos = [] if source.is_file() else _photos_in(source)
    if photos:
        return photos, None
    videos = [source] if source.is_file() else _videos_in(source)
    if not videos:
        raise TurntableError(
            f"Raw photos are .jpg, .png, .tif, .webp …; there are none in {source}, nor in its images/."
        )
    if len(videos) > 1:
        raise TurntableError(
            f"A capture is made of one video; {source} has {len(videos)}. Name one: {videos[0]}."
        )
    frames = frames_of(videos[0], options.frames, options.scratch / "frames", options.progress)
    return frames.paths, frames


def _photos_in(folder: Path) -> list[Path]:
    """The photos of ``folder``, or of its ``images`` if there are more."""
    places = [place for place in (folder, folder / "images") if place.is_dir()]
    found = [
        sorted(path for path in place.iterdir() if is_picture(path) and path.is_file()) for place in places
    ]
    return max(found, key=len, default=[])


def _videos_in(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()
    )


def _set_upright(originals: Sequence[Path], options: SourceOptions, left_out: list[LeftOut]) -> list[Photo]:
    """The photos that can be read, each different picture once: a copy adds nothing, and held out it would leak."""
    folder = options.scratch / "upright"
    folder.mkdir(parents=True)
    photos: list[Photo] = []
    seen: dict[bytes, str] = {}
    for done, original in enumerate(originals):
        options.progress("looking at photos", done, len(originals))
        try:
            pixels = read_rgba(original)
        except Unusable as reason:
            left_out.append(LeftOut(original.name, str(reason)))
            continue
        if pixels.shape[2] == 4:
            pixels = composite(pixels, (1.0, 1.0, 1.0))
        digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()
        if digest in seen:
            left_out.append(LeftOut(original.name, f"the same picture as {seen[digest]}"))
            continue
        seen[digest] = original.name
        photos.append(_photo(original, pixels, folder / f"{len(photos):06d}.jpg"))
    options.progress("looking at photos", len(originals), len(originals))
    return photos


def _photo(original: Path, pixels: np.ndarray, upright: Path) -> Photo:
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.save(upright, quality=98, subsampling=0)
    small = picture.convert("L")
    small.thumbnail((LOOK_SIDE, LOOK_SIDE))
    grey = np.asarray(small)
    exif, details = _exif(original)
    focal_mm = _number(details, ExifTags.Base.FocalLength)
    focal_px = focal_in_pixels(details, picture.width, picture.height)
    made_by = [str(exif.get(tag, "")).strip("\0 ") for tag in (ExifTags.Base.Make, ExifTags.Base.Model)]
    return Photo(
        name=original.name,
        original=original,
        upright=upright,
        width=picture.width,
        height=picture.height,
        sharpness=sharpness_of(grey),
        brightness=float(np.mean(grey)),
        focal_px=focal_px,
        camera=f"{picture.width}×{picture.height} {' '.join(made_by)} {focal_mm} {focal_px}",
    )


def focal_in_pixels(details: dict[int, Any], width: int, height: int) -> float | None:
    """The focal length in pixels of a photo of ``width``×``height``; None where EXIF doesn't tell it.

    By the length on 35 mm film (CIPA DCG-001: the same angle across the diagonal), else by the length itself
    and how many pixels of the sensor lie on a millimetre.

    Args:
        details: tags of EXIF's own directory.
        width, height: the photo's, which may have been made smaller since it was taken.
    """
    on_film = _number(details, ExifTags.Base.FocalLengthIn35mmFilm)
    if on_film is not None:
        return on_film / FILM_DIAGONAL_MM * math.hypot(width, height)
    focal_mm = _number(details, ExifTags.Base.FocalLength)
    density = _number(details, ExifTags.Base.FocalPlaneXResolution)
    taken = _number(details, ExifTags.Base.ExifImageWidth)
    unit_mm = {2: 25.4, 3: 10.0, 4: 1.0}.get(details.get(ExifTags.Base.FocalPlaneResolutionUnit, 2))
    if focal_mm is None or density is None or taken is None or unit_mm is None:
        return None
    # EXIF's width is along the sensor, whose longer side it is, however the camera was held.
    return focal_mm * density / unit_mm * max(width, height) / taken


def _number(tags: dict[int, Any], tag: int) -> float | None:
    """A tag as a positive number; None where it is missing, 0 (EXIF's "unknown"), or no number at all."""
    try:
        value = float(tags.get(tag, 0))
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return value if math.isfinite(value) and value > 0 else None


def _exif(path: Path) -> tuple[dict[int, Any], dict[int, Any]]:
    """The tags of EXIF's first directory and of its own; both empty where they can't be read."""
    try:
        with Image.open(path) as picture:
            exif = picture.getexif()
            return dict(exif), dict(exif.get_ifd(ExifTags.IFD.Exif))
    except (OSError, ValueError, SyntaxError):  # photos with broken EXIF are good photos
        return {}, {}
