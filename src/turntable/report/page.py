"""The page: one folder that shows all that happened on one capture, and opens without any network.

``build_page`` turns a :class:`ReportData` into ``index.html``, ``assets/``, ``images/``, ``films/`` and ``scenes/``, or
into one file. It is built aside and moved into place whole. What stands where is :mod:`.context`'s business, how it looks
the template's and the style sheet's, what the numbers mean :mod:`.answer`'s.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import psutil

from .. import files
from ..errors import TurntableError, disk_error
from ..lang import texts
from .answer import number, with_unit
from .contestants import in_order
from .context import context, memory, seconds, words
from .data import ReportData
from .images import ViewPictures, write_pictures
from .plots import plotly_script
from .single import inlined

HERE = Path(__file__).parent
GENERATOR = "Turntable"
MOST_TRIES = 20
_MARK = f'<meta name="generator" content="{GENERATOR}">'
"""By this line in its ``index.html`` a folder is known to be a page, and may be replaced."""


def build_page(
    data: ReportData,
    folder: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
    single_file: bool = False,
) -> Path:
    """Write the page of ``data`` to ``folder``, in place of the page that may be there.

    Args:
        data: what to show.
        folder: becomes the page; its parents are made.
        progress: told how many held-out views have their pictures, of how many.
        single_file: write one file with everything in it beside ``folder`` instead, for mail: ``<folder>.html``.

    Returns:
        The path of ``index.html``, or of the one file.

    Raises:
        TurntableError: ``folder`` holds something that is not a page, the capture's photos can't be read, or
            the disk can't be written.
    """
    target = folder.with_name(f"{folder.name}.html") if single_file else folder
    _check_replaceable(target)
    new = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        new.mkdir()
        _fill(new, data, progress, single_file)
        if single_file:
            files.write_text(target, inlined(new))
            return target
        _move_into_place(new, folder)
    except OSError as error:
        raise disk_error(error, f"the page {target}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return folder / "index.html"


def _fill(folder: Path, data: ReportData, progress: Callable[[int, int], None], single_file: bool) -> None:
    assets = folder / "assets"
    assets.mkdir()
    for name in ("page.css", "page.js"):
        shutil.copyfile(HERE / "assets" / name, assets / name)
    order = in_order(data)
    runs = [run for one in order for run in one.runs]
    if not single_file and any(run.curve for run in runs):
        files.write_text(assets / "plotly.min.js", plotly_script())
    for one in order:
        film = data.films.get(one.label)
        for kind, source, name in (
            ("films", film and film.video, film and film.file("mp4")),
            ("scenes", film and film.scene, film and film.file("html")),
        ):
            if source and name and not (single_file and kind == "scenes"):  # which a file can't show anyway
                (folder / kind).mkdir(exist_ok=True)
                files.link_or_copy(source, folder / kind / name)
    pictures, lossless = write_pictures(folder, data.capture, runs, progress)
    files.write_text(folder / "index.html", render(data, pictures, lossless, single_file))


def render(
    data: ReportData, pictures: dict[str, ViewPictures], lossless: bool, single_file: bool = False
) -> str:
    """The text of ``index.html``."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=number, with_unit=with_unit, seconds=seconds, memory=memory, words=words
    )
    environment.globals["t"] = texts(data.lang)
    shown: dict[str, Any] = context(data, pictures, lossless, single_file)
    return environment.get_template("index.html").render(generator=GENERATOR, **shown)


def _check_replaceable(folder: Path) -> None:
    if not folder.exists():
        return
    index = folder / "index.html" if folder.is_dir() else folder
    if folder.is_dir() or folder.is_file():
        is_page = index.is_file() and _MARK in index.read_text(encoding="utf-8", errors="replace")
        if is_page or (folder.is_dir() and not any(folder.iterdir())):
            return
    raise TurntableError(
        f"A page replaces only a page; {folder} holds something else. Move it away, or choose another folder."
    )


def _remove_leftovers(folder: Path) -> None:
    """Remove what killed builds left beside ``folder``; never what one that still runs is writing."""
    for kind in ("new", "old"):
        for left in folder.parent.glob(f".{_literal(folder.name)}.*.{kind}"):
            pid = left.name[len(folder.name) + 2 : -len(kind) - 1]
            if pid.isdigit() and (int(pid) == os.getpid() or not psutil.pid_exists(int(pid))):
                shutil.rmtree(left)


def _literal(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _move_into_place(new: Path, folder: Path) -> None:
    """Put ``new`` where ``folder`` is; another process that does the same may get in between, and the later one stays."""
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    for left in reversed(range(MOST_TRIES)):
        with contextlib.suppress(FileNotFoundError):
            folder.rename(old)
        try:
            new.rename(folder)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST) and left:
                shutil.rmtree(old, ignore_errors=True)  # somebody has put a newer page there
                continue
            if old.exists():
                old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
        return
