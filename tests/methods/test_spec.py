"""``method.toml``: what is read, what is refused, and that nothing runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import make_method
from turntable.errors import TurntableError
from turntable.methods.registry import find_methods, get_method
from turntable.methods.spec import Method


def test_built_in_methods_are_found_without_running_them() -> None:
    methods = find_methods()
    assert {"nearest", "splat"} <= set(methods)
    assert all(method.task == "views" for method in methods.values())
    assert {name: method.environment["kind"] for name, method in methods.items()}.items() >= {
        ("nearest", "host"),
        ("splat", "host"),
        *((name, "uv") for name in ("fusion", "gsplat", "nerfacto", "poisson")),
    }


def test_an_unknown_method_lists_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(
        TurntableError, match=r"Unknown method 'splatt'; known: .*nearest, .*splat.* Did you mean 'splat'"
    ):
        get_method("splatt")


def test_the_benchs_own_method_stands_before_a_built_in_one(tmp_path: Path) -> None:
    make_method(tmp_path / "splat")
    assert get_method("splat", tmp_path).origin == "bench"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "colour"', 'name = "other"', "name must be the folder's name 'colour', not 'other'"),
        ('task = "views"', 'task = "viewz"', "Unknown task .* Did you mean 'views'"),
        ('kind = "host"', 'kind = "hots"', "Unknown environment kind"),
        ('entry = "method:Method"', 'entry = "method"', "run.entry must be 'module:Class', not 'method'"),
        ('help = "how much"', "", "settings.amount needs a default and a help text"),
        ("min = 0.0", "minn = 0.0", "takes default, help, min, max and choices, not minn"),
        ("min = 0.0", "min = 2.0", "Setting amount is at least 2, not 1.0"),
        ("default = 1.0", "default = [1]", "must be a number, text or true/false"),
        ("[settings.amount]", "[settings", "is not valid TOML"),
    ],
)
def test_a_broken_rule_is_named_with_the_value(tmp_path: Path, old: str, new: str, message: str) -> None:
    folder = make_method(tmp_path / "colour")
    text = (folder / "method.toml").read_text()
    assert old in text
    (folder / "method.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(TurntableError, match=message):
        Method.load(folder)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"amount": "much"}, "Setting amount takes a number, not 'much'"),
        ({"amount": "-1"}, "Setting amount is at least 0, not -1.0"),
        ({"amount": "nan"}, "finite"),
        ({"amuont": "1"}, "Unknown setting .* Did you mean 'amount'"),
    ],
)
def test_settings_are_checked(tmp_path: Path, given: dict[str, str], message: str) -> None:
    method = Method.load(make_method(tmp_path / "colour"))
    with pytest.raises(TurntableError, match=message):
        method.configure(given)


def test_given_settings_stand_in_for_defaults(tmp_path: Path) -> None:
    method = Method.load(make_method(tmp_path / "colour"))
    assert method.configure({"amount": "2"}) == {"amount": 2.0, "mode": "plain"}


def test_the_fingerprint_is_of_the_sources_alone(tmp_path: Path) -> None:
    folder = make_method(tmp_path / "colour")
    before = Method.load(folder).fingerprint()
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "method.pyc").write_bytes(b"x")
    (folder / "kernel.so").write_bytes(b"x")
    assert Method.load(folder).fingerprint() == before
    (folder / "kernel.c").write_text("int x;")
    assert Method.load(folder).fingerprint() != before
