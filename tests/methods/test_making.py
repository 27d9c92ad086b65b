"""New methods: begun from the template, or copied from elsewhere; nothing of them runs then."""

from __future__ import annotations

import io
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from conftest import make_capture, make_method
from turntable.bench import Bench
from turntable.conformance import check
from turntable.errors import TurntableError
from turntable.methods.making import install, new
from turntable.methods.spec import Method


def quiet(text: str) -> None:
    """Nobody is told."""


@pytest.fixture
def methods(tmp_path: Path) -> Path:
    (folder := tmp_path / "bench" / "methods").mkdir(parents=True)
    return folder


def trap(folder: Path) -> Path:
    """A method whose code leaves a trace if any of it runs."""
    make_method(folder)
    (folder / "method.py").write_text(f"open({str(folder.parent / 'it ran')!r}, 'w')\n")
    (folder / "setup.py").write_text(f"open({str(folder.parent / 'it ran')!r}, 'w')\n")
    return folder


def test_a_new_method_keeps_the_contract_as_it_is(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "bench")
    bench.make()
    capture = make_capture(bench.captures_folder / "small")
    new(bench.methods_folder, "mine")
    found = check(bench, bench.method("mine"), capture, "cpu", True, quiet)
    assert [one for one in found if one.good is False] == []
    assert len(found) >= 7


@pytest.mark.parametrize(
    ("old", "replacement", "rule"),
    [
        ("np.random.default_rng(seed)", "np.random.default_rng()", "the same seed gives the same bits"),
        ("self.steps, self.generator.bit_generator.state = state", "self.steps, _ = state", "saved and loaded"),
        ("np.ones((camera.height, camera.width, 3)) * self", "np.ones((16, 24, 3)) * self", "renders any size"),
        ("self.mean = np.mean(", "assert len(list(views)) > 1; self.mean = np.mean(", "works with one training view"),
        ('"gaussians": 1}', '"gaussians": 1, "loss": float("nan") if self.steps > 9 else 0.1}', "NaN"),
    ],
)  # fmt: skip
def test_a_broken_rule_is_found(tmp_path: Path, old: str, replacement: str, rule: str) -> None:
    bench = Bench(tmp_path / "bench")
    bench.make()
    capture = make_capture(bench.captures_folder / "small")
    code = make_method(bench.methods_folder / "colour") / "method.py"
    assert old in code.read_text()
    code.write_text(code.read_text().replace(old, replacement))
    found = check(bench, bench.method("colour"), capture, "cpu", True, quiet)
    assert any(rule in one.what for one in found if one.good is False), found


@pytest.mark.parametrize("name", ["Mine", "a b", "", "a" * 50])
def test_a_name_that_is_none_is_refused(methods: Path, name: str) -> None:
    with pytest.raises(TurntableError):
        new(methods, name)
    assert list(methods.iterdir()) == []


def test_the_name_of_a_built_in_method_stays_its_own(methods: Path, tmp_path: Path) -> None:
    with pytest.raises(TurntableError, match="'nearest' is the name of a built-in method"):
        new(methods, "nearest")
    new(methods, f"{tmp_path}/elsewhere/other")
    (toml := tmp_path / "elsewhere" / "other" / "method.toml").write_text(
        (toml).read_text().replace('name = "other"', 'name = "splat"')
    )
    (tmp_path / "elsewhere" / "other").rename(tmp_path / "elsewhere" / "splat")
    with pytest.raises(TurntableError, match="'splat' is the name of a built-in method"):
        install(methods, str(tmp_path / "elsewhere" / "splat"), quiet)


def test_nothing_is_begun_twice(methods: Path) -> None:
    new(methods, "mine")
    with pytest.raises(TurntableError, match="is there already"):
        new(methods, "mine")


def test_a_folder_is_copied_and_nothing_of_it_runs(methods: Path, tmp_path: Path) -> None:
    source = trap(tmp_path / "their")
    (installed,) = install(methods, str(source), quiet)
    assert installed.fingerprint() == Method.load(source).fingerprint()
    assert installed.folder == methods / "their"
    assert not (tmp_path / "it ran").exists()
    install(methods, str(source), quiet)  # again: it is the same
    (source / "method.py").write_text("other")
    with pytest.raises(TurntableError, match="is in the bench already, and is another one"):
        install(methods, str(source), quiet)


def test_a_repository_is_cloned_without_its_hooks(methods: Path, tmp_path: Path) -> None:
    source = trap(tmp_path / "repository" / "methods" / "their").parents[1]
    for words in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "x"],
    ):
        subprocess.run(["git", *words], cwd=source, check=True)
    bare = tmp_path / "their.git"
    subprocess.run(["git", "clone", "-q", "--bare", source, bare], check=True)
    (installed,) = install(methods, f"file://{bare}", quiet)
    assert installed.name == "their" and not list(tmp_path.rglob("it ran"))
    with pytest.raises(TurntableError, match="can't be cloned"):
        install(methods, f"file://{tmp_path}/nothing.git", quiet)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_is_unfolded(methods: Path, tmp_path: Path, kind: str) -> None:
    source = trap(tmp_path / "their")
    archive = tmp_path / f"their.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as opened:
            for path in source.iterdir():
                opened.write(path, f"their-main/{path.name}")
    else:
        with tarfile.open(archive, "w:gz") as opened:
            opened.add(source, "their-main")
    (installed,) = install(methods, archive.as_uri(), quiet)
    assert installed.name == "their" and not (tmp_path / "it ran").exists()


@pytest.mark.parametrize("name", ["../up/method.toml", "/etc/method.toml", "a/../../method.toml"])
def test_an_archive_that_leaves_its_folder_is_refused(methods: Path, tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "bad.tar", "w") as opened:
        member = tarfile.TarInfo(name)
        member.size = 1
        opened.addfile(member, io.BytesIO(b"x"))
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as zipped:
        zipped.writestr(name, "x")
    for archive in ("bad.tar", "bad.zip"):
        with pytest.raises(TurntableError, match="no plain file inside of it"):
            install(methods, str(tmp_path / archive), quiet)


def test_links_that_lead_out_are_refused(methods: Path, tmp_path: Path) -> None:
    source = make_method(tmp_path / "their")
    (source / "weights").symlink_to(Path.home())
    with pytest.raises(TurntableError, match="is a link to a folder, or leads out"):
        install(methods, str(source), quiet)
    with tarfile.open(tmp_path / "bad.tar", "w") as opened:
        member = tarfile.TarInfo("their/method.toml")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        opened.addfile(member)
    with pytest.raises(TurntableError, match="no plain file"):
        install(methods, str(tmp_path / "bad.tar"), quiet)


@pytest.mark.parametrize("source", ["no such/folder", "--option", "$(touch it)", ""])
def test_what_is_no_source_is_one_line(methods: Path, source: str) -> None:
    with pytest.raises(TurntableError) as caught:
        install(methods, source, quiet)
    assert "\n" not in str(caught.value)
    assert list(methods.iterdir()) == []
