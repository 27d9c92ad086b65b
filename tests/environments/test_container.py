"""Methods in images: what an engine is told, by tables; and what comes of it, with every engine that is here.

The images are made from this machine's own Python, so that no registry is needed. Where neither Podman nor Docker starts a
container, the second half is skipped and says why.
"""

from __future__ import annotations

import bz2
import contextlib
import fcntl
import functools
import gzip
import io
import itertools
import json
import lzma
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import psutil
import pytest

from conftest import METHOD_CODE, METHOD_TOML, make_capture
from environments.rootfs import write_rootfs
from turntable import moving
from turntable.bench import Bench
from turntable.environments import build, engine, export, images, images_of, lock, place_of, prune, remove
from turntable.environments.container import (
    DOOR,
    Allowance,
    Container,
    Mounts,
    confined,
    why_not,
)
from turntable.environments.engine import Engine, look, understood
from turntable.environments.images import (
    all_images,
    bases_by_tag,
    check,
    load,
    names_in,
    packed_name,
    read_image_recipe,
)
from turntable.errors import TurntableError
from turntable.files import write_json
from turntable.jobs import RunRequest, plan, work
from turntable.methods.spec import Method
from turntable.record import State
from turntable.run import Budget, RunFolder
from turntable.turns.identity import started
from turntable.turns.process import Quarters, RunProcess
from turntable.turns.watcher import Watcher

pytestmark = pytest.mark.xdist_group("containers")  # an engine lists those of other tests too

DIGEST = "sha256:" + "0123456789abcdef" * 4
ROOT_PODMAN = Engine("podman", "/usr/bin/podman", "4.3.1", rootless=False, memory=True, processes=True)
USERS_PODMAN = Engine("podman", "/usr/bin/podman", "5.0.0", rootless=True, memory=False, processes=True)
DOCKER = Engine("docker", "/usr/bin/docker", "27.0", rootless=False, memory=True, processes=True)
USERS_DOCKER = Engine("docker", "/usr/bin/docker", "27.0", rootless=True, memory=True, processes=False)


def quiet(text: str) -> None:
    """Nobody is told."""


def pairs(words: list[str]) -> list[tuple[str, str]]:
    return list(itertools.pairwise(words))


def command(
    of: Engine, tmp_path: Path, network: bool = False, cards: bool = False, **mounts: Any
) -> list[str]:
    place = Container(
        environment="e", python=Path("python3"), programs=Path("/"), read=(tmp_path,), network=network,
        engine=of, image="abc",
    )  # fmt: skip
    return place.start("turntable-1", Path("/door"), Mounts((), **mounts), Allowance(1 << 30, 4096, cards))


@pytest.mark.parametrize("of", [ROOT_PODMAN, USERS_PODMAN, DOCKER, USERS_DOCKER])
def test_every_engine_puts_up_the_same_walls(of: Engine, tmp_path: Path) -> None:
    words = command(of, tmp_path)
    assert words[:2] == [of.program, "run"]
    assert {"--rm", "--read-only"} <= set(words) and not {"--privileged", "-v", "--volume"} & set(words)
    assert {
        ("--network", "none"),
        ("--cap-drop", "all"),
        ("--security-opt", "no-new-privileges"),
        ("--pull", "never"),
        ("--name", "turntable-1"),
        ("--entrypoint", "python3"),
        ("--mount", f"type=bind,source=/door,target={DOOR},readonly"),
        ("--mount", f"type=bind,source={tmp_path},target={tmp_path},readonly"),
    } <= set(pairs(words))
    assert words[words.index("abc") + 1 :][:2] == ["-I", "-S"], "what follows the image is the worker's alone"


def test_the_network_is_the_engines_own_where_a_method_asks_for_it(tmp_path: Path) -> None:
    assert "--network" not in command(ROOT_PODMAN, tmp_path, network=True)


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (ROOT_PODMAN, ["--user", f"{os.getuid()}:{os.getgid()}"]),
        (USERS_PODMAN, ["--userns", "keep-id"]),
        (DOCKER, ["--user", f"{os.getuid()}:{os.getgid()}"]),
        (USERS_DOCKER, ["--user", "0:0"]),
    ],
)
def test_what_a_container_writes_is_the_users(of: Engine, expected: list[str]) -> None:
    assert of.user() == expected
    assert expected[-1] in confined(of, network=False)


@pytest.mark.parametrize(
    ("of", "memory", "processes"),
    [(ROOT_PODMAN, True, True), (USERS_PODMAN, False, True), (USERS_DOCKER, True, False)],
)
def test_an_engine_is_only_asked_for_limits_that_it_has(
    of: Engine, memory: bool, processes: bool, tmp_path: Path
) -> None:
    words = command(of, tmp_path)
    assert (("--memory", str(1 << 30)) in pairs(words)) == memory
    assert (("--pids-limit", "4096") in pairs(words)) == processes


def test_cards_come_by_cdi_in_podman_and_by_its_own_option_in_docker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "CDI_FOLDERS", (str(tmp_path / "cdi"),))
    assert ("--gpus", "all") in pairs(command(DOCKER, tmp_path, cards=True))
    with pytest.raises(TurntableError, match="nvidia-ctk cdi generate"):
        command(ROOT_PODMAN, tmp_path, cards=True)
    (tmp_path / "cdi").mkdir()
    (tmp_path / "cdi" / "nvidia.yaml").write_text("kind: nvidia.com/gpu\n")
    assert ("--device", "nvidia.com/gpu=all") in pairs(command(ROOT_PODMAN, tmp_path, cards=True))
    assert not {"--device", "--gpus"} & set(command(ROOT_PODMAN, tmp_path))


def test_a_place_is_mounted_once_and_what_is_hidden_lies_on_top(tmp_path: Path) -> None:
    (inner := tmp_path / "a").mkdir()
    (photo := inner / "held, out.png").touch()
    words = Mounts((tmp_path, inner), (inner,), (photo,)).options(Path("/door"))[1::2]
    assert sorted(words) == sorted(
        [
            f"type=bind,source=/door,target={DOOR},readonly",
            f"type=bind,source={tmp_path},target={tmp_path},readonly",
            f"type=bind,source={inner},target={inner}",
            f'type=bind,source=/door/nothing,"target={photo}",readonly',
        ]
    )


def test_what_names_places_of_this_machine_stays_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LD_LIBRARY_PATH", "CUDA_HOME", "OMP_NUM_THREADS", "COMPANY_TOKEN"):
        monkeypatch.setenv(name, "7")
    place = Container(environment="e", python=Path("python3"), programs=Path("/"), engine=DOCKER, image="abc")
    inside = place.variables()
    assert inside["OMP_NUM_THREADS"] == "7" and inside["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert not {"PATH", "LD_LIBRARY_PATH", "CUDA_HOME", "COMPANY_TOKEN"} & set(inside)


def podmans(rootless: bool, controllers: list[str]) -> dict[str, Any]:
    return {
        "host": {"cgroupControllers": controllers, "security": {"rootless": rootless}},
        "version": {"Version": "4.3.1"},
    }


@pytest.mark.parametrize(
    ("name", "info", "rootless", "memory", "processes"),
    [
        ("podman", podmans(False, ["cpu", "memory", "pids"]), False, True, True),
        ("podman", podmans(True, []), True, False, False),
        ("docker", {"ServerVersion": "27", "MemoryLimit": True, "PidsLimit": True, "SecurityOptions": ["name=seccomp"]},
         False, True, True),
        ("docker", {"ServerVersion": "27", "SecurityOptions": ["name=seccomp", "name=rootless"]}, True, False, False),
    ],
)  # fmt: skip
def test_an_engine_says_what_it_can_do(
    name: str, info: dict[str, Any], rootless: bool, memory: bool, processes: bool
) -> None:
    found = understood(name, "/bin/" + name, info)
    assert (found.rootless, found.memory, found.processes) == (rootless, memory, processes)


def test_a_command_line_without_its_service_is_no_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "docker"
    program.write_text('#!/bin/sh\necho \'{"ServerErrors": ["Cannot connect to the daemon"]}\'\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    look.cache_clear()
    try:
        assert "Cannot connect to the daemon" in str(look())
        assert "apt install podman" in str(look("podman"))
    finally:
        look.cache_clear()


def test_an_engine_that_hangs_does_not_hang_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "docker"
    program.write_text('#!/bin/sh\ncase "$1" in pull) exec sleep 1;; *) exec sleep 60;; esac\n')
    program.chmod(0o755)
    monkeypatch.setattr(engine, "PATIENCE_S", 0.5)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    hangs = Engine("docker", str(program), "27", rootless=False, memory=True, processes=True)
    for ask in (
        lambda: hangs.inspect("a"),
        lambda: hangs.remove_container("a"),
        lambda: hangs.call("tag", "a", "b", what="naming"),
    ):
        with pytest.raises(TurntableError, match=r"docker doesn't answer for 0.5 s"):
            ask()
    look.cache_clear()
    try:
        assert "docker doesn't answer for 0.5 s (info)" in str(look("docker"))
    finally:
        look.cache_clear()
    hangs.call("pull", "a", what="fetching")  # takes as long as it takes


def boxed(folder: Path, environment: str, dockerfile: str | None = None) -> Path:
    folder.mkdir(parents=True)
    toml = METHOD_TOML.format(name=folder.name).replace('kind = "host"', f'kind = "container"\n{environment}')
    (folder / "method.toml").write_text(toml)
    (folder / "method.py").write_text(METHOD_CODE)
    if dockerfile is not None:
        (folder / "Dockerfile").write_text(dockerfile)
    return folder


def recipe_at(folder: Path) -> Any:
    return read_image_recipe(folder, Method.load(folder).environment)


@pytest.mark.parametrize(
    ("environment", "dockerfile", "message"),
    [
        ("", None, "needs image"),
        (f'image = "docker.io/a/b@{DIGEST}"', "FROM scratch\n", "a method lives in one of them"),
        ('image = "docker.io/a/b:latest"', None, "what a tag stands for changes. turntable env lock"),
        ('image = "docker.io/a/b@sha256:12"', None, "by its digest"),
        ("image = 7", None, "by its digest"),
        (f'image = "a/b@{DIGEST}"', None, "begins with a registry"),
        ('python = "python3 -u"', "FROM scratch\n", "environment.python is the name or path"),
        ('context = ["../secrets"]', "FROM scratch\n", "names what lies in the method's folder"),
        ('context = ["missing"]', "FROM scratch\n", "names what lies in the method's folder"),
        ('context = "method.py"', "FROM scratch\n", "must be a list"),
        ('imagee = "x"', "FROM scratch\n", "Did you mean 'image'"),
    ],
)
def test_a_recipe_that_names_no_image_is_refused(
    environment: str, dockerfile: str | None, message: str, tmp_path: Path
) -> None:
    folder = boxed(tmp_path / "m", environment, dockerfile)
    with pytest.raises(TurntableError, match=message.replace("(", r"\(")):
        recipe_at(folder)


def test_a_recipe_whose_files_lie_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "key").write_text("secret")
    folder = boxed(tmp_path / "m", 'context = ["keys"]', "FROM scratch\n")
    (folder / "keys").symlink_to("../home")
    with pytest.raises(TurntableError, match="names what lies in the method's folder, and 'keys' doesn't"):
        recipe_at(folder)
    (folder / "keys").unlink()
    (folder / "keys").mkdir()
    (folder / "Dockerfile").rename(tmp_path / "common")
    (folder / "Dockerfile").symlink_to(tmp_path / "common")
    with pytest.raises(TurntableError, match="Dockerfile is a link"):
        recipe_at(folder)


def noted(bench: Bench, hash: str) -> Path:
    """An image of an engine that isn't here any more, with its archive; its note."""
    folder = bench.folder / "environments" / hash
    folder.mkdir(parents=True)
    write_json(folder / "image.json", {"hash": hash, "engine": "docker", "id": "0", "bytes": 1})
    archive = bench.folder / "store" / "images" / hash / "image.tar"
    archive.parent.mkdir(parents=True)
    archive.touch()
    return folder / "image.json"


@pytest.fixture
def no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PATH", str(tmp_path))
    look.cache_clear()
    yield
    look.cache_clear()


@pytest.mark.usefixtures("no_engine")
def test_tidying_waits_until_a_broken_method_is_mended_and_takes_the_archive_too(tmp_path: Path) -> None:
    (bench := Bench(tmp_path / "bench")).make()
    folder = boxed(bench.methods_folder / "broken", 'context = ["data"]', "FROM scratch\n")
    boxed(bench.methods_folder / "tagged", 'image = "docker.io/a/b:1"')
    (folder / "data").touch()
    note = noted(bench, recipe_at(folder).hash)
    (folder / "data").unlink()
    with pytest.raises(TurntableError, match="'data' doesn't"):
        prune(bench)
    (folder / "data").touch()
    prune(bench)
    assert note.is_file()
    with pytest.raises(TurntableError, match=f"no environment 'wrong'; known: {note.parent.name}"):
        remove(bench, "wrong")
    remove(bench, note.parent.name)
    assert not note.exists() and not list((bench.folder / "store" / "images").glob("*"))


def test_an_image_is_locked_by_its_digest_in_the_repository_that_it_is_named_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = f"quay.io/mirror/debian@sha256:{'f' * 64}"
    known = {"RepoDigests": [other, f"debian@{DIGEST}"]}
    monkeypatch.setattr(Engine, "inspect", lambda self, image: known)
    silent = Engine("docker", shutil.which("true") or "", "27", rootless=False, memory=True, processes=True)
    folder = boxed(tmp_path / "m", 'image = "docker.io/library/debian:12"')
    images.pin(folder, Method.load(folder).environment, silent, quiet)
    assert recipe_at(folder).image == f"docker.io/library/debian@{DIGEST}"
    folder = boxed(tmp_path / "n", 'image = "docker.io/library/alpine:3"')
    with pytest.raises(TurntableError, match="knows no digest"):
        images.pin(folder, Method.load(folder).environment, silent, quiet)


def test_an_image_is_named_by_what_its_dockerfile_can_copy_and_nothing_else(tmp_path: Path) -> None:
    folder = boxed(tmp_path / "m", 'context = ["data"]', "FROM scratch\nCOPY data /\n")
    (folder / "data").mkdir()
    (folder / "data" / "list.txt").write_text("one")
    first = recipe_at(folder).hash
    (folder / "method.py").write_text("# the method's own code is mounted, not built in")
    (folder / "data" / "__pycache__").mkdir()
    (folder / "data" / "__pycache__" / "x.pyc").write_text("made anew")
    assert recipe_at(folder).hash == first
    hashes = {first}
    (folder / "data" / "list.txt").write_text("two")
    hashes.add(recipe_at(folder).hash)
    (folder / "data" / "list.txt").chmod(0o755)
    hashes.add(recipe_at(folder).hash)
    (folder / "data" / "link").symlink_to("/nowhere")
    hashes.add(recipe_at(folder).hash)
    (folder / "Dockerfile").write_text("FROM scratch\n")
    hashes.add(recipe_at(folder).hash)
    assert len(hashes) == 5


@pytest.mark.parametrize(
    ("dockerfile", "bases"),
    [
        ("FROM scratch\n", []),
        (f"FROM docker.io/a@{DIGEST}\n", []),
        ("FROM python:3.11\n", ["python:3.11"]),
        ("from --platform=linux/amd64 a:1 as base\nFROM base\nFROM b\n", ["a:1", "b"]),
    ],
)
def test_a_base_that_is_named_by_a_tag_is_seen(dockerfile: str, bases: list[str]) -> None:
    assert bases_by_tag(dockerfile) == bases


def archive_with(path: Path, **lists: Any) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in lists.items():
            data = json.dumps(content).encode()
            member = tarfile.TarInfo(f"{name}.json" if name != "repositories" else name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    "lists",
    [
        {"manifest": [{"RepoTags": [packed_name("h"), "docker.io/library/debian:12"]}]},
        {"manifest": [{"RepoTags": [packed_name("h")]}], "repositories": {"debian": {"12": "0"}}},
        {
            "manifest": [{"RepoTags": [packed_name("h")]}],
            "index": {"manifests": [{"annotations": {"io.containerd.image.name": "debian:12"}}]},
        },
        {
            "manifest": [{"RepoTags": [packed_name("h")]}],
            "index": {"manifests": [{"annotations": {"org.opencontainers.image.ref.name": "debian:12"}}]},
        },
        {"manifest": [{"RepoTags": [packed_name("h")], "repotags": ["debian:12"]}]},
        {
            "manifest": [{"RepoTags": [packed_name("h")]}],
            "index": {
                "Manifeſts": [{"annotations": {"io.containerd.image.name": "debian:12"}}],
                "manifests": [],
            },
        },
        {"manifest": [{"RepoTags": [packed_name("h")], "Layers": ["x" * (1 << 20)]}]},
        {"manifest": [{"RepoTags": None}]},
        {"manifest": {"RepoTags": 1}},
        {"manifest": 3},
    ],
)
def test_an_archive_that_would_take_another_images_name_is_not_loaded(
    lists: dict[str, Any], tmp_path: Path
) -> None:
    never = Engine("podman", "/bin/false", "0", rootless=True, memory=False, processes=False)
    with pytest.raises(TurntableError, match=r"not loaded|no image, or damaged"):
        load(never, archive_with(tmp_path / "image.tar", **lists), "h", tmp_path / "log")


GOOD = json.dumps([{"RepoTags": [packed_name("h")]}]).encode()
BAD = json.dumps([{"RepoTags": ["docker.io/library/debian:12"]}]).encode()


def member(
    name: str, data: bytes = b"", form: Literal[0, 1, 2] = tarfile.USTAR_FORMAT, **fields: Any
) -> bytes:
    """A member of an archive, as it lies there."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info.tobuf(form) + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def patched(block: bytes, at: int, data: bytes) -> bytes:
    """A member with other bytes in its header, and the checksum that fits."""
    header = bytearray(block[:512])
    header[at : at + len(data)] = data
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + block[512:]


GOOD_MEMBER = member("manifest.json", GOOD)


@pytest.mark.parametrize(
    "members",
    [
        [member("a/../manifest.json", BAD), GOOD_MEMBER],
        [member("./manifest.json", BAD), GOOD_MEMBER],
        [member("/manifest.json", BAD), GOOD_MEMBER],
        [member("../manifest.json", BAD), GOOD_MEMBER],
        [GOOD_MEMBER, GOOD_MEMBER],
        [GOOD_MEMBER, member("index.json", type=tarfile.SYMTYPE, linkname="other")],
        [GOOD_MEMBER, member("index.json", type=tarfile.LNKTYPE, linkname="other")],
        [GOOD_MEMBER, member("x", type=tarfile.SYMTYPE, linkname="."), member("x/manifest.json", BAD)],
        # A folder before the name, where other readers see none.
        [patched(patched(member("index.json", BAD), 257, b"ustar  \0"), 345, b"x"), GOOD_MEMBER],
        # A name for whatever follows, which other readers pass over.
        [GOOD_MEMBER, tarfile.TarInfo.create_pax_global_header({"path": "x"}), member("index.json", BAD)],
        [GOOD_MEMBER, member("index.json", BAD, tarfile.PAX_FORMAT, pax_headers={"path": "x"})],
        # A size that is 0 to one reader, and 1024 to another.
        [patched(member("x"), 124, b"\0\0\x30002000\0"), GOOD_MEMBER],
        [member("layer.tar", gzip.compress(bytes(1 << 20))), GOOD_MEMBER],
        [member("blob", bz2.compress(bytes(1 << 20))), GOOD_MEMBER],
        [member("blob", lzma.compress(bytes(1 << 20))), GOOD_MEMBER],
        [member("blob", b"\x28\xb5\x2f\xfd" + bytes(60)), GOOD_MEMBER],
        [patched(member("x"), 0, b"\x1f\x8b\x08\x04"), GOOD_MEMBER],
        [member("manifest.json", b"[" * (1 << 19))],
    ],
)
def test_an_archive_that_can_be_read_in_two_ways_or_be_expanded_is_not_loaded(
    members: list[bytes], tmp_path: Path
) -> None:
    never = Engine("podman", "/bin/false", "0", rootless=True, memory=False, processes=False)
    (archive := tmp_path / "image.tar").write_bytes(b"".join(members) + bytes(1024))
    with pytest.raises(TurntableError, match="no image, or damaged"):
        load(never, archive, "h", tmp_path / "log")


def test_the_archives_that_engines_write_are_taken(tmp_path: Path) -> None:
    layer = (
        member("hash.tar", bytes(10240)),
        member("id/layer.tar", type=tarfile.SYMTYPE, linkname="../hash.tar"),
    )
    long = member(
        "blob", b"{}", tarfile.PAX_FORMAT, pax_headers={"size": "2"}
    )  # as it is for those from 8 GiB on
    notes = {"io.containerd.image.name": packed_name("h"), "org.opencontainers.image.ref.name": "h"}
    index = member("index.json", json.dumps({"manifests": [{"annotations": notes}]}).encode())
    members = [member("id", type=tarfile.DIRTYPE), *layer, long, GOOD_MEMBER, index]
    (archive := tmp_path / "image.tar").write_bytes(b"".join(members) + bytes(1024))
    assert names_in(archive) == {packed_name("h"), "h"}
    check(DOCKER, archive, "h")


class Told(Watcher):
    """Keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.usefixtures("no_engine")
def test_a_bench_is_packed_without_an_engine_and_without_an_image_that_was_never_built(
    tmp_path: Path,
) -> None:
    (bench := Bench(tmp_path / "bench")).make()
    boxed(bench.methods_folder / "boxed", "", "FROM scratch\n")
    boxed(bench.methods_folder / "tagged", 'image = "docker.io/a/b:1"')
    moving.pack(bench, tmp_path / "pack.tar", told := Told())
    assert [" ".join(note.split()[:5]) for note in told.notes if "image" in note] == [
        f"{name} is packed without its" for name in ("boxed", "tagged")
    ]


# With real engines from here on.


@functools.lru_cache
def usable(name: str) -> Engine | str:
    found = look(name)
    return found if isinstance(found, str) else why_not(found) or found


@pytest.fixture(scope="module", params=["podman", "docker"])
def real(request: pytest.FixtureRequest) -> Engine:
    found = usable(request.param)
    if isinstance(found, str):
        pytest.skip(f"{request.param} starts no container here: {found}")
    return found


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("rootfs") / "rootfs.tar"
    write_rootfs(target)
    return target


def bench_with(folder: Path, of: Engine) -> Bench:
    bench = Bench(folder)
    bench.make()
    (folder / "bench.toml").write_text(f'format = 1\n[containers]\nengine = "{of.name}"\n')
    return bench


@pytest.fixture(scope="module")
def bench(real: Engine, rootfs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A bench with a method that lives in an image of a Dockerfile, built."""
    bench = bench_with(tmp_path_factory.mktemp("contained") / "bench", real)
    make_capture(bench.captures_folder / "small")
    folder = boxed(
        bench.methods_folder / "boxed", 'context = ["rootfs.tar"]', "FROM scratch\nADD rootfs.tar /\n"
    )
    os.link(rootfs, folder / "rootfs.tar")
    with pytest.raises(TurntableError, match="turntable env build boxed"):
        place_of(bench, bench.method("boxed"), True, quiet)
    build(bench, bench.method("boxed"), quiet)
    yield bench
    for image in all_images(bench.folder):
        remove(bench, image.hash)
    assert left(real) == ""


def names_of(of: Engine) -> set[str]:
    """The names of all images that an engine has."""
    for attempt in itertools.count():
        try:
            return set(of.call("images", "--format", "{{.Repository}}:{{.Tag}}", what="listing").split())
        except (
            TurntableError
        ):  # Podman stumbles over an image that somebody removes meanwhile: doctor, its trial
            if attempt == 4:
                raise
            time.sleep(0.2)
    raise AssertionError("counting doesn't end")


def left(of: Engine) -> str:
    """The containers of ours that are there still; one that the engine is removing, since it has ended, isn't."""
    deadline = time.monotonic() + 10
    while True:
        found = of.call("ps", "--all", "--quiet", "--filter", "label=turntable", what="listing")
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def variant(bench: Bench, name: str, code: str = METHOD_CODE, extra: str = "") -> None:
    """Another method in the same image."""
    if not (folder := bench.methods_folder / name).exists():
        shutil.copytree(bench.methods_folder / "boxed", folder, copy_function=os.link)
        (folder / "method.toml").unlink()
    toml = (bench.methods_folder / "boxed" / "method.toml").read_text()
    (folder / "method.toml").write_text(toml.replace('name = "boxed"', f'name = "{name}"') + extra)
    (folder / "method.py").unlink(missing_ok=True)
    (folder / "method.py").write_text(code)


def let_run(bench: Bench, method: str, *settings: str, steps: int = 8) -> RunFolder:
    wanted = RunRequest((method,), Budget(steps=steps), settings=settings, fresh=True)
    folders = plan(bench, bench.capture("small"), wanted)
    work(bench, folders, wanted.handling, Watcher())
    return folders[0]


def test_a_method_in_an_image_is_trained_and_scored(bench: Bench, real: Engine) -> None:
    run = let_run(bench, "boxed")
    assert bench.row(run.id).state is State.DONE and bench.record.scores(run.id)
    (image,) = all_images(bench.folder)
    assert run.asked().versions["environment"] == image.hash
    assert image.document["engine"] == real.name and real.inspect(image.document["id"]) is not None
    assert "hello from the method" in run.log_path.read_text()
    written = [path for path in run.path.rglob("*") if path.is_file()]
    assert {path.stat().st_uid for path in written} == {os.getuid()}
    assert left(real) == ""


PROGRAM = """
import json, pathlib, struct, sys, zlib
data, out = map(pathlib.Path, sys.argv[1:])
def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
for camera in json.loads((data / "transforms_test.json").read_text())["frames"]:
    width, height = 24, 16
    rows = (b"\\0" + b"\\x80" * 3 * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    name = pathlib.Path(camera["file_path"]).stem
    (out / (name + ".png")).write_bytes(b"\\x89PNG\\r\\n\\x1a\\n" + parts)
"""


def test_a_program_in_an_image_is_run_and_scored(bench: Bench) -> None:
    variant(bench, "program", PROGRAM)
    toml = (bench.methods_folder / "program" / "method.toml").read_text()
    before, _, _ = toml.partition("[run]")
    (bench.methods_folder / "program" / "method.toml").write_text(
        before
        + '[run]\nkind = "command"\ntrain = "{python} method.py {capture} {out}"\nviews = "{out}/{name}.png"\n'
    )
    run = let_run(bench, "program")
    assert bench.row(run.id).state is State.DONE, (bench.row(run.id).cause, run.log_path.read_text())
    assert bench.record.scores(run.id)


LOOKS = """
import ctypes, json, os, socket
import numpy as np
from pathlib import Path

def attempt(what, *arguments):
    try:
        return repr(what(*arguments))[:200]
    except BaseException as error:
        return type(error).__name__

class Method:
    def __init__(self, views, settings, seed, device):
        plan = json.loads(settings["plan"])
        found = {}
        for path in plan["read"]:
            ctypes.CDLL(None).umount2(path.encode(), 2)
            found["read " + path] = attempt(lambda: Path(path).read_bytes())
            found["list " + path] = attempt(os.listdir, path)
        for path in plan["write"]:
            found["write " + path] = attempt(lambda: Path(path).write_text("was here"))
        found["connect"] = attempt(socket.create_connection, tuple(plan["connect"]), 3)
        found["pids"] = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
        found["environment"] = sorted(os.environ)
        found["capabilities"] = [line for line in open("/proc/self/status") if line.startswith("CapEff")]
        try:
            of_the_first = os.listdir("/proc/1/fd")
        except PermissionError:
            of_the_first = []
        found["of the first"] = [attempt(open, "/proc/1/fd/" + name, "rb") for name in of_the_first]
        found["attach"] = ctypes.CDLL(None).ptrace(16, 1, None, None)  # PTRACE_ATTACH
        found["open"] = sorted(os.readlink("/proc/self/fd/" + name) for name in os.listdir("/proc/self/fd")
                               if os.path.exists("/proc/self/fd/" + name))
        self.found = found

    def step(self):
        return {"loss": 0.0}

    def render(self, camera):
        return {"image": np.zeros((camera.height, camera.width, 3))}

    def save(self, folder):
        (folder / "found.json").write_text(json.dumps(self.found))

    def load(self, folder):
        pass
"""


def test_nothing_is_seen_written_or_reached_but_what_is_its_own(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant(bench, "looks", LOOKS, '[settings.plan]\ndefault = "{}"\nhelp = "what it tries"\n')
    capture = bench.capture("small")
    (secret := bench.folder.parent / "secret.txt").write_text("secret")
    monkeypatch.setenv("COMPANY_TOKEN", "secret")
    held_out = [str(view.image_path) for view in capture.held_out]
    own = str(capture.training[0].image_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        asked = {
            "read": [str(secret), str(bench.folder / "record.sqlite"), *held_out, own],
            "write": [
                own,
                str(bench.methods_folder / "looks" / "method.py"),
                "/usr/x",
                str(secret),
                "/tmp/x",
            ],
            "connect": server.getsockname(),
        }
        run = let_run(bench, "looks", f"plan={json.dumps(asked)}", steps=1)
    (path,) = run.path.glob("checkpoint/*/method/found.json")
    found = json.loads(path.read_text())
    assert secret.read_text() == "secret"
    assert found[f"read {secret}"] == "FileNotFoundError"
    assert all(found[f"read {photo}"] == "b''" for photo in held_out) and found[f"read {own}"].startswith(
        "b'\\x89PNG"
    )
    refused = {found[f"write {path}"] for path in asked["write"][:3]}
    assert refused == {"OSError"} and found["write /tmp/x"] == "8"
    assert found["connect"] in ("ConnectionRefusedError", "OSError")
    assert len(found["pids"]) == 2 and "COMPANY_TOKEN" not in found["environment"]
    assert [line.split()[1] for line in found["capabilities"]] == ["0000000000000000"]
    assert set(found["of the first"]) <= {"PermissionError"} and found["attach"] == -1, (
        "the first has the locks"
    )
    assert not [path for path in found["open"] if path.endswith("lock")], "it could let go of its run's"


@pytest.mark.parametrize(
    ("mode", "state", "words"),
    [
        ("crash", State.FAILED, "crashed with signal 11 (SIGSEGV)"),
        ("exit", State.FAILED, "ended with status 7"),
        ("broken", State.FAILED, "cannot start"),
    ],
)
def test_how_a_method_ended_is_told_from_outside(bench: Bench, mode: str, state: State, words: str) -> None:
    row = bench.row(let_run(bench, "boxed", f"mode={mode}").id)
    assert row.state is state and words in str(row.cause)


def test_a_container_that_cannot_be_started_says_why(bench: Bench, real: Engine) -> None:
    place = place_of(bench, bench.method("boxed"), True, quiet)
    assert isinstance(place, Container)
    (folder := bench.folder.parent / "none").mkdir(exist_ok=True)
    missing = Container(**{**vars(place), "image": "0" * 64})
    with (folder / "log").open("ab") as log:
        process = RunProcess(["python3"], Quarters(folder, missing), log, ())
        process.process.wait(30)
        assert str(process.why_it_died()).startswith(f"{real.name} could not run it: ")
        process.end()


def test_a_program_that_ends_as_an_engine_does_is_not_taken_for_one(
    bench: Bench, real: Engine, tmp_path: Path
) -> None:
    place = place_of(bench, bench.method("boxed"), True, quiet)
    for number, (words, message) in enumerate(
        [
            (["python3", "-c", "print('all well'); raise SystemExit(125)"], "ended with status 125"),
            (["nothing"], f"{real.name} could not run it: nothing can't be run in this image: No such file"),
        ]
    ):
        (folder := tmp_path / str(number)).mkdir()
        with (folder / "log").open("ab") as log:
            process = RunProcess(words, Quarters(folder, place), log, ())
            process.process.wait(30)
            assert str(process.why_it_died()).startswith(message)
            process.end()


SPINS = """
import subprocess, sys
subprocess.Popen([sys.executable, '-c', 'while True: pass'], start_new_session=True)
while True: pass
"""


UNMARKED = """
import os, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
    else:
        os._exit(0)
os.execve(sys.executable, [sys.executable, '-c', 'while True: pass'], {})
"""


def spinning(bench: Bench, folder: Path, locks: Sequence[int] = (), program: str = SPINS) -> RunProcess:
    """A program with a child of its own session, both at work."""
    folder.mkdir(exist_ok=True)
    place = place_of(bench, bench.method("boxed"), True, quiet)
    with (folder / "log").open("ab") as log:
        process = RunProcess(["python3", "-c", program], Quarters(folder, place), log, locks)
    deadline = time.monotonic() + 30
    while len(inside(process)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(inside(process)) == 2, (folder / "log").read_text()
    return process


def inside(process: RunProcess) -> list[int]:
    found = []
    for one in process.family.members():
        with contextlib.suppress(psutil.Error):  # the engine's own come and go
            if "while True: pass" in "".join(one.cmdline()):
                found.append(one.pid)
    return found


@pytest.mark.parametrize("program", [SPINS, UNMARKED])
def test_a_program_in_a_container_is_paused_goes_on_and_is_ended(
    bench: Bench, real: Engine, program: str
) -> None:
    process = spinning(bench, bench.folder.parent / "spins", program=program)
    try:
        assert process.family.freeze() == "SIGSTOP"
        before = process.family.cpu_seconds()
        time.sleep(0.3)
        assert process.family.cpu_seconds() == before
        process.family.thaw()
        deadline = time.monotonic() + 10
        while process.family.cpu_seconds() == before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert process.family.cpu_seconds() > before
    finally:
        pids = inside(process)
        process.end()
    assert len(pids) == 2 and all(started(pid) is None for pid in pids)
    assert left(real) == ""


def test_locks_are_held_as_long_as_the_container_lives(bench: Bench, real: Engine, tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as other:
        with (tmp_path / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            process = spinning(bench, bench.folder.parent / "locked", (file.fileno(),))
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            process.end()
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_what_minds_a_container_is_none_of_the_run_though_it_is_seen_being_born(
    bench: Bench, real: Engine, tmp_path: Path
) -> None:
    (folder := tmp_path / "minded").mkdir()
    place = place_of(bench, bench.method("boxed"), True, quiet)
    with (folder / "log").open("ab") as log:
        process = RunProcess(["python3", "-c", SPINS], Quarters(folder, place), log, ())
    seen: set[str] = set()
    deadline = time.monotonic() + 30
    while (
        len(inside(process)) < 2 and time.monotonic() < deadline
    ):  # without a pause: it has a parent for a moment
        for member in process.family.members():
            with contextlib.suppress(psutil.Error):
                seen.add(member.name())
    process.family.freeze()
    process.end()
    assert seen and "conmon" not in seen
    assert left(real) == ""


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from environments.test_container import inside, spinning
from turntable.bench import Bench
process = spinning(Bench(Path(sys.argv[2])), Path(sys.argv[3]))
if sys.argv[4] == "frozen":
    process.family.freeze()
print("pids", *inside(process), flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("how", ["running", "frozen"])
def test_a_killed_supervisor_takes_the_container_with_it(bench: Bench, real: Engine, how: str) -> None:
    tests = Path(__file__).parents[1]
    words = [sys.executable, "-c", KILLED, tests, bench.folder, bench.folder.parent / f"killed-{how}", how]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        line = next(line for line in supervisor.stdout if line.startswith("pids"))
        supervisor.send_signal(signal.SIGKILL)
    pids = [int(word) for word in line.split()[1:]]
    deadline = time.monotonic() + 30
    while (any(started(pid) is not None for pid in pids) or left(real)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(started(pid) is not None for pid in pids) and left(real) == ""


def test_an_image_is_found_by_its_digest_and_another_bench_can_be_rid_of_it(
    bench: Bench, real: Engine, tmp_path: Path
) -> None:
    (image,) = all_images(bench.folder)
    digests = (real.inspect(image.document["id"]) or {}).get("RepoDigests") or []
    if not digests:
        pytest.skip(f"{real.name} gives an image a digest only when a registry has it, and none is here")
    other = bench_with(tmp_path / "bench", real)
    make_capture(other.captures_folder / "small")
    boxed(other.methods_folder / "fetched", f'image = "{digests[0]}"')
    assert other.row(let_run(other, "fetched").id).state is State.DONE
    assert export(other, other.method("fetched"), "dockerfile") == f"FROM {digests[0]}\n"
    shutil.rmtree(other.methods_folder / "fetched")
    shutil.rmtree(other.runs_folder)
    other.rebuild_record()
    prune(other)
    assert all_images(other.folder) == [] and real.inspect(image.document["id"]) is not None


def test_an_image_of_no_registry_has_no_digest_to_lock(bench: Bench, real: Engine, tmp_path: Path) -> None:
    with pytest.raises(TurntableError, match="its Dockerfile is the recipe"):
        lock(bench, bench.method("boxed"), quiet)
    other = bench_with(tmp_path / "bench", real)
    boxed(other.methods_folder / "tagged", 'image = "localhost:1/nothing/here:1"')
    with pytest.raises(TurntableError, match="Fetching localhost:1/nothing/here:1 failed"):
        lock(other, other.method("tagged"), quiet)


@pytest.mark.parametrize(
    ("dockerfile", "python", "message"),
    [
        ("FROM scratch\nCOPY missing /\n", "python3", "Building .* failed.* It may copy rootfs.tar: context"),
        ("FROM scratch\nADD rootfs.tar /\n", "python9", "'python9' is none"),
        ("FROM scratch\nADD rootfs.tar /\n", "python3", "No module named 'numpy'"),
    ],
)
def test_an_image_that_cannot_serve_leaves_a_log_and_nothing_else(
    dockerfile: str, python: str, message: str, real: Engine, tmp_path: Path
) -> None:
    bench = bench_with(tmp_path / "bench", real)
    folder = boxed(
        bench.methods_folder / "poor", f'context = ["rootfs.tar"]\npython = "{python}"', dockerfile
    )
    write_rootfs(folder / "rootfs.tar", with_numpy=False)
    method = bench.method("poor")
    with pytest.raises(TurntableError, match=message) as failure:
        build(bench, method, quiet)
    hash = recipe_at(folder).hash
    assert "\n" not in str(failure.value) and f"{hash}.log" in str(failure.value)
    assert [path.name for path in (bench.folder / "environments").iterdir() if path.name[0] != "."] == [
        f"{hash}.log"
    ]
    assert not [name for name in names_of(real) if name.endswith(f":{hash}")]


@pytest.mark.parametrize(
    ("does", "longest_s", "message"),
    [("pass", 3.0, "took 3 s"), ("print('x' * 4000)", 60.0, "said more than 65536 bytes")],
)
def test_an_image_is_looked_at_within_limits(
    does: str, longest_s: float, message: str, real: Engine, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant(bench, "endless")
    toml = bench.methods_folder / "endless" / "method.toml"
    toml.write_text(toml.read_text().replace("context =", 'python = "/usr/bin/python3"\ncontext ='))
    called: list[list[str]] = []
    popen = subprocess.Popen

    def start(words: list[str], **others: Any) -> Any:
        called.append(words)
        return popen(words, **others)

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr(images, "LONGEST_LOOK_S", longest_s)
    monkeypatch.setattr(images, "_LOOK", f"while True: {does}")
    try:
        with pytest.raises(TurntableError, match=message):
            build(bench, bench.method("endless"), quiet)
    finally:
        shutil.rmtree(bench.methods_folder / "endless")
    assert left(real) == ""
    (words,) = [words for words in called if f"while True: {does}" in words]
    assert {"--name", "--label"} <= set(words)
    assert ("--memory" in words, "--pids-limit" in words) == (real.memory, real.processes)


def test_two_who_want_the_same_image_build_it_once(real: Engine, rootfs: Path, tmp_path: Path) -> None:
    bench = bench_with(tmp_path / "bench", real)
    folder = boxed(
        bench.methods_folder / "twice", 'context = ["rootfs.tar"]', "FROM scratch\nADD rootfs.tar /\n"
    )
    os.link(rootfs, folder / "rootfs.tar")
    said: list[str] = []
    builders = [
        threading.Thread(target=build, args=(bench, bench.method("twice"), said.append)) for _ in range(2)
    ]
    for one in builders:
        one.start()
    for one in builders:
        one.join()
    assert len([line for line in said if "building" in line]) == 1 and len(all_images(bench.folder)) == 1
    (image,) = all_images(bench.folder)
    assert image.document["tag"] in names_of(real)
    remove(bench, image.hash)
    assert all_images(bench.folder) == [] and image.document["tag"] not in names_of(real)


def test_an_image_that_the_engine_keeps_stays_in_the_bench(
    bench: Bench, real: Engine, tmp_path: Path
) -> None:
    other = bench_with(tmp_path / "bench", real)
    folder = boxed(
        other.methods_folder / "kept",
        'context = ["rootfs.tar", "own"]',
        "FROM scratch\nADD rootfs.tar own /\n",
    )
    os.link(bench.methods_folder / "boxed" / "rootfs.tar", folder / "rootfs.tar")
    (folder / "own").write_text(str(tmp_path))
    build(other, other.method("kept"), quiet)
    (image,) = all_images(other.folder)
    real.call(
        "create", "--name", "turntable-keeps", image.document["id"], "python3", what="making a container"
    )
    try:
        with pytest.raises(TurntableError, match="Removing the image failed"):
            remove(other, image.hash)
        assert all_images(other.folder) == [image] and image.document["tag"] in names_of(real)
    finally:
        real.remove_container("turntable-keeps")
    with (other.folder / "environments" / f".{image.hash}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (remover := threading.Thread(target=images.remove_image, args=(image, real))).start()
        remover.join(1.0)
        assert remover.is_alive() and all_images(other.folder) == [image], "somebody makes it just now"
    remover.join()
    assert all_images(other.folder) == [] and image.document["tag"] not in names_of(real)


def test_a_packed_bench_brings_its_images(bench: Bench, real: Engine, tmp_path: Path) -> None:
    small = bench_with(tmp_path / "small", real)
    make_capture(small.captures_folder / "small")
    shutil.copytree(bench.methods_folder / "boxed", small.methods_folder / "boxed")
    build(small, small.method("boxed"), quiet)
    boxed(small.methods_folder / "unvetted", "", "FROM scratch\nRUN never\n")
    moving.pack(small, tmp_path / "pack.tar", told := Told())
    (note,) = [note for note in told.notes if "unvetted" in note]
    assert note.startswith("unvetted is packed without its image") and "turntable env build unvetted" in note
    hash = recipe_at(small.methods_folder / "boxed").hash
    assert names_in(small.folder / "store" / "images" / hash / "image.tar") == {packed_name(hash)}
    remove(small, hash)
    arrived = bench_with(tmp_path / "arrived", real)
    (arrived.folder / "bench.toml").unlink()
    came = moving.unpack(tmp_path / "pack.tar", arrived, Watcher(), trust_settings=True)
    assert came.cannot == [] and came.environments == {"boxed": hash}
    assert packed_name(hash) not in names_of(real)
    assert arrived.row(let_run(arrived, "boxed").id).state is State.DONE
    assert images_of(arrived).engine == real
    shutil.rmtree(arrived.methods_folder / "boxed")
    shutil.rmtree(arrived.runs_folder)
    arrived.rebuild_record()
    assert prune(arrived) > 0
    assert all_images(arrived.folder) == [] and not list((arrived.folder / "store" / "images").glob("*"))
