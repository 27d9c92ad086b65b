"""Fetching one large file by HTTP so that nothing that was fetched is fetched again.

What has come so far lies in ``<target>.part``; ``<target>.part.json`` says what it is a part of: the address, the length,
and what the server calls this version of the file (its *validator*, an ETag or a date). It is gone on with only if the
server says that the file is still that version. When all of it is there and right, the part becomes the target.
The caller sees to it that only one process at a time works on a target.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import TurntableError
from ..files import sha256_of, write_json
from .catalogue import check_address, is_loopback, shown

PIECE = 1 << 18
"""Most bytes that are read at once."""

TIMEOUT_S = 30.0
"""A server that sends nothing for so long is taken to be gone."""

FRUITLESS = 4
"""After so many attempts in a row that brought nothing, the user is told; what has come is kept."""

SPARE_BYTES = 100_000_000
"""So much is left free on the disk: others write to it, too."""

Report = Callable[[int, int], None]
"""Told the bytes that are there and their total, 0 where that isn't known."""


@dataclass(frozen=True)
class Part:
    """What a half-fetched file is a part of; the total is None where the server doesn't say."""

    address: str
    validator: str
    total: int | None


class _Broken(Exception):
    """The connection ended too early, or the server can't answer just now: worth another attempt."""


class _Changed(Exception):
    """The server has another version of the file, or can't go on: it begins anew."""


def fetch(
    address: str,
    target: Path,
    sha256: str,
    size: int | None,
    report: Report,
    pause_s: float = 1.0,
    said_by: str = "the catalogue",
) -> str:
    """Fetch what ``address`` gives into ``target``, going on from what an earlier attempt left.

    Args:
        address: checked by :func:`.catalogue.check_address`.
        target: where it goes; if it is there and right, nothing is fetched.
        sha256: what it must have, or "".
        size: its bytes, where they are known.
        report: told how far it is.
        pause_s: how long to wait after the first attempt that brought nothing; twice as long after the next.
        said_by: who says what it must have, for messages.

    Returns:
        Its sha256.

    Raises:
        TurntableError: the server refuses, breaks off again and again, or sends something else, which is kept beside the
            target for the user to look at; the disk has no room.
    """
    check_address(address, sha256)
    part = target.with_name(target.name + ".part")
    was_there = target.exists()
    if not was_there:
        _fetch_part(address, part, sha256, size, report, pause_s)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(target)
        _about(part).unlink(missing_ok=True)
    length = target.stat().st_size
    if size is not None and length != size:
        raise TurntableError(
            f"What {shown(address)} gave has {length} bytes, not {size} as the catalogue says: it was cut off on its way, "
            f"or is another file than was meant. {_where(target, was_there)}"
        )
    found = sha256_of(target)
    if sha256 and found != sha256:
        raise TurntableError(
            f"What {shown(address)} gave has the sha256 {found}, not {sha256} as {said_by} says: it is another file than "
            f"was meant. {_where(target, was_there)} Look whether the authors have published a new version, and change "
            f"{said_by} only if so."
        )
    return found


def _where(target: Path, was_there: bool) -> str:
    """Where it is now: out of the way of the next attempt, but not away, since it may be what the user wants after all.

    One that was there before was believed then, and stays: it may be the catalogue that is wrong.
    """
    if was_there:
        return f"It was fetched before, and stays: {target}."
    aside = target.with_name(target.name + ".refused")
    target.replace(aside)
    return f"It is kept as {aside} (--file takes it)."


def _about(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _fetch_part(
    address: str, part: Path, sha256: str, size: int | None, report: Report, pause_s: float
) -> None:
    fruitless, why = 0, ""
    furthest = _length(part)  # a server that lets it begin anew for ever brings nothing either
    while fruitless < FRUITLESS:
        try:
            _attempt(address, part, sha256, size, report)
            return
        except _Changed:
            _forget(part)
            fruitless += 1
            why = "it changes while it is being fetched"
            continue
        except _Broken as error:
            fruitless = 0 if _length(part) > furthest else fruitless + 1
            furthest = max(furthest, _length(part))
            why = str(error)
        if fruitless < FRUITLESS:
            time.sleep(pause_s * 2**fruitless)
    raise TurntableError(
        f"{shown(address)} can't be fetched: {why}. {_length(part) / 1e6:.1f} MB are there; the same command goes on from "
        "them."
    )


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _forget(part: Path) -> None:
    _about(part).unlink(missing_ok=True)
    part.unlink(missing_ok=True)


def _known(part: Path, address: str) -> Part | None:
    """What a half-fetched file is a part of; None where it is of no use."""
    try:
        said = json.loads(_about(part).read_text(encoding="utf-8"))
        known = Part(said["address"], said["validator"], said["total"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return known if known.address == address and part.is_file() else None


def _attempt(address: str, part: Path, sha256: str, size: int | None, report: Report) -> None:
    known, there = _known(part, address), _length(part)
    if known is None or (
        not known.validator and not sha256
    ):  # nobody could say whether it is still the same file
        _forget(part)
        known, there = None, 0
    if known is not None and known.total is not None and there >= known.total:
        if there > known.total:
            raise _Changed
        return
    headers = {"User-Agent": "turntable", "Accept-Encoding": "identity"}
    if known is not None and there:
        headers["Range"] = f"bytes={there}-"
        if known.validator:
            headers["If-Range"] = known.validator
    with _open(address, headers, sha256) as response:
        if response.status == 206:
            begin, total = _range(response)
            validator = _validator(response)
            if begin != there or (known and (known.total or total) != total):
                raise _Changed
            if known and known.validator and validator and validator != known.validator:
                raise _Changed
        else:  # all of it: the server can't go on, or has another version
            _check_kind(response, address)
            there, total = 0, _content_length(response)
            if size is not None and total is not None and total != size:
                raise TurntableError(
                    f"{shown(address)} has {total} bytes, and the catalogue says {size}: it is another file than was meant."
                )
            _forget(part)
            write_json(_about(part), asdict(Part(address, _validator(response), total)))
        _check_room(part.parent, (total or size or 0) - there)
        _receive(response, part, there, total, report)


def _receive(response: Any, part: Path, there: int, total: int | None, report: Report) -> None:
    with part.open("ab" if there else "wb") as file:
        while True:
            try:
                piece = response.read1(PIECE)  # what has come, not waiting for more: it may break off
            except (OSError, http.client.HTTPException) as error:
                raise _Broken(f"the connection broke ({error or type(error).__name__})") from None
            if not piece:
                break
            file.write(piece)
            there += len(piece)
            report(there, total or 0)
            if total is None and there % (64 * PIECE) < len(piece):
                _check_room(part.parent, PIECE)
    if total is not None and there < total:
        raise _Broken(f"the connection ended at {there} of {total} bytes")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows only to where the first address could have led."""

    def __init__(self, sha256: str) -> None:
        self._sha256 = sha256

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        check_address(newurl, self._sha256)
        if urlsplit(req.full_url).scheme == "https" and urlsplit(newurl).scheme != "https":
            raise TurntableError(
                f"{shown(req.full_url)} leads from https to plain http, which isn't followed."
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextlib.contextmanager
def _open(address: str, headers: dict[str, str], sha256: str) -> Any:
    local = is_loopback(urlsplit(address).hostname or "")
    proxies = [urllib.request.ProxyHandler({})] if local else []
    opener = urllib.request.build_opener(_Redirects(sha256), *proxies)
    try:
        response = opener.open(urllib.request.Request(address, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:
            raise _Changed from None
        if error.code >= 500 or error.code in (408, 429):
            raise _Broken(f"the server answers {error.code} {error.reason}") from None
        raise TurntableError(
            f"{shown(address)} can't be fetched: the server answers {error.code} {error.reason}. Is the address still right?"
        ) from None
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        raise _Broken(str(getattr(error, "reason", error) or type(error).__name__)) from None
    with response:
        yield response


def _range(response: Any) -> tuple[int, int]:
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    if match is None:
        raise _Changed
    return int(match[1]), int(match[2])


def _content_length(response: Any) -> int | None:
    said = response.headers.get("Content-Length", "")
    return int(said) if said.isdigit() else None


def _validator(response: Any) -> str:
    """What the server calls this version: a strong ETag, else the date of its last change."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def _check_kind(response: Any, address: str) -> None:
    if response.headers.get_content_type() == "text/html":
        raise TurntableError(
            f"{shown(address)} gives a web page, not an archive. Find the address of the file itself (that of the button on "
            "the page), or download it with a browser and give it with --file."
        )


def _check_room(folder: Path, wanted: int) -> None:
    free = shutil.disk_usage(folder).free
    if wanted + SPARE_BYTES > free:
        raise TurntableError(
            f"{max(wanted, 0) / 1e9:.2f} GB are to come, and {folder} has {free / 1e9:.2f} GB free. Free some space, or "
            "choose another --bench."
        )
