"""PNG files with NumPy and zlib alone, because a method's environment may hold nothing else.

Only 8-bit grey and RGB without interlacing: what captures and renderings are stored as. The writer uses
the filters None and Up, which NumPy undoes at memory speed; the reader also undoes the others, slowly.
Source: the PNG specification, third edition (W3C, 2025), sections 7 to 10.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from pathlib import Path

import numpy as np

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3}


def encode_png(image: np.ndarray) -> bytes:
    """The PNG file of ``uint8[H, W]`` (grey) or ``uint8[H, W, 3]`` (RGB), as bytes.

    Raises:
        ValueError: another shape or type, or no pixel at all.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise ValueError(f"a PNG takes uint8[H, W] or uint8[H, W, 3], not {image.dtype}{list(image.shape)}")
    if image.size == 0:
        raise ValueError(f"a PNG needs at least one pixel, not {list(image.shape)}")
    height, width = image.shape[:2]
    rows = image.reshape(height, -1)
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[0, 0] = 0
    filtered[0, 1:] = rows[0]
    filtered[1:, 0] = 2
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if image.ndim == 2 else 2, 0, 0, 0)
    return b"".join(
        (
            _SIGNATURE,
            _chunk(b"IHDR", header),
            _chunk(b"IDAT", zlib.compress(filtered.tobytes(), 4)),
            _chunk(b"IEND", b""),
        )
    )


def write_png(path: Path, image: np.ndarray) -> None:
    """Write ``uint8[H, W]`` or ``uint8[H, W, 3]`` to ``path``: aside first, then moved into place.

    Raises:
        ValueError: another shape or type.
        OSError: the file can't be written; what was there before stays.
    """
    data = encode_png(image)
    temporary = path.with_name(".{}.{}.{}.tmp".format(path.name, os.getpid(), threading.get_ident()))
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except BaseException:
        if temporary.exists():
            temporary.unlink()
        raise


def read_png(path: Path) -> np.ndarray:
    """Read a grey or RGB PNG as ``uint8[H, W]`` or ``uint8[H, W, 3]``.

    Raises:
        ValueError: not a PNG, damaged, or of a kind that is not read here.
    """
    return decode_png(Path(path).read_bytes(), str(path))


def decode_png(data: bytes, path: str) -> np.ndarray:
    """Decode a grey or RGB PNG as :func:`read_png` does; ``path`` is what errors call it.

    Raises:
        ValueError: not a PNG, damaged, or of a kind that is not read here.
    """
    if not data.startswith(_SIGNATURE):
        raise ValueError("{}: not a PNG file".format(path))
    width = height = channels = 0
    packed = []
    offset = len(_SIGNATURE)
    while offset + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, offset)
        kind = data[offset + 4 : offset + 8]
        body = data[offset + 8 : offset + 8 + length]
        if kind == b"IHDR":
            if len(body) != 13:
                raise ValueError("{}: damaged PNG (header of {} bytes)".format(path, len(body)))
            width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", body)
            if depth != 8 or colour not in _CHANNELS or interlaced:
                raise ValueError(
                    "{}: only 8-bit grey or RGB PNGs without interlacing are read here".format(path)
                )
            channels = _CHANNELS[colour]
        elif kind == b"IDAT":
            packed.append(body)
        elif kind == b"IEND":
            break
        offset += 12 + length
    try:
        # No more than the header promises, whatever the data would unfold to.
        most = height * (width * channels + 1) + 1
        inflating = zlib.decompressobj()
        raw = np.frombuffer(inflating.decompress(b"".join(packed), most), np.uint8)
    except zlib.error as error:
        raise ValueError("{}: damaged PNG ({})".format(path, error)) from None
    if (
        not inflating.eof
        or channels == 0
        or width == 0
        or height == 0
        or raw.size != height * (width * channels + 1)
    ):
        raise ValueError("{}: damaged PNG (wrong amount of pixels)".format(path))
    rows = raw.reshape(height, width * channels + 1)
    pixels = _unfilter(rows[:, 0], rows[:, 1:], channels)
    return pixels.reshape((height, width) if channels == 1 else (height, width, channels))


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _unfilter(filters: np.ndarray, rows: np.ndarray, bpp: int) -> np.ndarray:
    if filters[0] in (0, 2) and (filters[1:] == 2).all():  # what encode_png writes
        out = np.empty(rows.shape, np.uint8)
        out[:1] = rows[:1]
        for y in range(1, len(rows)):  # np.cumsum along the rows takes 25 times as long
            np.add(out[y - 1], rows[y], out=out[y])
        return out
    out = np.zeros((rows.shape[0] + 1, rows.shape[1] + bpp), np.uint8)  # a zero row above, a zero pixel left
    for y, kind in enumerate(filters):
        above, row = out[y], out[y + 1]
        if kind == 0:
            row[bpp:] = rows[y]
        elif kind == 1:
            row[bpp:] = np.cumsum(rows[y].reshape(-1, bpp), axis=0, dtype=np.uint8).reshape(-1)
        elif kind == 2:
            row[bpp:] = rows[y] + above[bpp:]
        elif kind == 3:
            for x in range(bpp, row.size):
                row[x] = (int(rows[y][x - bpp]) + ((int(row[x - bpp]) + int(above[x])) >> 1)) & 255
        elif kind == 4:
            for x in range(bpp, row.size):
                row[x] = (
                    int(rows[y][x - bpp]) + _paeth(int(row[x - bpp]), int(above[x]), int(above[x - bpp]))
                ) & 255
        else:
            raise ValueError("damaged PNG (filter {})".format(kind))
    return out[1:, bpp:]


def _paeth(left: int, up: int, corner: int) -> int:
    estimate = left + up - corner
    to_left, to_up, to_corner = abs(estimate - left), abs(estimate - up), abs(estimate - corner)
    if to_left <= to_up and to_left <= to_corner:
        return left
    return up if to_up <= to_corner else corner
