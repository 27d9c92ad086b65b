"""The documents tell the truth about the program."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import typer

ROOT = Path(__file__).resolve().parents[1]


def generated() -> str:
    spec = importlib.util.spec_from_file_location("generate_commands", ROOT / "docs" / "generate_commands.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.page()


def words(text: str) -> list[str]:
    """The words alone: versions of Typer differ in how they break and box lines."""
    return re.findall(r"[A-Za-z][\w-]+", text)


def test_the_page_of_commands_is_what_the_program_says() -> None:
    if tuple(map(int, typer.__version__.split(".")[:2])) < (0, 29):
        pytest.skip(
            f"docs/commands.md is made with Typer 0.29 or later, whose help is laid out otherwise than {typer.__version__}'s"
        )
    written = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert words(written) == words(generated()), "run python docs/generate_commands.py"


def test_every_link_between_documents_leads_somewhere() -> None:
    for document in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_the_readmes_commands_are_commands() -> None:
    from turntable.cli._app import app

    verbs = {
        command.name or command.callback.__name__ for command in app.registered_commands if command.callback
    }
    verbs |= {str(group.name) for group in app.registered_groups}
    text = "\n".join(
        re.findall(r"```(?:sh|console)\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    )
    used = set(re.findall(r"\bturntable ([a-z]+)", text))
    assert used and used <= verbs
