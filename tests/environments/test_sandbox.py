"""A hostile method: whatever it tries, it finds nothing, reaches nobody and harms nothing but its own run."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from conftest import make_capture, make_method
from turntable.bench import Bench
from turntable.environments import place_of, sandbox
from turntable.jobs import RunRequest, plan, work
from turntable.record import State
from turntable.run import Budget, RunFolder
from turntable.turns import process
from turntable.turns.cgroup import Cgroup
from turntable.turns.limits import limit
from turntable.turns.watcher import Watcher

walled = pytest.mark.skipif(sandbox.why_not() is not None, reason=f"there are no walls: {sandbox.why_not()}")


def limits_memory_and_processes() -> bool:
    group = Cgroup.create("probe")
    limits = limit("probe", group, 1 << 30, 100)
    if group is not None:
        group.remove()
    limits.remove()
    return limits.memory and limits.processes


limited = pytest.mark.skipif(not limits_memory_and_processes(), reason="no control group can be limited here")

HOSTILE = """
import json, os, socket, sys
from pathlib import Path
import numpy as np


def attempt(what, *arguments):
    try:
        return repr(what(*arguments))[:200]
    except BaseException as error:
        return type(error).__name__


def attempt_list(folder):
    try:
        return os.listdir(folder)
    except OSError:
        return []


class Method:
    def __init__(self, views, settings, seed, device):
        plan = json.loads(settings["plan"])
        if plan["do"] == "fork":
            children = 0
            try:
                while children < 100000:
                    if os.fork() == 0:
                        import time
                        time.sleep(600)
                    children += 1
            except OSError as error:
                self.found = {"children": children, "error": error.errno}
        elif plan["do"] == "fill":
            kept = []
            while True:
                kept.append(np.ones(1 << 24))
        else:
            found = {}
            import ctypes

            for path in plan["read"]:  # it tries to take down the walls first
                ctypes.CDLL(None).umount2(path.encode(), 2)
                ctypes.CDLL(None).mount(b"none", path.encode(), None, 4096 | 32, None)
            for path in plan["read"]:
                found["read " + path] = attempt(lambda: Path(path).read_bytes())
                found["list " + path] = attempt(os.listdir, path)
            for path in plan["write"]:
                ctypes.CDLL(None).mount(b"none", os.path.dirname(path).encode(), None, 4096 | 32, None)
                found["write " + path] = attempt(lambda: Path(path).write_text("was here"))
            for address in plan["connect"]:
                found["connect %s:%s" % tuple(address)] = attempt(socket.create_connection, address, 3)
            found["pids"] = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
            found["environment"] = sorted(os.environ)
            links = []
            for pid in ("self", *map(str, found["pids"])):
                for number in attempt_list("/proc/%s/fd" % pid):
                    links.append(attempt(os.readlink, "/proc/%s/fd/%s" % (pid, number)))
            found["descriptors"] = links
            self.found = found

    def step(self):
        return {"loss": 0.0, "finished": True}

    def render(self, camera):
        return {"image": np.zeros((camera.height, camera.width, 3))}

    def save(self, folder):
        (folder / "found.json").write_text(json.dumps(self.found))

    def load(self, folder):
        self.found = json.loads((folder / "found.json").read_text())
"""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path / "bench")
    bench.make()
    make_capture(bench.captures_folder / "small")
    method = make_method(bench.methods_folder / "hostile")
    (method / "method.py").write_text(HOSTILE)
    toml = (method / "method.toml").read_text()
    (method / "method.toml").write_text(toml + '[settings.plan]\ndefault = "{}"\nhelp = "what it tries"\n')
    return bench


def let_loose(bench: Bench, walls: bool = True, **plan_: Any) -> RunFolder:
    asked = json.dumps(plan_)
    wanted = RunRequest(("hostile",), Budget(steps=1), settings=(f"plan={asked}",), walls=walls)
    folders = plan(bench, bench.capture("small"), wanted)
    work(bench, folders, wanted.handling, Watcher())
    return folders[0]


def found(folder: RunFolder) -> dict[str, Any]:
    (path,) = folder.path.glob("checkpoint/*/method/found.json")
    return json.loads(path.read_text())


@walled
def test_nothing_is_read_but_what_is_its_own(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    other = bench.runs_folder / "small-other-1"
    (other / "views").mkdir(parents=True)
    (other / "views" / "secret.txt").write_text("secret")
    secret = bench.folder.parent / "secret.txt"
    secret.write_text("secret")
    monkeypatch.setenv("COMPANY_TOKEN", "secret")
    capture = bench.capture("small")
    home = str(Path.home())
    read = [
        home,
        str(secret),
        str(other),
        str(bench.folder / "record.sqlite"),
        "/etc/shadow",
        "/root",
        "/home",
    ]
    read += [str(view.image_path) for view in capture.held_out] + [str(capture.training[0].image_path)]
    told = found(let_loose(bench, do="look", read=read, write=[], connect=[]))
    on_the_way = [repr([part]) for part in (*Path(sys.base_prefix).parts, *Path(sys.prefix).parts)]
    for path in read[:-1]:
        if told[f"read {path}"] != "b''":  # a held-out photo is there, and empty
            assert told[f"read {path}"] in ("FileNotFoundError", "PermissionError", "IsADirectoryError"), path
        # Of a folder on the way to its interpreter, the way alone.
        listed = ("FileNotFoundError", "PermissionError", "NotADirectoryError", "[]", *on_the_way)
        assert told[f"list {path}"] in listed, path
    assert told[f"read {read[-1]}"].startswith(r"b'\x89PNG"), "the training photos are there"
    assert "COMPANY_TOKEN" not in told["environment"] and "PATH" in told["environment"]
    assert len(told["pids"]) <= 4 and os.getpid() not in told["pids"], "no other process is seen"


@walled
def test_nothing_is_written_outside_of_its_run(bench: Bench) -> None:
    capture = bench.capture("small")
    photo = capture.training[0].image_path
    before = photo.read_bytes()
    first = let_loose(bench, do="look", read=[], write=[], connect=[])
    write = [
        str(bench.folder / "written"), str(photo), str(bench.methods_folder / "hostile" / "method.py"),
        str(first.path / "scores.csv"), str(bench.runs_folder / "small-hostile-2" / "scores.csv"),
        str(bench.runs_folder / "small-hostile-2" / "events.jsonl"), str(Path.home() / "written"),
        "/usr/written", "/etc/written", str(Path(process.__file__)), "/proc/sys/kernel/hostname",
        "/proc/sys/vm/swappiness",
    ]  # fmt: skip
    second = let_loose(bench, do="look", read=[], write=[*write, "/tmp/written"], connect=[])
    told = found(second)
    for path in write[1:]:
        assert told[f"write {path}"] in ("OSError", "FileNotFoundError", "PermissionError"), path
    assert not Path(write[0]).exists(), "where the bench lies in /tmp, that was in its own"
    assert told["write /tmp/written"] == "8", "its own /tmp is its own"
    assert not Path("/tmp/written").exists()
    assert photo.read_bytes() == before
    assert bench.row(second.id).state is State.DONE


@walled
def test_neither_the_network_nor_this_machine_is_reached(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        came: list[Any] = []
        threading.Thread(target=lambda: came.append(server.accept()), daemon=True).start()
        connect = [
            ["127.0.0.1", server.getsockname()[1]],
            ["192.0.2.1", 80],
            ["localhost", server.getsockname()[1]],
        ]
        told = found(let_loose(bench, do="look", read=[], write=[], connect=connect))
        for address, port in connect:
            assert told[f"connect {address}:{port}"] in (
                "OSError",
                "ConnectionRefusedError",
                "gaierror",
                "timeout",
            )
        assert came == []


@walled
def test_locks_are_held_for_it_and_not_by_it(bench: Bench) -> None:
    folder = let_loose(bench, do="look", read=[], write=[], connect=[])
    told = found(folder)
    assert not [link for link in told["descriptors"] if link.strip("'").endswith("lock")], told["descriptors"]
    assert sum("socket:" in link for link in told["descriptors"]) >= 1, "it has its channel"
    free = folder.lock()
    assert free is not None, "whatever held the lock is gone with the run"
    free.close()


@walled
def test_locks_are_free_when_nothing_inside_lives_and_not_before(bench: Bench, tmp_path: Path) -> None:
    """The program's own end isn't that of a child which it leaves, nor does anything inside have what holds the lock."""
    folder = bench.folder / "runs" / "leaves"
    folder.mkdir(parents=True)
    place = place_of(bench, bench.method("hostile"), True, lambda text: None)
    with (tmp_path / "it").open("w") as other, (folder / "log").open("ab") as log:
        with (tmp_path / "it").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            process_ = process.RunProcess(
                ["/bin/sh", "-c", "ls -l /proc/*/fd; sleep 100"],
                process.Quarters(folder, place),
                log,
                (file.fileno(),),
            )
        time.sleep(0.5)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        process_.end()
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    said = (folder / "log").read_text()
    assert "socket:" in said and str(tmp_path / "it") not in said, said


@walled
def test_held_out_photos_are_hidden_where_links_lead_to_them_too(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (bench.captures_folder / "small").rename(tmp_path / "disk" / "small")
    (bench.captures_folder / "small").symlink_to(tmp_path / "disk" / "small")
    photo = bench.capture("small").held_out[0].image_path
    real = photo.resolve()
    assert real != photo
    told = found(let_loose(bench, do="look", read=[str(photo), str(real)], write=[], connect=[]))
    nothing = ("b''", "FileNotFoundError", "PermissionError")
    assert told[f"read {photo}"] in nothing and told[f"read {real}"] in nothing


@walled
def test_without_the_walls_it_would_have_got_all_that(bench: Bench) -> None:
    """The other tests mean something: outside, the same attempts succeed."""
    secret = bench.folder.parent / "secret.txt"
    secret.write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=server.accept, daemon=True).start()
        port = server.getsockname()[1]
        target = str(bench.folder / "written")
        folder = let_loose(
            bench, walls=False, do="look", read=[str(secret)], write=[target], connect=[["127.0.0.1", port]]
        )
        told = found(folder)
    assert told[f"read {secret}"] == "b'secret'"
    assert told[f"write {target}"] == "8"
    assert "socket" in told[f"connect 127.0.0.1:{port}"]
    assert [link for link in told["descriptors"] if link.strip("'").endswith("lock")]


@limited
@walled
def test_a_fork_bomb_goes_no_further_than_its_limit_and_nothing_of_it_is_left(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "MOST_PROCESSES", 50)
    folder = let_loose(bench, do="fork")
    told = found(folder)
    assert 10 < told["children"] < 50 and told["error"] == 11
    group = Cgroup.create(process.cgroup_name(folder.path))
    if group is not None:
        assert group.pids() == []
        group.remove()


@limited
@walled
def test_who_fills_the_memory_is_killed_and_the_run_has_failed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "most_memory_bytes", lambda: 600 << 20)
    folder = let_loose(bench, do="fill")
    row = bench.row(folder.id)
    assert row.state is State.FAILED
    assert "out of memory: killed by the kernel" in (row.cause or "")


def test_where_there_are_no_walls_the_reason_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sandbox.why_not.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    try:
        assert (sandbox.why_not() or "").startswith(
            ("bubblewrap is missing (apt install", "methods are only walled")
        )
    finally:
        monkeypatch.undo()
        sandbox.why_not.cache_clear()


@walled
def test_what_a_link_leads_to_is_found_by_it(tmp_path: Path) -> None:
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (run := tmp_path / "run").mkdir()
    (run / "checkpoint").symlink_to(elsewhere)
    (tmp_path / "bench").symlink_to(run)
    for name in ("run", "bench"):
        folder = tmp_path / name
        walls = sandbox.Walls(read=(folder,), write=(folder / "checkpoint",))
        words = walls.around(["sh", "-c", f"echo {name} > checkpoint/file"], folder)
        subprocess.run(words, check=True)
        assert (elsewhere / "file").read_text() == f"{name}\n"


def test_what_lies_inside_of_another_comes_after_it() -> None:
    walls = sandbox.Walls(read=(Path("/a/b/c"), Path("/a")), write=(Path("/a/b"),), hidden=(Path("/a/x"),))
    words = walls.around(["true"], Path("/a"))
    places = [words.index(path) for path in ("/a", "/a/b/c", "/a/b", "/a/x")]
    assert places == sorted(places)
    assert "--unshare-net" in words and shutil.which("true")


def test_the_driver_makes_the_node_that_cuda_begins_with_unless_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (program := tmp_path / "bin" / "nvidia-modprobe").write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    (devices := tmp_path / "dev").mkdir()
    sandbox.wake_cards(devices)
    assert not (tmp_path / "asked").exists(), "a machine without a card was asked"
    (devices / "nvidiactl").touch()
    sandbox.wake_cards(devices)
    (devices / "nvidia-uvm").touch()
    sandbox.wake_cards(devices)
    assert (tmp_path / "asked").read_text() == "-c 0 -u\n"
