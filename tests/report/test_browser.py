"""The page in a real browser: Chromium, headless, from a file and over HTTP.

Every test holds besides that nothing is said on the console, and nothing asked for but what lies in the page's folder: see
``visit`` in conftest.py.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

import pytest

FLOOR, METHODS = "nearest", ("splat", "grid")

STATE = """() => {
  const dialog = document.getElementById("large");
  const place = (element) => {
    const { left, right, top, bottom } = element.getBoundingClientRect();
    return { left, right, top, bottom };
  };
  const value = (name) => dialog.querySelector(`[name=${name}]`).value;
  return {
    open: dialog.open, name: dialog.querySelector("#large-name").textContent,
    factor: value("factor"), left: value("left"), right: value("right"),
    panes: [...dialog.querySelectorAll(".window")].map((pane) => ({
      ...place(pane),
      images: [...pane.querySelectorAll("img")].map((image) => ({
        ...place(image), wide: image.naturalWidth, src: image.getAttribute("src"),
      })),
    })),
  };
}"""
"""What the dialog shows, and where on the screen."""

A4_WIDTHS = (1046, 718)
"""Of a sheet across and upright, in CSS pixels, without margins of 1 cm: phones print on paper too."""


@pytest.fixture(params=["file", "http"])
def page(request, visit, english):
    """The page with everything on it, from a file and over HTTP."""
    return visit(english.index, request.param).page


def names(page):
    """The views' names in the order in which the page lists them."""
    return page.locator("#view-list .open").all_text_contents()


def state(page):
    return page.evaluate(STATE)


def values(page, select):
    """What a list offers."""
    return page.locator(f"{select} option").evaluate_all("(all) => all.map((one) => one.value)")


def judged(shown, metric):
    """By view, the mean over the methods but the floor."""
    each = [shown.values(metric, method) for method in METHODS]
    return {view: sum(values[view] for values in each) / len(each) for view in shown.views}


def load_all(page):
    """Bring every picture of the page near enough to be loaded, and wait for all of them."""
    page.evaluate("for (const image of document.querySelectorAll('main img')) image.loading = 'eager'")
    page.wait_for_function("[...document.querySelectorAll('main img')].every((image) => image.complete)")


# What is loaded


def test_every_picture_is_there_and_charts_are_drawn(page, english):
    load_all(page)
    widths = page.evaluate("[...document.querySelectorAll('main img')].map((image) => image.naturalWidth)")
    done = [run for run in english.data.runs if run.state == "done"]
    assert widths == [72] * len(english.views) * (1 + 2 * len(done))
    page.locator("#curves").scroll_into_view_if_needed()
    page.wait_for_function("document.querySelectorAll('.chart .scatterlayer').length === 3")
    assert page.locator(".chart .scatterlayer .trace").count() == 3 * len(done)


def test_a_request_to_elsewhere_would_be_noticed(visit, english):
    seen = visit(english.index)
    seen.page.route("http://elsewhere.example/**", lambda route: route.fulfill(status=200, body=""))
    with seen.page.expect_request("http://elsewhere.example/pixel.png"):
        seen.page.evaluate("document.createElement('img').src = 'http://elsewhere.example/pixel.png'")
    assert seen.strays == ["http://elsewhere.example/pixel.png"]
    seen.requests.clear()


def test_pictures_far_below_are_loaded_when_they_come_near(visit, english):
    seen = visit(english.index, viewport={"width": 320, "height": 480})

    def pictures():
        return {url for url in seen.requests if url.endswith(".webp")}

    there = seen.page.locator("main img").count()
    seen.page.wait_for_timeout(500)
    assert len(pictures()) < there
    for item in seen.page.locator(".view").all():
        item.scroll_into_view_if_needed()
        item.locator(".cell").last.scroll_into_view_if_needed()
    seen.page.wait_for_function(
        "[...document.querySelectorAll('.take:not([hidden]) img')].every((image) => image.naturalWidth)"
    )


@pytest.mark.parametrize("lang", ["english", "korean"])
def test_nothing_is_wider_than_the_screen(visit, request, lang):
    page = visit(request.getfixturevalue(lang).index).page
    found = {}
    for media in ({"color_scheme": "light"}, {"color_scheme": "dark"}, {"media": "print"}):
        page.emulate_media(**{"media": "screen", **media})
        for width in A4_WIDTHS if "media" in media else (1400, 390, 320):
            page.set_viewport_size({"width": width, "height": 800})
            found[(*media.values(), width)] = page.evaluate("document.documentElement.scrollWidth") - width
    assert {case: over for case, over in found.items() if over > 0} == {}


def test_dark_is_dark_and_paper_is_white(page):
    def brightness():
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in re.findall(r"\d+", colour)[:3]) / 3

    page.emulate_media(color_scheme="light")
    assert brightness() > 230
    page.emulate_media(color_scheme="dark")
    assert brightness() < 40
    page.emulate_media(color_scheme="dark", media="print")
    assert brightness() == 255
    assert not page.locator("#sorting").is_visible()


# The order of the views, and which run is seen


def test_views_are_sorted_as_chosen(page, english):
    worst = judged(english, "psnr")
    assert names(page) == sorted(english.views, key=worst.__getitem__)
    metric, of = page.locator("#sorting [name=metric]"), page.locator("#sorting [name=run]")
    orders = [names(page)]

    metric.select_option("flip")
    assert names(page) == sorted(english.views, key=lambda view: -judged(english, "flip")[view])
    for one in (FLOOR, *METHODS):
        of.select_option(one)
        orders.append(names(page))
        assert orders[-1] == sorted(english.views, key=lambda view: -english.values("flip", one)[view])
        assert f"Worst first, by ꟻLIP, {one}." == page.locator("#order").text_content()

    metric.select_option("disagreement psnr")
    first, second = (english.values("psnr", method) for method in METHODS)
    orders.append(names(page))
    assert orders[-1] == sorted(english.views, key=lambda view: -abs(first[view] - second[view]))
    assert of.is_disabled()

    metric.select_option("")
    orders.append(names(page))
    assert orders[-1] == sorted(english.views)
    assert page.locator("#order").text_content() == "In the order of their names."
    assert page.locator(".view .rank").all_text_contents() == [str(n + 1) for n in range(len(english.views))]
    assert len({tuple(order) for order in orders}) == len(orders)  # each choice was seen to do something


def test_the_chosen_seed_is_seen(page, english):
    seed = page.locator("#sorting [name=seed]")

    def seen():
        """By view and method, the runs that are seen."""
        return {
            item.locator(".open").text_content(): item.locator(".take:visible").evaluate_all(
                "(takes) => takes.map((take) => take.dataset.run)"
            )
            for item in page.locator(".view").all()
        }

    def worst_of(view, method):
        scored = [run for run in english.runs(method) if run.state == "done"]
        return min(scored, key=lambda run: run.scores["psnr"]["per_item"][view]).id

    for view, runs in seen().items():  # what never succeeded is seen too
        worst = {worst_of(view, method) for method in (FLOOR, *METHODS)}
        assert sorted(runs) == sorted({*worst, "toys-crasher-1"})
    assert (
        len({run for runs in seen().values() for run in runs}) > 4
    )  # not the same run is the worst of every view

    seed.select_option("all")
    assert all(sorted(runs) == sorted(run.id for run in english.data.runs) for runs in seen().values())

    seed.select_option("1")
    wanted = sorted(run.id for run in english.data.runs if run.seed == 1)
    assert len(wanted) == 2
    assert all(sorted(runs) == wanted for runs in seen().values())

    seed.select_option("2")  # the failed run is shown where it is asked for
    assert all("toys-grid-3" in runs for runs in seen().values())


# By keyboard


def test_every_view_is_reached_and_opened_by_keyboard(page):
    order = names(page)
    focused = "document.activeElement.matches('.view .open') ? document.activeElement.textContent : ''"
    presses = 0
    while not page.evaluate(focused):
        page.keyboard.press("Tab")
        presses += 1
        assert presses < 60
    visited = [page.evaluate(focused)]
    for _ in order[1:]:
        page.keyboard.press("j")
        visited.append(page.evaluate(focused))
    assert visited == order
    page.keyboard.press("j")
    assert page.evaluate(focused) == order[-1]  # there is none after the last
    page.keyboard.press("K")
    assert page.evaluate(focused) == order[-2]

    page.keyboard.press("Enter")
    found = state(page)
    assert found["open"] and found["name"] == order[-2]
    through = []
    for _ in order:
        page.keyboard.press("n")
        through.append(state(page)["name"])
    assert through == [order[-1], *order[:-1]]
    page.keyboard.press("p")
    page.keyboard.press("p")
    assert state(page)["name"] == order[-4]
    page.keyboard.press("Escape")
    assert not state(page)["open"]
    assert page.evaluate(focused) == order[-4]  # the view that was seen last


def test_closing_gives_the_focus_back_to_what_opened_the_view(page):
    picture = page.locator(".view .picture:visible").nth(2)
    picture.focus()
    page.keyboard.press("Enter")
    assert state(page)["right"] == picture.get_attribute("data-shows")
    page.keyboard.press("Escape")
    assert picture.evaluate("(link) => link === document.activeElement")


def test_the_slider_of_a_view_lays_the_photo_over_every_rendering(page):
    view = page.locator(".view").first
    view.locator(".slide input").focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    covers = view.locator(".cover")
    clips = covers.evaluate_all("(all) => all.map((cover) => getComputedStyle(cover).clipPath)")
    assert len(clips) == 6  # every finished run's rendering, those of unseen seeds too
    assert set(clips) == {"inset(0px 95% 0px 0px)"}
    photo = view.locator(".picture img").first.get_attribute("src")
    assert set(covers.evaluate_all("(all) => all.map((cover) => cover.getAttribute('src'))")) == {photo}
    page.keyboard.press("ArrowLeft")
    assert covers.first.evaluate("(cover) => getComputedStyle(cover).clipPath") == "inset(0px 96% 0px 0px)"
    assert page.locator(".view").nth(1).locator(".cover").count() == 0


def test_the_slider_of_the_dialog_goes_over_what_is_seen_of_the_picture(page):
    page.set_viewport_size({"width": 1400, "height": 600})
    page.locator(".view .open").first.click()
    slider = page.locator("#large input[type=range]")
    assert slider.evaluate("(input) => input === document.activeElement")

    def cut():
        """Where the left picture ends on the screen, and from where to where the picture is seen."""
        (pane,) = state(page)["panes"]
        clip = page.locator("#large .over").evaluate("(layer) => getComputedStyle(layer).clipPath")
        image = pane["images"][1]
        hidden = eval_length(clip, pane["right"] - pane["left"])
        ends = max(pane["left"], image["left"]), min(pane["right"], image["right"])
        return pane["right"] - hidden, *ends

    def eval_length(clip, width):
        inner = re.search(r"inset\(0px (?:calc\()?(.*?)\)? 0px 0px\)", clip)[1]
        percent = re.search(r"([\d.]+)%", inner)
        pixels = re.search(r"([+-]) ([\d.]+)px", inner) or re.fullmatch(r"()([\d.]+)px", inner)
        of_width = float(percent[1]) / 100 * width if percent else 0.0
        return of_width + (float(pixels[2]) * (-1 if pixels[1] == "-" else 1) if pixels else 0.0)

    fitting = cut()
    assert fitting[2] - fitting[1] < page.viewport_size["width"] - 100  # there is room beside the picture
    for zoom in range(2):
        for key, share in (("Home", 0.0), ("End", 1.0), ("ArrowLeft", 0.99)):
            page.keyboard.press(key)
            at, start, end = cut()
            assert at == pytest.approx(start + share * (end - start), abs=0.6), (zoom, key)
        for _ in range(4):  # now it is wider than the screen
            page.keyboard.press("+")
    at, start, end = cut()
    assert (start, end) == (0, page.viewport_size["width"])


# The dialog, opened from elsewhere


@pytest.mark.parametrize("metric", ["psnr", "ssim", "flip"])
def test_the_worst_point_of_a_plot_opens_its_view_with_its_worst_run(page, english, metric):
    place = ["psnr", "ssim", "flip"].index(metric)
    better = 1 if metric != "flip" else -1
    values = {
        (view, method): better * english.values(metric, method)[view]
        for method in METHODS
        for view in english.views
    }
    view, method = min(values, key=values.__getitem__)
    scored = [run for run in english.runs(method) if run.state == "done"]
    run = min(scored, key=lambda run: better * run.scores[metric]["per_item"][view])
    page.locator(".plot").nth(place).locator(".point.worst circle").first.click()
    found = state(page)
    assert (found["open"], found["name"], found["left"], found["right"]) == (True, view, "photo", run.id)
    page.keyboard.press("Escape")
    page.locator(".plot").nth(place).locator(".point.worst").focus()
    page.keyboard.press("Enter")
    assert state(page)["name"] == view


def test_the_worst_view_of_the_ranking_opens_with_its_run(page, english):
    for row in page.locator(".ranking tbody tr:not(.not-done)").all():
        method = row.locator(".name").text_content()
        scored = [run for run in english.runs(method) if run.state == "done"]
        run = min(scored, key=lambda run: run.scores["psnr"]["min"])
        of_view = run.scores["psnr"]["per_item"]
        row.locator("a[data-view]").click()
        found = state(page)
        assert (found["name"], found["right"]) == (min(of_view, key=of_view.__getitem__), run.id)
        page.keyboard.press("Escape")
        assert row.locator("a[data-view]").evaluate("(link) => link === document.activeElement")


def test_the_dialog_shows_the_pixels_and_the_scores(page, english):
    page.locator(".view .picture:visible").nth(1).click()
    page.wait_for_function(
        "[...document.querySelectorAll('#large img')].every((image) => image.naturalWidth)"
    )
    found = state(page)
    (pane,) = found["panes"]
    under, over = pane["images"]
    assert under["wide"] == over["wide"] == 72
    assert {key: under[key] for key in ("left", "right", "top", "bottom")} == {
        key: over[key] for key in ("left", "right", "top", "bottom")
    }
    run = next(run for run in english.data.runs if run.id == found["right"])
    score = run.scores["psnr"]["per_item"][found["name"]]
    assert f"PSNR {score:.2f} dB" in page.locator("#large .right-score").text_content()
    assert page.locator("#large .left-score").text_content() == "photo"
    drawn = page.locator("#large .under img").evaluate("(image) => getComputedStyle(image).imageRendering")
    assert drawn == "pixelated"


# Zoom


def seen_of(pane):
    """Pixels of the screen to one of the picture; the picture's place, in its own pixels, in the middle of the pane."""
    (image,) = pane["images"]
    scale = (image["right"] - image["left"]) / 72
    middle = (pane["left"] + pane["right"]) / 2, (pane["top"] + pane["bottom"]) / 2
    return scale, (middle[0] - image["left"]) / scale, (middle[1] - image["top"]) / scale


def in_step(page):
    """What :func:`seen_of` is of every pane, after seeing that it is the same of all of them."""
    panes = state(page)["panes"]
    first, *others = [seen_of(pane) for pane in panes]
    assert len(others) == 3
    for other in others:
        assert other == pytest.approx(first, rel=1e-4, abs=0.02)
    return first


def under_pointer(page, index, x, y):
    (image,) = state(page)["panes"][index]["images"]
    scale = (image["right"] - image["left"]) / 72
    return (x - image["left"]) / scale, (y - image["top"]) / scale


@pytest.mark.parametrize("mode", ["all", "errors"])
def test_all_methods_are_zoomed_and_moved_in_step(page, mode):
    page.locator(".view .open").first.click()
    page.locator("#large [name=mode]").select_option(mode)
    shown = [pane["images"][0]["src"] for pane in state(page)["panes"]]
    assert len(shown) == len(set(shown)) == 4
    assert all(("-error" in src) == (mode == "errors") for src in shown[1:]) and "photo" in shown[0]
    fitted = in_step(page)
    assert fitted[1:] == pytest.approx((36, 24), abs=0.01)

    pane = state(page)["panes"][1]
    x, y = pane["left"] + 100, pane["top"] + 60
    page.mouse.move(x, y)
    before = under_pointer(page, 1, x, y)
    factor = state(page)["factor"]
    page.mouse.wheel(0, -150)
    page.wait_for_function("(before) => document.querySelector('#large output').value !== before", arg=factor)
    assert in_step(page)[0] == pytest.approx(fitted[0] * 1.64872, rel=1e-3)
    assert under_pointer(page, 1, x, y) == pytest.approx(before, abs=0.05)  # what is pointed at stays

    page.locator("#large .stage").focus()
    page.keyboard.press("+")
    zoomed = in_step(page)
    assert zoomed[0] == pytest.approx(fitted[0] * 1.64872 * 1.5, rel=1e-3)
    page.keyboard.press("-")
    page.keyboard.press("-")
    assert in_step(page)[0] == pytest.approx(zoomed[0] / 2.25, rel=1e-3)

    start = in_step(page)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 20, y + 12, steps=4)
    page.mouse.up()
    page.mouse.move(x + 90, y + 50)  # the button is up: no more
    moved = in_step(page)
    assert moved[1:] == pytest.approx((start[1] - 20 / start[0], start[2] - 12 / start[0]), abs=0.05)
    page.keyboard.press("ArrowRight")
    assert in_step(page)[1] > moved[1]

    page.locator("#large [name=fit]").click()
    assert in_step(page) == pytest.approx(fitted, rel=1e-3)


def test_a_window_that_changes_keeps_the_picture_fitted(page):
    page.locator(".view .open").first.click()
    for size in ((1400, 1000), (390, 844), (844, 390)):
        page.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
        page.wait_for_function(f"innerWidth === {size[0]}")
        page.evaluate("new Promise(requestAnimationFrame)")
        (pane,) = state(page)["panes"]
        image = pane["images"][0]
        room = pane["right"] - pane["left"], pane["bottom"] - pane["top"]
        took = image["right"] - image["left"], image["bottom"] - image["top"]
        assert all(one <= most + 1 for one, most in zip(took, room, strict=True))
        assert any(one >= most - 1 for one, most in zip(took, room, strict=True))
        assert room[1] > 100


# Other ways to read it


@pytest.mark.parametrize("scheme", ["file", "http"])
def test_without_scripts_everything_can_be_seen(visit, english, scheme):
    page = visit(english.index, scheme, java_script_enabled=False).page
    takes = page.locator(".take")
    assert takes.count() == len(english.views) * len(english.data.runs)
    assert all(take.is_visible() for take in takes.all())
    assert not page.locator("#sorting").is_visible()
    assert not page.locator(".slide").first.is_visible()
    assert not page.locator("#large").is_visible()
    for link in page.locator(".picture").all():
        target = link.get_attribute("href")
        assert target == link.locator("img").get_attribute("src")
        assert (english.index.parent / target).is_file()


@pytest.mark.parametrize("scheme", ["file", "http"])
def test_names_that_are_scripts_stay_text(visit, evil, scheme):
    page = visit(evil.index, scheme).page
    method = evil.data.runs[1].method
    assert page.locator("html").get_attribute("lang") == "ko"
    page.locator("#curves").scroll_into_view_if_needed()
    page.wait_for_function("document.querySelectorAll('.chart .scatterlayer').length === 3")
    assert any("<img src=x" in text for text in page.locator(".chart .legendtext").all_text_contents())
    assert method in page.locator(".point.worst").first.get_attribute("aria-label")
    for choice in ("seed", "run", "metric"):
        for value in values(page, f"#sorting [name={choice}]"):
            page.locator(f"#sorting [name={choice}]").select_option(value)
    page.locator("#sorting [name=metric]").select_option("psnr")
    page.locator("#sorting [name=run]").select_option(method)
    assert method in page.locator("#order").text_content()
    page.locator(".view .open").first.click()
    for mode in ("all", "errors"):
        page.locator("#large [name=mode]").select_option(mode)
        assert any(method in text for text in page.locator("#large figcaption").all_text_contents())
    page.locator("#large [name=mode]").select_option("two")
    for side in ("left", "right"):
        for value in values(page, f"#large [name={side}]"):
            page.locator(f"#large [name={side}]").select_option(value)
    page.locator("#large [name=right]").select_option(evil.data.runs[1].id)
    assert method in page.locator("#large .right-score").text_content()
    for _ in evil.views:
        page.keyboard.press("n")
    assert page.evaluate("window.owned") is None
    assert page.locator("img[src=x]").count() == 0
    assert "<img src=x" in page.locator("body").text_content()


@pytest.mark.parametrize("scheme", ["file", "http"])
def test_one_file_needs_nothing_beside_it(visit, single, scheme):
    seen = visit(single.index, scheme)
    page = seen.page
    load_all(page)
    assert page.evaluate(
        "[...document.querySelectorAll('main img')].every((image) => image.naturalWidth === 72)"
    )
    page.locator(".view .picture:visible").nth(1).click()
    page.wait_for_function(
        "[...document.querySelectorAll('#large img')].every((image) => image.naturalWidth)"
    )
    name = state(page)["name"]
    page.keyboard.press("n")
    assert state(page)["name"] != name
    asked = [unquote(url) for url in seen.requests if not url.startswith("data:")]
    assert [url.rsplit("/", 1)[1] for url in asked] == [single.index.name]
