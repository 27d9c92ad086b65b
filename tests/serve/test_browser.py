"""The live page in a real browser: Chromium, headless, with a server of its own."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from browsers import CHROMIUM, NO_CHROMIUM, chromium
from serve.live_bench import EVIL, Server, change, new_run, score
from turntable.bench import Bench
from turntable.record import State

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (CI installs it)")
expect = sync_api.expect
expect.set_options(timeout=20_000)  # a wish is a durable write, which a busy disk takes its time for


@dataclass
class Seen:
    """A page, and what its browser said and asked for."""

    page: sync_api.Page
    console: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def visit(browser: sync_api.Browser) -> Iterator[Callable[..., Seen]]:
    """``visit(address, **context)``: a page in a fresh session; options as Playwright's ``new_context`` has them."""
    contexts: list[sync_api.BrowserContext] = []

    def go(address: str, **options: object) -> Seen:
        context = browser.new_context(**options)  # type: ignore[arg-type]
        contexts.append(context)
        seen = Seen(context.new_page())
        seen.page.on("console", lambda message: seen.console.append(message.text))
        seen.page.on("pageerror", lambda error: seen.console.append(str(error)))
        seen.page.on("request", lambda request: seen.asked.append(request.url))
        seen.page.goto(address)
        return seen

    yield go
    for context in contexts:
        context.close()


def test_it_is_live_and_a_queued_run_is_paused_and_cancelled_by_its_buttons(
    serve: Callable[..., Server], bench: Bench, visit: Callable[..., Seen]
) -> None:
    run = new_run(bench)
    server = serve()
    seen = visit(server.address)
    page = seen.page
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    row = page.locator(f'tr[data-run="{run.id}"]')
    expect(row.get_by_text("queued")).to_be_visible()
    row.get_by_role("button", name=f"Pause {run.id}").click()
    expect(row.get_by_text("paused", exact=True)).to_be_visible()
    assert bench.row(run.id).state is State.PAUSED
    expect(row.get_by_role("button", name="Pause")).to_be_hidden()
    row.get_by_role("button", name="Resume").click()
    expect(row.get_by_text("queued")).to_be_visible()

    other = new_run(bench)  # asked for from elsewhere, and shown without loading the page again
    expect(page.locator("#runs tr")).to_have_count(2)
    expect(page.locator("#runs tr").first).to_contain_text(other.id)
    change(bench, other, State.RUNNING)
    score(bench, other, 0.5, 20.0)
    expect(page.locator("#runs tr").first).to_contain_text("20.50 dB at 50.0%")

    page.on("dialog", lambda dialog: dialog.accept())
    row.get_by_role("button", name="Cancel").click()
    expect(row.get_by_text("cancelled")).to_be_visible()
    row.get_by_role("button", name="Retry").click()
    expect(page.locator("#message")).to_contain_text(f"{run.id} is asked again as fox-splat-3")
    assert seen.console == []
    assert all(address.startswith(server.origin) or address == "data:," for address in seen.asked)


def test_what_cant_be_done_is_said(
    serve: Callable[..., Server], bench: Bench, visit: Callable[..., Seen]
) -> None:
    run = new_run(bench)
    page = visit(serve().address).page
    # Not in two steps: an event in between would hide the button again, which has no place at a run that waits.
    page.evaluate("document.querySelector('form[data-wish=retry] button').click()")
    expect(page.locator("#message")).to_contain_text(f"can be retried; {run.id} is queued")


def test_its_buttons_work_without_a_script(
    serve: Callable[..., Server], bench: Bench, visit: Callable[..., Seen]
) -> None:
    run = new_run(bench)
    server = serve()
    seen = visit(server.address, java_script_enabled=False)
    seen.page.get_by_role("button", name=f"Pause {run.id}").click()
    expect(seen.page.get_by_role("button", name=f"Resume {run.id}")).to_be_visible()
    assert bench.row(run.id).state is State.PAUSED
    assert seen.page.url == server.address


def test_over_a_network_its_buttons_work_with_the_token(
    serve: Callable[..., Server], bench: Bench, visit: Callable[..., Seen]
) -> None:
    run = new_run(bench)
    server = serve("--host", "0.0.0.0")
    address = re.sub(r"//[^:/]+:", "//127.0.0.1:", server.address)
    for script in (True, False):
        seen = visit(address, java_script_enabled=script)
        assert "token" not in seen.page.url
        wish = "Pause" if script else "Resume"
        seen.page.get_by_role("button", name=f"{wish} {run.id}").click()
        expect(seen.page.locator(f'tr[data-run="{run.id}"]')).to_contain_text(
            "paused" if script else "queued"
        )
        assert seen.console == []


def test_names_and_logs_that_look_like_markup_run_nothing(
    serve: Callable[..., Server], bench: Bench, visit: Callable[..., Seen]
) -> None:
    run = new_run(bench, method=EVIL)
    change(bench, run, State.RUNNING)
    (run.path / "log.txt").write_text("<script>alert(3)</script>\n")
    server = serve()
    seen = visit(server.address)
    page = seen.page
    alarms: list[str] = []
    page.on("dialog", lambda dialog: (alarms.append(dialog.message), dialog.dismiss()))
    expect(page.locator("#runs tr th a")).to_have_text(run.id)
    change(bench, run, State.FAILED, cause="<img src=x onerror=alert(4)>")  # comes as an event
    expect(page.locator("#runs .remark")).to_contain_text("<img src=x onerror=alert(4)>")
    expect(page.locator("#lanes .turn")).to_have_text(run.id)
    assert page.locator("main img, main script").count() == 0
    page.get_by_role("link", name=f"Log {run.id}").click()
    expect(page.locator("#log")).to_contain_text("<script>alert(3)</script>")
    with (run.path / "log.txt").open("a") as file:
        file.write("<script>alert(5)</script>\n")
    expect(page.locator("#log")).to_contain_text("alert(5)")
    assert page.locator("main script").count() == 0
    assert alarms == [] and seen.console == []


def test_a_runs_page_shows_a_new_score_by_itself(
    serve: Callable[..., Server], bench: Bench, visit: Callable[..., Seen]
) -> None:
    run = new_run(bench)
    change(bench, run, State.RUNNING)
    score(bench, run, 0.125, 18.0)
    seen = visit(f"{serve().origin}/runs/{run.id}")
    expect(seen.page.locator("#connection")).to_have_text("live")
    expect(seen.page.locator("#result")).to_contain_text("18.500")
    score(bench, run, 0.25, 21.0)
    expect(seen.page.locator("#result")).to_contain_text("21.500")
    expect(seen.page.locator("#result polyline")).to_have_count(1)
    assert seen.console == []


def test_a_3d_view_runs_in_a_sandbox_and_can_change_nothing(
    serve: Callable[..., Server], bench: Bench, visit: Callable[..., Seen]
) -> None:
    run = new_run(bench)
    scenes = bench.reports_folder / "fox" / "scenes"
    scenes.mkdir(parents=True)
    (scenes.parent / "index.html").write_text(
        '<!doctype html><html lang="en"><title>x</title><body><iframe src="scenes/a.html"></iframe></body></html>'
    )
    (scenes / "a.html").write_text(
        """<!doctype html><p id=said>nothing</p><script>
        const said = [];
        try { said.push(document.cookie ? "cookie" : "no cookie"); } catch { said.push("no cookie"); }
        try { said.push(parent.document.title); } catch { said.push("no parent"); }
        const worker = new Worker(URL.createObjectURL(new Blob(["postMessage('worker')"])));
        worker.onmessage = (event) => {
          said.push(event.data);
          fetch("/runs/RUN/cancel", {method: "POST", body: "csrf=x"})
            .then(() => said.push("posted"), () => said.push("not posted"))
            .then(() => fetch("/").then(() => said.push("read"), () => said.push("not read")))
            .then(() => { document.getElementById("said").textContent = said.join(", "); });
        };
        </script>""".replace("RUN", run.id)
    )
    page = visit(f"{serve().origin}/reports/fox/").page
    expect(page.get_by_role("link", name="Queue")).to_be_visible()
    said = page.frame_locator("iframe").locator("#said")
    expect(said).to_have_text("no cookie, no parent, worker, not posted, not read")
    assert bench.row(run.id).state is State.QUEUED


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1300, 390])
def test_it_is_accessible_and_no_wider_than_the_screen(
    serve: Callable[..., Server], bench: Bench, visit: Callable[..., Seen], scheme: str, width: int
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    runs = [new_run(bench), new_run(bench, method="nearest"), new_run(bench)]
    change(bench, runs[0], State.RUNNING, at=time.time() - 60)
    change(bench, runs[0], State.FAILED, cause="it broke " * 20)
    change(bench, runs[1], State.RUNNING)
    score(bench, runs[1], 0.125, 20.0)
    score(bench, runs[1], 0.5, 24.0)
    (runs[1].path / "log.txt").write_text("hello\n" * 50 + "x" * 500)
    server = serve()
    viewport = {"width": width, "height": 800}
    for path in ("/", f"/runs/{runs[1].id}", f"/runs/{runs[1].id}/log", "/nothing"):
        page = visit(f"{server.origin}{path}", color_scheme=scheme, viewport=viewport).page
        page.wait_for_timeout(300)
        for closed in page.locator("details:not([open]) > summary").all():
            closed.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        found = axe.Axe().run(page).response["violations"]
        faults = [(fault["id"], [node["html"] for node in fault["nodes"]]) for fault in found]
        assert [fault for fault in faults if fault] == [], path


def test_the_keyboard_reaches_the_buttons_and_the_focus_stays(
    serve: Callable[..., Server], bench: Bench, visit: Callable[..., Seen]
) -> None:
    run = new_run(bench)
    page = visit(serve().address).page
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    for _ in range(8):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.tagName") == "BUTTON":
            break
    page.keyboard.press("Enter")
    expect(page.locator(f'tr[data-run="{run.id}"]')).to_contain_text("paused")
    assert (
        page.evaluate(
            "document.activeElement !== document.body && document.activeElement.closest('tr').dataset.run"
        )
        == run.id
    )
