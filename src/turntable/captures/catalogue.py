"""Catalogues of data sets: where each may be fetched from, and what lies in it.

A catalogue is a TOML file with a table for each data set (``[nerf_synthetic]``) or scene (``["nerf_synthetic/lego"]``).
Turntable's own names the data sets but gives no address; a user's adds what is missing::

    [nerf_synthetic]
    address = "https://…/nerf_synthetic.zip"
    sha256 = "…"                       # where one is published

What the table of a scene says stands before what that of its data set says, and a user's catalogue before Turntable's.
Only what is said of an archive itself, its hash and its size, is taken from no other table than that of its address.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import TurntableError, unknown_name
from ..files import read_toml

SHIPPED = Path(__file__).with_name("catalogue.toml")
"""Turntable's own catalogue."""

_TEXTS = ("title", "address", "sha256", "inside", "licence", "described", "note")
_COUNTS = ("size", "unpacked")
_KNOWN = (*_TEXTS, *_COUNTS, "scenes")
_OF_ARCHIVE = ("sha256", "size")
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"


@dataclass(frozen=True)
class Entry:
    """A scene that may be fetched.

    Args:
        name: ``nerf_synthetic/lego``, or ``mine`` where the data set is one scene.
        key: the table that its address stands in, or would: what is recorded of a download stands under it.
        address: of the archive; "" where nobody gave one.
        inside: the folder in the archive that is the scene; "" for all of it.
        sha256: of the archive, or "" where none is published.
        size: of the archive in bytes, or None.
        unpacked: the most bytes that the scene may unfold to, or None.
        licence, described, note: for people: the terms, where the authors describe it, what else to know.
    """

    name: str
    key: str
    address: str
    inside: str
    sha256: str = ""
    size: int | None = None
    unpacked: int | None = None
    licence: str = ""
    described: str = ""
    note: str = ""


def find_entry(name: str, catalogues: Sequence[Path]) -> Entry:
    """The entry called ``name``.

    Args:
        name: ``DATASET/SCENE``, or ``DATASET`` where it is one scene.
        catalogues: a user's, the one that counts most first; those that aren't there are passed over.

    Raises:
        TurntableError: nobody knows the name, or a catalogue breaks a rule.
    """
    paths = [*(path for path in catalogues if path.is_file()), SHIPPED]
    tables = [_read(path) for path in paths]
    name = name.rstrip("/")
    dataset, _, scene = name.partition("/")
    keys = [key for key in (name, dataset) if any(key in table for table in tables)]
    scenes = _first(tables, [dataset], "scenes") or []
    if not keys or (scene and name not in keys and scene not in scenes):
        raise unknown_name("data set", name, _names(tables))
    if not scene and scenes:
        raise TurntableError(
            f"{name} has scenes, and one is fetched at a time: {name}/{scenes[0]}, for example."
        )
    said = [
        (path, key, table[key])
        for key in keys
        for path, table in zip(paths, tables, strict=True)
        if key in table
    ]
    of_archive = _of_archive(said)
    holding = [key for _, key, entry in said if "address" in entry]
    return Entry(
        name=name,
        key=holding[0] if holding else keys[-1],
        address=of_archive.get("address", ""),
        inside=(_first(tables, keys, "inside") or "").replace("{scene}", scene).strip("/"),
        sha256=of_archive.get("sha256", "").lower(),
        size=of_archive.get("size"),
        unpacked=_first(tables, keys, "unpacked"),
        licence=_first(tables, keys, "licence") or "",
        described=_first(tables, keys, "described") or "",
        note=_first(tables, keys, "note") or "",
    )


def _first(tables: Sequence[dict[str, dict[str, Any]]], keys: Sequence[str], what: str) -> Any:
    """What the first table says that says anything: the scene's before its data set's, a user's before Turntable's."""
    return next((table[key][what] for key in keys for table in tables if what in table.get(key, {})), None)


def _of_archive(said: Sequence[tuple[Path, str, dict[str, Any]]]) -> dict[str, Any]:
    """The table that gives the address, or, where there is none, what is said of the archive's hash and size.

    Raises:
        TurntableError: a table that counts more than it has a hash or size and no address: nobody knows what of.
    """
    holding = next(((path, key, entry) for path, key, entry in said if "address" in entry), None)
    if holding is None:  # of the archive that the user has
        return {name: entry[name] for _, _, entry in reversed(said) for name in _OF_ARCHIVE if name in entry}
    for path, key, entry in said[: said.index(holding)]:
        for stray in _OF_ARCHIVE:
            if stray in entry:
                raise TurntableError(
                    f"{path}: {key}.{stray} stands in another table than the address, which is in {holding[0]} under "
                    f"{holding[1]}. Write both into one table: it is of the archive that comes from there."
                )
    return holding[2]


def _names(tables: Sequence[dict[str, dict[str, Any]]]) -> list[str]:
    names: set[str] = set()
    for table in tables:
        for key, entry in table.items():
            names |= {f"{key}/{scene}" for scene in entry["scenes"]} if "scenes" in entry else {key}
    return sorted(names)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    found = read_toml(path)
    for key, entry in found.items():
        if not re.fullmatch(rf"{_NAME}(/{_NAME})?", key):
            raise TurntableError(
                f"{path}: a table is called after a data set or a scene, such as [nerf_synthetic] or "
                f'["nerf_synthetic/lego"], not {key!r}.'
            )
        if not isinstance(entry, dict):
            raise TurntableError(f"{path}: {key} must be a table, not {entry!r}.")
        for name, value in entry.items():
            _check(path, key, name, value)
    return found


def _check(path: Path, key: str, name: str, value: Any) -> None:
    where = f"{path}: {key}.{name}"
    if name not in _KNOWN:
        raise unknown_name(f"key of [{key}] in {path}:", name, _KNOWN)
    if name in _COUNTS:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise TurntableError(f"{where} must be a number of bytes, not {value!r}.")
    elif name == "scenes":
        named = [isinstance(scene, str) and re.fullmatch(_NAME, scene) for scene in _list(value)]
        if not named or not all(named):
            raise TurntableError(
                f"{where} must be a list of names of letters, digits, '.', '_' and '-', not {value!r}."
            )
    elif not isinstance(value, str):
        raise TurntableError(f"{where} must be a text, not {value!r}.")
    elif name == "sha256" and not re.fullmatch(r"[0-9a-fA-F]{64}", value):
        raise TurntableError(f"{where} must be 64 hexadecimal digits, not {value!r}.")
    elif name == "inside" and (value.startswith("/") or "\\" in value or ".." in value.split("/")):
        raise TurntableError(f"{where} must be a folder inside of the archive, not {value!r}.")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def check_address(address: str, sha256: str) -> None:
    """Refuse an address from which anybody on the way could send something else.

    https is taken from everywhere; http from this machine, and from elsewhere where a hash says what must come.

    Raises:
        TurntableError: neither is the case.
    """
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        parts, host = urlsplit(""), ""
    if parts.scheme not in ("http", "https") or not host:
        raise TurntableError(
            f"An address begins with https:// and names a host; this one doesn't: {shown(address)!r}."
        )
    if parts.username is not None or parts.password is not None:
        raise TurntableError(
            "An address with a user's name or password in it isn't taken: it would end up in files."
        )
    if parts.scheme == "http" and not is_loopback(host) and not sha256:
        raise TurntableError(
            f"Plain http can be changed on its way, so that it needs a sha256 in the catalogue: {shown(address)!r} has "
            "none. Use https, or add the sha256 that the authors publish."
        )


def is_loopback(host: str) -> bool:
    """Whether a host's name is this machine, whatever the network says."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def shown(address: str) -> str:
    """An address as it may be shown and written down: without what follows ``?``, which may be a key to it."""
    return address.partition("?")[0].partition("#")[0]
