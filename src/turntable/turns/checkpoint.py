"""Checkpoints on disk: written aside, hashed, moved into place; the newest whole one is found again.

A checkpoint is the folder ``checkpoint/<steps>/`` with what the method saved in ``method/`` and a
``manifest.json`` of sizes and sha256. Two are kept, so that one damaged on disk costs steps, not the run.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import hash_of, open_beneath, read_json, sha256_of, write_json

KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint: ``folder`` is what the method's ``load`` gets, ``state`` what the worker said."""

    folder: Path
    state: dict[str, Any]


def begin(root: Path) -> Path:
    """An empty folder for the method to save into; what an earlier, killed attempt left is removed."""
    aside = root / ".saving"
    if aside.exists():
        shutil.rmtree(aside)
    (aside / "method").mkdir(parents=True)
    return aside / "method"


def commit(root: Path, state: dict[str, Any]) -> Checkpoint:
    """Make what was saved into :func:`begin`'s folder the newest checkpoint, and drop the oldest.

    Args:
        root: the run's ``checkpoint`` folder.
        state: the worker's ``state`` at this step.

    Raises:
        ValueError: it holds a link, which might lead anywhere.
        OSError: the disk is full, say; the checkpoints from before stay good.
    """
    aside = root / ".saving"
    for path in (aside, aside / "method", *(aside / "method").rglob("*")):
        if path.is_symlink():
            raise ValueError(f"a checkpoint holds plain files and folders only, but {path.name} is a link")
    files = sorted(path for path in (aside / "method").rglob("*") if path.is_file())
    entries = []
    for path in files:
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        name = path.relative_to(aside / "method").as_posix()
        entries.append({"name": name, "bytes": path.stat().st_size, "sha256": sha256_of(path)})
    write_json(aside / "manifest.json", {"format": 1, "state": state, "files": entries})
    final = root / f"{state['steps']:010d}"
    if final.exists():
        shutil.rmtree(final)
    aside.rename(final)
    _sync_folder(root)
    for old in _folders(root)[:-KEPT]:
        shutil.rmtree(old)
    return Checkpoint(final / "method", state)


def newest(root: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is whole, and a line for each newer one that is not."""
    damaged = []
    for folder in reversed(_folders(root)):
        fault = _fault(folder)
        if fault is None:
            return Checkpoint(folder / "method", read_json(folder / "manifest.json")["state"]), damaged
        damaged.append(f"checkpoint {folder.name} is damaged: {fault}")
    return None, damaged


def set_aside(root: Path, aside: Path) -> Checkpoint | None:
    """The newest whole checkpoint under another name, where it stays while its supervisor drops it for newer ones.

    Its files are the same, by hard links: whoever is given ``aside`` must not be able to write to it.

    Args:
        root: the run's ``checkpoint`` folder.
        aside: a folder on the same disk that isn't there yet.

    Returns:
        None where none is whole.
    """
    for folder in reversed(_folders(root)):
        copy = aside / folder.name
        # What is dropped meanwhile is there by half, and damaged.
        with contextlib.suppress(FileNotFoundError, shutil.Error):
            shutil.copytree(folder, copy, symlinks=True, copy_function=_hard_link)
        if copy.is_dir() and _fault(copy) is None:
            return Checkpoint(copy / "method", read_json(copy / "manifest.json")["state"])
        shutil.rmtree(copy, ignore_errors=True)
    return None


def _hard_link(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except FileNotFoundError:
        raise
    except OSError:  # not every file system has them
        shutil.copy2(source, target, follow_symlinks=False)


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if path.name.isdigit())


def _fault(folder: Path) -> str | None:
    # The method could write here: no link and no pipe is followed or waited for.
    try:
        with open_beneath(folder, "manifest.json") as file:
            manifest = json.load(file)
    except FileNotFoundError:
        return f"{folder / 'manifest.json'} is missing; it is needed to read {folder}"
    except (OSError, ValueError) as error:
        return f"its manifest can't be read ({error})"
    if not isinstance(manifest, dict) or not {"state", "files"} <= set(manifest):
        return "its manifest lacks state or files"
    try:
        for entry in manifest["files"]:
            with open_beneath(folder, f"method/{entry['name']}") as file:
                if os.fstat(file.fileno()).st_size != entry["bytes"] or hash_of(file) != entry["sha256"]:
                    return f"{entry['name']} is not what was saved"
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except (OSError, KeyError, TypeError) as error:
        return f"a file of it can't be read ({error})"
    return None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
