"""A server on this machine that behaves badly on request, and a small data set as NeRF-synthetic's authors pack theirs."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import ssl
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from PIL import Image

from captures.scenes import poses


@dataclass
class Behaviour:
    """How the server behaves; it may be changed between requests.

    Args:
        data: what it gives for every path but /to (which leads to /file) and /elsewhere.
        ranges: whether it can go on in the middle.
        etag, modified: what it calls this version.
        break_after: bytes of each answer after which it hangs up.
        claims: the length that it claims, if not the true one; −1 if none.
        status: what it answers with, in order, before it does as it should.
        pause_s: after each piece of 16 kB.
        shift: how far from where it was asked to go on it does.
        kind: the type of what it gives.
        requests: the Range headers of the requests that came, None where there was none.
    """

    data: bytes = b""
    ranges: bool = True
    etag: str = '"one"'
    modified: str = ""
    break_after: int | None = None
    claims: int | None = None
    status: list[int] = field(default_factory=list)
    pause_s: float = 0.0
    shift: int = 0
    kind: str = "application/zip"
    to: str = "/file.zip"
    requests: list[str | None] = field(default_factory=list)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@contextlib.contextmanager
def serving(behaviour: Behaviour, certificate: Path | None = None) -> Iterator[str]:
    """The address of the server's file; https where there is a certificate, with its key."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            if self.path.startswith("/to"):
                self.send_response(302)
                self.send_header("Location", behaviour.to)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            behaviour.requests.append(self.headers.get("Range"))
            if behaviour.status:
                self.send_response(behaviour.status.pop(0))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            begin = self.begin()
            if begin is not None and begin >= len(behaviour.data):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = behaviour.data[begin or 0 :]
            if begin is None:
                self.send_response(200)
            else:
                self.send_response(206)
                total = len(behaviour.data)
                self.send_header("Content-Range", f"bytes {begin}-{total - 1}/{total}")
            length = len(body) if behaviour.claims is None else behaviour.claims - (begin or 0)
            if behaviour.claims == -1:
                self.close_connection = True
            else:
                self.send_header("Content-Length", str(length))
            self.send_header("Content-Type", behaviour.kind)
            if behaviour.etag:
                self.send_header("ETag", behaviour.etag)
            if behaviour.modified:
                self.send_header("Last-Modified", behaviour.modified)
            self.end_headers()
            self.give(body)

        def begin(self) -> int | None:
            wanted = self.headers.get("Range")
            held = self.headers.get("If-Range")
            if wanted is None or not behaviour.ranges:
                return None
            if held is not None and held not in (behaviour.etag, behaviour.modified):
                return None
            return int(wanted.removeprefix("bytes=").rstrip("-")) + behaviour.shift

        def give(self, body: bytes) -> None:
            if behaviour.break_after is not None:
                body = body[: behaviour.break_after]
            with contextlib.suppress(OSError):
                for place in range(0, len(body), 1 << 14):
                    self.wfile.write(body[place : place + (1 << 14)])
                    time.sleep(behaviour.pause_s)
            if behaviour.break_after is not None or behaviour.claims is not None:
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"{'http' if certificate is None else 'https'}://127.0.0.1:{server.server_port}/file.zip"
    finally:
        server.shutdown()
        server.server_close()


def zipped(files: dict[str, bytes]) -> bytes:
    """A zip archive of files."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return made.getvalue()


def nerf_synthetic(scene: str = "lego", train: int = 6, test: int = 3, side: int = 64) -> dict[str, bytes]:
    """A scene as NeRF-synthetic has it: RGBA pictures, cameras for each part, depth maps among the test pictures."""
    generator = np.random.default_rng(5)
    files: dict[str, bytes] = {"README.txt": b"hello"}
    for part, count, shift in (("train", train, 0), ("val", 2, 20), ("test", test, 40)):
        frames = []
        for index, pose in enumerate(poses(train + test + 2)[:count]):
            picture = generator.integers(0, 256, (side, side, 4), np.uint8)
            picture[: side // 4, :, 3] = 0
            picture[side // 4 :, :, 3] = 255
            made = io.BytesIO()
            Image.fromarray(picture).save(made, "png")
            files[f"{part}/r_{index}.png"] = made.getvalue()
            if part == "test":
                files[f"{part}/r_{index}_depth_0001.png"] = made.getvalue()
            centre = pose.centre + 0.01 * shift
            columns = np.stack([pose.right, pose.up, -pose.forward, centre], 1)
            matrix = [*columns.tolist(), [0.0, 0.0, 0.0, 1.0]]
            frames.append({"file_path": f"./{part}/r_{index}", "rotation": 0.01, "transform_matrix": matrix})
        document = {"camera_angle_x": 0.6911112070083618, "frames": frames}
        files[f"transforms_{part}.json"] = json.dumps(document).encode()
    scene_files = {f"nerf_synthetic/{scene}/{name}": data for name, data in files.items()}
    litter = {
        f"__MACOSX/nerf_synthetic/{scene}/._README.txt": b"x",
        f"nerf_synthetic/{scene}/.DS_Store": b"x",
    }
    return {**scene_files, **litter, "nerf_synthetic/README.txt": b"of all scenes"}
