"""The page in a real browser: Chromium, headless, from ``file://``, driven by a script beside the page."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape

import pytest

from turntable.report.page import build_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (CI installs it)")

PROBE = """
window.addEventListener("load", () => setTimeout(() => {
  const found = {};
  try { (%s)(found); } catch (error) { found.error = String(error.stack); }
  const out = document.createElement("pre");
  out.id = "probe";
  out.textContent = JSON.stringify(found);
  document.body.append(out);
}, 300));
"""

FILES_ONLY = (
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; script-src file:; '
    "img-src file: data: blob:; style-src file: 'unsafe-inline'\">"
)
"""Makes Chromium refuse, and say on the console, whatever would be loaded from anywhere but files."""


@pytest.fixture
def browse(tmp_path, data_of):
    """``browse(capture, runs, script)``: what ``script`` noted of the page, and what the console said."""

    def visit(capture, runs, script, *flags, extra=""):
        index = build_page(data_of(capture, runs), tmp_path / "reports" / capture.name)
        (index.parent / "probe.js").write_text(PROBE % script)
        probed = index.with_name("probed.html")
        text = index.read_text(encoding="utf-8").replace("<head>", f"<head>{FILES_ONLY}", 1)
        text = text.replace("</body>", f'{extra}<script src="probe.js"></script></body>')
        probed.write_text(text, encoding="utf-8")
        command = [
            str(CHROMIUM),
            "--headless",
            "--no-sandbox",
            "--disable-quic",
            "--disable-background-networking",
            "--disable-gpu",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--window-size=1400,1000",
            "--virtual-time-budget=8000",
            "--enable-logging=stderr",
            *flags,
            "--dump-dom",
            probed.as_uri(),
        ]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        console = [line for line in answer.stderr.splitlines() if "CONSOLE" in line]
        noted = re.search(r'<pre id="probe">(.*?)</pre>', answer.stdout, re.DOTALL)
        assert noted, answer.stderr[-2000:]
        return json.loads(unescape(noted[1])), console

    return visit


@pytest.fixture
def two(capture, run_of):
    return [run_of(capture, "nearest", 40.0), run_of(capture, "splat", 5.0)]


def test_it_opens_from_a_file_without_an_error(browse, capture, two):
    found, console = browse(
        capture,
        two,
        """(found) => {
          const loaded = [...document.images].filter((one) => one.src && one.complete);
          found.broken = loaded.filter((one) => !one.naturalWidth).length;
          found.shown = [...document.images].filter((one) => one.naturalWidth === 24).length;
          found.charts = document.querySelectorAll(".chart .main-svg .scatterlayer .trace").length;
          found.wide = document.documentElement.scrollWidth > window.innerWidth;
        }""",
    )
    assert console == []
    assert "error" not in found
    assert found["broken"] == 0
    assert found["shown"] > 0
    assert found["charts"] == 6
    assert not found["wide"]


@pytest.mark.parametrize("extra", ["", '<img src="http://elsewhere.example/pixel.png" alt="">'])
def test_it_asks_for_nothing_but_files(browse, capture, two, extra):
    script = "(found) => { document.querySelector('.picture').click(); }"
    found, console = browse(capture, two, script, extra=extra)
    assert "error" not in found
    assert ["elsewhere.example" in line for line in console] == [True] * bool(extra)  # a request is noticed


def test_on_a_phone_nothing_is_wider_than_the_screen(browse, capture, two):
    found, console = browse(
        capture,
        two,
        """(found) => {
          found.page = document.documentElement.scrollWidth;
          found.screen = window.innerWidth;
        }""",
        "--window-size=500,900",  # the narrowest window that Chromium makes
    )
    assert console == []
    assert found["page"] <= found["screen"] <= 500


def test_views_are_sorted_as_chosen(browse, capture, two):
    found, console = browse(
        capture,
        two,
        """(found) => {
          const form = document.getElementById("sorting");
          const heads = () => [...document.querySelectorAll(".view h3")];
          const names = () => heads().map((one) => one.lastChild.textContent.trim());
          const choose = (metric, run) => {
            form.elements.metric.value = metric; form.elements.run.value = run;
            form.dispatchEvent(new Event("change")); return names();
          };
          found.start = names();
          found.floor = choose("flip", "toys-nearest-1");
          found.splat = choose("psnr", "toys-splat-1");
          found.name = choose("", "");
          found.said = document.getElementById("order").textContent;
        }""",
    )
    assert console == [] and "error" not in found
    per_item = {run.method: run.scores for run in two}
    splat, floor = per_item["splat"]["psnr"]["per_item"], per_item["nearest"]["flip"]["per_item"]
    assert found["start"] == found["splat"] == sorted(splat, key=lambda name: splat[name])
    assert found["floor"] == sorted(floor, key=lambda name: -floor[name])
    assert found["name"] == sorted(splat)
    assert found["said"] == "In the order of their names."


def test_the_slider_lays_the_photo_over_every_rendering(browse, capture, two):
    found, console = browse(
        capture,
        two,
        """(found) => {
          const view = document.querySelector(".view");
          const slider = view.querySelector("input[type=range]");
          found.focusable = (slider.focus(), document.activeElement === slider);
          slider.value = 40; slider.dispatchEvent(new Event("input"));
          const covers = [...view.querySelectorAll(".cover")];
          found.clips = covers.map((one) => getComputedStyle(one).clipPath);
          found.sources = covers.map((one) => one.getAttribute("src"));
          found.photo = view.querySelector(".picture img").getAttribute("src");
        }""",
    )
    assert console == [] and "error" not in found
    assert found["focusable"]
    assert found["sources"] == [found["photo"]] * 2
    assert all("60%" in clip for clip in found["clips"])


def test_a_click_shows_the_pixels(browse, capture, two):
    found, console = browse(
        capture,
        two,
        """(found) => {
          document.querySelectorAll(".picture")[1].click();
          const dialog = document.getElementById("large");
          const under = dialog.querySelector(".under");
          found.open = dialog.open;
          found.rendering = getComputedStyle(under).imageRendering;
          found.width = parseFloat(under.style.width) * devicePixelRatio;
          found.scores = dialog.querySelector(".right-score").textContent;
          const first = document.getElementById("large-name").textContent;
          dialog.querySelector("[name=next]").click();
          found.moved = document.getElementById("large-name").textContent !== first;
        }""",
    )
    assert console == [] and "error" not in found
    assert found["open"] and found["moved"]
    assert found["rendering"] == "pixelated"
    assert found["width"] == 24 * 8
    assert found["scores"].startswith("splat · PSNR ")


def test_a_name_that_is_a_script_stays_text(browse, capture, run_of, renamed):
    evil = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    awkward = renamed(capture, {"0000.jpg": evil})
    runs = [run_of(awkward, evil, 3.0), run_of(awkward, "nearest", 9.0)]
    found, console = browse(
        awkward,
        runs,
        """(found) => {
          found.title = document.title;
          found.shown = document.body.textContent.includes("<img src=x onerror");
          found.legend = [...document.querySelectorAll(".legendtext")].map((one) => one.textContent);
        }""",
    )
    assert console == [] and "error" not in found
    assert found["title"] != "owned"
    assert found["shown"]
    assert any("<script>" in text for text in found["legend"])
