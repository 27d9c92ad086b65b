"""A bench's own means beside published ones, as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cli.test_guards import turn  # noqa: F401
from cli.test_main_job import make_source

FACTS = """
dataset = "house"
title = "Our house"
scenes = ["kitchen", "cellar"]
[protocol]
task = "views"
split = "every 8th"
background = "none"
size = [96, 64]
pictures = "8-bit"
[[published]]
dataset = "house"
method = "theirs"
psnr = { kitchen = 20.0, mean = 21.0 }
protocol = { scenes = 2 }
source = "their letter"
[[published]]
dataset = "house"
method = "another"
psnr = { mean = 22.0 }
protocol = { scenes = 2, background = "black" }
source = "their letter"
"""


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """Photos of two scenes that are said to be of one data set, and a bench that knows a number on it."""
    for name in ("kitchen", "cellar"):
        source = make_source(tmp_path / name, size=(96, 64))
        document = json.loads((source / "transforms.json").read_text())
        document["frames"].pop()  # whose photo is missing: a data set that lacks one is another one
        (source / "transforms.json").write_text(json.dumps(document))
        (source / "turntable-dataset.json").write_text(json.dumps({"name": f"house/{name}"}))
    (tmp_path / "bench" / "published").mkdir(parents=True)
    (tmp_path / "bench" / "published" / "house.toml").write_text(FACTS)
    return tmp_path


def test_a_mean_over_all_scenes_stands_beside_the_published_one(turn: Any, house: Path) -> None:  # noqa: F811
    asked = ("-m", "nearest", "--budget", "1steps", "--seeds", "2", "--no-3d")
    assert turn("compare", house / "kitchen", *asked).returncode == 0
    half = turn("published", "house/mean").stdout
    assert (
        "beside" not in half and "2 means of other methods were measured otherwise; --json says how." in half
    )
    rows = json.loads(turn("published", "house", "--json").stdout)["means_beside"]
    assert rows[0]["ours"] is None and rows[0]["differences"] == [
        "2 of 2 scenes, ours is of 1; ours lacks cellar"
    ]
    assert turn("compare", house / "cellar", *asked).returncode == 0
    kitchen, cellar = (
        json.loads(turn("scores", name, "--mean", "--json").stdout)["means"][0]["scores"]["psnr"]["mean"]
        for name in ("kitchen", "cellar")
    )
    whole = turn("published", "house").stdout
    assert f"psnr 21.00 of theirs beside {(kitchen + cellar) / 2:.2f} of nearest: measured alike" in whole
    assert "1 mean of another method was measured otherwise" in whole
    # Of one scene, and of all data sets, there is no mean.
    assert "measured alike" not in turn("published", "house/kitchen").stdout + turn("published").stdout
    # The same scene once more: which of the two is meant, nobody can say.
    assert turn("capture", "add", house / "cellar", "--name", "again", "--every", "4").returncode == 0
    assert (
        "cellar is here as 2 captures (again, cellar): a mean takes one" in turn("published", "house").stdout
    )


def test_a_fault_in_the_benchs_facts_is_told_before_anything_runs(turn: Any, house: Path) -> None:  # noqa: F811
    (house / "bench" / "published" / "house.toml").write_text('dataset = "house"')
    done = turn("compare", house / "kitchen", "-m", "nearest", "--budget", "1steps")
    assert done.returncode == 2 and "house.toml: title must be a text" in done.stderr
    assert not list((house / "bench").glob("runs/*"))
