"""A page as one file has everything inside, and nothing twice."""

from __future__ import annotations

import base64
import re

import pytest

from turntable.report.page import build_page
from turntable.report.single import inlined


@pytest.fixture
def data(capture, run_of, data_of):
    return data_of(capture, [run_of(capture, "nearest", 40.0), run_of(capture, "splat", 5.0)])


@pytest.fixture
def text(data, tmp_path):
    return build_page(data, tmp_path / "page", single_file=True).read_text(encoding="utf-8")


def test_it_lies_beside_the_folder_and_leaves_nothing_else(data, tmp_path):
    reports = tmp_path / "reports"
    written = build_page(data, reports / "page", single_file=True)
    assert written == reports / "page.html"
    assert list(reports.iterdir()) == [written]
    assert build_page(data, reports / "page", single_file=True) == written  # it replaces itself


def test_every_picture_is_inside_once_bit_for_bit(data, text, tmp_path):
    folder = build_page(data, tmp_path / "folder").parent
    inside = [base64.b64decode(found) for found in re.findall(r'src="data:image/webp;base64,([^"]+)"', text)]
    index = (folder / "index.html").read_text(encoding="utf-8")
    assert inside == [(folder / name).read_bytes() for name in re.findall(r'src="(images/[^"]+)"', index)]
    assert len(inside) == len(list((folder / "images").iterdir())) == 10


def test_nothing_is_looked_for_beside_it(text):
    markup = re.sub(r"<script.*?</script>|<style>.*?</style>", "", text, flags=re.DOTALL)
    targets = re.findall(r'(?:src|href)="([^"]*)"', markup)
    assert targets
    assert {
        target for target in targets if not target.startswith(("data:", "#", "https://example.org/"))
    } == set()
    assert "data-chart" not in markup  # charts would need a file; their numbers are in a table


def test_the_script_runs_after_the_page_has_been_read(text):
    assert text.count('<script type="module">') == 1
    assert "src=" not in re.search(r'<script type="module"[^>]*>', text)[0]


def test_a_page_without_its_script_is_refused(tmp_path):
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "page.css").write_text("")
    (tmp_path / "assets" / "page.js").write_text("")
    (tmp_path / "index.html").write_text('<link rel="stylesheet" href="assets/page.css">')
    with pytest.raises(ValueError, match="the page lacks <script"):
        inlined(tmp_path)
