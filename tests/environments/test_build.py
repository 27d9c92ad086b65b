"""Environments that are really built: from the package index once, and from the store ever after.

They need an index of packages; where none is reached they are skipped, but not in CI, which promises one.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import METHOD_CODE, METHOD_TOML, environments_built, make_capture
from turntable import moving
from turntable.bench import Bench
from turntable.environments import build, environments_of, lock, place_of, recipe_of, recipes_of, remove
from turntable.environments.environment import Environment, Environments
from turntable.environments.interpreters import candidates
from turntable.environments.recipe import read_recipe
from turntable.errors import TurntableError
from turntable.jobs import RunRequest, plan, work
from turntable.record import State
from turntable.run import Budget, RunFolder
from turntable.turns.watcher import Watcher

pytestmark = pytest.mark.xdist_group("build")  # what was built is built once

OLD, NEW = "3.8", "3.11"


def make_method_of_its_own(folder: Path, python: str, *packages: str) -> Path:
    folder.mkdir(parents=True)
    toml = METHOD_TOML.format(name=folder.name).replace('kind = "host"', 'kind = "uv"')
    (folder / "method.toml").write_text(toml)
    (folder / "method.py").write_text(METHOD_CODE)
    listed = ", ".join(f'"{package}"' for package in packages)
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "{folder.name}"\nversion = "0"\nrequires-python = "=={python}.*"\ndependencies = [{listed}]\n'
    )
    return folder


def quiet(text: str) -> None:
    """Nobody is told."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A bench with two methods whose environments nothing can hold together: two Pythons, two NumPys."""
    bench = Bench(tmp_path_factory.mktemp("built") / "bench")
    bench.make()
    make_capture(bench.captures_folder / "small")
    make_method_of_its_own(bench.methods_folder / "old", OLD, "numpy==1.24.4", "docopt==0.6.2")
    make_method_of_its_own(bench.methods_folder / "new", NEW, "numpy==2.2.6", "six==1.17.0")
    with environments_built(bench, "old", "new"):
        yield bench


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """What uv and pip are told where there is none."""
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)


def environment_of(bench: Bench, name: str) -> Environment:
    found = environments_of(bench).find(recipe_of(bench, bench.method(name)))
    assert found is not None
    return found


def answer(bench: Bench, *methods: str) -> list[RunFolder]:
    wanted = RunRequest(methods, Budget(steps=8))
    folders = plan(bench, bench.capture("small"), wanted)
    assert [row.state for row in work(bench, folders, wanted.handling, Watcher())] == [State.DONE] * len(
        folders
    )
    return folders


def values(bench: Bench, run: RunFolder) -> dict[tuple[float, str, str], float]:
    return {(score.mark, score.metric, score.item): score.value for score in bench.record.scores(run.id)}


def test_methods_that_no_environment_could_hold_together_are_compared(built: Bench) -> None:
    old, new = answer(built, "old", "new")
    hellos = [next(e for e in folder.events() if e["type"] == "hello") for folder in (old, new)]
    assert hellos[0]["python"].startswith("3.8.") and hellos[0]["numpy"] == "1.24.4"
    assert hellos[1]["python"].startswith("3.11.") and hellos[1]["numpy"] == "2.2.6"
    assert old.asked().versions["environment"] == environment_of(built, "old").hash
    assert built.record.scores(old.id) and built.record.scores(new.id)


def test_an_environment_is_read_only_and_on_a_python_of_the_benchs_own(built: Bench) -> None:
    environment = environment_of(built, "new")
    for path in environment.folder.rglob("*"):
        assert path.is_symlink() or not stat.S_IMODE(path.stat().st_mode) & 0o222, path
    code = "import sys, numpy; print(sys.base_prefix, numpy.__file__)"
    answer_ = subprocess.run([environment.python, "-c", code], capture_output=True, text=True, check=True)
    prefix, numpy = answer_.stdout.split()
    assert Path(prefix).is_relative_to(built.folder / "store") and Path(numpy).is_relative_to(
        environment.folder
    )


def test_environments_share_their_files(built: Bench) -> None:
    make_method_of_its_own(built.methods_folder / "twin", NEW, "numpy==2.2.6")
    lock(built, built.method("twin"), quiet)
    twin = build(built, built.method("twin"), quiet)
    file = "lib/python3.11/site-packages/numpy/__init__.py"
    assert (twin.venv / file).samefile(environment_of(built, "new").venv / file)
    assert twin.hash != environment_of(built, "new").hash
    shutil.rmtree(built.methods_folder / "twin")
    environments_of(built).prune(lambda: recipes_of(built))
    assert {one.hash for one in environments_of(built).all()} == {
        environment_of(built, n).hash for n in ("old", "new")
    }
    assert (environment_of(built, "new").venv / file).is_file()


MAC_ONLY = """
version = 1
requires-python = "==3.11.*"

[[package]]
name = "m"
version = "0"
source = { virtual = "." }
dependencies = [{ name = "lib" }]

[[package]]
name = "lib"
version = "1"
source = { registry = "https://pypi.org/simple" }
sdist = { url = "https://files.pythonhosted.org/lib-1.tar.gz", hash = "sha256:SOURCE" }
wheels = [{ url = "https://files.pythonhosted.org/lib-1-cp311-cp311-win32.whl", hash = "sha256:WHEEL" }]
""".replace("SOURCE", "a" * 64).replace("WHEEL", "b" * 64)


def test_wheels_for_other_machines_alone_are_a_source_which_a_comparison_does_not_build(
    tmp_path: Path,
) -> None:
    """As pyliblzfse has, which nerfstudio needs: counted as having wheels, it was built without having been allowed."""
    try:
        next(candidates(tmp_path / "store", NEW))
    except TurntableError as error:
        pytest.skip(f"needs a Python {NEW}: {error}")
    (folder := tmp_path / "m").mkdir()
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "m"\nversion = "0"\nrequires-python = "=={NEW}.*"\ndependencies = ["lib"]\n'
    )
    (folder / "uv.lock").write_text(MAC_ONLY)
    with pytest.raises(TurntableError, match="lib must be built from source"):
        Environments(tmp_path / "bench").build(read_recipe(folder), quiet, from_sources=False)


def test_what_has_only_a_source_is_built_once_and_noted(built: Bench) -> None:
    packages = {package["name"]: package for package in environment_of(built, "old").document["packages"]}
    assert packages["docopt"]["built_from"] == "docopt==0.6.2" and packages["numpy"]["built_from"] == ""


def test_two_builders_of_one_recipe_wait_for_each_other(built: Bench, no_network: None) -> None:
    environments_of(built).remove(environment_of(built, "new").hash)
    said: list[str] = []
    results: list[Environment] = []
    threads = [
        threading.Thread(target=lambda: results.append(build(built, built.method("new"), said.append)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({result.hash for result in results}) == 1 and len(results) == 3
    assert sum("installing" in text for text in said) == 1, said


def test_an_environment_is_not_removed_while_a_run_may_live_in_it(built: Bench) -> None:
    hash = environment_of(built, "new").hash
    wanted = RunRequest(("new",), Budget(steps=9))
    (queued,) = plan(built, built.capture("small"), wanted)
    with pytest.raises(TurntableError, match=f"{queued.id} is queued, and lives in environment {hash}"):
        remove(built, hash)
    work(built, [queued], wanted.handling, Watcher())
    remove(built, hash)
    build(built, built.method("new"), quiet)


def test_a_killed_builder_leaves_nothing_in_the_way(built: Bench, no_network: None) -> None:
    hash = environment_of(built, "new").hash
    environments_of(built).remove(hash)
    (half := environments_of(built).folder / f".{hash}.tmp" / "venv").mkdir(parents=True)
    (half / "rubbish").write_text("half")
    build(built, built.method("new"), quiet)
    assert not half.exists() and environment_of(built, "new").hash == hash


def test_a_build_that_fails_leaves_a_log_and_nothing_else(built: Bench) -> None:
    method = make_method_of_its_own(built.methods_folder / "wrong", NEW, "six==1.16.0")
    lock(built, built.method("wrong"), quiet)
    text = (method / "uv.lock").read_text()
    for package in recipe_of(built, built.method("wrong")).packages:
        for sha256 in package.sha256s:
            text = text.replace(sha256, "0" * 64)
    (method / "uv.lock").write_text(text)
    before = {
        path.name for path in environments_of(built).folder.iterdir() if not path.name.endswith(".lock")
    }
    try:
        with pytest.raises(TurntableError, match="The environment of wrong can't be built") as caught:
            build(built, built.method("wrong"), quiet)
        assert "\n" not in str(caught.value)
        after = {
            path.name for path in environments_of(built).folder.iterdir() if not path.name.endswith(".lock")
        }
        (log,) = after - before
        assert "hash" in (environments_of(built).folder / log).read_text().lower()
        (environments_of(built).folder / log).unlink()
    finally:
        shutil.rmtree(method)


def test_a_bench_that_was_moved_works_where_it_is(built: Bench, no_network: None) -> None:
    moved = Bench(built.folder.with_name("moved"))
    hash = environment_of(built, "new").hash
    built.record.close()
    del built.record
    built.folder.rename(moved.folder)
    try:
        assert environment_of(moved, "new").hash == hash
        place = place_of(moved, moved.method("new"), True, quiet)
        code = "import numpy, sys; print(sys.base_prefix)"
        said = subprocess.run([place.python, "-c", code], capture_output=True, text=True, check=True).stdout
        assert said.startswith(str(moved.folder))
    finally:
        moved.folder.rename(built.folder)


def test_a_packed_bench_has_the_same_environments_without_a_network(
    built: Bench, no_network: None, tmp_path: Path
) -> None:
    before = [values(built, run) for run in answer(built, "old", "new")]
    moving.pack(built, tmp_path / "p.tar", Watcher(), without=("runs", "reports"))
    there = Bench(tmp_path / "there")
    done = moving.unpack(tmp_path / "p.tar", there, Watcher())
    assert done.cannot == []
    assert done.environments == {name: environment_of(built, name).hash for name in ("new", "old")}
    assert [values(there, run) for run in answer(there, "old", "new")] == before
    for environment in environments_of(there).all():
        environments_of(there).remove(environment.hash)


def test_what_can_not_be_built_elsewhere_is_said_and_stops_nothing(
    built: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moving.pack(built, tmp_path / "p.tar", Watcher(), without=("runs",))
    monkeypatch.setattr(moving, "platform_name", lambda: "darwin-arm64")
    done = moving.unpack(tmp_path / "p.tar", Bench(tmp_path / "there"), Watcher())
    assert done.environments == {} and len(done.cannot) == 2
    assert "new can't run here: it was packed on" in done.cannot[0]
