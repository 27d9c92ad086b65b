"""The page shows everything, exactly, safely, and is never seen half made."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from turntable.errors import TurntableError
from turntable.report import page as page_module
from turntable.report.contestants import in_order
from turntable.report.context import memory, seconds, words
from turntable.report.page import build_page

VOID = {"meta", "link", "img", "input", "br", "hr"}
EVIL = "<script>alert(1)</script>"


class Page(HTMLParser):
    """A page's elements; fails on a tag that is not closed, or closed twice."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    @property
    def text(self):
        return " ".join(data for tag, data in self.texts if tag != "script")

    @property
    def inline(self):
        (data,) = [data for tag, data in self.texts if tag == "script" and data.strip()]
        return json.loads(data)


@pytest.fixture
def built(tmp_path, data_of):
    """``built(capture, runs, **changes)``: the page's folder and its parsed index.html."""

    def build(capture, runs, **changes):
        index = build_page(replace(data_of(capture, runs), **changes), tmp_path / "reports" / capture.name)
        return index.parent, Page(index.read_text(encoding="utf-8"))

    return build


@pytest.fixture
def three(capture, run_of):
    return [
        run_of(capture, "nearest", 40.0),
        run_of(capture, "splat", 5.0),
        run_of(capture, "crasher", state="failed"),
    ]


def test_every_held_out_view_of_every_run_is_there_with_its_scores(built, capture, three):
    folder, page = built(capture, three)
    sources = [attrs["src"] for attrs in page.all("img") if "src" in attrs]
    alts = [attrs["alt"] for attrs in page.all("img")]
    for view in capture.held_out:
        assert f"Photo of {view.name}" in alts
        for run in three[:2]:
            assert f"{run.method}’s rendering of {view.name}" in alts
            assert f"ꟻLIP error map of {run.method}’s rendering of {view.name}" in alts
            assert f"{run.scores['psnr']['per_item'][view.name]:.2f} dB" in page.text
    assert page.text.count("No rendering") == len(capture.held_out)  # the run that failed
    assert sorted(sources) == sorted(f"images/{path.name}" for path in (folder / "images").iterdir())


def test_pictures_have_sizes_and_load_when_they_are_seen(built, capture, three):
    _, page = built(capture, three)
    shown = [attrs for attrs in page.all("img") if "src" in attrs]
    assert shown
    assert all((one["width"], one["height"], one["loading"]) == ("24", "16", "lazy") for one in shown)
    assert all(one["alt"] for one in shown)


def test_the_worst_view_comes_first_whatever_the_floor_does(built, capture, three):
    _, page = built(capture, three)
    per_item = three[1].scores["psnr"]["per_item"]
    assert [view["name"] for view in page.inline["views"]] == sorted(
        per_item, key=lambda name: per_item[name]
    )


def test_the_table_lists_all_runs_best_first_and_failures_with_cause_and_log(built, data_of, capture, three):
    _, page = built(capture, three)
    assert [one.method for one in in_order(data_of(capture, three))] == ["splat", "nearest", "crasher"]
    assert "killed by signal 11 (segmentation fault) at step 5" in page.text
    assert "Segmentation fault" in page.text
    assert "failed" in page.text
    summary = three[1].scores
    for value in (summary["psnr"]["mean"], summary["psnr"]["worst"], summary["psnr"]["p10"]):
        assert f"{value:.2f}" in page.text
    for value in (summary["flip"]["mean"], summary["flip"]["worst"], summary["flip"]["p90"]):
        assert f"{value:.3f}" in page.text


def test_only_the_best_of_a_column_is_marked(built, capture, three):
    folder, _ = built(capture, three)
    text = (folder / "index.html").read_text(encoding="utf-8")
    text = text[text.index('id="table"') :]
    row = text[text.index('<th scope="row">') :].split("</tr>")[0]
    assert "splat" in row
    assert text.count('<span class="unseen"> (best)</span>') == 9 == row.count("(best)")


def test_what_was_asked_is_told(built, capture, three):
    capture.document["left_out"] = [{"name": "0099.jpg", "why": "no such file"}]
    capture.document["notes"] = ["A note."]
    capture.document["poses"] = {"reprojection_error_px": 0.6123}
    _, page = built(capture, three)
    for told in (
        "0099.jpg",
        "no such file",
        "1 left out",
        "A note.",
        "reprojection error px",
        "0.6123",
        "turntable compare photos -m splat",
        "a processor, 2 usable cores",
        "24×16",
        "2000steps",
    ):
        assert told in page.text
    for metric in ("−10 log10", "Gaussian", "flip-evaluator"):
        assert metric in page.text


@pytest.mark.parametrize("state", ["done", "failed"])
def test_names_are_text_and_nothing_else(built, capture, run_of, renamed, state):
    evil = renamed(capture, {"0000.jpg": f"a/{EVIL}", "0005.jpg": '"><img src=x onerror=alert(1)>'})
    runs = [run_of(evil, EVIL, 3.0), run_of(evil, "nearest", 9.0, number=2)]
    runs[0] = replace(runs[0], state=state, cause=f"{EVIL} {{{{ 7 * 7 }}}}", log_tail=[f"</pre>{EVIL}"])
    runs[0] = replace(runs[0], settings={EVIL: EVIL}, title=EVIL, license=EVIL)
    folder, page = built(evil, runs, machine={EVIL: EVIL}, command=f"turntable compare {EVIL}")
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert EVIL not in text
    assert EVIL in page.text
    assert [attrs.get("src") for attrs in page.all("script") if "src" in attrs] == ["assets/page.js"]
    assert not any("onerror" in attrs for _, attrs in page.elements)
    assert {view["name"] for view in page.inline["views"]} == {view.name for view in evil.held_out}
    assert all("/" not in path.name and path.suffix == ".webp" for path in (folder / "images").iterdir())


def test_a_paper_is_linked_only_where_its_address_is_one_of_the_web(built, capture, run_of):
    runs = [run_of(capture, name, noise) for name, noise in (("a", 1.0), ("b", 2.0))]
    runs[1] = replace(runs[1], paper={"title": "Trap", "url": "javascript:alert(1)"})
    _, page = built(capture, runs)
    assert [attrs["href"] for attrs in page.all("a") if "://" in attrs["href"]] == [
        "https://example.org/paper"
    ]
    assert not any("javascript:" in attrs["href"] for attrs in page.all("a"))
    assert "Trap" in page.text


def test_nothing_is_loaded_from_elsewhere_and_every_link_leads_somewhere(built, capture, three):
    folder, page = built(capture, three)
    for tag, key in (("img", "src"), ("script", "src"), ("link", "href"), ("a", "href")):
        for attrs in page.all(tag):
            target = attrs.get(key, "")
            if tag == "a" and target.startswith("https://example.org"):
                continue  # a link, followed by nobody but the reader
            assert "//" not in target
            if target.startswith("#"):
                assert any(other.get("id") == target[1:] for _, other in page.elements), target
            elif target and not target.startswith("data:"):
                assert (folder / target).is_file(), target
    css = (folder / "assets" / "page.css").read_text(encoding="utf-8")
    assert not re.search(r"url\(|@import", css)
    script = (folder / "assets" / "page.js").read_text(encoding="utf-8")
    assert not re.search(r"https?:|fetch\(|XMLHttpRequest|import\(", script)


def test_the_same_data_makes_the_same_bytes(built, capture, three):
    def contents(folder):
        return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    first = contents(built(capture, three)[0])
    second = contents(built(capture, three)[0])
    assert first.keys() == second.keys()
    assert [path for path in first if first[path] != second[path]] == []


@pytest.mark.parametrize("states", [[], ["done"], ["failed"], ["queued", "running", "paused"]])
def test_any_set_of_runs_makes_a_page(built, capture, run_of, states):
    runs = [run_of(capture, f"m{number}", 3.0, state) for number, state in enumerate(states)]
    folder, page = built(capture, runs)
    assert "Can’t tell which method did best" in page.text
    assert (folder / "assets" / "plotly.min.js").exists() is ("done" in states)
    assert all(
        f"Photo of {view.name}" in [one["alt"] for one in page.all("img")] for view in capture.held_out
    )


def test_one_held_out_view_makes_a_page(built, capture, run_of):
    for view in capture.document["views"]:
        view["held_out"] = view["name"] == "0003.jpg"
    capture.__dict__.pop("views", None)
    _, page = built(capture, [run_of(capture, "nearest", 9.0), run_of(capture, "splat", 3.0)])
    assert "over 1 held-out view and 1 seed" in page.text or "with 1 held-out view and 1 seed" in page.text


def test_masks_are_told(built, masked_capture, run_of):
    _, page = built(masked_capture, [run_of(masked_capture, "splat", 5.0)])
    assert "2 of 2 held-out views have one" in page.text
    assert "17 % of it" in page.text  # 8 × 16 of 32 × 24 pixels


def test_runs_that_differ_by_their_seed_alone_are_one_contestant(built, capture, run_of):
    runs = [run_of(capture, "splat", 3.0, number=number) for number in (1, 2)]
    runs.append(replace(run_of(capture, "splat", 30.0, number=3), settings={"learning_rate": 0.1}))
    _, page = built(capture, runs)
    shown = {one["label"]: [run["id"] for run in one["runs"]] for one in page.inline["contestants"]}
    assert shown == {
        "splat (learning_rate=0.01)": [runs[0].id, runs[1].id],
        "splat (learning_rate=0.1)": [runs[2].id],
    }


def test_it_replaces_the_page_that_was_there(built, capture, three):
    folder, _ = built(capture, three)
    (folder / "images" / "stale.webp").write_bytes(b"")
    folder, page = built(capture, three[:1])
    assert not (folder / "images" / "stale.webp").exists()
    assert "splat" not in page.text.replace("turntable compare photos -m splat", "")
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_folder_that_is_no_page_is_not_touched(built, capture, three, tmp_path):
    precious = tmp_path / "reports" / capture.name / "thesis.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("years")
    with pytest.raises(TurntableError, match="A page replaces only a page"):
        built(capture, three)
    assert precious.read_text() == "years"


def test_a_build_that_breaks_leaves_the_old_page_whole(built, capture, three, monkeypatch):
    folder, _ = built(capture, three)
    before = (folder / "index.html").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page_module, "write_pictures", full)
    with pytest.raises(TurntableError, match="the disk is full"):
        built(capture, three)
    assert (folder / "index.html").read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_what_a_killed_build_left_is_removed_but_not_what_is_being_written(built, capture, three, tmp_path):
    reports = tmp_path / "reports"
    gone, alive = (reports / f".{capture.name}.{pid}.new" for pid in (2**22 + 1, os.getppid()))
    for folder in (gone, alive):
        folder.mkdir(parents=True)
    built(capture, three)
    assert not gone.exists()
    assert alive.exists()


def test_progress_counts_the_views(data_of, capture, three, tmp_path):
    seen = []
    build_page(data_of(capture, three), tmp_path / "page", lambda done, total: seen.append((done, total)))
    assert seen == [(0, 2), (1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0213, "0.02"), (1.83, "1.8"), (44.04, "44.0"), (118.2, "118"), (12345.6, "12,346")],
)
def test_seconds_have_as_many_digits_as_matter(value, text):
    assert seconds(value) == text


@pytest.mark.parametrize(("value", "text"), [(0, "–"), (300 * 2**20, "300 MiB"), (3 * 2**30, "3.00 GiB")])
def test_memory_is_in_binary_units(value, text):
    assert memory(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "none"),
        (True, "yes"),
        (0.61234, "0.6123"),
        ([1, 2], "1, 2"),
        ({"a_b": 1}, "a b 1"),
        ([], "none"),
    ],
)
def test_documents_become_words(value, text):
    assert words(value) == text
