"""Methods that are programs: their commands' templates, what is refused, and how words are made of them."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import make_method
from turntable.errors import TurntableError
from turntable.methods.spec import CommandRun, Method

TRAIN = "{python} train.py --data {capture} --out {out} --iterations {steps} --lr {settings.rate}"
TOML = """
name = "program"
task = "views"
title = "A program of the tests"
[environment]
kind = "host"
[run]
kind = "command"
train = '''%s'''
%s
[settings.rate]
default = 0.5
help = "how fast"
"""
RENDER = "render = 'python render.py --model {out} --cameras {cameras}'"
VIEWS = "views = '{out}/test/{stem}.png'"


def load(folder: Path, train: str = TRAIN, rest: str = f"{RENDER}\n{VIEWS}") -> Method:
    (folder / "program").mkdir()
    (folder / "program" / "method.toml").write_text(TOML % (train, rest))
    return Method.load(folder / "program")


def values(**changed: Any) -> dict[str, Any]:
    usual = {
        "capture": Path("/c"),
        "out": Path("/o"),
        "cameras": "/c/test.json",
        "steps": 30,
        "seconds": None,
    }
    return {**usual, "seed": 1, "device": "cpu", "python": "/p", "settings": {"rate": 1e-5}, **changed}


def test_a_program_is_read_without_running_it(tmp_path: Path) -> None:
    command = load(tmp_path).command
    assert command == CommandRun(
        TRAIN, "python render.py --model {out} --cameras {cameras}", "{out}/test/{stem}.png"
    )


def test_render_may_be_absent(tmp_path: Path) -> None:
    assert load(tmp_path, rest=VIEWS).command.render is None


def test_a_python_method_has_no_command(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="method colour is no program"):
        _ = Method.load(make_method(tmp_path / "colour")).command


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("", r"run.train must be a text without NUL, not ''"),
        ("'' {out}", r"run.train must begin with a program"),
        ("python {capure}", r"Unknown placeholder of run.train .*'\{capure\}'; known: .*Did you mean '\{capture\}'"),
        ("python {settings.rat}", r"known: .*\{settings.rate\}.* Did you mean '\{settings.rate\}'"),
        ("python {settings}", r"Unknown placeholder of run.train .*'\{settings\}'"),
        ("python {}", r"Unknown placeholder of run.train .*'\{\}'"),
        ("python {name}", r"Unknown placeholder of run.train .*'\{name\}'"),
        ("python {out.parent}", r"Unknown placeholder of run.train .*'\{out.parent\}'"),
        ("python {out[0]}", r"Unknown placeholder of run.train"),
        ("python {out", r"partner for each brace .*not 'python \{out'; known placeholders: \{capture\}"),
        ("python out}", r"partner for each brace"),
        ("python { out }", r"partner for each brace"),
        ("python \"{out}", r"quoted as for a shell \(No closing quotation\), not 'python \"\{out\}'; known"),
        ("python {steps:.1q}", r"give \{steps\} a format that it takes"),
        ("python {out:d}", r"give \{out\} a format that it takes"),
        ("python {seconds:d}", r"give \{seconds\} a format that it takes"),
        ("python {out!r}", r"give \{out\} a format that it takes \(!r isn't known here\)"),
        ("python {steps:{seed}}", r"give \{steps\} a format that it takes"),
    ],
)  # fmt: skip
def test_a_bad_command_is_refused_by_rule_value_and_known_placeholders(
    tmp_path: Path, train: str, message: str
) -> None:
    with pytest.raises(TurntableError, match=message) as caught:
        load(tmp_path, train)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        (RENDER, r"run.views must be a text without NUL, not None"),
        ("views = 3", r"run.views must be a text without NUL, not 3"),
        (f"{VIEWS}\nrender = ''", r"run.render must be a text without NUL, not ''"),
        (f"{VIEWS}\nrender = 'python {{oot}}'", r"Unknown placeholder of run.render .*Did you mean '\{out\}'"),
        (f"{VIEWS}\ntrian = 'x'", r"Unknown key of \[run\] .*'trian'; known: .*Did you mean 'train'"),
        (f"{VIEWS}\nentry = 'a:B'", r"Unknown key of \[run\] .*'entry'"),
        ("views = '{out}/{seed}.png'", r"Unknown placeholder .*'\{seed\}'; known: \{index\}, \{name\}, \{out\}"),
        ("views = '{out}/{stem.png'", r"partner for each brace"),
        ("views = '{out}/{stem:d}.png'", r"give \{stem\} a format that it takes"),
        ("views = 'test/{stem}.png'", r"run.views must begin with \{out\}/ .*not 'test/\{stem\}.png'; known"),
        ("views = '/etc/{stem}.png'", r"run.views must begin with \{out\}/"),
        ("views = '{out}/../{stem}.png'", r"never go up by '\.\.'"),
        ("views = '{out}/test/*.png'", r"tell views apart by \{name\}, \{stem\} or \{index\}"),
        ("views = '{out}/{stem}.JPG'", r"lossy copy is never scored"),
    ],
)  # fmt: skip
def test_bad_views_and_keys_are_refused(tmp_path: Path, rest: str, message: str) -> None:
    with pytest.raises(TurntableError, match=message):
        load(tmp_path, rest=rest)


def test_a_command_becomes_words(tmp_path: Path) -> None:
    command = load(tmp_path).command
    assert command.words(command.train, values()) == [
        *("/p", "train.py", "--data", "/c", "--out", "/o", "--iterations", "30", "--lr", "1e-05")
    ]


def test_formats_quotes_and_doubled_braces_are_as_in_a_shell_and_python() -> None:
    command = CommandRun("a 'b {out}' --n={steps:05d} {{x}} {seconds:.0f} {settings.on} \\\n  end", None, "")
    assert command.words(command.train, values(seconds=90.0, settings={"on": True})) == [
        *("a", "b /o", "--n=00030", "{x}", "90", "True", "end")
    ]


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_a_value_stays_in_its_word_whatever_it_holds(text: str) -> None:
    command = CommandRun("run {settings.x} --o={out} '{settings.x} {out}'", None, "")
    words = command.words(command.train, values(out=Path("/a b"), settings={"x": text}))
    assert words == ["run", text, "--o=/a b", f"{text} /a b"]


def test_a_shells_own_signs_reach_the_program_as_they_are(tmp_path: Path) -> None:
    command = load(tmp_path, "{python} -c 'import sys; print(sys.argv[1:])' {out} $HOME > x; `ls`").command
    words = command.words(command.train, values(python=sys.executable, out="a 'b' \"c\" {steps} $(id)"))
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert said.strip() == str(["a 'b' \"c\" {steps} $(id)", *shlex.split("$HOME > x; `ls`")])


@pytest.mark.parametrize("missing", ["steps", "settings"])
def test_a_placeholder_without_a_value_is_an_error_in_one_line(tmp_path: Path, missing: str) -> None:
    command = load(tmp_path).command
    given_values = values(steps=None) if missing == "steps" else values(settings={})
    with pytest.raises(TurntableError, match=rf"this run has none for \{{{missing}"):
        command.words(command.train, given_values)


@pytest.mark.parametrize(
    ("train", "steps", "seconds"),
    [
        ("p {steps}", True, False),
        ("p {seconds:.0f}", False, True),
        ("p {steps} {seconds}", True, True),
        ("p {out} {{steps}}", True, True),
    ],
)
def test_a_program_takes_the_budgets_that_it_is_told(train: str, steps: bool, seconds: bool) -> None:
    command = CommandRun(train, None, "")
    assert (command.takes("steps") is None, command.takes("seconds") is None) == (steps, seconds)


def test_a_budget_that_is_not_taken_is_explained() -> None:
    assert CommandRun("p {seconds}", None, "").takes("steps") == (
        "A budget in steps needs {steps} in run.train, which has only {seconds}: "
        "give this method one in seconds, such as 90s."
    )
