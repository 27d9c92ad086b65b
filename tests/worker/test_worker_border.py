"""What keeps the worker apart: Python 3.8's grammar, NumPy alone, nothing of the rest of Turntable."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import turntable

SOURCE = Path(turntable.__file__).parent
MODULES = sorted((SOURCE / "worker").glob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_worker_modules_are_python_3_8_and_import_nothing_but_numpy(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 8))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported = [alias.name.partition(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level <= 1, f"{path.name} imports from outside of the worker"
            imported = [] if node.level else [(node.module or "").partition(".")[0]]
        else:
            continue
        assert set(imported) <= sys.stdlib_module_names | {"numpy"}, f"{path.name} imports {imported}"


def test_everything_else_works_without_the_folder_of_a_built_in_method(tmp_path: Path) -> None:
    shutil.copytree(SOURCE, tmp_path / "turntable", ignore=shutil.ignore_patterns("splat", "__pycache__"))
    code = "import sys; sys.argv[0] = 'turntable'; from turntable.__main__ import main; main()"

    def run(*arguments: str) -> str:
        command = [sys.executable, "-c", code, *arguments, "--bench", str(tmp_path / "bench")]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    names = set(run("method", "list").split())
    assert "nearest" in names and "splat" not in names
    assert "poses" in run("doctor")
