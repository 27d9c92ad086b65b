"""The format of published facts: what is read, and what is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import make_method
from turntable.errors import TurntableError
from turntable.methods.facts import read_facts
from turntable.methods.spec import Method

GOOD = """
[[published]]
capture = "nerf_synthetic/lego"
psnr = 35.78
protocol = "200 test views, white background, 8-bit"
source = "a paper"
"""


def with_facts(tmp_path: Path, text: str) -> Method:
    folder = make_method(tmp_path / "colour")
    (folder / "method.toml").write_text((folder / "method.toml").read_text() + text)
    return Method.load(folder)


def test_a_method_may_give_one_number_with_its_protocol_in_words(tmp_path: Path) -> None:
    method = with_facts(tmp_path, GOOD)
    (fact,) = method.facts
    assert (fact.dataset, fact.scene, fact.method, fact.metric, fact.value) == (
        "nerf_synthetic",
        "lego",
        "colour",
        "psnr",
        35.78,
    )
    assert fact.protocol.text.startswith("200 test views") and fact.protocol.background is None
    json.dumps([fact.to_json(), *method.published])


def test_a_method_may_give_a_table_by_scene(tmp_path: Path) -> None:
    text = GOOD.replace('capture = "nerf_synthetic/lego"', 'dataset = "mine"').replace(
        "35.78", "{ a = 1, b = 2.5 }"
    )
    text = text.replace(
        '"200 test views, white background, 8-bit"', '{ views = 9, size = [4, 3], scenes = ["a", "b"] }'
    )
    facts = with_facts(tmp_path, text).facts
    assert [(fact.scene, fact.value) for fact in facts] == [("a", 1.0), ("b", 2.5)]
    assert facts[0].protocol.size == (4, 3) and facts[0].protocol.scenes == ("a", "b")
    assert facts[0].to_json()["protocol"] == {
        "views": 9,
        "size": [4, 3],
        "scenes": ["a", "b"],
        "scene_count": 2,
    }


def test_a_method_may_say_which_published_one_it_implements(tmp_path: Path) -> None:
    method = with_facts(tmp_path, '[[reproduces]]\nmethod = "3DGS"\nsettings = { mode = "plain" }\n')
    assert [(entry.method, dict(entry.settings)) for entry in method.reproduces] == [
        ("3DGS", {"mode": "plain"})
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("35.78", '"35.78"', "psnr must be a finite number, not '35.78'"),
        ("35.78", "nan", "psnr must be a finite number, not nan"),
        ("35.78", "true", "psnr must be a finite number, not True"),
        ("35.78", "{ lego = 1 }", "psnr must be a finite number, not {'lego': 1}"),
        ("psnr = 35.78", "", "needs a number for one of psnr, ssim"),
        ("psnr", "pnsr", "Unknown key of published entry 1 .* Did you mean 'psnr'"),
        ('"nerf_synthetic/lego"', '"lego"', "capture must be 'dataset/scene', not 'lego'"),
        ('capture = "nerf_synthetic/lego"', 'dataset = "d"', "psnr must be a table of numbers by scene"),
        ('capture = "nerf_synthetic/lego"', "", "needs either dataset, or capture .* it has neither"),
        ('source = "a paper"', "", "source must be a text, not None"),
        ('source = "a paper"', 'source = "p"\nchecked = 1', "checked must be true or false, not 1"),
        ('source = "a paper"', 'source = "p"\ncost = { hours = 3 }', "Unknown key of cost"),
        ('"200 test views, white background, 8-bit"', "3", "protocol must be a table or a text, not 3"),
        ('"200 test views, white background, 8-bit"', '{ background = "wite" }', "Did you mean 'white'"),
        ('"200 test views, white background, 8-bit"', "{ view = 200 }", "Did you mean 'views'"),
        (
            '"200 test views, white background, 8-bit"',
            "{ views = 0 }",
            "views must be a whole number of at least 1",
        ),
        ('"200 test views, white background, 8-bit"', "{ size = 800 }", r"size must be \[width, height\]"),
        ('"200 test views, white background, 8-bit"', "{ scenes = [1] }", "scenes must be a list of texts"),
        ("[[published]]", "[[reproduces]]", "Unknown key of reproduces entry 1"),
        ("[[published]]", "[published]", "must be a list of tables"),
    ],
)
def test_a_broken_rule_is_one_line_with_the_value(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(TurntableError, match=message) as caught:
        with_facts(tmp_path, GOOD.replace(old, new))
    assert "\n" not in str(caught.value) and "method.toml" in str(caught.value)


def test_a_file_of_facts_holds_to_its_scenes(tmp_path: Path) -> None:
    path = tmp_path / "d.toml"
    entry = '[[published]]\ndataset = "d"\nmethod = "m"\npsnr = { b = 1 }\nsource = "s"\n'
    path.write_text('dataset = "d"\ntitle = "D"\nscenes = ["a"]\n' + entry)
    with pytest.raises(TurntableError, match=r"Unknown scene in .*d.toml: 'b'; known: a, mean"):
        read_facts(path)
    path.write_text('dataset = "d"\ntitle = "D"\nscenes = ["b"]\n' + entry.replace('method = "m"\n', ""))
    with pytest.raises(TurntableError, match="method must be a text, not None"):
        read_facts(path)
    path.write_text('dataset = "e"\ntitle = "D"\nscenes = ["b"]\n' + entry)
    with pytest.raises(TurntableError, match="every fact must be on its dataset 'e', not on 'd'"):
        read_facts(path)
