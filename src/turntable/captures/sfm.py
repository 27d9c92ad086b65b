"""The steps of structure from motion that poses and triangulation share: features, matches, and quiet.

Everything is seeded, and single-threaded where more threads would change the result from run to run.
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from .matching import match_descriptors
from .source import Progress

MAX_SIFT_SIDE = 1600
"""Pixels; bigger photos are made smaller to find features: enough for poses, and four times quicker."""

PEAK_THRESHOLD = 0.004
"""Of SIFT's contrast. COLMAP's own 0.0067 finds fewer points, and small photos have few; matching sorts them."""

DATABASE_BYTES_PER_PIXEL = 4
DATABASE_BYTES = 4_000_000
"""What features and matches take on the disk: measured 1.3 bytes a pixel on big photos, 2.5 on small ones, and
SQLite's journal."""

BATCH_PHOTOS = 4
"""Photos whose features are found between two reports of progress (and two chances for Ctrl-C)."""

BATCH_PAIRS = 20
"""Pairs matched between two reports of progress (and two chances for Ctrl-C)."""

SEQUENTIAL_OVERLAP = 12
"""In a sequence each photo is matched with so many that follow."""

ANCHORS = 40
"""Photos of a sequence that are matched with each other, 780 pairs: where the camera comes back, they show it."""


@dataclass(frozen=True)
class Group:
    """A camera: its model in COLMAP's words, and the names of the photos that it took."""

    model: str
    names: tuple[str, ...]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pycolmap's chatter off the terminal: what matters of it comes back as numbers."""
    import pycolmap

    before = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = pycolmap.logging.Level.FATAL.value
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = before


def extract(
    database: Path,
    photos: Path,
    cameras: Sequence[Group],
    masks: Path | None,
    progress: Progress,
) -> None:
    """SIFT features of every photo into ``database``.

    Args:
        database: made if it isn't there.
        photos: the folder of all photos.
        cameras: each with the photos that it took; focal lengths are guessed, 1.2 times the longer side.
        masks: a folder of ``<name>.png``, or None.
        progress: told after every few photos.
    """
    import pycolmap

    every = [name for camera in cameras for name in camera.names]
    _check_room(database.parent, [photos / name for name in every])
    options = pycolmap.FeatureExtractionOptions()
    options.max_image_size = MAX_SIFT_SIDE
    options.use_gpu = False  # other bits than on the CPU, and not on every machine
    options.sift.peak_threshold = PEAK_THRESHOLD
    reader = pycolmap.ImageReaderOptions()
    if masks is not None:
        reader.mask_path = masks
    pycolmap.Database.open(database).close()
    # Ahead of the features, which finish in no certain order: the mapper goes by ids, so they must not vary.
    for camera in cameras:
        pycolmap.import_images(
            database,
            photos,
            pycolmap.CameraMode.SINGLE,
            list(camera.names),
            pycolmap.ImageReaderOptions(camera_model=camera.model),
        )
    for done, batch in enumerate(_batches(every, BATCH_PHOTOS)):
        progress("features", done * BATCH_PHOTOS, len(every))
        pycolmap.extract_features(
            database,
            photos,
            image_names=list(batch),
            reader_options=reader,
            extraction_options=options,
            device=pycolmap.Device.cpu,
        )
    progress("features", len(every), len(every))


def _check_room(folder: Path, photos: Sequence[Path]) -> None:
    """Refuse to begin where the database wouldn't fit: pycolmap ends the whole program on a full disk.

    Raises:
        OSError: the disk hasn't the room.
    """
    pixels = 0
    for photo in photos:
        with Image.open(photo) as picture:
            scale = min(1.0, MAX_SIFT_SIDE / max(picture.size))
            pixels += int(picture.width * picture.height * scale * scale)
    if shutil.disk_usage(folder).free < DATABASE_BYTES_PER_PIXEL * pixels + DATABASE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def database_images(database: Any) -> dict[str, int]:
    """The image id of every photo by its name."""
    return {image.name: image.image_id for image in database.read_all_images()}


def pairs_by_name(names: Sequence[str], matching: str) -> list[tuple[str, str]]:
    """The pairs of photos to match where nothing is known of them but their names.

    Args:
        names: of all photos.
        matching: ``exhaustive``: each with every other; or ``sequential``: with those that follow by name.
    """
    names = sorted(names)
    if matching == "exhaustive":
        return list(itertools.combinations(names, 2))
    pairs = [
        (first, second)
        for index, first in enumerate(names)
        for second in names[index + 1 : index + 1 + SEQUENTIAL_OVERLAP]
    ]
    # Far apart in the sequence, but maybe near in space: some photos, each with all the others, close loops.
    anchors = names[:: -(-len(names) // ANCHORS)]
    return list(dict.fromkeys([*pairs, *itertools.combinations(anchors, 2)]))


def match(
    database: Path, pairs: Sequence[tuple[str, str]], seed: int, progress: Progress, max_ratio: float = 0.8
) -> None:
    """Match and verify pairs of photos, batch by batch.

    Args:
        database: with features.
        pairs: names of photos.
        seed: for RANSAC.
        progress: told after every batch.
        max_ratio: how much nearer the best match must be than the second best (Lowe's ratio).
    """
    import pycolmap

    with pycolmap.Database.open(database) as opened:
        ids = database_images(opened)
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = seed
    list_path = database.with_suffix(".pairs.txt")
    for done, batch in enumerate(_batches(pairs, BATCH_PAIRS)):
        progress("matches", done * BATCH_PAIRS, len(pairs))
        with pycolmap.Database.open(database) as opened:
            for first, second in batch:
                one, other = (opened.read_descriptors(ids[name]).data for name in (first, second))
                opened.write_matches(ids[first], ids[second], match_descriptors(one, other, max_ratio))
        list_path.write_text("".join(f"{first} {second}\n" for first, second in batch))
        pycolmap.verify_matches(database, list_path, verification)
    progress("matches", len(pairs), len(pairs))


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
