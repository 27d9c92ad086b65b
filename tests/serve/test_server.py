"""A real ``turntable serve``: over sockets, with many viewers, and how it ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from serve.live_bench import EVIL, Server, change, new_run
from turntable.bench import Bench
from turntable.record import State


def request(server: Server, text: str) -> socket.socket:
    """Send a request as it is written."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    connection.sendall(text.replace("HOST", f"127.0.0.1:{server.port}").replace("\n", "\r\n").encode())
    return connection


def status(server: Server, text: str) -> int:
    """The status of the answer to a request, as it is written."""
    with request(server, text) as connection:
        return int(connection.recv(65536).split()[1])


def watch(server: Server) -> Iterator[tuple[str, dict]]:
    """The events of a viewer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("GET", "/events")
    answer = connection.getresponse()
    assert answer.status == 200 and answer.headers["content-type"].startswith("text/event-stream")
    name = ""
    while line := answer.readline().decode().rstrip("\n"):
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        if line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))["parts"]
            answer.readline()


RAW = [
    ("GET / HTTP/1.1\nHost: HOST\n\n", 200),
    ("GET / HTTP/1.1\nHost: evil.example\n\n", 421),
    ("GET /reports/../record.sqlite HTTP/1.1\nHost: HOST\n\n", 404),
    ("GET /reports/fox/../../record.sqlite HTTP/1.1\nHost: HOST\n\n", 404),
    ("GET /reports/%2e%2e/record.sqlite HTTP/1.1\nHost: HOST\n\n", 404),
    ("GET /reports//etc/passwd HTTP/1.1\nHost: HOST\n\n", 404),
    ("GET /assets/../app.py HTTP/1.1\nHost: HOST\n\n", 404),
    ("GET /assets/..%2fapp.py HTTP/1.1\nHost: HOST\n\n", 404),
    ("DELETE / HTTP/1.1\nHost: HOST\n\n", 405),
    (
        "POST /runs/fox-splat-1/cancel HTTP/1.1\nHost: HOST\nOrigin: http://evil.example\nContent-Length: 0\n\n",
        403,
    ),
    ("POST /runs/fox-splat-1/cancel HTTP/1.1\nHost: HOST\nOrigin: http://HOST\nContent-Length: 0\n\n", 403),
    ("nonsense\n\n", 400),
]
"""Requests as no library would write them, and the status of the answer."""


def test_requests_as_no_library_would_write_them(serve: Callable[..., Server], bench: Bench) -> None:
    new_run(bench)
    server = serve()
    assert [status(server, asked) for asked, _ in RAW] == [answered for _, answered in RAW]


def test_several_viewers_get_the_same_events_with_names_as_text(
    serve: Callable[..., Server], bench: Bench
) -> None:
    run = new_run(bench, method=EVIL)
    server = serve()
    viewers = [watch(server) for _ in range(4)]
    firsts = [next(viewer) for viewer in viewers]
    assert all(first == firsts[0] for first in firsts)
    name, parts = firsts[0]
    assert name == "all" and parts["order"] == [run.id]
    row = parts[f"run/{run.id}"]
    assert row["id"] == run.id and "<" in row["id"]  # text, which the page puts in as text
    assert "<" not in row["url"]
    change(bench, run, State.PAUSED)
    seconds = [next(viewer) for viewer in viewers]
    assert all(second == seconds[0] for second in seconds)
    name, parts = seconds[0]
    assert name == "changes" and parts[f"run/{run.id}"]["state"] == "paused" and "order" not in parts


def test_two_hundred_viewers_and_some_who_never_read_cost_little_and_ctrl_c_ends_at_once(
    serve: Callable[..., Server], bench: Bench
) -> None:
    run = new_run(bench)
    change(bench, run, State.RUNNING)
    server = serve()
    process = psutil.Process(server.process.pid)
    with contextlib.ExitStack() as open_ones:
        for _ in range(200):  # none of them reads anything
            open_ones.enter_context(request(server, "GET /events HTTP/1.1\nHost: HOST\n\n"))
        time.sleep(2)
        before = process.memory_info().rss
        for step in range(1, 6):
            state = {"steps": step, "device_seconds": step, "setup_seconds": 0, "memory_bytes": 0}
            bench.record.set_progress(run.id, state, step / 10)
            time.sleep(1)
        assert process.memory_info().rss - before < 8 * 2**20
        assert next(watch(server))[1][f"run/{run.id}"]["steps"] == "5"
        began = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(20) == 0
        assert time.monotonic() - began < 4
    assert server.process.stderr is not None and "Traceback" not in server.process.stderr.read()


def test_sigterm_ends_it_too(serve: Callable[..., Server]) -> None:
    server = serve()
    viewer = watch(server)
    next(viewer)
    server.process.terminate()
    assert server.process.wait(20) == 0
    assert list(viewer) == []


def test_elsewhere_than_on_loopback_a_token_is_made_and_needed(serve: Callable[..., Server]) -> None:
    server = serve("--host", "0.0.0.0")
    token = re.fullmatch(r"http://[^/]+/\?token=([\w-]{43})", server.address)
    assert token is not None
    assert status(server, "GET / HTTP/1.1\nHost: HOST\n\n") == 403
    assert status(server, "GET /?token=wrong HTTP/1.1\nHost: HOST\n\n") == 403
    assert status(server, f"GET /?token={token[1]} HTTP/1.1\nHost: gpu-server:1\n\n") == 303


def test_the_language_is_the_benchs_unless_another_is_asked_for(
    serve: Callable[..., Server], bench: Bench
) -> None:
    (bench.folder / "bench.toml").write_text('[page]\nlang = "ko"\n')
    for options, lang in (((), "ko"), (("--lang", "en"), "en")):
        page = urllib.request.urlopen(serve(*options).address, timeout=20).read().decode()
        assert f'<html lang="{lang}">' in page


def test_a_token_of_the_users_own_is_not_printed(serve: Callable[..., Server], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("the-users-own-token\n")
    server = serve("--token-file", str(tmp_path / "token"))
    assert "token" not in server.address
    assert status(server, "GET / HTTP/1.1\nHost: HOST\n\n") == 403
    assert status(server, "GET /?token=the-users-own-token HTTP/1.1\nHost: HOST\n\n") == 303


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--host", "192.0.2.1"], "no such address"),
        (["--host", "no such host"], "is none"),
        (["--port", "70000"], "from 0 to 65535"),
        (["--lang", "xx"], "Unknown language 'xx'"),
        (["--token-file", "nowhere"], "can't be read"),
        (["--token-file", "short"], "at least 16 characters"),
        (["--bench", "nowhere"], "There is no bench"),
        (["--port", "TAKEN"], "another program has it"),
    ],
)
def test_what_cant_be_served_is_one_line(
    bench: Bench, turntable_command: list[str], tmp_path: Path, options: list[str], says: str
) -> None:
    assert bench.record.count_runs() == 0
    (tmp_path / "short").write_text("short")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        given = [option.replace("TAKEN", str(taken.getsockname()[1])) for option in options]
        done = subprocess.run(
            [*turntable_command, "serve", "--bench", str(bench.folder), "--port", "0", *given],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=tmp_path,
        )
    assert done.returncode == 2 and done.stdout == ""
    assert says in done.stderr and len(done.stderr.splitlines()) == 1
