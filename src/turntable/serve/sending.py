"""Files of the bench as answers: whole or in part, only if they changed, and never one that lies outside of its folder."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import IO

from starlette.responses import Response, StreamingResponse

from ..files import open_beneath
from .security import FILE_CSP, PAGE_CSP, SCENE_CSP, page_headers

CHUNK_BYTES = 256 * 1024

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".gif": "image/gif",
    ".glb": "model/gltf-binary",
    ".htm": "text/html; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mp4": "video/mp4",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webm": "video/webm",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
}
"""What a browser is told of a file, by the end of its name; it is never left to guess. Others are only saved."""


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The bytes that a ``Range`` header asks for: first, and one past the last. None for the whole file.

    Several ranges at once, and what isn't understood, are answered by the whole file, as HTTP allows.

    Raises:
        ValueError: no byte of it is there.
    """
    match = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", (header or "").strip())
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        first, last = max(0, size - int(match[2])), size
    else:
        first = int(match[1])
        last = min(size, int(match[2]) + 1) if match[2] else size
    if first >= last:
        if match[1] and match[2] and int(match[2]) < first:
            return None
        raise ValueError(f"of {size} bytes none are at {header}")
    return first, last


def policy_of(name: str) -> str:
    """The Content-Security-Policy of a file of a page, by its path in ``reports/``: ``<capture>/scenes/<run>.html`` is a 3D
    view."""
    *folders, last = name.split("/")
    if not last.lower().endswith((".html", ".htm")):
        return FILE_CSP
    return SCENE_CSP if folders[1:] == ["scenes"] else PAGE_CSP


def open_shown(folder: Path, name: str) -> IO[bytes]:
    """Open a file of a folder that is shown to viewers.

    Raises:
        OSError: there is none, it is hidden, or a link or its path leads out of the folder.
    """
    if "\\" in name or "\0" in name or any(part.startswith(".") for part in name.split("/")):
        raise FileNotFoundError(name)
    return open_beneath(folder, name)


def file_answer(
    file: IO[bytes], name: str, headers: Mapping[str, str], policy: str, head: bool = False
) -> Response:
    """An open file as the answer to a request; it is closed when the answer has been sent.

    Args:
        file: what to send.
        name: by which its type is told.
        headers: the request's: ``If-None-Match``, ``Range`` and ``If-Range`` are heeded.
        policy: its Content-Security-Policy.
        head: whether only the headers are wanted.
    """
    status = os.fstat(file.fileno())
    tag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
    answer = {**page_headers(policy, cache="private, no-cache"), "etag": tag, "accept-ranges": "bytes"}
    if tag in [given.strip().removeprefix("W/") for given in headers.get("if-none-match", "").split(",")]:
        file.close()
        return Response(status_code=304, headers=answer)
    suffix = Path(name).suffix.lower()
    answer["content-type"] = TYPES.get(suffix, "application/octet-stream")
    if suffix not in TYPES:
        answer["content-disposition"] = "attachment"
    asked = headers.get("range") if headers.get("if-range", tag) == tag else None
    try:
        part = parse_range(asked, status.st_size)
    except ValueError:
        file.close()
        return Response(status_code=416, headers={**answer, "content-range": f"bytes */{status.st_size}"})
    first, last = part or (0, status.st_size)
    answer["content-length"] = str(last - first)
    if part is not None:
        answer["content-range"] = f"bytes {first}-{last - 1}/{status.st_size}"
    code = 200 if part is None else 206
    if head:
        file.close()
        return Response(status_code=code, headers=answer)
    return StreamingResponse(_chunks(file, first, last), status_code=code, headers=answer)


def inserted_answer(
    file: IO[bytes], headers: Mapping[str, str], addition: bytes, policy: str, head: bool = False
) -> Response:
    """An HTML file as the answer, with something put in where its body begins; as it is, where that isn't found.

    Args:
        file: what to send; closed when that is done.
        headers: the request's.
        addition: HTML.
        policy: its Content-Security-Policy.
        head: whether only the headers are wanted.
    """
    status = os.fstat(file.fileno())
    key = hashlib.sha256(addition).hexdigest()[:16]
    tag = f'"{status.st_mtime_ns:x}-{status.st_size:x}-{key}"'
    answer = {**page_headers(policy, cache="private, no-cache"), "etag": tag, "content-type": TYPES[".html"]}
    if head or tag in headers.get("if-none-match", ""):
        file.close()
        return Response(status_code=200 if head else 304, headers=answer)
    start = file.read(CHUNK_BYTES)
    if body := re.search(rb"<body\b[^>]*>", start, re.IGNORECASE):
        start = start[: body.end()] + addition + start[body.end() :]
    return StreamingResponse(_chunks(file, file.tell(), status.st_size, start), headers=answer)


async def _chunks(file: IO[bytes], first: int, last: int, start: bytes = b"") -> AsyncIterator[bytes]:
    with file:
        if start:
            yield start
        file.seek(first)
        while first < last:
            data = await asyncio.to_thread(file.read, min(CHUNK_BYTES, last - first))
            if (
                not data
            ):  # it was cut short meanwhile: the connection ends before the length that was promised
                return
            first += len(data)
            yield data
