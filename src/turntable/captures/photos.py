"""Raw photos or a video without cameras: poses are found by pycolmap, behind the gate.

The photos are set upright first (EXIF orientation), because all that follows takes cameras to be those of upright photos.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from ..errors import TurntableError
from . import gate
from .colmap import find_mask
from .images import Unusable, read_rgba
from .poses import find_poses
from .source import LeftOut, Source, SourceOptions
from .video import SUFFIXES as VIDEO_SUFFIXES
from .video import frames_of

FORMAT = "photos"

PICTURES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".heic"}

LOOK_SIDE = 512
"""Pixels: the size at which sharpness and brightness are compared, so that a big photo isn't sharper for being big."""

MIN_PHOTOS = 3
"""Poses from two photos are nothing that a third could check."""


def recognise(source: Path) -> bool:
    """Whether ``source`` is a video, or a folder with photos in it or in its ``images``."""
    if source.is_file():
        return source.suffix.lower() in VIDEO_SUFFIXES
    return bool(_photos_in(source)) or len(_videos_in(source)) == 1


@dataclass(frozen=True)
class Photo:
    """A photo that can be read, set upright in the scratch folder."""

    name: str
    original: Path
    upright: Path
    width: int
    height: int
    sharpness: float
    brightness: float
    focal_35mm: float | None
    camera: str


def load(source: Path, options: SourceOptions) -> Source:
    """Find the poses of all photos.

    Raises:
        TurntableError: too few photos, or the gate doesn't trust the poses (unless ``options.accept_poses``).
    """
    if source.is_file():
        originals, is_video = (
            frames_of(source, options.frames, options.scratch / "frames", options.progress),
            True,
        )
    else:
        originals, is_video = _photos_in(source), False
        videos = _videos_in(source)
        if not originals and len(videos) == 1:
            originals, is_video = (
                frames_of(videos[0], options.frames, options.scratch / "frames", options.progress),
                True,
            )
    if not originals:
        raise TurntableError(
            f"Raw photos are .jpg, .png, .tif, .webp …; there are none in {source}, nor in its images/."
        )
    left_out: list[LeftOut] = []
    photos = _set_upright(originals, options, left_out)
    photos = _without_duplicates(photos, left_out)
    if len(photos) < MIN_PHOTOS:
        detail = "; ".join(f"{entry.name}: {entry.why}" for entry in left_out[:5])
        raise TurntableError(
            f"Finding poses needs at least {MIN_PHOTOS} different photos of one still scene; {source} has {len(photos)}"
            + (f" (left out: {detail})." if detail else ".")
        )
    matching = options.matching
    if matching == "auto":
        matching = "sequential" if is_video or len(photos) > 150 else "exhaustive"
    found = find_poses(photos, matching, options)
    findings = gate.diagnose(found.report)
    if findings and not options.accept_poses:
        raise TurntableError(f"The photos' poses can't be trusted. {gate.summary(findings)}")
    if findings and not found.views:
        raise TurntableError(
            f"No photo has a pose, which --accept-poses can't help. {gate.summary(findings)}"
        )
    facts = {photo.name: photo for photo in found.report.photos}
    for photo in photos:
        if photo.name not in found.views:
            why = gate.reason(facts[photo.name], found.report.photos)
            left_out.append(LeftOut(photo.name, f"no pose was found: {why}"))
    masks = source / "masks" if source.is_dir() else source.parent / "masks"
    views = [
        found.view(photo, None if is_video else find_mask(masks, photo.name))
        for photo in photos
        if photo.name in found.views
    ]
    return Source(
        FORMAT,
        views,
        left_out=left_out,
        points=found.points,
        point_colours=found.colours,
        point_views=found.point_views,
        poses=found.facts | {"matching": matching, "mapper": options.mapper},
        notes=[f"Poses accepted although: {finding}" for finding in findings],
    )


def _photos_in(folder: Path) -> list[Path]:
    for place in (folder, folder / "images"):
        if place.is_dir():
            found = sorted(
                path for path in place.iterdir() if path.suffix.lower() in PICTURES and path.is_file()
            )
            if found:
                return found
    return []


def _videos_in(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()
    )


def source_files(source: Path) -> list[Path]:
    """The files besides pictures that the capture depends on."""
    return _videos_in(source) if source.is_dir() else []


def _set_upright(originals: Sequence[Path], options: SourceOptions, left_out: list[LeftOut]) -> list[Photo]:
    folder = options.scratch / "upright"
    folder.mkdir(parents=True)
    photos = []
    for done, original in enumerate(originals):
        options.progress("looking at photos", done, len(originals))
        try:
            pixels = read_rgba(original)[..., :3]
        except Unusable as reason:
            left_out.append(LeftOut(original.name, str(reason)))
            continue
        picture = Image.fromarray(np.ascontiguousarray(pixels))
        upright = folder / f"{len(photos):06d}.jpg"
        picture.save(upright, quality=98, subsampling=0)
        grey = picture.convert("L")
        grey.thumbnail((LOOK_SIDE, LOOK_SIDE))
        laplacian = grey.filter(ImageFilter.Kernel((3, 3), (0, 1, 0, 1, -4, 1, 0, 1, 0), scale=1, offset=128))
        focal, camera = _exif(original)
        photos.append(
            Photo(
                name=original.name,
                original=original,
                upright=upright,
                width=picture.width,
                height=picture.height,
                sharpness=float(np.var(np.asarray(laplacian, np.float64))),
                brightness=float(np.mean(np.asarray(grey, np.float64))),
                focal_35mm=focal,
                camera=camera,
            )
        )
    options.progress("looking at photos", len(originals), len(originals))
    return photos


def _exif(path: Path) -> tuple[float | None, str]:
    """The focal length as on 35 mm film, in mm, where EXIF says it; and what tells cameras (and zooms) apart."""
    try:
        with Image.open(path) as picture:
            exif = picture.getexif()
            details = exif.get_ifd(0x8769)
    except (OSError, ValueError, SyntaxError):
        return None, ""
    focal_35mm, focal = details.get(0xA405), details.get(0x920A)
    camera = f"{exif.get(0x010F, '')} {exif.get(0x0110, '')} {focal or ''}".strip()
    return (float(focal_35mm) if focal_35mm else None), camera


def _without_duplicates(photos: Sequence[Photo], left_out: list[LeftOut]) -> list[Photo]:
    """All but the first of every group with the same pixels: a copy adds nothing, and would leak if it were held out."""
    seen: dict[str, str] = {}
    kept = []
    for photo in photos:
        digest = hashlib.sha256(photo.upright.read_bytes()).hexdigest()
        if digest in seen:
            left_out.append(LeftOut(photo.name, f"the same picture as {seen[digest]}"))
        else:
            seen[digest] = photo.name
            kept.append(photo)
    return kept
