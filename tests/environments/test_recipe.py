"""Recipes: read without running anything, and named by a hash of all that they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from turntable.environments.recipe import read_recipe
from turntable.environments.wheels import Wanted, parse_requirements
from turntable.errors import TurntableError
from turntable.settings import BENCH_TOML, Settings, read_settings

PROJECT = '[project]\nname = "m"\nversion = "0"\nrequires-python = "==3.10.*"\n'
LOCK = """
version = 1
requires-python = "==3.10.*"

[[package]]
name = "m"
version = "0"
source = { virtual = "." }

[[package]]
name = "six"
version = "1.16.0"
source = { registry = "https://pypi.org/simple" }
sdist = { url = "https://example.org/six-1.16.0.tar.gz", hash = "sha256:aa" }
wheels = [{ url = "https://example.org/six-1.16.0-py2.py3-none-any.whl", hash = "sha256:bb" }]

[[package]]
name = "only-source"
version = "2"
source = { git = "https://example.org/r?rev=main#0123" }
"""


def write(folder: Path, project: str = PROJECT, lock: str | None = LOCK) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "pyproject.toml").write_text(project)
    if lock is not None:
        (folder / "uv.lock").write_text(lock)
    return folder


def test_a_recipe_is_read(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path / "m"))
    assert recipe.python == "3.10"
    six, source = recipe.packages
    assert (six.name, six.version, six.sha256s) == ("six", "1.16.0", ("bb", "aa"))
    assert six.wheels == ("six-1.16.0-py2.py3-none-any.whl",)
    assert source.wheels == () and source.git.endswith("#0123")


def test_its_hash_is_the_same_wherever_it_lies_and_another_when_anything_changes(tmp_path: Path) -> None:
    first = read_recipe(write(tmp_path / "a")).hash
    assert read_recipe(write(tmp_path / "b")).hash == first and len(first) == 16
    others = {
        read_recipe(write(tmp_path / "c", project=PROJECT + "# changed\n")).hash,
        read_recipe(write(tmp_path / "d", lock=LOCK.replace("aa", "ab"))).hash,
        read_recipe(tmp_path / "a", replaced=["six==1.15"]).hash,
    }
    others.add(read_recipe(tmp_path / "a", without=["si*"]).hash)
    assert len(others | {first}) == 5
    assert read_recipe(tmp_path / "a", without=["nvidia-*"]).hash == first, "it has nothing of them"
    assert read_recipe(tmp_path / "a", replaced=["torch==2"]).hash == first, "it has no torch to replace"


@pytest.mark.parametrize(
    ("project", "lock", "message"),
    [
        (PROJECT.replace("==3.10.*", ">=3.10"), LOCK, "must name one Python, such as '==3.10.*', not '>=3.10'"),
        ("nonsense", LOCK, "is not valid TOML"),
        (PROJECT, None, "has no uv.lock yet. turntable env lock"),
        (PROJECT, "version = 9", "only locks of uv's version 1"),
        (PROJECT, LOCK.replace('"sha256:aa"', '"md5:aa"'), "has a file without a sha256"),
        (PROJECT, LOCK.replace('registry = "https://pypi.org/simple"', 'path = "../six"'), "a folder of one machine"),
    ],
)  # fmt: skip
def test_what_is_no_recipe_is_refused(tmp_path: Path, project: str, lock: str | None, message: str) -> None:
    with pytest.raises(TurntableError) as caught:
        read_recipe(write(tmp_path / "m", project, lock))
    assert message in str(caught.value)


def test_requirements_of_other_machines_are_left_out() -> None:
    text = (
        "numpy==1.26.4 ; sys_platform != 'nowhere' \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
        "pywin32==1 ; sys_platform == 'nowhere' \\\n    --hash=sha256:cc\n"
        "one @ git+https://example.org/r@0123#subdirectory=a/b\n"
        "old==1 ; python_full_version < '3.10.5'\n"
    )
    assert parse_requirements(text, "3.10.13") == [
        Wanted("numpy==1.26.4", ("aa", "bb")),
        Wanted("one @ git+https://example.org/r@0123#subdirectory=a/b", ()),
    ]


def test_settings_of_a_bench(tmp_path: Path) -> None:
    path = tmp_path / "bench.toml"
    assert read_settings(path) == Settings()
    path.write_text(BENCH_TOML)
    assert read_settings(path) == Settings()
    path.write_text(f'format = 1\n[environments]\nreplace = ["torch==2"]\n[sandbox]\nread = ["{tmp_path}"]\n')
    assert read_settings(path) == Settings(replace=("torch==2",), read=(tmp_path,))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[environment]\n", "Unknown key in"),
        ("[environments]\nreplaced = []\n", "Unknown key of [environments]"),
        ('[environments]\nreplace = "torch"\n', "must be a list of texts"),
        ('[sandbox]\nread = ["here"]\n', "names whole paths"),
        ("[", "is not valid TOML"),
    ],
)
def test_a_wrong_setting_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bench.toml"
    path.write_text(text)
    with pytest.raises(TurntableError) as caught:
        read_settings(path)
    assert message in str(caught.value) and "\n" not in str(caught.value)
