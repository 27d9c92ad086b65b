"""The application: what it refuses, what it escapes, what it does."""

from __future__ import annotations

import asyncio
import errno
import html
import json
import os
import re
import time
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Route
from starlette.testclient import TestClient

from serve.live_bench import EVIL, ORIGIN, PORT, change, csrf_of, new_run, score
from turntable.bench import Bench
from turntable.record import State
from turntable.serve import app as app_module
from turntable.serve.app import make_app
from turntable.serve.logs import MOST_BYTES
from turntable.serve.security import Keeper
from turntable.serve.state import Reader
from turntable.serve.wishes import options_of

TOKEN = "a-token-of-the-tests"


def post(client: TestClient, path: str, csrf: str | None, **headers: str) -> httpx.Response:
    data = {} if csrf is None else {"csrf": csrf}
    return client.post(path, data=data, headers={"origin": ORIGIN, **headers})


# What is refused


def test_a_change_without_the_csrf_token_is_refused_at_every_address(
    client: TestClient, bench: Bench
) -> None:
    run = new_run(bench)
    csrf = csrf_of(client)
    changing = [
        route.path
        for route in client.app.routes  # type: ignore[attr-defined]
        if isinstance(route, Route) and "POST" in (route.methods or ())
    ]
    assert len(changing) == 2
    for path in changing:
        path = path.format(run=run.id, wish="cancel", capture="fox")
        for given in (None, "", "0" * 64, csrf[::-1]):
            answer = post(client, path, given)
            assert answer.status_code == 403 and "form is too old" in answer.text, path
    assert bench.row(run.id).state is State.QUEUED


def test_a_change_from_a_foreign_origin_is_refused(client: TestClient, bench: Bench) -> None:
    run = new_run(bench)
    csrf = csrf_of(client)
    for headers in (
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:3000"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
    ):
        answer = post(client, f"/runs/{run.id}/cancel", csrf, **headers)
        assert answer.status_code == 403 and "this very page" in answer.text
    assert client.post(f"/runs/{run.id}/cancel", data={"csrf": csrf}).status_code == 403  # no origin at all
    assert bench.row(run.id).state is State.QUEUED


def test_another_sessions_csrf_token_is_refused(connect: Callable[..., TestClient], bench: Bench) -> None:
    run = new_run(bench)
    mine, other = connect(), connect()
    assert csrf_of(mine) != csrf_of(other)
    mine.get("/")
    assert post(mine, f"/runs/{run.id}/cancel", csrf_of(other)).status_code == 403
    assert bench.row(run.id).state is State.QUEUED


@pytest.mark.parametrize(
    "host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1:1", f"127.0.0.1.nip.example:{PORT}"]
)
def test_a_foreign_host_is_refused(client: TestClient, bench: Bench, host: str) -> None:
    new_run(bench)
    answer = client.get("/", headers={"host": host})
    assert answer.status_code == 421
    assert "fox-splat-1" not in answer.text and "set-cookie" not in answer.headers


def test_with_a_token_a_proxy_may_call_us_by_its_name(connect: Callable[..., TestClient]) -> None:
    client = connect(token=TOKEN)
    assert client.get("/", headers={"host": "bench.example.org"}).status_code == 403
    entered = client.get(f"/?token={TOKEN}", headers={"host": "bench.example.org"}, follow_redirects=False)
    assert entered.status_code == 303


@pytest.mark.parametrize(("origin", "secure"), [(ORIGIN, False), ("https://bench.example.org", True)])
def test_the_cookie_of_a_request_by_https_is_sent_by_https_alone(
    bench: Bench, origin: str, secure: bool
) -> None:
    app = make_app(bench.folder, Keeper(PORT, token=TOKEN))
    with TestClient(app, base_url=origin, follow_redirects=False) as client:
        said = {"x-forwarded-proto": "http" if secure else "https"}  # by anybody: it isn't believed
        cookie = client.get(f"/?token={TOKEN}", headers=said).headers["set-cookie"]
    assert ("Secure" in cookie) is secure


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND"])
def test_other_methods_are_refused(client: TestClient, method: str) -> None:
    answer = client.request(method, "/")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD, POST"
    assert "access-control-allow-origin" not in answer.headers


def test_reading_changes_nothing(client: TestClient, bench: Bench) -> None:
    run = new_run(bench)
    assert client.get(f"/runs/{run.id}/cancel").status_code in (404, 405)
    assert client.get("/reports/fox/write").status_code in (404, 405)
    assert bench.row(run.id).state is State.QUEUED


def test_a_long_form_is_refused_unread(client: TestClient, bench: Bench) -> None:
    run = new_run(bench)
    csrf = csrf_of(client)
    answer = client.post(
        f"/runs/{run.id}/cancel", data={"csrf": csrf, "x": "y" * 100_000}, headers={"origin": ORIGIN}
    )
    assert answer.status_code == 413
    many = "&".join(f"a{n}=1" for n in range(1000))
    answer = client.post(f"/runs/{run.id}/cancel", content=f"csrf={csrf}&{many}", headers={"origin": ORIGIN})
    assert answer.status_code == 413


@pytest.mark.parametrize(
    "path", ["/", "/events", "/runs/fox-splat-1", "/runs/fox-splat-1/log", "/assets/live.js"]
)
def test_without_the_token_nothing_is_shown(
    connect: Callable[..., TestClient], bench: Bench, path: str
) -> None:
    new_run(bench)
    client = connect(TOKEN)
    for address in (path, f"{path}?token=", f"{path}?token={TOKEN}x", f"{path}?token={TOKEN[:-1]}"):
        answer = client.get(address)
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers and "fox-splat" not in answer.text.replace(path, "")
    forged = client.get(path, headers={"cookie": f"turntable-{PORT}=made.up"})
    assert forged.status_code == 403


def test_the_token_gives_a_session_once_and_leaves_the_address(connect: Callable[..., TestClient]) -> None:
    client = connect(TOKEN, loopback=False)
    answer = client.get(f"/?a=1&token={TOKEN}")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/?a=1"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "samesite=strict" in cookie.lower() and TOKEN not in cookie
    assert client.get("/").status_code == 200
    assert post(client, "/runs/none/cancel", csrf_of(client)).status_code == 409


@pytest.mark.parametrize(
    "path", ["//evil.example/", "/\\evil.example", "/%2Fevil.example", "/%0d%0aset-cookie: a=b"]
)
def test_the_token_leads_to_no_other_host(connect: Callable[..., TestClient], path: str) -> None:
    answer = connect(TOKEN).get(f"{ORIGIN}{path}?token={TOKEN}")
    location = answer.headers["location"]
    assert location.startswith("/") and not location.startswith(("//", "/\\"))
    assert "\r" not in location


# Files


@pytest.fixture
def report(bench: Bench) -> Path:
    folder = bench.reports_folder / "fox"
    (folder / "scenes").mkdir(parents=True)
    (folder / "index.html").write_text('<!doctype html><html><body class="x"><p>the page</p></body></html>')
    (folder / "scenes" / "fox-splat-1.html").write_text("<script>draw()</script>")
    (folder / "video.mp4").write_bytes(bytes(range(256)) * 4)
    (folder / "page.exe").write_bytes(b"MZ")
    (bench.folder / "secret.txt").write_text("secret")
    (bench.reports_folder / ".fox.1.new").mkdir()
    (bench.reports_folder / ".fox.1.new" / "index.html").write_text("secret")
    (folder / "out.txt").symlink_to(bench.folder / "secret.txt")
    (folder / "out").symlink_to(bench.folder)
    os.mkfifo(folder / "pipe.txt")
    return folder


def test_a_page_runs_our_script_and_no_other_whatever_lies_beside_it(
    client: TestClient, report: Path
) -> None:
    (report / "assets").mkdir()
    for name in ("page.js", "plotly.min.js", "page.css", "other.js"):
        (report / "assets" / name).write_text("steal()")
    (report / "evil.JS").write_text("steal()")
    for name in ("page.js", "plotly.min.js", "page.css"):
        answer = client.get(f"/reports/fox/assets/{name}")
        assert answer.status_code == 200 and len(answer.text) > 1000 and "steal()" not in answer.text
    for path in ("assets/other.js", "evil.JS"):
        assert client.get(f"/reports/fox/{path}").status_code == 404


@pytest.mark.parametrize(
    ("text", "folders", "options"),
    [
        ('<!doctype html>\n<html lang="ko">', ("films",), ["--lang", "ko"]),
        ('<!doctype html>\n<html lang="en">', (), ["--lang", "en", "--no-3d"]),
        ('<!doctype html>\n<html lang="xx">', ("scenes",), []),
        (None, (), []),
    ],
)
def test_a_page_is_written_again_as_it_was(
    tmp_path: Path, text: str | None, folders: tuple[str, ...], options: list[str]
) -> None:
    for name in folders:
        (tmp_path / name).mkdir()
    if text is not None:
        (tmp_path / "index.html").write_text(text)
    assert options_of(tmp_path) == options


@pytest.mark.parametrize(
    "path",
    [
        "../secret.txt",
        "fox/../../secret.txt",
        "fox/%2e%2e/%2e%2e/secret.txt",
        "%2e%2e%2fsecret.txt",
        "..%2fsecret.txt",
        "..%5csecret.txt",
        "fox/..\\..\\secret.txt",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "fox//etc/passwd",
        "fox/out.txt",
        "fox/out/secret.txt",
        "fox/out/record.sqlite",
        ".fox.1.new/index.html",
        "fox/pipe.txt",
        "fox/scenes",
        "fox/%00index.html",
        "fox/index.html%00",
        "fox/nothing.html",
    ],
)
def test_nothing_outside_of_reports_is_sent(client: TestClient, report: Path, path: str) -> None:
    scope_path = httpx.URL(ORIGIN).copy_with(raw_path=f"/reports/{path}".encode())
    answer = client.get(scope_path)
    assert answer.status_code == 404
    assert "secret" not in answer.text.replace("secret.txt", "") and "root:" not in answer.text


def test_a_page_gets_a_strict_policy_and_a_3d_view_a_sandbox(client: TestClient, report: Path) -> None:
    page = client.get("/reports/fox/index.html").headers
    assert page["content-type"].startswith("text/html")
    assert "script-src 'self';" in page["content-security-policy"]
    assert "default-src 'none'" in page["content-security-policy"]
    scene = client.get("/reports/fox/scenes/fox-splat-1.html").headers["content-security-policy"]
    assert scene.startswith("sandbox allow-scripts;") and "allow-same-origin" not in scene
    assert "unsafe-inline" in scene and "form-action 'none'" in scene
    other = client.get("/reports/fox/page.exe").headers
    assert (
        other["content-type"] == "application/octet-stream" and other["content-disposition"] == "attachment"
    )


def test_every_answer_carries_the_headers(client: TestClient, bench: Bench, report: Path) -> None:
    run = new_run(bench)
    answers = [
        client.get(path) for path in ("/", f"/runs/{run.id}", "/nothing", "/assets/live.js", "/favicon.ico")
    ]
    answers += [
        client.get("/reports/fox/"),
        client.get("/reports/fox"),
        client.delete("/"),
        client.post("/nothing"),
    ]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff", answer.url
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert answer.headers["referrer-policy"] in ("no-referrer", "same-origin")
        assert "frame-ancestors" in answer.headers["content-security-policy"]
        assert "cache-control" in answer.headers
        assert "server" not in answer.headers


def test_files_are_sent_in_parts_and_only_if_they_changed(client: TestClient, report: Path) -> None:
    data = (report / "video.mp4").read_bytes()
    whole = client.get("/reports/fox/video.mp4")
    assert whole.content == data and whole.headers["content-type"] == "video/mp4"
    assert client.head("/reports/fox/video.mp4").headers["content-length"] == str(len(data))

    def part(asked: str, **headers: str) -> httpx.Response:
        return client.get("/reports/fox/video.mp4", headers={"range": asked, **headers})

    assert (part("bytes=10-19").status_code, part("bytes=10-19").content) == (206, data[10:20])
    assert part("bytes=10-19").headers["content-range"] == "bytes 10-19/1024"
    assert part("bytes=1000-").content == data[1000:]
    assert part("bytes=-7").content == data[-7:]
    assert part("bytes=1000-9999999").content == data[1000:]
    assert part("bytes=1024-").status_code == 416
    assert part("bytes=-0").status_code == 416
    for odd in ("bytes=5-2", "bytes=-", "bytes=0-1,3-4", "lines=1-2", "bytes=a-b"):
        assert (part(odd).status_code, part(odd).content) == (200, data), odd
    tag = whole.headers["etag"]
    again = client.get("/reports/fox/video.mp4", headers={"if-none-match": tag})
    assert (again.status_code, again.content) == (304, b"")
    assert part("bytes=0-1", **{"if-range": tag}).status_code == 206
    assert part("bytes=0-1", **{"if-range": '"other"'}).status_code == 200
    (report / "video.mp4").write_bytes(b"new")
    assert client.get("/reports/fox/video.mp4", headers={"if-none-match": tag}).content == b"new"


def test_a_page_older_than_the_scores_says_so_and_can_be_written_again(
    client: TestClient, bench: Bench, report: Path
) -> None:
    plain = client.get("/reports/fox/")
    assert "the page" in plain.text and "newer results" not in plain.text
    run = new_run(bench)
    change(bench, run, State.CANCELLED, at=time.time() + 60)
    time.sleep(1.1)  # the look that was just taken is shown for a second
    stale = client.get("/reports/fox/")
    assert '<body class="x"><aside' in stale.text
    assert "There are newer results" in stale.text and '<a href="/#captures">Write the page</a>' in stale.text
    assert 'action="/reports/fox/write"' in client.get("/").text
    assert client.get("/reports/fox/", headers={"if-none-match": stale.headers["etag"]}).status_code == 304


def test_somebody_elses_page_gets_no_token_and_frames_no_page_of_ours(
    client: TestClient, bench: Bench, report: Path
) -> None:
    run = new_run(bench)
    change(bench, run, State.CANCELLED, at=time.time() + 60)
    form = f'<form method="post" action="/runs/{run.id}/retry">'  # the bar would be part of it
    (report / "index.html").write_text(
        f"<!doctype html><html>{form}<body><button>A nice page</button></body>"
    )
    csrf = csrf_of(client)
    shown = client.get("/reports/fox/").text
    assert "There are newer results" in shown and "csrf" not in shown and csrf not in shown
    for path in ("/", f"/runs/{run.id}", f"/runs/{run.id}/log", "/nothing", "/reports/fox/"):
        assert "frame-ancestors 'none'" in client.get(path).headers["content-security-policy"], path


# Names and logs


def test_names_that_look_like_markup_are_text(client: TestClient, bench: Bench) -> None:
    run = new_run(bench, method=EVIL)
    change(bench, run, State.RUNNING)
    change(bench, run, State.FAILED, cause=f"no {EVIL}/script>")
    score(bench, run, 0.5, 20.0)
    (run.path / "log.txt").write_text(f"{EVIL}/script>\n</pre><img src=x onerror=alert(2)>\n")
    address = f"/runs/{run.id.replace('<', '%3C').replace('>', '%3E')}"
    for path in ("/", address, f"{address}/log", "/runs/%3Cscript%3Ealert(1)%3C"):
        text = client.get(path).text
        assert "alert(1)" in text or path.startswith("/runs/%3C"), path
        assert "<script>" not in text and "<img" not in text, path
        assert re.findall(r"<script[^>]*>", text) == re.findall(r'<script src="/assets/\w+\.js" defer>', text)
    part = client.get(f"{address}/log/part?from=0")
    assert part.headers["content-type"] == "application/json"
    assert part.json()["text"].startswith(EVIL)
    assert client.get(f"{address}/log.txt").headers["content-type"].startswith("text/plain")
    answer = post(client, f"{address}/pause", csrf_of(client))
    assert answer.status_code == 409
    assert html.escape(EVIL) in answer.text and "<script>" not in answer.text


def test_a_run_that_isnt_there_is_told_of_shortly(client: TestClient, bench: Bench) -> None:
    for path in (
        "/runs/nothing",
        "/runs/nothing/log",
        "/runs/..%2f..",
        "/runs/.",
        "/runs/nothing/log/part?from=0",
    ):
        answer = client.get(path)
        assert answer.status_code in (404, 405) and len(answer.text) < 2000


def test_what_cant_be_read_for_now_is_503_with_the_reason_and_leaves_nothing_open(
    client: TestClient, bench: Bench, report: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(app_module, "open_shown", lambda folder, name: opened.append(name))
    record = bench.folder / "record.sqlite"
    record.write_bytes(b"no record at all" * 1000)
    for path in ("/", "/runs/fox-splat-1", "/reports/fox/", "/events"):
        answer = client.get(path, headers={"accept": "application/json"})
        assert answer.status_code == 503, path
        assert "record.sqlite" in answer.json()["message"] and "\n" not in answer.json()["message"]
    assert opened == []
    record.unlink()
    assert client.get("/").status_code == 200


def test_a_disk_that_fails_is_503_with_the_reason(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Reader, *arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/bench/record.sqlite")

    monkeypatch.setattr(Reader, "look", fail)
    answer = client.get("/", headers={"accept": "application/json"})
    assert answer.status_code == 503 and "the disk is full" in answer.json()["message"]


def test_the_log_is_followed_from_an_offset(client: TestClient, bench: Bench) -> None:
    run = new_run(bench)
    empty = client.get(f"/runs/{run.id}/log/part?from=0").json()
    assert empty == {"text": "", "next": 0, "skipped": 0, "size": 0}
    (run.path / "log.txt").write_bytes("erste Zeile\nschö".encode()[:-1])  # in the middle of a character
    first = client.get(f"/runs/{run.id}/log/part?from=0").json()
    assert first["text"] == "erste Zeile\nsch"
    (run.path / "log.txt").write_bytes("erste Zeile\nschön\n".encode())
    second = client.get(f"/runs/{run.id}/log/part?from={first['next']}").json()
    assert second["text"] == "ön\n"
    for odd in ("-1", "x", "", "1e3", "9" * 30, "٣"):
        assert client.get(f"/runs/{run.id}/log/part", params={"from": odd}).status_code == 400


def test_of_a_log_of_a_gigabyte_only_the_end_is_read(client: TestClient, bench: Bench) -> None:
    run = new_run(bench)
    with (run.path / "log.txt").open("wb") as file:
        file.truncate(2**30)
        file.seek(2**30)
        file.write(b"\nthe last but one\nthe last line\n")
    began = time.monotonic()
    page = client.get(f"/runs/{run.id}/log")
    part = client.get(f"/runs/{run.id}/log/part?from=0").json()
    took = time.monotonic() - began
    assert "the last line" in page.text and len(page.content) < 2 * MOST_BYTES
    assert part["text"] == "the last but one\nthe last line\n"
    assert part["skipped"] == 2**30 + 1 and part["next"] == part["size"]
    assert took < 1.0
    middle = client.get(f"/runs/{run.id}/log.txt", headers={"range": f"bytes={2**30}-{2**30 + 4}"})
    assert middle.content == b"\nthe "


def test_a_log_that_leads_elsewhere_is_not_followed(client: TestClient, bench: Bench) -> None:
    run = new_run(bench)
    (bench.folder / "secret.txt").write_text("secret")
    (run.path / "log.txt").symlink_to(bench.folder / "secret.txt")
    assert client.get(f"/runs/{run.id}/log/part?from=0").json()["text"] == ""
    assert client.get(f"/runs/{run.id}/log.txt").status_code == 404
    assert "secret" not in client.get(f"/runs/{run.id}/log").text


# What is done


def test_a_queued_run_is_paused_resumed_cancelled_and_retried(client: TestClient, bench: Bench) -> None:
    run = new_run(bench)
    csrf = csrf_of(client)
    for wish, state in (("pause", State.PAUSED), ("resume", State.QUEUED), ("cancel", State.CANCELLED)):
        answer = post(client, f"/runs/{run.id}/{wish}", csrf)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        assert bench.row(run.id).state is state
    answer = post(client, f"/runs/{run.id}/retry", csrf)
    assert answer.headers["location"] == "/runs/fox-splat-2"
    assert bench.row("fox-splat-2").state is State.QUEUED


def test_a_wish_that_cant_be_granted_is_a_message(client: TestClient, bench: Bench) -> None:
    run = new_run(bench)
    csrf = csrf_of(client)
    answer = post(client, f"/runs/{run.id}/retry", csrf)
    assert answer.status_code == 409 and "Only a run that failed or was cancelled" in answer.text
    answer = post(client, f"/runs/{run.id}/retry", csrf, accept="application/json")
    assert "Only a run that failed" in answer.json()["message"]
    assert post(client, f"/runs/{run.id}/destroy", csrf).status_code == 404
    assert post(client, "/reports/nothing/write", csrf).status_code == 404


def test_the_page_is_written_again_by_a_process(client: TestClient, bench: Bench) -> None:
    bench.record.count_runs()
    answer = post(client, "/reports/fox/write", csrf_of(client))
    assert answer.status_code == 303
    index = bench.reports_folder / "fox" / "index.html"
    deadline = time.monotonic() + 90
    while not index.is_file() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert index.is_file()
    assert "<aside" in client.get("/reports/fox/").text


def test_korean_is_spoken(connect: Callable[..., TestClient], bench: Bench) -> None:
    new_run(bench)
    text = connect(lang="ko").get("/").text
    assert '<html lang="ko">' in text and "대기열" in text and "대기 중" in text


def test_the_page_shows_what_there_is(client: TestClient, bench: Bench) -> None:
    run = new_run(bench)
    score(bench, run, 0.125, 18.0)
    score(bench, run, 0.5, 22.0)
    assert "22.50 dB at 50.0%" in client.get("/").text
    page = client.get(f"/runs/{run.id}").text
    assert "<polyline" in page and "18.500" in page and "22.500" in page
    assert "&lt;b&gt;plain&lt;/b&gt;" in page
    assert json.loads(client.get(f"/runs/{run.id}/log/part?from=0").text)["size"] == 0


def test_a_viewer_that_goes_is_forgotten(bench: Bench) -> None:
    app = make_app(bench.folder, Keeper(PORT))
    sent: list[bytes] = []

    async def visit() -> None:
        watched = asyncio.Event()

        async def receive() -> dict[str, str]:
            await watched.wait()
            return {"type": "http.disconnect"}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message.get("body", b""))
            if sent[-1]:
                assert app.state.stream.viewers == 1
                watched.set()

        host = [(b"host", f"127.0.0.1:{PORT}".encode())]
        scope = {"type": "http", "method": "GET", "path": "/events", "query_string": b"", "headers": host}
        await asyncio.wait_for(app(scope, receive, send), 20)

    asyncio.run(visit())
    assert len(sent) == 3 and sent[1].startswith(b"event: all\n")  # the head, one event, the end
    assert app.state.stream.viewers == 0
