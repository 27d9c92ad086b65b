"""The live page as a web application: which address shows or does what. See :mod:`.security` for who may."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qs, parse_qsl, quote, urlencode

import jinja2
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import TurntableError, UnknownNameError, disk_error
from ..lang import Texts, texts
from .logs import read_log
from .security import (
    FILE_CSP,
    METHODS,
    PAGE_CSP,
    Keeper,
    host_is_ours,
    is_same_origin,
    page_headers,
    token_matches,
)
from .sending import file_answer, inserted_answer, open_shown, policy_of
from .state import Reader, run_url
from .stream import Parts, Stream, Viewer
from .wishes import WISHES, Pages, Wishes

HERE = Path(__file__).parent
ASSETS = {
    "live.css": HERE / "assets" / "live.css",
    "live.js": HERE / "assets" / "live.js",
    "log.js": HERE / "assets" / "log.js",
    "page.css": HERE.parent / "report" / "assets" / "page.css",
}
"""The page's own files, and the report's style sheet: they look alike."""

MOST_FORM_BYTES = 16 * 1024
MOST_VIEWERS = 1000

LAST_WORD_S = 1.0
"""A viewer that is let go has so long to take what is being sent."""


def _own_assets() -> dict[str, Path]:
    assets = HERE.parent / "report" / "assets"
    found = {f"assets/{name}": assets / name for name in ("page.js", "page.css")}
    plotly = find_spec("plotly")  # not imported: it takes memory, and only a file of it is sent
    if plotly is not None and plotly.submodule_search_locations:
        package = Path(next(iter(plotly.submodule_search_locations)))
        found["assets/plotly.min.js"] = package / "package_data" / "plotly.min.js"
    return found


OWN_ASSETS = _own_assets()
"""What pages in ``reports/`` run and look like, by its path in a page's folder."""


def make_app(bench_folder: Path, keeper: Keeper, lang: str = "en") -> Starlette:
    """The application that shows a bench live.

    Args:
        bench_folder: the bench; it exists.
        keeper: whom it lets in.
        lang: the language of its pages.

    Returns:
        It; ``app.state.stream`` is closed before it is stopped, so that nobody is waited for.

    Raises:
        TurntableError: there is no such language.
    """
    live = Live(bench_folder, keeper, texts(lang))
    app = Starlette(
        routes=live.routes(),
        lifespan=live.lifespan,
        exception_handlers=dict.fromkeys((HTTPException, TurntableError, OSError), live.show_error),
    )
    app.state.stream = live.stream
    app.add_middleware(Gate, live=live)
    return app


class Live:
    """What the application holds while it runs, and its pages."""

    def __init__(self, bench_folder: Path, keeper: Keeper, t: Texts) -> None:
        self.folder = bench_folder
        self.keeper = keeper
        self.t = t
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reader")
        self._reader = Reader(bench_folder, t)
        self.stream = Stream(self._look)
        self._wishes = Wishes(bench_folder)
        self._pages = Pages(bench_folder, self.stream.hurry)
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.globals.update(t=t, wishes=WISHES, bench=bench_folder.name)
        self._template = environment.get_template

    def routes(self) -> list[Route]:
        """Every address; what follows ``/reports/`` comes last, since it takes all."""
        return [
            Route("/", self.index),
            Route("/events", self.events),
            Route("/favicon.ico", _nothing),
            Route("/assets/{name}", self.asset),
            Route("/runs/{run}", self.run),
            Route("/runs/{run}/log", self.log),
            Route("/runs/{run}/log/part", self.log_part),
            Route("/runs/{run}/log.txt", self.log_file),
            Route("/runs/{run}/{wish}", self.wish, methods=["POST"]),
            Route("/reports/{capture}/write", self.write, methods=["POST"]),
            Route("/reports/{capture}", self.to_folder),
            Route("/reports/{capture}/", self.report),
            Route("/reports/{path:path}", self.report_file),
        ]

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Everything is let go of when the server ends."""
        yield
        self.stream.close()
        self._pages.close()
        self._wishes.close()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _look(self) -> Parts | None:
        return await self._read(self._reader.look, self._pages.at_work, dict(self._pages.failed))

    async def _read(self, function: Any, *arguments: Any) -> Any:
        """Call a function in the thread that has the record open."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    # What is shown

    async def index(self, request: Request) -> Response:
        """The page: queue, timeline, captures."""
        look = await self.stream.now()
        return self.page(request, "index.html", parts=look.parts, now=look.time)

    async def events(self, request: Request) -> Response:
        """What changes, as server-sent events."""
        if request.method == "HEAD":
            return Response(headers=page_headers(FILE_CSP), media_type="text/event-stream")
        if self.stream.viewers >= MOST_VIEWERS:
            raise HTTPException(503, self.t("serve.errors.viewers", most=MOST_VIEWERS))
        return EventStream(self.stream, await self.stream.join())

    async def run(self, request: Request) -> Response:
        """One run: what was asked, its scores so far, its turns."""
        run = request.path_params["run"]
        return self.page(request, "run.html", run=run, **await self._read(self._reader.run, run))

    async def log(self, request: Request) -> Response:
        """The end of a run's log, which the page follows."""
        run = request.path_params["run"]
        folder = await self._read(self._reader.folder, run)
        return self.page(
            request, "log.html", run=run, url=run_url(run), log=await asyncio.to_thread(read_log, folder)
        )

    async def log_part(self, request: Request) -> Response:
        """A log from an offset on, at most so much as is read at once."""
        since = request.query_params.get("from", "")
        if not (since.isascii() and since.isdigit() and len(since) < 19):
            raise HTTPException(400, self.t("serve.errors.offset"))
        folder = await self._read(self._reader.folder, request.path_params["run"])
        return JSONResponse(
            await asyncio.to_thread(read_log, folder, int(since)), headers=page_headers(FILE_CSP)
        )

    async def log_file(self, request: Request) -> Response:
        """The log as a file, in parts if the browser asks so."""
        folder = await self._read(self._reader.folder, request.path_params["run"])
        return self._file(request, folder, "log.txt")

    async def asset(self, request: Request) -> Response:
        """A style sheet or a script of the page's own."""
        path = ASSETS.get(request.path_params["name"])
        if path is None:
            raise HTTPException(404)
        return self._file(request, path.parent, path.name)

    async def to_folder(self, request: Request) -> Response:
        """A report's addresses are relative to its folder."""
        self._report(request).close()
        name = quote(request.path_params["capture"], safe="")
        return RedirectResponse(f"/reports/{name}/", 307, headers=page_headers(FILE_CSP))

    async def report(self, request: Request) -> Response:
        """The page of a capture, with a bar that leads back and tells whether there are newer results.

        The bar has no form: somebody else's page could put it into one of its own, and have the user send the token.
        """
        name = request.path_params["capture"]
        captures = (await self.stream.now()).parts["captures"]
        known = next((capture for capture in captures if capture["name"] == name), None)
        bar = self._template("bar.html").render(capture=known)
        file = self._report(request)  # last: nothing that fails leaves it open
        return inserted_answer(file, request.headers, bar.encode(), PAGE_CSP, request.method == "HEAD")

    def _report(self, request: Request) -> IO[bytes]:
        try:
            return open_shown(self.folder / "reports", f"{request.path_params['capture']}/index.html")
        except OSError:
            raise HTTPException(404) from None

    async def report_file(self, request: Request) -> Response:
        """A file of a page; its scripts and style are our own, whatever lies there: a pack may bring anybody's."""
        name = request.path_params["path"]
        _, _, inside = name.partition("/")
        if inside in OWN_ASSETS:
            own = OWN_ASSETS[inside]
            return self._file(request, own.parent, own.name)
        if name.lower().endswith((".js", ".mjs")):
            raise HTTPException(404)
        return self._file(request, self.folder / "reports", name)

    def _file(self, request: Request, folder: Path, name: str) -> Response:
        try:
            file = open_shown(folder, name)
        except OSError:
            raise HTTPException(404) from None
        return file_answer(file, name, request.headers, policy_of(name), request.method == "HEAD")

    def page(self, request: Request, template: str, status: int = 200, **values: Any) -> Response:
        """A page of our own, with what its forms need."""
        text = self._template(template).render(csrf=self.keeper.csrf(request.state.session), **values)
        headers = page_headers(PAGE_CSP, referrer="same-origin")
        return self._with_session(request, HTMLResponse(text, status, headers=headers))

    def _with_session(self, request: Request, answer: Response) -> Response:
        if request.state.new_session:
            self.give_session(answer, request.state.session, request.url.scheme == "https")
        return answer

    def give_session(self, answer: Response, session: str, secure: bool) -> None:
        """Have the browser keep a session, for us alone."""
        answer.set_cookie(
            self.keeper.cookie, session, path="/", httponly=True, samesite="strict", secure=secure
        )

    async def show_error(self, request: Request, error: Exception) -> Response:
        """What went wrong, in a line; 503 for what may be mended: a record that can't be read, a full disk."""
        status, text = 404 if isinstance(error, UnknownNameError) else 503, str(error)
        if isinstance(error, OSError):
            text = str(disk_error(error, "or read a file"))
        elif isinstance(error, HTTPException):
            status = error.status_code
            text = error.detail if error.detail != _phrase(status) else self.t("serve.errors.nothing")
        return self.refuse(request, status, text)

    def refuse(self, request: Request, status: int, text: str) -> Response:
        """An answer that says why not: to a script as JSON, to a person as a page."""
        headers = page_headers(PAGE_CSP)
        if "application/json" in request.headers.get("accept", ""):
            return JSONResponse({"message": text}, status, headers=headers)
        page = self._template("error.html").render(status=status, text=text, again=quote(request.url.path))
        return HTMLResponse(page, status, headers=headers)

    # What is done; Gate lets nothing through that is not from a page of ours

    async def wish(self, request: Request) -> Response:
        """Pause, resume, cancel or retry a run."""
        run, wish = request.path_params["run"], request.path_params["wish"]
        if wish not in WISHES:
            raise HTTPException(404)
        try:
            named = await self._wishes.make(run, wish)
        except TurntableError as error:
            return self.refuse(request, 409, str(error))
        self.stream.hurry()
        if wish == "retry":
            return self._done(request, self.t("serve.retried", run=run, new=named), run_url(named))
        return self._done(request, "", run_url(run) if request.state.form.get("back") == "run" else "/")

    async def write(self, request: Request) -> Response:
        """Write the page of a capture again."""
        name = request.path_params["capture"]
        captures = (await self.stream.now()).parts["captures"]
        if name not in [capture["name"] for capture in captures]:
            raise HTTPException(404)
        self._pages.write(name)
        return self._done(request, self.t("serve.writing_begun", capture=name), "/#captures")

    def _done(self, request: Request, text: str, then: str) -> Response:
        if "application/json" in request.headers.get("accept", ""):
            return JSONResponse({"message": text}, headers=page_headers(FILE_CSP))
        return RedirectResponse(then, 303, headers=page_headers(FILE_CSP))


class Gate:
    """Stands before every address: lets in whom :mod:`.security` says, and gives every answer its headers."""

    def __init__(self, app: ASGIApp, live: Live) -> None:
        self._app = app
        self._live = live

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in page_headers(FILE_CSP).items():
                    headers.setdefault(name, value)
            await send(message)

        request = Request(scope, receive)
        answer = await self._stop(request)
        if answer is not None:
            await answer(scope, receive, send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)

    async def _stop(self, request: Request) -> Response | None:
        """The answer to a request that goes no further."""
        live, keeper = self._live, self._live.keeper

        def no(status: int, what: str, **values: Any) -> Response:
            return live.refuse(request, status, live.t(f"serve.errors.{what}", **values))

        if request.method not in METHODS:
            answer = no(405, "method")
            answer.headers["allow"] = ", ".join(METHODS)
            return answer
        if not host_is_ours(
            request.headers.get("host"), keeper.port, keeper.loopback and keeper.token is None
        ):
            return no(421, "host", port=keeper.port)
        session = request.cookies.get(keeper.cookie)
        known = keeper.is_session(session)
        given = request.query_params.get("token")
        if keeper.token is not None and given is not None and request.method == "GET":
            return self._enter(request, given) or no(403, "token")
        if keeper.token is not None and not known:
            return no(403, "no_token")
        request.state.new_session = not known
        request.state.session = session if known else keeper.new_session()
        if request.method == "POST":
            if not is_same_origin(request.headers):
                return no(403, "origin")
            form = await _form(request)
            if form is None:
                return no(413, "form")
            if not keeper.may_change(session, form.get("csrf")):
                return no(403, "csrf")
            request.state.form = form
        return None

    def _enter(self, request: Request, given: str) -> Response | None:
        """For the right token a session, and the same address without it: it is kept in no history and sent nowhere."""
        keeper = self._live.keeper
        if keeper.token is None or not token_matches(given, keeper.token):
            return None
        rest = [(key, value) for key, value in parse_qsl(request.url.query) if key != "token"]
        path = "/" + quote(request.url.path.lstrip("/\\"), safe="/%")  # never the name of another host
        answer = RedirectResponse(
            path + (f"?{urlencode(rest)}" if rest else ""), 303, headers=page_headers(FILE_CSP)
        )
        self._live.give_session(answer, keeper.new_session(), request.url.scheme == "https")
        return answer


class EventStream(Response):
    """Sends a viewer's events until it goes, or is let go."""

    def __init__(self, stream: Stream, viewer: Viewer) -> None:
        super().__init__(headers=page_headers(FILE_CSP), media_type="text/event-stream")
        del self.headers["content-length"]
        self._stream = stream
        self._viewer = viewer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.create_task(self._await_going(receive))
        telling = asyncio.create_task(self._tell(send))
        closing = asyncio.create_task(self._viewer.await_closing())
        try:
            await asyncio.wait({telling, closing}, return_when=asyncio.FIRST_COMPLETED)
            # Who doesn't read keeps what is being sent for ever: it isn't waited for longer than this.
            await asyncio.wait({telling}, timeout=LAST_WORD_S)
        finally:
            for task in (gone, closing, telling):
                task.cancel()
            self._stream.leave(self._viewer)
            await asyncio.gather(gone, closing, telling, return_exceptions=True)

    async def _tell(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        while (data := await self._viewer.take()) is not None:
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _await_going(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._viewer.close()


async def _nothing(request: Request) -> Response:
    return Response(status_code=204)


async def _form(request: Request) -> Mapping[str, str] | None:
    """What a form says; None if it is too long to be one of ours."""
    body = bytearray()
    async for data in request.stream():
        body += data
        if len(body) > MOST_FORM_BYTES:
            return None
    try:
        fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=20)
    except ValueError:
        return None
    return {name: values[0] for name, values in fields.items()}


@cache
def _phrase(status: int) -> str:
    return HTTPException(status).detail
