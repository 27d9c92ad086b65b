"""The tutorial, run from its own text: every command block, in order, as a reader would type it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from turntable.bench import Bench
from turntable.environments.interpreters import candidates
from turntable.errors import TurntableError
from turntable.record import State

PAGE = Path(__file__).parents[1] / "docs" / "own-method.md"


def blocks() -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def can_build(tmp_path: Path) -> None:
    """Its last part asks the package index for a Python 3.11 environment."""
    try:
        next(candidates(tmp_path / "store", "3.11"))
    except TurntableError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"there is no Python 3.11: {error}")


def test_the_tutorial_takes_a_reader_from_nothing_to_a_scored_page(
    tmp_path: Path, turntable_command: list[str], can_build: None
) -> None:
    (programs := tmp_path / "programs").mkdir()
    (programs / "turntable").write_text(f'#!/bin/sh\nexec {" ".join(turntable_command)} "$@"\n')
    (programs / "turntable").chmod(0o755)
    (folder := tmp_path / "empty").mkdir()
    found = blocks()
    assert len(found) == 5
    for block in found:
        answer = subprocess.run(
            ["sh", "-e", "-c", block],
            cwd=folder,
            env={**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert answer.returncode == 0, f"{block}\n{answer.stdout}{answer.stderr}"
    bench = Bench(folder / "bench")
    rows = {row.id: row for row in bench.record.runs()}
    assert {row.state for row in rows.values()} == {State.DONE}
    assert sorted(rows) == ["demo-blend-1", "demo-blend-2", "demo-blend-3", "demo-nearest-1"]
    page = (bench.reports_folder / "demo" / "index.html").read_text()
    assert "demo-blend-3" in page
    for path in (bench.folder / "environments").rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(bench.folder)
