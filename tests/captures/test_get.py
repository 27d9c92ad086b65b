"""``turntable get``: downloads that break, change and lie; hostile archives; what was got is known for what it is."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captures.archives import Behaviour, nerf_synthetic, serving, zipped
from turntable.bench import Bench
from turntable.captures import download, unpacking
from turntable.captures.build import CaptureOptions, add_capture
from turntable.captures.catalogue import check_address, find_entry, shown
from turntable.captures.dataset import MARKER, dataset_of
from turntable.captures.download import fetch
from turntable.captures.get import recorded_hash
from turntable.captures.unpacking import BadArchive, unpack
from turntable.datasets import get_dataset
from turntable.errors import TurntableError
from turntable.tasks.metrics import psnr
from turntable.tasks.published import Ours, beside
from turntable.turns.watcher import Watcher

DATA = np.random.default_rng(1).integers(0, 256, 300_000, np.uint8).tobytes()


def fetched(address: str, target: Path, sha256: str = "", size: int | None = None) -> str:
    return fetch(address, target, sha256, size, lambda done, total: None, pause_s=0.001)


def interrupted(address: str, target: Path) -> None:
    """Fetch once, and press Ctrl-C when the connection has broken, if it did."""

    def press(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(download, "time", SimpleNamespace(sleep=press))
        fetched(address, target)


# Downloads.


def test_a_file_is_fetched_whole(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with serving(behaviour := Behaviour(DATA)) as address:
        sha256 = fetch(address, tmp_path / "f", "", None, lambda *done: told.append(done))
    assert sha256 == behaviour.sha256 and (tmp_path / "f").read_bytes() == DATA
    assert told[-1] == (len(DATA), len(DATA))
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize(
    "validator", [{"etag": '"one"'}, {"etag": "", "modified": "Tue, 24 Nov 2026 10:00:00 GMT"}]
)
def test_a_connection_that_breaks_is_gone_on_with_where_it_broke(
    tmp_path: Path, validator: dict[str, str]
) -> None:
    with serving(behaviour := Behaviour(DATA, break_after=90_000, **validator)) as address:
        fetched(address, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA
    assert behaviour.requests == [None, "bytes=90000-", "bytes=180000-", "bytes=270000-"]


def test_what_an_earlier_process_fetched_is_not_fetched_again(tmp_path: Path) -> None:
    with serving(behaviour := Behaviour(DATA, break_after=100_000)) as address:
        interrupted(address, tmp_path / "f")
        assert (tmp_path / "f.part").stat().st_size == 100_000
        behaviour.break_after = None
        fetched(address, tmp_path / "f")
    assert behaviour.requests[-1] == "bytes=100000-" and (tmp_path / "f").read_bytes() == DATA


def leave_part(
    tmp_path: Path, address: str, data: bytes, validator: str = '"one"', total: int | None = None
) -> None:
    (tmp_path / "f.part").write_bytes(data)
    about = {"address": address, "validator": validator, "total": total or len(DATA)}
    (tmp_path / "f.part.json").write_text(json.dumps(about))


def test_a_file_that_changed_meanwhile_begins_anew(tmp_path: Path) -> None:
    with serving(behaviour := Behaviour(DATA, etag='"two"')) as address:
        leave_part(tmp_path, address, b"of the old version")
        fetched(address, tmp_path / "f")
    assert behaviour.requests == ["bytes=18-"] and (tmp_path / "f").read_bytes() == DATA


def test_a_server_that_ignores_if_range_is_found_out_by_its_etag(tmp_path: Path) -> None:
    class Careless(Behaviour):
        pass

    behaviour = Careless(DATA, etag='"two"', modified='"one"')  # it takes the old name for a right one
    with serving(behaviour) as address:
        leave_part(tmp_path, address, b"of the old version")
        fetched(address, tmp_path / "f")
    assert behaviour.requests == ["bytes=18-", None] and (tmp_path / "f").read_bytes() == DATA


def test_a_server_that_goes_on_elsewhere_is_found_out(tmp_path: Path) -> None:
    with serving(behaviour := Behaviour(DATA, shift=5)) as address:
        leave_part(tmp_path, address, DATA[:1000])
        fetched(address, tmp_path / "f")
    assert behaviour.requests == ["bytes=1000-", None] and (tmp_path / "f").read_bytes() == DATA


def test_without_ranges_it_begins_anew_and_ends_well(tmp_path: Path) -> None:
    with serving(behaviour := Behaviour(DATA, ranges=False)) as address:
        leave_part(tmp_path, address, DATA[:1000])
        fetched(address, tmp_path / "f")
    assert behaviour.requests == ["bytes=1000-"] and (tmp_path / "f").read_bytes() == DATA


def test_a_part_that_nobody_can_vouch_for_is_not_gone_on_with(tmp_path: Path) -> None:
    with serving(behaviour := Behaviour(DATA, etag="")) as address:
        leave_part(tmp_path, address, DATA[:1000], validator="")
        fetched(address, tmp_path / "f")
        assert behaviour.requests == [None]
        (tmp_path / "f").unlink()
        leave_part(tmp_path, address, DATA[:1000], validator="")
        fetched(address, tmp_path / "f", behaviour.sha256)  # the hash vouches for it
        assert behaviour.requests == [None, "bytes=1000-"]
    assert (tmp_path / "f").read_bytes() == DATA


@pytest.mark.parametrize("about", ["", "[]", "{}", '{"address": 3}', "nonsense"])
def test_a_part_whose_description_is_damaged_begins_anew(tmp_path: Path, about: str) -> None:
    with serving(behaviour := Behaviour(DATA)) as address:
        (tmp_path / "f.part").write_bytes(b"who knows")
        (tmp_path / "f.part.json").write_text(about)
        fetched(address, tmp_path / "f")
    assert behaviour.requests == [None] and (tmp_path / "f").read_bytes() == DATA


def test_a_part_that_is_whole_needs_no_server(tmp_path: Path) -> None:
    leave_part(tmp_path, "http://127.0.0.1:9/file.zip", DATA)
    fetched("http://127.0.0.1:9/file.zip", tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA


def test_a_part_that_is_longer_than_the_file_begins_anew(tmp_path: Path) -> None:
    with serving(Behaviour(DATA)) as address:
        leave_part(tmp_path, address, DATA + b"more")
        fetched(address, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA


def test_a_server_that_claims_more_than_it_gives_is_told_of(tmp_path: Path) -> None:
    words = r"can't be fetched: .*the same command goes on"
    with serving(Behaviour(DATA, claims=400_000)) as address, pytest.raises(TurntableError, match=words):
        fetched(address, tmp_path / "f")
    assert not (tmp_path / "f").exists()


def test_a_server_that_claims_another_length_than_the_catalogue_is_refused(tmp_path: Path) -> None:
    with (
        serving(Behaviour(DATA)) as address,
        pytest.raises(TurntableError, match="300000 bytes, and the catalogue says 7"),
    ):
        fetched(address, tmp_path / "f", size=7)


def test_a_wrong_hash_is_refused_and_what_came_is_kept_aside(tmp_path: Path) -> None:
    words = f"not {'0' * 64} as the catalogue says: it is another file"
    with serving(behaviour := Behaviour(DATA)) as address:
        for attempt in (1, 2):
            with pytest.raises(TurntableError, match=words) as caught:
                fetched(address, tmp_path / "f", "0" * 64)
            assert len(behaviour.requests) == attempt  # what was refused doesn't stand in the way
    assert [path.name for path in tmp_path.iterdir()] == ["f.refused"]
    assert f"kept as {tmp_path}/f.refused" in str(caught.value)


def test_without_a_length_from_the_server_the_catalogues_size_is_held_to(tmp_path: Path) -> None:
    with serving(Behaviour(DATA, claims=-1)) as address:
        for size in (200_000, 400_000):
            words = f"has 300000 bytes, not {size} as the catalogue says: it was cut off on its way, or is another"
            with pytest.raises(TurntableError, match=words):
                fetched(address, tmp_path / f"f{size}", size=size)
            assert (tmp_path / f"f{size}.refused").read_bytes() == DATA
        fetched(address, tmp_path / "h", size=300_000)
    assert (tmp_path / "h").read_bytes() == DATA


def test_what_was_fetched_and_believed_stays_whatever_the_catalogue_says_later(tmp_path: Path) -> None:
    with serving(behaviour := Behaviour(DATA)) as address:
        fetched(address, tmp_path / "f")
        for wrong in ({"size": 7}, {"sha256": "0" * 64}):
            with pytest.raises(TurntableError, match=f"It was fetched before, and stays: {tmp_path}/f"):
                fetched(address, tmp_path / "f", **wrong)
        fetched(address, tmp_path / "f", size=len(DATA))
    assert behaviour.requests == [None] and (tmp_path / "f").read_bytes() == DATA


def test_a_server_that_stumbles_is_asked_again(tmp_path: Path) -> None:
    with serving(behaviour := Behaviour(DATA, status=[503, 500, 429])) as address:
        fetched(address, tmp_path / "f")
    assert len(behaviour.requests) == 4


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        (Behaviour(DATA, status=[404]), "the server answers 404 Not Found. Is the address still right"),
        (Behaviour(DATA, status=[503] * 9), "the server answers 503 Service Unavailable"),
        (Behaviour(b"<html>", kind="text/html; charset=utf-8"), "gives a web page, not an archive"),
    ],
)
def test_an_answer_that_is_no_file_is_one_line(tmp_path: Path, behaviour: Behaviour, message: str) -> None:
    with serving(behaviour) as address, pytest.raises(TurntableError, match=message) as caught:
        fetched(address, tmp_path / "f")
    assert "\n" not in str(caught.value)


def test_nobody_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TurntableError, match=r"can't be fetched: .*refused"):
        fetched("http://127.0.0.1:9/file.zip", tmp_path / "f")


def test_a_redirect_is_followed_but_not_to_where_nobody_may_lead(tmp_path: Path) -> None:
    with serving(behaviour := Behaviour(DATA)) as address:
        fetched(address.replace("/file.zip", "/to"), tmp_path / "f")
        behaviour.to = "http://data.example.org/file.zip"
        with pytest.raises(TurntableError, match="Plain http can be changed on its way"):
            fetched(address.replace("/file.zip", "/to"), tmp_path / "g")
        behaviour.to = "file:///etc/passwd"
        with pytest.raises(TurntableError, match=r"can't be fetched|begins with https"):
            fetched(address.replace("/file.zip", "/to"), tmp_path / "g")
    assert (tmp_path / "f").read_bytes() == DATA and not (tmp_path / "g").exists()


def test_a_server_that_is_slow_is_waited_for(tmp_path: Path) -> None:
    with serving(Behaviour(DATA, pause_s=0.02)) as address:
        fetched(address, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA


def test_a_server_that_falls_silent_is_left_and_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT_S", 0.2)
    with serving(behaviour := Behaviour(DATA, pause_s=0.5)) as address:
        threading.Timer(0.7, lambda: setattr(behaviour, "pause_s", 0.0)).start()
        fetched(address, tmp_path / "f")
    assert len(behaviour.requests) > 1 and (tmp_path / "f").read_bytes() == DATA


def test_no_room_on_the_disk_is_said_before_anything_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "SPARE_BYTES", 10**18)
    with serving(Behaviour(DATA)) as address, pytest.raises(TurntableError, match="GB free"):
        fetched(address, tmp_path / "f")


@given(st.lists(st.integers(1, 120_000), min_size=1, max_size=6), st.booleans())
@settings(max_examples=25, deadline=None)
def test_whatever_breaks_where_the_same_bytes_come(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], ranges: bool
) -> None:
    target = tmp_path_factory.mktemp("cuts") / "f"
    with serving(behaviour := Behaviour(DATA, ranges=ranges)) as address:
        for cut in cuts:
            behaviour.break_after = cut
            interrupted(address, target)
        behaviour.break_after = None
        fetched(address, target)
    assert target.read_bytes() == DATA


@pytest.mark.parametrize(
    ("address", "sha256", "message"),
    [
        ("ftp://a/b.zip", "", "begins with https"),
        ("file:///etc/passwd", "", "begins with https"),
        ("/data/a.zip", "", "begins with https"),
        ("https:///a.zip", "", "begins with https"),
        ("https://[::1/a.zip", "", "begins with https"),
        ("https://a:99999999/b.zip", "", "begins with https"),
        ("https://me:secret@a/b.zip", "", "user's name or password"),
        ("http://example.org/b.zip?key=secret", "", "needs a sha256 in the catalogue"),
        ("http://127.0.0.1.example.org/b.zip", "", "needs a sha256"),
    ],
)
def test_addresses_that_anybody_could_change_are_refused(address: str, sha256: str, message: str) -> None:
    with pytest.raises(TurntableError, match=message) as caught:
        check_address(address, sha256)
    assert "secret" not in str(caught.value)


def test_addresses_that_are_taken() -> None:
    check_address("https://example.org/a.zip", "")
    check_address("http://example.org/a.zip", "0" * 64)
    for host in ("127.0.0.1", "[::1]", "localhost:8000"):
        check_address(f"http://{host}/a.zip", "")
    assert shown("https://a/b.zip?key=secret#x") == "https://a/b.zip"


# Archives.

LIMIT = 10_000_000


def unpacked(
    tmp_path: Path, data: bytes, kind: str = "zip", inside: str = "lego", most: int = LIMIT
) -> list[str]:
    archive, into = tmp_path / f"a.{kind}", tmp_path / "into" / "here"
    archive.write_bytes(data)
    into.mkdir(parents=True)
    unpack(archive, inside, into, most, lambda done, total: None)
    return sorted(path.relative_to(into).as_posix() for path in into.rglob("*") if path.is_file())


def tarred(members: list[tuple[tarfile.TarInfo, bytes]], mode: str = "w") -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as archive:  # type: ignore[call-overload]
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return made.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def test_one_folder_comes_out_and_nothing_else(tmp_path: Path) -> None:
    files = {
        "lego/a.png": b"1",
        "lego/train/b.png": b"2",
        "ship/c.png": b"3",
        "legolas/d": b"4",
        "../e": b"5",
        "/lego/f": b"6",
    }
    assert unpacked(tmp_path, zipped(files)) == ["a.png", "train/b.png"]
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar_archives_come_in_every_packing(tmp_path: Path, mode: str) -> None:
    members = [
        (member("./lego/a.png"), b"1"),
        (member("lego/t", tarfile.DIRTYPE), b""),
        (member("lego/t/b"), b"2"),
    ]
    assert unpacked(tmp_path, tarred(members, mode), "tar") == ["a.png", "t/b"]


def zip_with(name: str, mode: int = 0, flags: int = 0) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, "/etc/passwd")
    data = bytearray(made.getvalue())
    if flags:
        for place in (data.index(b"PK\x03\x04") + 6, data.index(b"PK\x01\x02") + 8):
            data[place] |= flags
    return bytes(data)


def bzip2_damaged() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("lego/a", DATA)
    data = bytearray(made.getvalue())
    data[42] ^= 255  # in the header of the first block
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (zip_with("lego/../../evil"), "zip", "would not stay in its folder"),
        (zip_with("lego/..\\evil"), "zip", "would not stay"),
        (zip_with("lego/c:evil"), "zip", "would not stay"),
        (zip_with("lego/link", stat.S_IFLNK | 0o777), "zip", "is a link"),
        (zip_with("lego/pipe", stat.S_IFIFO | 0o777), "zip", "is a link or something else"),
        (zip_with("lego/x", flags=1), "zip", "is encrypted"),
        (tarred([(member("lego/../../evil"), b"x")]), "tar", "would not stay"),
        (
            tarred([(member("lego/l", tarfile.SYMTYPE, "/etc"), b""), (member("lego/l/x"), b"x")]),
            "tar",
            "is a link",
        ),
        (tarred([(member("lego/l", tarfile.LNKTYPE, "/etc/passwd"), b"")]), "tar", "is a link"),
        (tarred([(member("lego/d", tarfile.CHRTYPE), b"")]), "tar", "is a link or something else"),
        (tarred([(member("lego/a"), b"1"), (member("lego/a"), b"2")]), "tar", "stands in it twice"),
        (tarred([(member("lego/a"), b"1"), (member("lego/a/b"), b"2")]), "tar", "stands in it twice"),
        (b"not an archive at all", "zip", "is damaged, or no zip or tar archive"),
        (b"not an archive at all", "tar", "is damaged, or no zip or tar archive"),
        (zipped({"lego/a": b"1" * 1000})[:-30], "zip", "is damaged, or no zip or tar archive"),
        (tarred([(member("lego/a"), b"1")])[:1024], "tar", "it was cut off"),
        (tarred([(member("lego/a"), DATA)], "w:gz")[:-4] + bytes(4), "tar", "is damaged"),
        (bzip2_damaged(), "zip", "is damaged, or no zip or tar archive"),
        (tarred([(member("lego/a"), DATA)], "w:gz")[:2000], "tar", "is damaged, or no zip or tar archive"),
    ],
)
def test_hostile_and_damaged_archives_are_refused(
    tmp_path: Path, data: bytes, kind: str, message: str
) -> None:
    with pytest.raises(BadArchive, match=message) as caught:
        unpacked(tmp_path, data, kind)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("evil"))


def test_all_of_an_archive_is_as_guarded(tmp_path: Path) -> None:
    for number, name in enumerate(("/evil", "../evil", "a/../../evil")):
        (folder := tmp_path / str(number)).mkdir()
        with pytest.raises(BadArchive, match="would not stay"):
            unpacked(folder, zip_with(name), inside="")


def test_an_archive_is_what_its_first_bytes_say_whatever_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    assert unpacked(tmp_path / "t", tarred([(member("lego/a"), b"1")], "w:xz"), "zip") == ["a"]
    (tmp_path / "p").mkdir()
    begins_like_a_zip = tarred([(member("PKs/b"), b"2"), (member("lego/a"), b"1")])
    assert unpacked(tmp_path / "p", begins_like_a_zip, "zip") == ["a"]
    (tmp_path / "z").mkdir()
    assert unpacked(tmp_path / "z", zipped({"lego/a": b"1"}), "tar") == ["a"]


def test_a_tar_that_is_cut_off_between_two_files_is_found(tmp_path: Path) -> None:
    data = tarred([(member("lego/a"), b"1"), (member("lego/b"), b"2")])
    with pytest.raises(BadArchive, match="it was cut off"):
        unpacked(tmp_path, data[:1024], "tar")


def test_a_name_that_no_disk_takes_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TurntableError, match="too long a name for this disk") as caught:
        unpacked(tmp_path, zipped({f"lego/{'x' * 300}": b"1"}))
    assert not isinstance(caught.value, BadArchive) and len(str(caught.value)) < 200


def test_names_in_an_archive_can_do_nothing_to_the_terminal(tmp_path: Path) -> None:
    with pytest.raises(TurntableError, match="has no files in lego") as caught:
        unpacked(tmp_path, zipped({"\x1b[2Jx/a": b"", "b\nc/y": b""}))
    assert "\x1b" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_damaged_member_is_found(tmp_path: Path) -> None:
    data = bytearray(zipped({"lego/a": DATA}))
    data[5000] ^= 1
    with pytest.raises(BadArchive, match="CRC"):
        unpacked(tmp_path, bytes(data))


def test_bombs_stop_at_the_limit(tmp_path: Path) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("lego/a", bytes(20_000_000))
    with pytest.raises(TurntableError, match="unfolds to more than 10 MB"):
        unpacked(tmp_path, made.getvalue())
    (tmp_path / "t").mkdir()
    with pytest.raises(TurntableError, match="unfolds to more than 10 MB"):
        unpacked(tmp_path / "t", tarred([(member("lego/a"), bytes(20_000_000))], "w:gz"), "tar")
    (tmp_path / "u").mkdir()
    elsewhere = [(member("other"), bytes(20_000_000)), (member("lego/a"), b"1")]
    with pytest.raises(TurntableError, match="unfolds to more than 10 MB"):
        unpacked(tmp_path / "u", tarred(elsewhere, "w:gz"), "tar")


def test_a_header_that_claims_gigabytes_is_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("lego/x")
    info.type, info.size = tarfile.XHDTYPE, 10**9
    with pytest.raises(BadArchive, match="a header that is too large"):
        unpacked(tmp_path, info.tobuf() + bytes(2048), "tar")


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "MOST_FILES", 3)
    with pytest.raises(TurntableError, match="more than 3 files"):
        unpacked(tmp_path, zipped({f"lego/{index}": b"" for index in range(5)}))


def test_a_folder_that_is_not_there_is_answered_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(TurntableError, match="has no files in lego; it holds 'a', 'b'") as caught:
        unpacked(tmp_path, zipped({"a/x": b"", "b/y": b""}))
    assert not isinstance(caught.value, BadArchive)


# The whole way.


def bench_with(tmp_path: Path, text: str) -> Bench:
    bench = Bench(tmp_path / "bench")
    bench.folder.mkdir(parents=True)
    bench.make()
    (bench.folder / "catalogue.toml").write_text(text)
    return bench


LEGO = zipped(nerf_synthetic())


def test_a_data_set_is_got_captured_and_set_beside_what_is_published(tmp_path: Path) -> None:
    with serving(Behaviour(LEGO)) as address:
        bench = bench_with(tmp_path, f'nerf_synthetic.address = "{address}"\n')
        got = get_dataset(bench, "nerf_synthetic/lego", Watcher())
        again = get_dataset(bench, "nerf_synthetic/lego", Watcher())
    assert got.recorded and not got.was_there and again.was_there
    assert (got.folder / "train" / "r_0.png").is_file() and not (got.folder / ".DS_Store").exists()
    assert {path.name for path in got.folder.parent.iterdir()} == {"lego", ".lego.lock"}
    capture = add_capture(got.folder, bench.captures_folder, CaptureOptions())
    assert (
        str(dataset_of(capture)) == "nerf_synthetic/lego"
        and capture.document["source"]["dataset"]["sha256"] == got.sha256
    )
    assert sorted(view.name for view in capture.held_out) == [f"test/r_{index}.png" for index in range(3)]
    assert len(capture.training) == 6 and capture.has_alpha
    assert (capture.held_out[0].image()[:10] == 255).all()  # alpha is composited onto white
    ours = Ours("splat", {"psnr": 20.0}, {"psnr": psnr.DEFINITION}, "30000steps")
    (bench.folder / "published").mkdir()
    (bench.folder / "published" / "mine.toml").write_text(
        'dataset = "nerf_synthetic"\ntitle = "ours, tiny"\nscenes = ["lego"]\n'
        "[protocol]\ntask = 'views'\nviews = 3\nsplit = 'own'\nbackground = 'white'\nsize = [64, 64]\npictures = '8-bit'\n"
        '[[published]]\ndataset = "nerf_synthetic"\nmethod = "tiny"\nsource = "here"\npsnr = { lego = 21.0 }\n'
    )
    rows = {row.method: row for row in beside(capture, ours, bench.published())}
    assert rows["tiny"].agrees and (rows["tiny"].value, rows["tiny"].ours) == (21.0, 20.0)
    assert rows["3DGS"].differences == (
        "200 held-out views, ours are 3",
        "100 training views, ours are 6",
        "800×800 pixels, ours 64×64",
    )


def test_the_same_photos_without_a_word_are_of_no_data_set(tmp_path: Path) -> None:
    with serving(Behaviour(LEGO)) as address:
        bench = bench_with(tmp_path, f'nerf_synthetic.address = "{address}"\n')
        folder = get_dataset(bench, "nerf_synthetic/lego", Watcher()).folder
    said = add_capture(folder, bench.captures_folder, CaptureOptions())
    (folder / MARKER).unlink()
    unsaid = add_capture(folder, bench.captures_folder, CaptureOptions())
    assert unsaid.hash == said.hash and unsaid.name != said.name and dataset_of(unsaid) is None
    (folder / MARKER).write_text('{"name": "nerf_synthetic/lego"}')
    by_hand = add_capture(folder, bench.captures_folder, CaptureOptions())
    assert (
        str(dataset_of(by_hand)) == "nerf_synthetic/lego"
        and by_hand.document["source"]["dataset"]["sha256"] == ""
    )


@pytest.mark.parametrize("text", ["[]", "{}", '{"name": 3}', '{"name": "/lego"}', '{"name": "a//b"}'])
def test_a_marker_that_names_nothing_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / MARKER).write_text(text)
    (tmp_path / "transforms.json").write_text("{}")
    (tmp_path / "captures").mkdir()
    with pytest.raises(TurntableError, match="must hold a data set's name"):
        add_capture(tmp_path, tmp_path / "captures", CaptureOptions())


def test_the_first_downloads_hash_is_held_to(tmp_path: Path) -> None:
    with serving(behaviour := Behaviour(zipped(nerf_synthetic() | nerf_synthetic("ship")))) as address:
        bench = bench_with(tmp_path, f'nerf_synthetic.address = "{address}"\n')
        got = get_dataset(bench, "nerf_synthetic/lego", Watcher())
        record = bench.folder / "catalogue.lock.toml"
        assert recorded_hash(record, "nerf_synthetic") == behaviour.sha256
        # Another scene of the same archive comes without a download.
        ship = get_dataset(bench, "nerf_synthetic/ship", Watcher())
        assert behaviour.requests == [None] and not ship.recorded
        assert got.archive is not None
        got.archive.unlink()
        behaviour.data = LEGO
        with pytest.raises(TurntableError, match="it is another file than was meant"):
            get_dataset(bench, "nerf_synthetic/chair", Watcher())
    assert recorded_hash(record, "nerf_synthetic") == got.sha256
    assert not (bench.folder / "datasets" / "nerf_synthetic" / "chair").exists()


def test_a_hash_in_the_catalogue_is_not_recorded_but_held_to(tmp_path: Path) -> None:
    with serving(behaviour := Behaviour(LEGO)) as address:
        text = f'[nerf_synthetic]\naddress = "{address}"\nsha256 = "{behaviour.sha256.upper()}"\n'
        assert not get_dataset(bench := bench_with(tmp_path, text), "nerf_synthetic/lego", Watcher()).recorded
    assert not (bench.folder / "catalogue.lock.toml").exists()


def test_a_damaged_first_download_is_neither_recorded_nor_kept(tmp_path: Path) -> None:
    with serving(behaviour := Behaviour(LEGO[:-100])) as address:
        bench = bench_with(tmp_path, f'nerf_synthetic.address = "{address}"\n')
        with pytest.raises(BadArchive):
            get_dataset(bench, "nerf_synthetic/lego", Watcher())
        assert not (bench.folder / "catalogue.lock.toml").exists()
        behaviour.data = LEGO
        assert get_dataset(bench, "nerf_synthetic/lego", Watcher()).recorded


def test_a_wrong_folder_in_the_catalogue_costs_no_second_download(tmp_path: Path) -> None:
    with serving(behaviour := Behaviour(LEGO)) as address:
        text = f'[nerf_synthetic]\naddress = "{address}"\n'
        bench = bench_with(tmp_path, text + 'inside = "wrong/{scene}"\n')
        with pytest.raises(TurntableError, match=r"has no files in wrong/lego; it holds .*nerf_synthetic"):
            get_dataset(bench, "nerf_synthetic/lego", Watcher())
        (bench.folder / "catalogue.toml").write_text(text)
        get_dataset(bench, "nerf_synthetic/lego", Watcher())
    assert behaviour.requests == [None]


def test_without_an_address_it_is_said_what_to_write_where(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "bench")
    with pytest.raises(TurntableError) as caught:
        get_dataset(bench, "nerf_synthetic/lego", Watcher())
    words = str(caught.value)
    assert f'write into {bench.folder}/catalogue.toml the line nerf_synthetic.address = "https://…"' in words
    assert "matthewtancik.com/nerf" in words and "--file" in words and "\n" not in words
    with pytest.raises(
        TurntableError, match=r"Unknown data set 'nerf_synthetic/lega'.*Did you mean 'nerf_synthetic/lego'"
    ):
        get_dataset(bench, "nerf_synthetic/lega", Watcher())
    with pytest.raises(TurntableError, match="nerf_synthetic has scenes, and one is fetched at a time"):
        get_dataset(bench, "nerf_synthetic", Watcher())


def test_turntables_own_catalogue_invents_no_address_and_no_hash() -> None:
    text = (Path(unpacking.__file__).with_name("catalogue.toml")).read_text()
    assert "\naddress" not in text and "\nsha256" not in text
    for name in ("nerf_synthetic/ship", "mipnerf360/treehill", "dtu/scan122"):
        entry = find_entry(name, [])
        assert (
            entry.address == entry.sha256 == "" and entry.described.startswith("https://") and entry.licence
        )


def test_a_file_that_one_has_needs_no_address(tmp_path: Path) -> None:
    (tmp_path / "mine.zip").write_bytes(LEGO)
    bench = Bench(tmp_path / "bench")
    got = get_dataset(
        bench, "nerf_synthetic/lego", Watcher(), file=tmp_path / "mine.zip", out=tmp_path / "out"
    )
    assert got.folder == tmp_path / "out" / "nerf_synthetic" / "lego" and got.archive is None and got.recorded
    assert (tmp_path / "mine.zip").exists()
    with pytest.raises(TurntableError, match="--file is an archive, and there is none"):
        get_dataset(bench, "nerf_synthetic/ship", Watcher(), file=tmp_path / "no.zip")


def test_a_folder_of_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.zip").write_bytes(LEGO)
    (tmp_path / "out" / "nerf_synthetic" / "lego").mkdir(parents=True)
    with pytest.raises(
        TurntableError, match="is there already, and doesn't say that it is nerf_synthetic/lego"
    ):
        get_dataset(
            Bench(tmp_path / "b"),
            "nerf_synthetic/lego",
            Watcher(),
            file=tmp_path / "mine.zip",
            out=tmp_path / "out",
        )


def test_an_archives_own_marker_has_no_say(tmp_path: Path) -> None:
    (tmp_path / "mine.zip").write_bytes(
        zipped({"nerf_synthetic/ship/" + MARKER: b'{"name": "nerf_synthetic/lego"}'})
    )
    got = get_dataset(Bench(tmp_path / "b"), "nerf_synthetic/ship", Watcher(), file=tmp_path / "mine.zip")
    assert json.loads((got.folder / MARKER).read_text())["name"] == "nerf_synthetic/ship"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('nerf_synthetic.adress = "x"', "Unknown key of .*Did you mean 'address'"),
        ("nerf_synthetic.address = 3", "address must be a text, not 3"),
        ('nerf_synthetic.sha256 = "abc"', "must be 64 hexadecimal digits"),
        ('nerf_synthetic.inside = "../x"', "must be a folder inside of the archive"),
        ("nerf_synthetic.size = -1", "must be a number of bytes"),
        ('nerf_synthetic.scenes = ["../x"]', "must be a list of names"),
        ('"../x".address = "https://a"', "a table is called after a data set"),
        ("nerf_synthetic = 3", "must be a table"),
        ("[nerf_synthetic", "is not valid TOML"),
    ],
)
def test_a_catalogue_that_breaks_a_rule_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TurntableError, match=message) as caught:
        get_dataset(bench_with(tmp_path, text), "nerf_synthetic/lego", Watcher())
    assert "\n" not in str(caught.value)


def test_a_scenes_own_table_stands_before_its_data_sets(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(
        '[nerf_synthetic]\naddress = "https://a/all.zip"\nsha256 = "' + "1" * 64 + '"\n'
        '["nerf_synthetic/lego"]\naddress = "https://a/lego.tar.gz"\ninside = ""\n'
        '[mine]\naddress = "https://a/mine.tar.xz"\n'
    )
    lego, ship, mine = (
        find_entry(name, [path]) for name in ("nerf_synthetic/lego", "nerf_synthetic/ship", "mine")
    )
    assert (lego.address, lego.sha256, lego.key) == ("https://a/lego.tar.gz", "", "nerf_synthetic/lego")
    assert (ship.address, ship.sha256, ship.inside) == ("https://a/all.zip", "1" * 64, "nerf_synthetic/ship")
    assert (mine.inside, mine.key) == ("", "mine")
    assert find_entry("mine/", [path]).name == "mine"


@pytest.mark.parametrize("stray", ['sha256 = "' + "1" * 64 + '"', "size = 7"])
def test_a_hash_or_size_that_stands_without_its_address_is_refused(tmp_path: Path, stray: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(f'[nerf_synthetic]\naddress = "https://a/all.zip"\n["nerf_synthetic/lego"]\n{stray}\n')
    with pytest.raises(TurntableError, match="stands in another table than the address"):
        find_entry("nerf_synthetic/lego", [path])
    (other := tmp_path / "other.toml").write_text(f"[nerf_synthetic]\n{stray}\n")
    with pytest.raises(TurntableError, match=f"{other}: nerf_synthetic"):
        find_entry("nerf_synthetic/ship", [other, path])
    entry = find_entry("nerf_synthetic/ship", [path, other])  # the address's own table is asked first
    assert (entry.sha256, entry.size) == ("", None)
    alone = find_entry("nerf_synthetic/ship", [other])  # no address: it is of the file that one has
    assert (alone.sha256 == "1" * 64) or alone.size == 7


def test_without_an_address_hash_and_size_may_stand_apart_and_both_are_held_to(tmp_path: Path) -> None:
    (tmp_path / "mine.zip").write_bytes(LEGO)
    sha256 = hashlib.sha256(LEGO).hexdigest()
    for size, digest, words in (
        (3, sha256, f"has {len(LEGO)} bytes, not 3 as the catalogue says"),
        (len(LEGO), "1" * 64, f"not {'1' * 64} as the catalogue says"),
    ):
        text = f'["nerf_synthetic/lego"]\nsize = {size}\n[nerf_synthetic]\nsha256 = "{digest}"\n'
        with pytest.raises(TurntableError, match=words):
            get_dataset(
                bench_with(tmp_path / str(size), text),
                "nerf_synthetic/lego",
                Watcher(),
                file=tmp_path / "mine.zip",
            )


# As a process.


def start(bench: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "turntable", "get", "nerf_synthetic/lego", "--bench", str(bench), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_part(bench: Path, process: subprocess.Popen[str], least: int = 1) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        if any(path.stat().st_size >= least for path in (bench / "downloads").glob("*.part")):
            return
        time.sleep(0.01)
    raise AssertionError(f"nothing was fetched: {process.communicate()}")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_is_killed_is_gone_on_with(tmp_path: Path, how: signal.Signals) -> None:
    big = zipped(nerf_synthetic() | {"nerf_synthetic/lego/ballast": os.urandom(3_000_000)})
    with serving(behaviour := Behaviour(big, pause_s=0.02)) as address:
        bench = bench_with(tmp_path, f'nerf_synthetic.address = "{address}"\n')
        process = start(bench.folder)
        wait_for_part(bench.folder, process, 300_000)
        process.send_signal(how)
        process.communicate(timeout=60)
        assert process.returncode == (-9 if how is signal.SIGKILL else 130)
        behaviour.pause_s = 0
        done = start(bench.folder)
        out, err = done.communicate(timeout=60)
        assert done.returncode == 0, err
    assert (
        behaviour.requests[1] is not None
        and int(behaviour.requests[1].removeprefix("bytes=")[:-1]) >= 300_000
    )
    folder = bench.folder / "datasets" / "nerf_synthetic" / "lego"
    assert out.strip() == str(folder) and (folder / "ballast").stat().st_size == 3_000_000
    assert f"turntable compare {folder}" in err and "is recorded" in err


def test_two_processes_at_once_fetch_once(tmp_path: Path) -> None:
    with serving(
        behaviour := Behaviour(zipped(nerf_synthetic() | {"x": os.urandom(1_000_000)}), pause_s=0.02)
    ) as address:
        bench = bench_with(tmp_path, f'nerf_synthetic.address = "{address}"\n')
        processes = [start(bench.folder, "--json") for _ in range(2)]
        answers = [process.communicate(timeout=90) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], answers
    documents = [json.loads(out) for out, _ in answers]
    assert sorted(document["was_there"] for document in documents) == [False, True]
    assert documents[0]["sha256"] == documents[1]["sha256"] == behaviour.sha256
    assert behaviour.requests == [None]


def test_what_a_killed_process_half_unpacked_is_swept(tmp_path: Path) -> None:
    (tmp_path / "mine.zip").write_bytes(LEGO)
    left = tmp_path / "bench" / "datasets" / "nerf_synthetic" / ".getting-lego-0123abcd"
    left.mkdir(parents=True)
    others = left.with_name(".getting-lego-2-0123abcd")  # of another scene, which somebody is unpacking now
    others.mkdir()
    got = get_dataset(Bench(tmp_path / "bench"), "nerf_synthetic/lego", Watcher(), file=tmp_path / "mine.zip")
    assert {path.name for path in got.folder.parent.iterdir()} == {"lego", ".lego.lock", others.name}


def test_two_benches_with_one_out_wait_for_each_other(tmp_path: Path) -> None:
    big = zipped(nerf_synthetic() | {"x": os.urandom(1_000_000)})
    with serving(Behaviour(big, pause_s=0.02)) as address:
        benches = [
            bench_with(tmp_path / name, f'nerf_synthetic.address = "{address}"\n') for name in ("one", "two")
        ]
        processes = [start(bench.folder, "--json", "--out", str(tmp_path / "out")) for bench in benches]
        answers = [process.communicate(timeout=90) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], answers
    assert sorted(json.loads(out)["was_there"] for out, _ in answers) == [False, True]


def test_the_hash_of_a_file_that_one_has_is_not_held_against_the_address(tmp_path: Path) -> None:
    (tmp_path / "mine.zip").write_bytes(LEGO)
    with serving(behaviour := Behaviour(zipped(nerf_synthetic() | {"more": b"1"}))) as address:
        bench = bench_with(tmp_path, f'["nerf_synthetic/lego"]\naddress = "{address}"\n')
        by_hand = get_dataset(bench, "nerf_synthetic/lego", Watcher(), file=tmp_path / "mine.zip")
        shutil.rmtree(by_hand.folder)
        assert get_dataset(bench, "nerf_synthetic/lego", Watcher()).sha256 == behaviour.sha256
        (tmp_path / "mine.zip").write_bytes(behaviour.data)
        shutil.rmtree(by_hand.folder)
        with pytest.raises(TurntableError, match=r"as .*catalogue.lock.toml says"):
            get_dataset(bench, "nerf_synthetic/lego", Watcher(), file=tmp_path / "mine.zip")


# Encrypted.


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate of this machine's, that nobody has signed but itself, with its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the program openssl, to make a certificate")
    path = tmp_path / "certificate.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    command += [
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        str(path),
        "-out",
        str(tmp_path / "only.pem"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    path.write_text(path.read_text() + (tmp_path / "only.pem").read_text())
    return path


def test_https_is_checked(tmp_path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Behaviour(DATA), certificate) as address:
        assert address.startswith("https://")
        with pytest.raises(TurntableError, match="certificate verify failed"):
            fetched(address, tmp_path / "f")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        fetched(address, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA


def test_https_never_leads_to_http(
    tmp_path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with serving(Behaviour(DATA)) as plain, serving(behaviour := Behaviour(DATA), certificate) as address:
        behaviour.to = plain
        with pytest.raises(TurntableError, match="leads from https to plain http"):
            fetched(address.replace("/file.zip", "/to"), tmp_path / "f")


def test_no_room_to_unpack_leaves_the_archive_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(behaviour := Behaviour(LEGO)) as address:
        bench = bench_with(tmp_path, f'nerf_synthetic.address = "{address}"\n')
        with monkeypatch.context() as patch, pytest.raises(TurntableError, match=r"has 0.00 GB free"):
            patch.setattr(
                unpacking, "shutil", SimpleNamespace(disk_usage=lambda place: SimpleNamespace(free=10))
            )
            get_dataset(bench, "nerf_synthetic/lego", Watcher())
        there = [path.name for path in (bench.folder / "datasets" / "nerf_synthetic").iterdir()]
        assert there == [".lego.lock"]
        get_dataset(bench, "nerf_synthetic/lego", Watcher())
    assert behaviour.requests == [None]
