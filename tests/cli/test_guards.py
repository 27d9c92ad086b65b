"""Guards against being fooled, as a user meets them: leakage, hold-out, means, a crashed method."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cli.test_main_job import make_source, one_line
from conftest import make_method


@pytest.fixture
def turn(turntable_command: list[str], tmp_path: Path) -> Any:
    """Run turntable with these arguments on a bench in the test's folder."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [*turntable_command, *map(str, arguments), "--bench", str(tmp_path / "bench")]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    return run


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "stripes", size=(96, 64))


def plant(source: Path) -> None:
    """The photo 000, which is held out, once more under another name: as JPEG, seen from the same place."""
    with Image.open(source / "images" / "000.png") as photo:
        photo.save(source / "images" / "005b.jpg", quality=70)
    document = json.loads((source / "transforms.json").read_text())
    document["frames"].append({**document["frames"][0], "file_path": "images/005b.jpg"})
    (source / "transforms.json").write_text(json.dumps(document))


def test_a_planted_leaked_view_is_told_and_shown(turn: Any, source: Path) -> None:
    plant(source)
    added = turn("capture", "add", source)
    assert added.returncode == 0
    told = [line for line in added.stderr.splitlines() if "Leakage" in line]
    assert len(told) == 1
    assert told[0].startswith("stripes: Leakage: 1 held-out view is shown by training photos")
    shown = turn("capture", "show", "stripes").stdout
    assert "000.png is shown by 005b.jpg, which is trained on (near-duplicate, " in shown
    assert "every 8th view by name, the first included" in shown
    (leak,) = json.loads(turn("capture", "show", "stripes", "--json").stdout)["leaks"]
    assert (leak["held_out"], leak["training"], leak["kind"]) == ("000.png", "005b.jpg", "near-duplicate")
    done = turn("compare", source, "-m", "nearest", "--budget", "1steps")
    assert done.returncode == 0 and "stripes: Leakage: 1 held-out view" in done.stderr


def test_without_a_leak_nothing_is_said_of_leakage(turn: Any, source: Path) -> None:
    added = turn("capture", "add", source)
    assert added.returncode == 0 and "eakage" not in added.stderr + added.stdout


def test_a_contiguous_segment_is_held_out_and_every_is_short_for_its_rule(turn: Any, source: Path) -> None:
    segment = json.loads(turn("capture", "add", source, "--hold-out", "segment:0.3", "--json").stdout)
    assert segment["held_out_views"] == ["006.png", "007.png", "008.png"]
    assert "extrapolation" in segment["split"]["words"]
    short = json.loads(turn("capture", "add", source, "--every", "3", "--json").stdout)
    long = json.loads(turn("capture", "add", source, "--hold-out", "every:3", "--json").stdout)
    both = turn("capture", "add", source, "--hold-out", "every:3", "--every", "3", "--json")
    assert short["held_out_views"] == ["000.png", "003.png", "006.png"]
    assert short == long == json.loads(both.stdout)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--every", "4", "--hold-out", "every:8"), "--every 4 and --hold-out every:8 disagree"),
        (("--every", "8", "--hold-out", "segment:0.2"), "--every 8 and --hold-out segment:0.2 disagree"),
        (("--hold-out", "segment:1"), "above 0 and below 1"),
        (("--hold-out", "every:1"), "--every is at least 2"),
        (("--hold-out", "list:/"), "can't be read (Is a directory)"),
        (("--hold-out", "segment:0.99"), "9 usable photos 0 train"),
    ],
)
def test_a_wrong_hold_out_is_one_line_and_status_2(
    turn: Any, source: Path, arguments: tuple[str, ...], says: str
) -> None:
    done = turn("compare", source, *arguments)
    assert done.returncode == 2 and says in one_line(done.stderr)


def test_means_over_seeds_are_given_and_a_crashed_run_stays_in_sight(
    turn: Any, source: Path, tmp_path: Path
) -> None:
    learner = make_method(tmp_path / "learner")
    asked = ("compare", source, "-m", learner, "--budget", "20steps")
    assert turn(*asked, "--seeds", "2").returncode == 0
    assert turn(*asked, "--set", "mode=crash").returncode == 3
    document = json.loads(turn("scores", "stripes", "--json").stdout)
    means = json.loads(turn("scores", "stripes", "--mean", "--json").stdout)["means"]
    assert [(one["seeds"], len(one["missing"])) for one in means] == [([0, 1], 0), ([], 1)]
    runs = [run["scores"]["psnr"]["mean"] for run in document["runs"] if run["scores"]]
    assert means[0]["scores"]["psnr"] == {
        "mean": pytest.approx(sum(runs) / 2),
        "min": min(runs),
        "max": max(runs),
        "of": 2,
    }
    table = turn("scores", "stripes", "--mean").stdout
    assert "2 of 2" in table and "0 of 1" in table
    one = json.loads(turn("scores", "stripes-learner-1", "--mean", "--json").stdout)["means"]
    assert [found["runs"] for found in one] == [["stripes-learner-1"]]


def test_a_mean_over_captures_is_refused_and_says_why(turn: Any, source: Path, tmp_path: Path) -> None:
    learner = make_method(tmp_path / "learner")
    asked = ("--budget", "1steps", "-m")
    assert turn("compare", source, *asked, "nearest", "-m", learner).returncode == 0
    small = ("--long-side", "64", "--hold-out", "segment:0.2", "--name", "end")
    assert turn("compare", source, *small, *asked, "nearest").returncode == 0
    refused = turn("scores", "stripes", "end", "--mean")
    assert refused.returncode == 2 and refused.stdout == ""
    line = one_line(refused.stderr)
    assert "never put into one mean" in line
    for reason in (
        "captures differ: stripes",
        "sizes differ: '96×64' and '64×43'",
        "splits differ: 'every 8th view by name, the first included' and 'the last 20 %",
        "numbers of scenes differ: learner has 1 of 2 and lacks end",
    ):
        assert reason in line
    both = turn("scores", "stripes", "end")
    assert both.returncode == 0 and both.stdout.index("stripes-nearest-1") < both.stdout.index(
        "end-nearest-1"
    )
    documents = json.loads(turn("scores", "stripes", "end", "--json").stdout)["captures"]
    assert documents[0] == json.loads(turn("scores", "stripes", "--json").stdout)
    table = turn("scores", "stripes", "end", "--csv").stdout.splitlines()
    assert {line.split(",")[1] for line in table[1:]} == {
        "stripes-nearest-1",
        "stripes-learner-1",
        "end-nearest-1",
    }
    assert "Give one of them" in one_line(turn("scores", "stripes", "--csv", "--mean").stderr)


def test_scores_of_another_definition_are_in_no_ranking_until_they_are_computed_anew(
    turn: Any, source: Path, tmp_path: Path
) -> None:
    asked = ("compare", source, "-m", "nearest", "--budget", "1steps", "--seeds", "2", "--no-3d")
    assert turn(*asked).returncode == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "bench" / "record.sqlite")) as record, record:
        record.execute("INSERT INTO definitions VALUES ('old', 'PSNR as it was before')")
        record.execute(
            "UPDATE scores SET definition = 'old', value = 99 WHERE run = 'stripes-nearest-1' AND metric = 'psnr'"
        )
    refused = turn("scores", "stripes", "--mean")
    assert refused.returncode == 2 and "definitions differ: " in refused.stderr
    page = tmp_path / "bench" / "reports" / "stripes" / "index.html"
    assert turn("report", "stripes", "--no-3d").returncode == 0
    text = page.read_text()
    assert "nearest: 1 run was scored by another definition of PSNR than the page’s" in text
    assert "99.00" not in text and "1 of 2 done" in text
    assert turn(*asked).returncode == 0  # scores what is missing from the stored renderings
    assert "another definition" not in page.read_text()
    seeds = json.loads(turn("scores", "stripes", "--mean", "--json").stdout)["means"][0]
    assert seeds["scores"]["psnr"]["of"] == 2 and seeds["scores"]["psnr"]["max"] < 60
    # Of another metric than the one that ranks, that one alone is left out.
    with contextlib.closing(sqlite3.connect(tmp_path / "bench" / "record.sqlite")) as record, record:
        record.execute(
            "UPDATE scores SET definition = 'old', value = 99 WHERE run = 'stripes-nearest-1' AND metric = 'ssim'"
        )
    assert turn("report", "stripes", "--no-3d").returncode == 0
    text = page.read_text()
    assert "nearest: 1 run was scored by another definition of SSIM than the page’s" in text
    assert "99.000" not in text and "2 of 2 done" in text


def test_a_seed_that_was_asked_for_again_counts_once_in_a_mean(turn: Any, source: Path) -> None:
    asked = ("compare", source, "-m", "nearest", "--budget", "1steps", "--no-3d")
    assert turn(*asked, "--seeds", "2").returncode == 0
    assert turn(*asked, "--fresh").returncode == 0
    mean = json.loads(turn("scores", "stripes", "--mean", "--json").stdout)["means"][0]
    assert (len(mean["runs"]), mean["seeds"], mean["scores"]["psnr"]["of"]) == (3, [0, 1], 2)
