"""Making a capture: everything is built aside and moved into place, or nothing is left.

``source_hash`` covers the source's files and every option, so the same source is recognised before any work;
``hash`` covers what methods and scores can depend on, and nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from ..errors import TurntableError
from ..files import sha256_of, write_bytes, write_json
from ..machine import usable_cores, versions
from ..worker.ply import encode_points
from ..worker.png import write_png
from .alike import Fingerprint, fingerprint
from .capture import FORMAT, Capture, content_hash, hash_of
from .dataset import dataset_of, said_in, told_dataset
from .formats import loader_for
from .images import SMALLEST_SIDE, Prepared, Unusable, is_picture, prepare
from .leakage import find_leakage, told_twins
from .source import LeftOut, Progress, Source, SourceOptions, SourceView
from .split import EVERY, FEWEST_TRAINING, HoldOut, split

FEWEST_PHOTOS = FEWEST_TRAINING + 1
"""Those to train on and one to be held out."""

LONGEST_FILE_NAME = 200
"""Bytes, of the 255 that file systems allow: suffixes, numbers and temporary names need the rest."""


_WITH_IMAGES = ("colmap", "llff")
"""The formats whose loaders look at ``images``."""

LEFT_OVER_S = 2 * 24 * 3600
"""A half-made capture that nothing was added to for two days is nobody's, whatever process has its number now."""

NEARLY_FULL_BYTES = 2_000_000
"""With less free than this after pycolmap failed, the disk was full: SQLite frees its space as it fails."""


@dataclass(frozen=True)
class CaptureOptions:
    """What a user may say about a capture; see the command line's help for each.

    ``hold_out`` stands whatever split the source brings; ``every`` only where it brings none. ``images`` names the folder
    that photos are taken from, where a source has them in several sizes.
    """

    name: str | None = None
    format: str | None = None
    long_side: int | None = None
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)
    every: int = EVERY
    seed: int = 0
    accept_poses: bool = False
    matching: str = "auto"
    mapper: str = "incremental"
    frames: int = 60
    hold_out: HoldOut | None = None
    images: str | None = None

    def settings(self) -> dict[str, Any]:
        """What the capture depends on, as JSON: it is hashed, so that what isn't asked for isn't in it."""
        found = {key: value for key, value in asdict(self).items() if key not in ("name", "format")}
        del found["hold_out"]
        if self.images is None:
            del found["images"]
        return found if self.hold_out is None else {**found, "hold_out": self.hold_out.to_json()}

    def check(self) -> None:
        """Refuse what can't be meant.

        Raises:
            TurntableError: with the rule and the value.
        """
        if self.long_side is not None and self.long_side < SMALLEST_SIDE:
            raise TurntableError(f"--long-side is at least {SMALLEST_SIDE} pixels, not {self.long_side}.")
        for rule in (HoldOut("every", every=self.every), self.hold_out):
            if rule is not None:
                rule.checked()
        if len(self.background) != 3 or not all(0 <= channel <= 1 for channel in self.background):
            raise TurntableError(f"--background is three numbers from 0 to 1, not {list(self.background)}.")
        if self.images is not None and not re.fullmatch(r"[^/\\\0]+", self.images.strip(".")):
            raise TurntableError(
                f"--images is the name of a folder beside the model, such as images_4; not {self.images!r}."
            )
        if self.frames < 2:
            raise TurntableError(f"--frames is at least 2, not {self.frames}.")
        for option, value, known in (
            ("--matching", self.matching, ("auto", "exhaustive", "sequential")),
            ("--mapper", self.mapper, ("incremental", "global")),
        ):
            if value not in known:
                raise TurntableError(f"{option} is one of {', '.join(known)}, not {value!r}.")
        if self.name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", self.name):
            raise TurntableError(
                "--name takes up to 64 letters, digits, '.', '_' and '-', beginning with a letter or digit; "
                f"not {self.name!r}."
            )


def add_capture(
    source: Path, captures: Path, options: CaptureOptions, progress: Progress | None = None
) -> Capture:
    """Make the capture of what lies at ``source``, or find the one that was made of it before.

    Args:
        source: a folder or a file.
        captures: the folder that captures live in; it exists.
        options: how.
        progress: told how far it is.

    Raises:
        TurntableError: the source or an option is wrong; nothing is left behind.
        OSError: ``captures`` can't be written; nothing is left behind.
    """
    progress = progress or Progress()
    options.check()
    source = source.expanduser().resolve()
    loader = loader_for(source, options.format)
    progress("reading", 0, 0)
    if options.images is not None and loader.FORMAT not in _WITH_IMAGES:
        raise TurntableError(
            f"--images is for sources that keep their photos in several sizes ({', '.join(_WITH_IMAGES)}), and {source} is "
            f"of format {loader.FORMAT}. Leave it out."
        )
    identity = {"format": loader.FORMAT, "files": _file_hashes(source, loader), **told_dataset(source)}
    name = options.name or _name_from(source)

    with scratch_folder(captures) as scratch:
        return add_source(
            lambda: loader.load(source, _source_options(options, scratch, progress)),
            identity,
            captures,
            options,
            progress,
            name=name,
            path=str(source),
        )


@contextlib.contextmanager
def scratch_folder(captures: Path) -> Iterator[Path]:
    """A folder for intermediate files; what a killed process leaves of it is swept by :func:`sweep`."""
    folder = captures / f".loading-{os.getpid()}-{secrets.token_hex(4)}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def add_source(
    load: Callable[[], Source],
    identity: dict[str, Any],
    captures: Path,
    options: CaptureOptions,
    progress: Progress,
    name: str | None = None,
    path: str = "",
) -> Capture:
    """Make the capture of a source that code knows how to load.

    Args:
        load: called only where no capture of the same identity and options is there yet.
        identity: JSON that stands for the source's content.
        captures, options, progress: as for :func:`add_capture`.
        name: what to call it where ``options`` gives no name.
        path: where the source lies, for people.

    Raises:
        TurntableError, OSError: as :func:`add_capture`.
    """
    options.check()
    sweep(captures)
    settings = options.settings()
    source_hash = hash_of({"identity": identity, "settings": settings, "format": FORMAT})
    existing = _existing(captures, source_hash, options.name)
    if existing is not None:
        return existing
    wanted = options.name or name or "capture"
    if options.name is not None and (captures / options.name).exists():
        raise TurntableError(
            f"There is another capture called {options.name!r} already, and captures never change. "
            "Choose another --name."
        )
    aside = captures / f".adding-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        aside.mkdir()
        source = load()
        document = _build(source, aside, options, progress)
        document |= {
            "source_hash": source_hash,
            "source": {"format": source.format, "path": path, **identity},
            "settings": settings,
            "versions": versions(),
        }
        final = wanted if options.name is not None else _free_name(captures, wanted)
        write_json(aside / "capture.json", {"format": FORMAT, "name": final, **document})
        existing = _existing(captures, source_hash, options.name) or _same_content(
            captures, document, options
        )
        if existing is not None:  # another process was quicker, or the options made no difference
            return existing
        _flush(aside)
        _move_into_place(aside, captures / final)
    except RuntimeError as error:  # pycolmap's only word for everything, a full disk included
        if shutil.disk_usage(captures).free < NEARLY_FULL_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(captures)) from error
        first = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise TurntableError(
            f"pycolmap failed on this source ({first}). Try it with --debug, and report it."
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Capture.load(captures / final)


def _move_into_place(aside: Path, final: Path) -> None:
    try:
        aside.rename(final)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise TurntableError(
                f"Another process has just made a capture called {final.name!r}. Run the same command again."
            ) from None
        raise


def sweep(captures: Path) -> None:
    """Remove what killed processes left half made."""
    for folder in captures.glob(".*-*-*"):
        match = re.fullmatch(r"\.(adding|loading)-(\d+)-[0-9a-f]+", folder.name)
        if match and (
            not psutil.pid_exists(int(match[2])) or time.time() - folder.stat().st_mtime > LEFT_OVER_S
        ):
            shutil.rmtree(folder, ignore_errors=True)


def safe_file_name(name: str) -> str:
    """The file name, without suffix, for a view's name: ``/`` becomes ``__``, other odd characters ``_``."""
    safe = re.sub(r"[^\w.\-+ ()]", "_", unicodedata.normalize("NFC", name.replace("/", "__")))
    return safe.encode()[:LONGEST_FILE_NAME].decode(errors="ignore") or "_"


def _build(source: Source, folder: Path, options: CaptureOptions, progress: Progress) -> dict[str, Any]:
    left_out = list(source.left_out)
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    views = sorted(source.views, key=lambda view: view.name)
    _check_names(views)
    files = _file_names([view.name for view in views])
    cameras, origins, masked, alphas = {}, {}, set(), []
    prints: dict[str, Fingerprint] = {}
    for view, result in zip(
        views, _prepare_all(views, files, folder, options, progress, prints), strict=True
    ):
        if isinstance(result, LeftOut):
            left_out.append(result)
            continue
        cameras[view.name] = result.camera
        alphas.append(result.has_alpha)
        if result.mask is not None:
            masked.add(view.name)
        origins[view.name] = {
            "path": view.origin or str(view.image_path),
            "sha256": sha256_of(view.image_path),
            "width": result.original[0],
            "height": result.original[1],
        }
    usable = [view for view in views if view.name in cameras]
    if len(usable) < FEWEST_PHOTOS:
        raise TurntableError(_too_few(usable, left_out))
    chosen = split(
        [view.name for view in usable],
        [view.held_out for view in usable],
        options.every,
        options.hold_out,
        [entry.name for entry in left_out],
    )
    leaking = _leaks(usable, chosen.held_out, origins)
    left_out += leaking.values()
    kept = [
        (view, out) for view, out in zip(usable, chosen.held_out, strict=True) if view.name not in leaking
    ]
    if all(out for _, out in kept):
        raise TurntableError(_too_few([view for view, out in kept if not out], left_out))
    for name in leaking:
        for kind in ("images", "masks"):
            (folder / kind / f"{files[name]}.png").unlink(missing_ok=True)
    entries = [
        {
            "name": view.name,
            "camera": cameras[view.name].to_json(),
            "image": f"images/{files[view.name]}.png",
            "mask": f"masks/{files[view.name]}.png" if view.name in masked else None,
            "held_out": out,
            "origin": origins[view.name],
        }
        for view, out in kept
    ]
    document: dict[str, Any] = {
        "background": list(options.background),
        "has_alpha": any(alphas),
        "views": entries,
        "left_out": [asdict(entry) for entry in sorted(left_out, key=lambda entry: entry.name)],
        "notes": [*source.notes, *([chosen.note] if chosen.note else []), *_duplicates(entries)],
        "poses": source.poses,
        "split": {"by": chosen.by, "words": chosen.words},
    }
    document |= _leakage(folder, document, prints)
    document["points"] = _write_points(source, folder, document, options, progress)
    document["truth"] = _copy_truth(source, folder)
    document["hash"] = content_hash(document, folder)
    return document


def _prepare_all(
    views: Sequence[SourceView],
    files: dict[str, str],
    folder: Path,
    options: CaptureOptions,
    progress: Progress,
    prints: dict[str, Fingerprint],
) -> list[Prepared | LeftOut]:
    """Write the photos and masks; ``prints`` gets the fingerprint of each while its pixels are at hand."""

    def one(view: SourceView) -> Prepared | LeftOut:
        try:
            prepared = prepare(view, options.background, options.long_side)
        except Unusable as reason:
            return LeftOut(view.name, str(reason))
        write_png(folder / "images" / f"{files[view.name]}.png", prepared.image)
        if prepared.mask is not None:
            write_png(folder / "masks" / f"{files[view.name]}.png", prepared.mask)
        prints[view.name] = fingerprint(prepared.image, prepared.mask)
        # The pixels are on the disk: 500 photos of 12 megapixels would not fit in memory.
        return replace(
            prepared, image=prepared.image[:0], mask=None if prepared.mask is None else prepared.mask[:0]
        )

    results: list[Prepared | LeftOut] = []
    with ThreadPoolExecutor(max_workers=usable_cores()) as pool:
        try:
            for done, result in enumerate(pool.map(one, views), 1):
                results.append(result)
                progress("photos", done, len(views))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return results


def _write_points(
    source: Source, folder: Path, document: dict[str, Any], options: CaptureOptions, progress: Progress
) -> dict[str, Any] | None:
    """Write ``points.ply``; what ``capture.json`` says of it.

    Points that fewer than two training views saw are dropped: they are known from the held-out ones alone.
    """
    training = {view["name"] for view in document["views"] if not view["held_out"]}
    points, colours = source.points, source.point_colours
    kept = np.zeros(0, bool)
    if points is not None:
        kept = np.isfinite(points).all(1)
        if source.point_views is not None:
            kept &= np.array([len(training.intersection(names)) >= 2 for names in source.point_views], bool)
    if points is not None and kept.any():
        if colours is None:
            colours = np.full((len(points), 3), 128, np.uint8)
        points, colours = points[kept], colours[kept]
        about: dict[str, Any] = {"from": source.format, "dropped": int((~kept).sum())}
    else:
        points, colours, about = _triangulate(folder, document, options, progress)
    if len(points) == 0:
        return None
    write_bytes(folder / "points.ply", encode_points(points, colours))
    return {"count": len(points), **about}


def _triangulate(
    folder: Path, document: dict[str, Any], options: CaptureOptions, progress: Progress
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    from .triangulate import triangulate

    views = Capture(folder, document).training
    scratch = folder / "triangulation"
    scratch.mkdir()
    found = triangulate(list(views), scratch, options.seed, progress)
    shutil.rmtree(scratch)
    about: dict[str, Any] = {"from": "triangulated from the known poses, training views only"}
    if len(found.points):
        about |= {"median_reprojection_px": found.reprojection_px, "median_track_length": found.track_length}
    else:
        document["notes"].append(found.note)
    return found.points, found.colours, about


def _copy_truth(source: Source, folder: Path) -> dict[str, str]:
    copied = {}
    for name, path in sorted(source.truth.items()):
        target = folder / "truth" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        copied[name] = sha256_of(target)
    return copied


def _leaks(
    usable: Sequence[SourceView], held_out: Sequence[bool], origins: dict[str, dict[str, Any]]
) -> dict[str, LeftOut]:
    """Training views that are a held-out view once more: the same file, seen from the same place."""
    outside = [view for view, out in zip(usable, held_out, strict=True) if out]
    found = {}
    for view, out in zip(usable, held_out, strict=True):
        for other in outside:
            same_file = origins[view.name]["sha256"] == origins[other.name]["sha256"]
            if not out and same_file and np.allclose(view.R, other.R) and np.allclose(view.t, other.t):
                found[view.name] = LeftOut(view.name, f"the same photo as {other.name}, which is held out")
    return found


def _leakage(folder: Path, document: dict[str, Any], prints: dict[str, Fingerprint]) -> dict[str, Any]:
    """``leakage``, and ``notes`` with what it says of photos that stand twice; the same file is in the notes already."""
    found = find_leakage(Capture(folder, document), prints)
    files = {view["name"]: view["origin"]["sha256"] for view in document["views"]}
    others = [twins for twins in found.twins if files[twins.first] != files[twins.second]]
    return {"leakage": found.to_json(), "notes": [*document["notes"], *told_twins(others)]}


def _duplicates(entries: Sequence[dict[str, Any]]) -> list[str]:
    """A note for each group of photos that are the same file: their scores are not independent."""
    by_hash: dict[str, list[str]] = {}
    for entry in entries:
        by_hash.setdefault(entry["origin"]["sha256"], []).append(entry["name"])
    return [
        f"The same photo stands under several names: {', '.join(names)}."
        for names in by_hash.values()
        if len(names) > 1
    ]


def _too_few(usable: Sequence[SourceView], left_out: Sequence[LeftOut]) -> str:
    reasons = "".join(f" {entry.name}: {entry.why};" for entry in left_out[:5])
    more = f" and {len(left_out) - 5} more;" if len(left_out) > 5 else ""
    detail = f" Left out:{reasons}{more}" if left_out else ""
    return (
        f"A capture needs at least {FEWEST_PHOTOS} usable photos, {FEWEST_TRAINING} to train on and one to "
        f"hold out; this source has {len(usable)}.{detail.rstrip(';')}"
    )


def _check_names(views: Sequence[SourceView]) -> None:
    seen: set[str] = set()
    for view in views:
        if any("\ud800" <= character <= "\udfff" for character in view.name):
            shown = view.name.encode(errors="replace").decode()
            raise TurntableError(
                f"A photo's name must be valid UTF-8, but {shown!r} isn't. Rename that file."
            )
        if view.name in seen:
            raise TurntableError(f"Every view needs a name of its own, but {view.name!r} stands there twice.")
        seen.add(view.name)


def _file_names(names: Sequence[str]) -> dict[str, str]:
    """A safe file name for each view, unique even where the file system ignores case."""
    taken: set[str] = set()
    files = {}
    for name in names:
        file = base = safe_file_name(name)
        number = 1
        while file.lower() in taken:
            number += 1
            file = f"{base}~{number}"
        taken.add(file.lower())
        files[name] = file
    return files


def _name_from(source: Path) -> str:
    base = source.stem if source.is_file() else source.name
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", base).strip(".-_")[:48]
    return name or "capture"


def _free_name(captures: Path, wanted: str) -> str:
    name, number = wanted, 1
    while (captures / name).exists():
        number += 1
        name = f"{wanted}-{number}"
    return name


def _find(captures: Path, matches: Callable[[Capture], bool]) -> Capture | None:
    """The first capture, by name, that matches."""
    for path in sorted(captures.glob("*/capture.json")):
        if path.parent.name.startswith("."):
            continue
        with contextlib.suppress(TurntableError):  # a damaged capture is no answer; doctor names it
            capture = Capture.load(path.parent)
            if matches(capture):
                return capture
    return None


def _existing(captures: Path, source_hash: str, name: str | None) -> Capture | None:
    return _find(
        captures, lambda capture: capture.source_hash == source_hash and name in (None, capture.name)
    )


def _same_content(captures: Path, document: dict[str, Any], options: CaptureOptions) -> Capture | None:
    """A capture that is the same in all that methods and scores can depend on, unless another name was asked for."""
    if options.name is not None:
        return None
    return _find(
        captures,
        lambda capture: capture.hash == document["hash"] and dataset_of(capture) == said_in(document),
    )


def _source_options(options: CaptureOptions, scratch: Path, progress: Progress) -> SourceOptions:
    return SourceOptions(
        scratch=scratch,
        seed=options.seed,
        accept_poses=options.accept_poses,
        matching=options.matching,
        mapper=options.mapper,
        frames=options.frames,
        images=options.images,
        progress=progress,
    )


def _file_hashes(source: Path, loader: Any) -> dict[str, str]:
    """sha256 of every file that the source may be made of, by its path from there.

    Pictures of the folder count, and what the loader reads, wherever it lies: a photo that is added makes another source
    even where the cameras don't name it yet. Benches (the default one lies in the working folder) don't.
    """
    if source.is_file() and source.suffix != ".json":
        return {source.name: sha256_of(source)}
    root = source.parent if source.is_file() else source
    extra = set(loader.source_files(source)) if hasattr(loader, "source_files") else set()
    files = sorted(set(_pictures_below(root)) | {path for path in extra if path.is_file()})
    with ThreadPoolExecutor(max_workers=usable_cores()) as pool:
        hashes = list(pool.map(sha256_of, files))
    names = [os.path.relpath(path, root).encode("utf-8", "backslashreplace").decode() for path in files]
    return dict(zip(names, hashes, strict=True))


def _pictures_below(root: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(root):
        if "bench.toml" in names:
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            path = Path(place, name)
            if is_picture(path):
                yield path


def _flush(folder: Path) -> None:
    """Have everything in ``folder`` on the disk before the folder gets its name: half a capture must never look whole."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
