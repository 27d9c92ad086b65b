"""Moving a bench: what comes out is what went in; a hostile or damaged pack is refused with one line and leaves nothing."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from conftest import make_capture, make_method
from turntable import moving
from turntable.bench import Bench
from turntable.environments.pack import Entry, Manifest, Reader, check_entry
from turntable.errors import TurntableError
from turntable.jobs import RunRequest, plan, work
from turntable.run import Budget
from turntable.turns.watcher import Watcher


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path / "here" / "bench")
    bench.make()
    make_capture(bench.captures_folder / "small")
    method = make_method(bench.methods_folder / "colour")
    (method / ".gitignore").write_text("*.o")  # it counts too
    answer(bench)
    return bench


def answer(bench: Bench, seeds: int = 1) -> list[str]:
    wanted = RunRequest(("colour",), Budget(steps=8), seeds=seeds)
    return [
        row.id for row in work(bench, plan(bench, bench.capture("small"), wanted), wanted.handling, Watcher())
    ]


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith("record.sqlite") and "lock" not in path.name
    }


@pytest.mark.parametrize("name", ["pack.tar", "pack/"])
def test_a_bench_is_the_same_elsewhere_and_knows_its_runs(bench: Bench, tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    if name.endswith("/"):
        target.mkdir()
    packed = moving.pack(bench, target, Watcher())
    there = Bench(tmp_path / "there" / "bench")
    done = moving.unpack(target, there, Watcher(), expected=packed.sha256)
    assert contents(there.folder) == contents(bench.folder)
    assert (done.files, done.kept) == (packed.files - 1, 0), "bench.toml is made anew"
    assert there.record.scores("small-colour-1") == bench.record.scores("small-colour-1")
    assert answer(there) == ["small-colour-1"], "the same question has its answer there already"
    assert answer(there, seeds=2) == ["small-colour-1", "small-colour-2"]
    assert not list(tmp_path.rglob("*.tmp"))


def test_packing_twice_gives_the_same_pack(bench: Bench, tmp_path: Path) -> None:
    first = moving.pack(bench, tmp_path / "a.tar", Watcher())
    second = moving.pack(bench, tmp_path / "b.tar", Watcher())
    assert first.sha256 == second.sha256
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_a_later_pack_sends_only_what_is_new(bench: Bench, tmp_path: Path) -> None:
    whole = moving.pack(bench, tmp_path / "whole.tar", Watcher())
    answer(bench, seeds=2)
    later = moving.pack(bench, tmp_path / "later.tar", Watcher(), since=whole.path)
    assert later.size_bytes < whole.size_bytes
    assert not Reader(later.path).names() & Reader(whole.path).names()
    bare = Bench(tmp_path / "bare")
    with pytest.raises(TurntableError, match=r"isn't whole: .*--with"):
        moving.unpack(later.path, bare, Watcher())
    assert not list(bare.folder.glob("*/*")), "nothing half unpacked"
    moving.unpack(later.path, bare, Watcher(), others=[whole.path])
    assert contents(bare.folder) == contents(bench.folder)
    had = Bench(tmp_path / "had")
    moving.unpack(whole.path, had, Watcher())
    done = moving.unpack(later.path, had, Watcher())
    assert done.kept > 0 and contents(had.folder) == contents(bench.folder)


def test_a_folder_gets_only_the_blobs_that_it_lacks(bench: Bench, tmp_path: Path) -> None:
    (target := tmp_path / "pack").mkdir()
    first = moving.pack(bench, target, Watcher())
    answer(bench, seeds=2)
    second = moving.pack(bench, target, Watcher())
    assert 0 < second.size_bytes < first.size_bytes
    there = Bench(tmp_path / "there")
    moving.unpack(target, there, Watcher())
    assert contents(there.folder) == contents(bench.folder)


def test_parts_are_chosen(bench: Bench, tmp_path: Path) -> None:
    moving.pack(bench, tmp_path / "p.tar", Watcher(), only=("captures", "methods"))
    there = Bench(tmp_path / "there")
    moving.unpack(tmp_path / "p.tar", there, Watcher())
    assert list(there.captures()) == ["small"] and there.record.runs() == []
    with pytest.raises(TurntableError, match=r"Unknown part of a bench 'run'; known: .*runs"):
        moving.pack(bench, tmp_path / "q.tar", Watcher(), without=("run",))


def test_nothing_that_is_there_is_overwritten(bench: Bench, tmp_path: Path) -> None:
    moving.pack(bench, tmp_path / "p.tar", Watcher())
    with pytest.raises(TurntableError, match="never overwritten"):
        moving.pack(bench, tmp_path / "p.tar", Watcher())
    there = Bench(tmp_path / "there")
    moving.unpack(tmp_path / "p.tar", there, Watcher())
    other = there.methods_folder / "colour" / "method.py"
    other.write_text("mine")
    with pytest.raises(TurntableError, match=r"method\.py is there already and is another file"):
        moving.unpack(tmp_path / "p.tar", there, Watcher())
    assert other.read_text() == "mine"


def test_links_are_neither_packed_nor_followed(bench: Bench, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (bench.methods_folder / "colour" / "weights").symlink_to(secret)
    moving.pack(bench, tmp_path / "p.tar", Watcher())
    assert not any("weights" in file.path for file in Reader(tmp_path / "p.tar").manifest.files)
    there = Bench(tmp_path / "there")
    there.make()
    (outside := tmp_path / "outside").mkdir()
    (there.methods_folder / "colour").symlink_to(outside)
    with pytest.raises(TurntableError, match="is a link, and unpacking follows none"):
        moving.unpack(tmp_path / "p.tar", there, Watcher())
    assert list(outside.iterdir()) == []


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def entry(path: str, data: bytes = b"x", **more: Any) -> dict[str, Any]:
    return {"path": path, "sha256": sha(data), "size": len(data), "executable": False, **more}


def make_pack(path: Path, files: list[dict[str, Any]], blobs: dict[str, bytes], **more: Any) -> Path:
    document = {"format": 1, "made_on": "x", "environments": {}, "files": files, **more}
    with tarfile.open(path, "w") as tar:
        for name, data in {"manifest.json": json.dumps(document).encode(), **blobs}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


GOOD = {f"blobs/{sha(b'x')}": b"x"}


def bomb(path: Path) -> Path:
    data = zstandard.compress(bytes(1 << 28))
    return make_pack(path, [entry("methods/m/a")], {f"blobs/{sha(b'x')}.zst": data})


def with_link(path: Path) -> Path:
    make_pack(path, [entry("methods/m/a")], {})
    with tarfile.open(path, "a") as tar:
        member = tarfile.TarInfo(f"blobs/{sha(b'x')}")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(member)
    return path


def cut_off(path: Path) -> Path:
    make_pack(path, [entry("methods/m/a", bytes(99999))], {f"blobs/{sha(bytes(99999))}": bytes(99999)})
    os.truncate(path, 50000)
    return path


def compressed(path: Path) -> Path:
    import gzip

    make_pack(path, [entry("methods/m/a")], GOOD)
    path.write_bytes(gzip.compress(path.read_bytes()))
    return path


HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "up": (lambda p: make_pack(p, [entry("methods/../../x")], GOOD), "belongs into no bench"),
    "from the root": (lambda p: make_pack(p, [entry("/etc/cron.d/x")], GOOD), "belongs into no bench"),
    "elsewhere": (lambda p: make_pack(p, [entry("record.sqlite")], GOOD), "belongs into no bench"),
    "an environment": (lambda p: make_pack(p, [entry("environments/a/b")], GOOD), "belongs into no bench"),
    "the cache": (lambda p: make_pack(p, [entry("store/uv/a/b")], GOOD), "belongs into no bench"),
    "another wheel": (
        lambda p: make_pack(p, [entry(f"store/wheels/{'0' * 64}/a.whl")], GOOD),
        "belongs into no bench",
    ),
    "a size without end": (
        lambda p: make_pack(p, [entry("methods/m/a", size=float("inf"))], GOOD),
        "is no pack",
    ),
    "half a character": (lambda p: make_pack(p, [entry("methods/m/\ud800")], GOOD), "is no pack"),
    "no environment": (lambda p: make_pack(p, [], {}, environments={"m": 3}), "is no pack"),
    "backslash": (lambda p: make_pack(p, [entry("methods/a\\..\\b")], GOOD), "belongs into no bench"),
    "twice": (
        lambda p: make_pack(p, [entry("methods/a/b"), entry("methods/A/b")], GOOD),
        "names a file twice",
    ),
    "a file as a folder": (
        lambda p: make_pack(p, [entry("methods/a"), entry("methods/a/b")], GOOD),
        "as a file and as a folder",
    ),
    "another content": (
        lambda p: make_pack(p, [entry("methods/m/a")], {f"blobs/{sha(b'x')}": b"y"}),
        "isn't what its name says",
    ),
    "larger": (
        lambda p: make_pack(p, [entry("methods/m/a")], {f"blobs/{sha(b'x')}": b"xx"}),
        "is larger than 1",
    ),
    "a bomb": (bomb, "is larger than 1"),
    "a link": (with_link, "isn't whole"),
    "missing": (lambda p: make_pack(p, [entry("methods/m/a")], {}), "isn't whole"),
    "cut off": (cut_off, "damaged|isn't whole|isn't what"),
    "compressed": (compressed, "is no pack, or damaged"),
    "another format": (lambda p: make_pack(p, [], {}, format=2), "unpacks format 1"),
    "no hash": (lambda p: make_pack(p, [entry("methods/m/a", sha256="../../x")], GOOD), "no valid sha256"),
    "no zstd": (
        lambda p: make_pack(p, [entry("methods/m/a")], {f"blobs/{sha(b'x')}.zst": b"nonsense"}),
        "can't be read",
    ),
    "too large for the disk": (
        lambda p: make_pack(p, [entry("methods/m/a", size=1 << 60)], GOOD),
        "GB free",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pack_is_refused_with_one_line_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    make, message = HOSTILE[name]
    pack = make(tmp_path / "p.tar")
    there = Bench(tmp_path / "there" / "bench")
    with pytest.raises(TurntableError, match=message) as caught:
        moving.unpack(pack, there, Watcher())
    assert "\n" not in str(caught.value)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [pack]


def test_settings_of_a_pack_are_taken_only_where_they_are_trusted(bench: Bench, tmp_path: Path) -> None:
    (bench.folder / "bench.toml").write_text('[sandbox]\nread = ["~"]\n')
    moving.pack(bench, tmp_path / "p.tar", Watcher())
    careful, trusting = Bench(tmp_path / "careful"), Bench(tmp_path / "trusting")
    moving.unpack(tmp_path / "p.tar", careful, Watcher())
    assert careful.settings().read == ()
    moving.unpack(tmp_path / "p.tar", trusting, Watcher(), trust_settings=True)
    assert trusting.settings().read == (Path.home(),)


def test_another_pack_than_the_one_that_was_meant_is_refused(bench: Bench, tmp_path: Path) -> None:
    moving.pack(bench, tmp_path / "p.tar", Watcher())
    with pytest.raises(TurntableError, match="isn't the pack that was meant"):
        moving.unpack(tmp_path / "p.tar", Bench(tmp_path / "there"), Watcher(), expected="0" * 64)


@given(st.text())
def test_whatever_a_path_says_it_stays_inside(path: str) -> None:
    try:
        check_entry(Entry(path, "0" * 64, 1), "pack")
    except TurntableError:
        return
    folder = Path("/somewhere/bench")
    assert (folder / path).resolve().is_relative_to(folder) and (folder / path) != folder


@given(st.binary())
def test_nonsense_is_no_manifest(data: bytes) -> None:
    try:
        Manifest.decode(data, "pack")
    except TurntableError as error:
        assert "\n" not in str(error)
    else:
        pytest.fail("it was taken for a manifest")
