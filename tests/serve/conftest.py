"""What the tests of the live page share: a bench, a browser without a screen, and a real server."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from conftest import make_capture
from serve.live_bench import ORIGIN, PORT, Server
from turntable.bench import Bench
from turntable.serve.app import make_app
from turntable.serve.security import Keeper


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "bench")
    bench.make()
    make_capture(bench.captures_folder / "fox")
    yield bench
    bench.record.close()


@pytest.fixture
def connect(bench: Bench) -> Iterator[Callable[..., TestClient]]:
    """``connect(token=None)``: a browser of a server of the bench, on loopback; ``lang`` and ``loopback`` may be given."""
    with contextlib.ExitStack() as open_ones:

        def make(token: str | None = None, lang: str = "en", loopback: bool = True) -> TestClient:
            app = make_app(bench.folder, Keeper(PORT, loopback, token), lang)
            return open_ones.enter_context(TestClient(app, base_url=ORIGIN, follow_redirects=False))

        yield make


@pytest.fixture
def client(connect: Callable[..., TestClient]) -> TestClient:
    return connect()


@pytest.fixture
def serve(bench: Bench, turntable_command: list[str]) -> Iterator[Callable[..., Server]]:
    """``serve(*options)``: starts a server of the bench on a free port; it is ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*options: str) -> Server:
        command = [*turntable_command, "serve", "--bench", str(bench.folder), "--port", "0", *options]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        started.append(process)
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], 60)[0], "it says where it listens"
        line = process.stdout.readline()
        assert line.startswith("live page: "), line + (process.stderr.read() if process.stderr else "")
        return Server(process, line.removeprefix("live page: ").strip())

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
