"""One look for all viewers: what is sent, to whom, and what a viewer that doesn't read costs."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable

import pytest
import uvicorn
from starlette.types import Message, Receive, Scope, Send

from turntable.errors import TurntableError
from turntable.serve import app, server
from turntable.serve import stream as module
from turntable.serve.app import EventStream
from turntable.serve.stream import (
    HEARTBEAT,
    LONGEST_PERIOD_S,
    PERIOD_S,
    Parts,
    Stream,
    Viewer,
    changes,
    next_period,
)


def event_of(data: bytes | None) -> tuple[str, Parts]:
    """The name and the parts of an event."""
    assert data is not None
    name, text, rest = data.decode().split("\n", 2)
    assert rest == "\n"
    return name.removeprefix("event: "), json.loads(text.removeprefix("data: "))["parts"]


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        ({}, {"a": 1}, {"a": 1}),
        ({"a": 1}, {"a": 1}, {}),
        ({"a": 1, "b": [2]}, {"a": 1, "b": [3]}, {"b": [3]}),
        ({"a": 1}, {}, {"a": None}),
        ({"a": None}, {"a": None}, {}),
    ],
)
def test_only_what_changed_is_told(before: Parts, now: Parts, told: Parts) -> None:
    assert changes(before, now) == told


@pytest.mark.parametrize(
    ("spent_s", "period_s"), [(0.0, PERIOD_S), (0.001, PERIOD_S), (0.01, 2.0), (10.0, LONGEST_PERIOD_S)]
)
def test_what_costs_more_happens_less_often(spent_s: float, period_s: float) -> None:
    assert next_period(spent_s) == pytest.approx(period_s)


def test_an_event_is_one_line_whatever_a_name_holds() -> None:
    data = module.event("all", 0.0, {"name": "a\nb\r\n\ndata: <script>\u2028\udce9"})
    assert data.count(b"\n") == 3 and data.endswith(b"\n\n") and b"\r" not in data


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 30))


class Bench:
    """What is looked at, and how often it was."""

    def __init__(self) -> None:
        self.parts: Parts = {"a": 0}
        self.looks = 0

    async def look(self) -> Parts | None:
        self.looks += 1
        return dict(self.parts)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PERIOD_S", 0.05)
    monkeypatch.setattr(module, "AT_ONCE_S", 0.01)


@pytest.mark.usefixtures("fast")
def test_all_viewers_get_the_very_same_bytes() -> None:
    async def test() -> None:
        bench = Bench()
        stream = Stream(bench.look)
        viewers = [await stream.join() for _ in range(5)]
        first = [await viewer.take() for viewer in viewers]
        assert event_of(first[0]) == ("all", {"a": 0})
        assert all(data is first[0] for data in first)
        bench.parts = {"a": 0, "b": 1}
        second = [await viewer.take() for viewer in viewers]
        assert event_of(second[0]) == ("changes", {"b": 1})
        assert all(data is second[0] for data in second)
        stream.close()

    run(test)


@pytest.mark.usefixtures("fast")
def test_nobody_looks_when_nobody_watches() -> None:
    async def test() -> None:
        bench = Bench()
        stream = Stream(bench.look)
        viewers = [await stream.join(), await stream.join()]
        await asyncio.sleep(0.3)
        assert bench.looks > 2
        for viewer in viewers:
            stream.leave(viewer)
        await asyncio.sleep(0.1)
        looks = bench.looks
        await asyncio.sleep(0.3)
        assert bench.looks == looks and stream.viewers == 0
        again = await stream.join()  # and it begins anew
        assert event_of(await again.take())[0] == "all"
        bench.parts = {"a": 9}
        assert event_of(await again.take()) == ("changes", {"a": 9})
        stream.close()

    run(test)


@pytest.mark.usefixtures("fast")
def test_a_viewer_that_is_behind_gets_all_as_it_is_then() -> None:
    async def test() -> None:
        bench = Bench()
        stream = Stream(bench.look)
        slow, quick = await stream.join(), await stream.join()
        for number in range(1, 4):
            bench.parts = {"a": number, str(number): number}
            await quick.take() if number == 1 else None
            assert event_of(await quick.take())[0] == "changes"
        assert event_of(await slow.take()) == ("all", bench.parts)
        stream.close()

    run(test)


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("error", [OSError("the disk is full"), TurntableError("the disk is full")])
def test_a_look_that_fails_is_said_once_and_tried_again(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        bench = Bench()

        async def look() -> Parts | None:
            if 1 <= bench.looks < 4:
                bench.looks += 1
                raise error
            return await bench.look()

        stream = Stream(look)
        viewer = await stream.join()
        await viewer.take()
        bench.parts = {"a": 5}
        assert event_of(await viewer.take()) == ("changes", {"a": 5})
        assert bench.looks > 4
        stream.close()

    run(test)
    assert [record.getMessage() for record in caplog.records] == ["turntable: the disk is full"]


def test_what_was_changed_from_here_is_seen_even_if_a_look_is_under_way() -> None:
    async def test() -> None:
        parts, going_on = {"a": "before"}, asyncio.Event()

        async def look() -> Parts | None:
            seen = dict(parts)
            await going_on.wait()
            return seen

        stream = Stream(look)
        early = asyncio.create_task(stream.now())
        await asyncio.sleep(0.01)  # that look has seen what was before
        parts["a"] = "after"
        stream.hurry()
        late = asyncio.create_task(stream.now())
        await asyncio.sleep(0.01)
        going_on.set()
        assert (await early).parts["a"] in ("before", "after")
        assert (await late).parts["a"] == "after"

    run(test)


def test_a_viewer_that_takes_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        viewer = Viewer()
        for number in range(1000):
            viewer.offer(b"%d" % number, lambda: b"all")
        assert not viewer.closed
        monkeypatch.setattr(module, "PATIENCE_S", -1.0)
        viewer.offer(b"one more", lambda: b"all")
        assert viewer.closed and await viewer.take() is None

    run(test)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="needs Linux: only there is it closed")
def test_a_socket_that_is_not_read_is_closed_with_all_that_was_written_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 1.0)
    monkeypatch.setattr(server, "PATIENCE_S", 1.0)
    monkeypatch.setattr(module, "PERIOD_S", 0.1)
    monkeypatch.setattr(module, "LONGEST_PERIOD_S", 0.1)

    async def test() -> None:
        looks = 0

        async def look() -> Parts:
            nonlocal looks
            looks += 1
            return {"much": f"{looks} " * 1_000_000}  # more than the system's buffers take

        stream = Stream(look)

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            await EventStream(stream, await stream.join())(scope, receive, send)

        listening = server.listen("127.0.0.1", 0)
        serving = uvicorn.Server(uvicorn.Config(answer, lifespan="off", log_level="critical", ws="none"))
        task = asyncio.create_task(serving.serve(sockets=[listening]))
        loop = asyncio.get_running_loop()
        with socket.socket() as silent:
            silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            silent.setblocking(False)
            await loop.sock_connect(silent, listening.getsockname())
            await loop.sock_sendall(silent, b"GET /events HTTP/1.1\r\nHost: here\r\n\r\n")
            while stream.viewers == 0:
                await asyncio.sleep(0.02)
            assert len(serving.server_state.connections) == 1
            while stream.viewers or serving.server_state.connections:  # the test's time limit ends it
                await asyncio.sleep(0.1)
        serving.should_exit = True
        await task

    run(test)


def test_a_heartbeat_takes_no_events_place() -> None:
    async def test() -> None:
        viewer = Viewer()
        viewer.offer(b"changes", lambda: b"all")
        viewer.offer(HEARTBEAT, lambda: HEARTBEAT)
        assert await viewer.take() == b"changes"
        viewer.offer(HEARTBEAT, lambda: HEARTBEAT)
        assert await viewer.take() == HEARTBEAT

    run(test)


def test_when_the_server_ends_everybody_is_let_go() -> None:
    async def test() -> None:
        stream = Stream(Bench().look)
        viewer = await stream.join()
        await viewer.take()
        waiting = asyncio.create_task(viewer.take())
        await asyncio.sleep(0.01)
        stream.close()
        assert await waiting is None
        assert await (await stream.join()).take() is None

    run(test)


def test_who_comes_while_a_wish_is_looked_at_is_not_shown_what_was_before() -> None:
    async def test() -> None:
        parts: Parts = {"a": 1}
        open_ = asyncio.Event()
        open_.set()

        async def look() -> Parts:
            found = dict(parts)
            await open_.wait()
            return found

        stream = Stream(look)
        await stream.now()
        parts["a"] = 2
        open_.clear()
        stream.hurry()
        first = asyncio.create_task(stream.now())
        await asyncio.sleep(0.01)
        second = asyncio.create_task(stream.now())
        await asyncio.sleep(0.01)
        assert not second.done()
        open_.set()
        assert (await first).parts == (await second).parts == {"a": 2}

    run(test)


def test_a_viewer_that_reads_nothing_is_let_go_though_a_send_never_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test() -> None:
        monkeypatch.setattr(app, "LAST_WORD_S", 0.05)

        async def look() -> Parts:
            return {"a": 1}

        async def receive() -> Message:
            await asyncio.Event().wait()
            raise AssertionError

        sent: list[str] = []

        async def send(message: Message) -> None:
            sent.append(message["type"])
            if message["type"] == "http.response.body":
                await asyncio.Event().wait()  # its socket takes no more

        stream = Stream(look)
        viewer = await stream.join()
        answering = asyncio.create_task(EventStream(stream, viewer)({}, receive, send))
        await asyncio.sleep(0.05)
        assert sent == ["http.response.start", "http.response.body"] and stream.viewers == 1
        viewer.close()
        await asyncio.wait_for(answering, 5)
        assert stream.viewers == 0

    run(test)
