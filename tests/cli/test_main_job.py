"""The command line as a user meets it: real processes, exit statuses, and what lands on which stream."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import look_at, make_method
from turntable.captures.transforms import opengl_matrix


def make_source(folder: Path, views: int = 9, size: tuple[int, int] = (48, 32)) -> Path:
    """Photos of a striped ground plane with their transforms.json; one frame's photo is missing."""
    (folder / "images").mkdir(parents=True)
    width, height = size
    frames = []
    for index in range(views):
        angle = 0.4 * index / views
        camera = look_at(
            np.array([3 * np.cos(angle), 3 * np.sin(angle), 2.0]), np.zeros(3), width, height, 50.0
        )
        x, y = np.meshgrid(
            (np.arange(width) + 0.5 - width / 2) / 50, (np.arange(height) + 0.5 - height / 2) / 50
        )
        rays = np.stack([x, y, np.ones_like(x)], -1) @ camera.R
        ground = camera.centre + rays * (-camera.centre[2] / rays[..., 2:])
        stripes = 0.5 + 0.5 * np.sin(4 * ground[..., :1] * [1, 2, 0.5] + 3 * ground[..., 1:2] * [2, 0.7, 1])
        name = f"images/{index:03d}.png"
        Image.fromarray((stripes * 255).round().astype(np.uint8)).save(folder / name)
        frames.append({"file_path": name, "transform_matrix": opengl_matrix(camera.R, camera.t).tolist()})
    frames.append({**frames[0], "file_path": "images/gone.png"})
    document = {"w": width, "h": height, "fl_x": 50.0, "cx": width / 2, "cy": height / 2, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(document))
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "stripes")


@pytest.fixture
def turn(turntable_command: list[str], tmp_path: Path) -> Any:
    """Run turntable with these arguments on a bench in the test's folder."""

    def run(*arguments: str | Path, bench: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [*turntable_command, *map(str, arguments), "--bench", str(bench or tmp_path / "bench")]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    return run


def one_line(text: str) -> str:
    """The only line of an error that is no progress."""
    lines = [line for line in text.splitlines() if line and not line.startswith("capture:")]
    assert len(lines) == 1 and lines[0].startswith("turntable: "), text
    return lines[0]


def test_photos_in_every_held_out_view_out(turn: Any, source: Path, tmp_path: Path) -> None:
    done = turn("compare", source, "-m", "nearest", "-m", "splat", "--budget", "16steps", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["held_out"] == ["000.png", "008.png"]
    assert document["left_out"] == [{"name": "gone.png", "why": "the file is missing"}]
    assert "gone.png" in done.stderr
    for run in document["runs"]:
        assert run["state"] == "done"
        for metric in ("psnr", "ssim", "flip"):
            assert list(run["scores"][metric]["per_item"]) == document["held_out"]
    splat = document["runs"][1]
    assert [point["steps"] for point in splat["curve"]] == [2, 4, 8, 16]
    assert (tmp_path / "bench" / "reports" / "stripes" / "index.html").is_file()
    assert json.loads(turn("scores", "stripes", "--json").stdout) == document
    again = turn("compare", source, "-m", "nearest", "-m", "splat", "--budget", "16steps", "--json")
    assert json.loads(again.stdout) == document


def test_verbs_that_print_also_print_json(turn: Any, source: Path) -> None:
    assert turn("compare", source, "-m", "nearest", "--budget", "2steps").returncode == 0
    listed = json.loads(turn("method", "list", "--json").stdout)["methods"]
    assert {"name": "nearest", "task": "views", "title": "Nearest training photo", "environment": {"kind": "host"},
            "from": "built in"} in listed  # fmt: skip
    assert json.loads(turn("method", "show", "splat", "--json").stdout)["settings"]["degree"]["default"] == 3
    assert [c["name"] for c in json.loads(turn("capture", "list", "--json").stdout)["captures"]] == [
        "stripes"
    ]
    assert json.loads(turn("capture", "show", "stripes", "--json").stdout)["held_out"] == 2
    assert json.loads(turn("status", "--json").stdout)["runs"][0]["state"] == "done"
    assert Path(json.loads(turn("report", "--json").stdout)["page"]).is_file()
    assert any(f["what"] == "poses" for f in json.loads(turn("doctor", "--json").stdout)["findings"])
    table = turn("scores", "--csv").stdout.splitlines()
    assert len(table) == 1 + 2 * 3 and table[0].startswith("capture,run,method,seed,state,mark")
    for arguments in (
        ("capture", "show", "stripes"),
        ("status",),
        ("scores",),
        ("doctor",),
        ("method", "show", "splat"),
    ):
        shown = turn(*arguments)
        assert shown.returncode == 0 and shown.stdout.strip(), shown.stderr


def test_adding_the_same_source_twice_gives_the_same_capture(turn: Any, source: Path) -> None:
    first, second = (json.loads(turn("capture", "add", source, "--json").stdout) for _ in range(2))
    assert first == second
    assert len(json.loads(turn("capture", "list", "--json").stdout)["captures"]) == 1


def test_a_failed_run_gives_status_3_and_the_others_go_on(turn: Any, source: Path, tmp_path: Path) -> None:
    method = make_method(tmp_path / "colour")
    done = turn(
        "compare",
        source,
        "-m",
        method,
        "-m",
        "nearest",
        "--budget",
        "9steps",
        "--set",
        "mode=crash",
        "--json",
    )
    assert done.returncode == 3
    states = {run["method"]: run["state"] for run in json.loads(done.stdout)["runs"]}
    assert states == {"colour": "failed", "nearest": "done"}
    assert "stripes-colour-1 failed: crashed with signal 11 (SIGSEGV)" in done.stderr
    page = (tmp_path / "bench" / "reports" / "stripes" / "index.html").read_text()
    assert "SIGSEGV" in page and "hello from the method" in page


def test_ctrl_c_pauses_and_the_same_command_goes_on(
    turn: Any, turntable_command: list[str], source: Path, tmp_path: Path
) -> None:
    method = make_method(tmp_path / "colour")
    arguments = ["compare", source, "-m", method, "--budget", "150steps", "--set", "mode=slow", "--json"]
    command = [*turntable_command, *map(str, arguments), "--bench", str(tmp_path / "bench")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: any(run["steps"] > 0 for run in json_of(turn("status", "--json"))))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "the same command goes on from here" in errors
    paused = json_of(turn("status", "--json"))[0]
    assert paused["state"] == "paused" and 0 < paused["steps"] < 150
    resumed = turn(*arguments)
    assert resumed.returncode == 0 and "goes on at" in resumed.stderr
    unbroken = turn(*arguments, bench=tmp_path / "other")
    assert curve(resumed) == curve(unbroken)


@pytest.mark.parametrize("threads", [1, 2])
def test_kill_9_in_the_middle_of_splat_costs_nothing_but_time(
    turn: Any, turntable_command: list[str], source: Path, tmp_path: Path, threads: int
) -> None:
    arguments = [
        "compare",
        source,
        "-m",
        "splat",
        "--budget",
        "240steps",
        "--set",
        f"threads={threads}",
        "--json",
    ]
    command = [*turntable_command, *map(str, arguments), "--bench", str(tmp_path / "bench")]
    run = tmp_path / "bench" / "runs" / "stripes-splat-1"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: any((run / "checkpoint").glob("0*")))
        process.kill()
    killed_at = max(int(path.name) for path in (run / "checkpoint").glob("0*"))
    assert killed_at < 240
    resumed = turn(*arguments)
    unbroken = turn(*arguments, bench=tmp_path / "other")
    assert resumed.returncode == unbroken.returncode == 0
    assert "goes on at" in resumed.stderr and curve(resumed) == curve(unbroken)


def json_of(done: subprocess.CompletedProcess[str]) -> Any:
    """The runs of ``status --json``; none while there is no bench yet."""
    return json.loads(done.stdout)["runs"] if done.returncode == 0 else []


def curve(done: subprocess.CompletedProcess[str]) -> Any:
    """Everything of the scores but the seconds, which differ from run to run."""
    return [
        (p["mark"], p["steps"], p["scores"]) for run in json.loads(done.stdout)["runs"] for p in run["curve"]
    ]


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def banana_like(folder: Path, count: int) -> None:
    """Photos of noise: enough to be read, nothing to find poses in."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for index in range(count):
        photo = generator.integers(0, 255, (64, 96, 3), np.uint8)
        Image.fromarray(photo).save(folder / f"{index}.jpg")


def empty(folder: Path) -> None:
    folder.mkdir()


def one_photo(folder: Path) -> None:
    banana_like(folder, 1)


def truncated(folder: Path) -> None:
    banana_like(folder, 1)
    path = folder / "0.jpg"
    path.write_bytes(path.read_bytes()[:700])


def identical(folder: Path) -> None:
    banana_like(folder, 1)
    for index in range(1, 5):
        (folder / f"{index}.jpg").write_bytes((folder / "0.jpg").read_bytes())


def nan_in_a_matrix(folder: Path) -> None:
    make_source(folder)
    document = json.loads((folder / "transforms.json").read_text())
    document["frames"][2]["transform_matrix"][0][0] = float("nan")
    (folder / "transforms.json").write_text(json.dumps(document))


def empty_cameras_bin(folder: Path) -> None:
    (folder / "sparse" / "0").mkdir(parents=True)
    for name in ("cameras", "images", "points3D"):
        (folder / "sparse" / "0" / f"{name}.bin").write_bytes(b"")


def unrelated_photos(folder: Path) -> None:
    banana_like(folder, 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (empty, "is empty"),
        (one_photo, "at least 3 different photos"),
        (truncated, "0.jpg: the file can't be read"),
        (identical, "the same picture as 0.jpg"),
        (nan_in_a_matrix, "transform_matrix of 002.png must hold finite numbers"),
        (empty_cameras_bin, "cameras.bin is empty (0 bytes)"),
        (unrelated_photos, "None of the 4 photos could be registered"),
        (lambda folder: None, "there is none at"),
    ],
)
def test_bad_input_is_one_line_status_2_and_no_half_made_capture(
    turn: Any, tmp_path: Path, make: Any, message: str
) -> None:
    make(tmp_path / "source")
    done = turn("compare", tmp_path / "source", "-m", "nearest", "--budget", "1steps")
    assert done.returncode == 2 and done.stdout == ""
    assert message in one_line(done.stderr)
    assert list((tmp_path / "bench" / "captures").glob("*")) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "nearset"], "Did you mean 'nearest'"),
        (["--budget", "fast"], "A budget is like 2m"),
        (["--long-side", "3"], "--long-side is at least 16 pixels, not 3"),
        (["--every", "1"], "--every is at least 2"),
        (["--background", "mauve"], "white, black or #rrggbb, not 'mauve'"),
        (["--seeds", "0"], "--seeds is at least 1"),
        (["--device", "gpu"], "A device is cpu, cuda or cuda:<number>, not 'gpu'"),
        (["--set", "degree"], "--set takes name=value"),
        (["--set", "degreee=1"], "Did you mean 'degree'"),
        (["--set", "degree=9"], "Setting degree is at most 3, not 9"),
        (["--format", "colmpa"], "Did you mean 'colmap'"),
        (["--lpips-weights", "nowhere.pth"], "there is none at"),
        (["--patience", "0"], "--patience is a number of seconds above 0"),
    ],
)
def test_a_wrong_request_is_one_line_and_status_2(
    turn: Any, source: Path, arguments: list[str], message: str
) -> None:
    done = turn("compare", source, *arguments)
    assert done.returncode == 2
    assert message in one_line(done.stderr)


def test_names_that_nobody_knows_list_the_known_ones(turn: Any, source: Path) -> None:
    turn("compare", source, "-m", "nearest", "--budget", "1steps")
    for arguments in (
        ("scores", "stripe"),
        ("report", "stripe"),
        ("run", "stripe"),
        ("capture", "show", "stripe"),
    ):
        done = turn(*arguments)
        assert done.returncode == 2 and "Did you mean 'stripes'" in one_line(done.stderr)
    assert "Did you mean 'stripes-nearest-1'" in one_line(turn("export", "stripes-nearst-1").stderr)


def test_a_bench_that_is_not_there_yet_is_said_so(turn: Any) -> None:
    assert "There is no bench in" in one_line(turn("status").stderr)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root; CI is root")
def test_a_full_disk_is_one_line_and_the_run_goes_on_once_there_is_room(
    turn: Any, turntable_command: list[str], source: Path, tmp_path: Path
) -> None:
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=60k", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"this container may not mount: {mounted.stderr.decode().strip()}")
    try:
        arguments = ("compare", source, "-m", "nearest", "--budget", "1steps")
        full = turn(*arguments, bench=place / "bench")
        assert full.returncode == 2 and "the disk is full" in one_line(full.stderr)
        assert list((place / "bench" / "captures").iterdir()) == []
        subprocess.run(["mount", "-o", "remount,size=60m", place], check=True)
        assert turn(*arguments, bench=place / "bench").returncode == 0
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting read-only needs root; CI is root")
def test_a_read_only_bench_is_one_line(turn: Any, source: Path, tmp_path: Path) -> None:
    place = tmp_path / "readonly"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"this container may not mount: {mounted.stderr.decode().strip()}")
    try:
        done = turn("compare", source, "-m", "nearest", bench=place / "bench")
        assert done.returncode == 2 and "read-only" in one_line(done.stderr)
    finally:
        subprocess.run(["umount", place], check=True)


def test_what_a_killed_add_left_is_swept_away(turn: Any, source: Path, tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = tmp_path / "bench" / "captures" / f".adding-{dead.pid}-0123abcd"
    (left / "images").mkdir(parents=True)
    assert turn("capture", "add", source).returncode == 0
    assert not left.exists()


@pytest.mark.parametrize("form", ["ply", "spz"])
def test_a_run_is_exported(turn: Any, source: Path, tmp_path: Path, form: str) -> None:
    turn("compare", source, "-m", "splat", "--budget", "8steps")
    out = tmp_path / f"scene.{form}"
    done = turn("export", "stripes-splat-1", "--as", form, "--out", out)
    assert done.returncode == 0, done.stderr
    assert out.stat().st_size > 1000
    assert out.read_bytes()[:3] == {"ply": b"ply", "spz": b"\x1f\x8b\x08"}[form]
    wrong = turn("export", "stripes-splat-1", "--as", "obj", "--out", out)
    assert wrong.returncode == 2 and "exports ply, spz, not 'obj'" in one_line(wrong.stderr)


def test_runs_are_filmed_side_by_side(turn: Any, source: Path, tmp_path: Path) -> None:
    turn("compare", source, "-m", "splat", "-m", "nearest", "--budget", "8steps")
    runs, out = ("stripes-splat-1", "stripes-nearest-1"), tmp_path / "film.mp4"
    done = turn("export", *runs, "--as", "mp4", "--frames", "6", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"file": str(out), "bytes": out.stat().st_size}
    assert out.read_bytes()[4:8] == b"ftyp"
    wrong = turn("export", *runs, "--as", "ply")
    assert wrong.returncode == 2 and "as mp4 alone, not as ply" in one_line(wrong.stderr)
    wrong = turn("export", *runs, "--as", "mp4", "--path", tmp_path / "none.json", "--out", out)
    assert wrong.returncode == 2 and "--path takes orbit, views" in one_line(wrong.stderr)


def test_the_help_imports_nothing_heavy(turntable_command: list[str]) -> None:
    code = (
        "import sys; sys.argv = ['turntable', '--help']\n"
        "from turntable.__main__ import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'numpy', 'PIL', 'pycolmap', 'plotly', 'jinja2', 'flip_evaluator', 'av'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "turntable demo" in done.stdout
