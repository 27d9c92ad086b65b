"""``turntable published`` and ``turntable method show``: the numbers with their protocols and sources."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest


def run(command: list[str], *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*command, *words], capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    return done


def test_a_scenes_numbers_stand_with_protocol_and_source(
    turntable_command: list[str], tmp_path: Path
) -> None:
    out = run(turntable_command, "published", "nerf_synthetic/lego", "--bench", str(tmp_path)).stdout
    for words in (
        "Instant-NGP",
        "36.39",
        "black background",
        "800×800 pixels",
        "(not checked)",
        "arXiv 2201.05989",
    ):
        assert words in out
    assert "mip-NeRF 360" not in out and "mean" not in out.split("[1]")[0]


def test_all_numbers_as_one_document(turntable_command: list[str], tmp_path: Path) -> None:
    found = json.loads(run(turntable_command, "published", "--json", "--bench", str(tmp_path)).stdout)[
        "published"
    ]
    assert {fact["dataset"] for fact in found} == {"nerf_synthetic", "mipnerf360", "dtu"}
    (slow,) = (
        fact
        for fact in found
        if fact["method"] == "mip-NeRF 360" and fact["metric"] == "psnr" and fact["cost"]
    )
    assert slow["cost"] == {"training_s": 172800.0, "frames_per_s": 0.06} and slow["checked"] is False


def test_what_is_not_known_is_one_line(turntable_command: list[str], tmp_path: Path) -> None:
    done = run(turntable_command, "published", "nerf", "--bench", str(tmp_path), status=2)
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert "known: dtu, mipnerf360, nerf_synthetic" in done.stderr


def test_a_bench_adds_facts_of_its_own(turntable_command: list[str], tmp_path: Path) -> None:
    (tmp_path / "published").mkdir()
    text = 'dataset = "house"\ntitle = "Our house"\nscenes = ["kitchen"]\n[[published]]\ndataset = "house"\n'
    path = tmp_path / "published" / "house.toml"
    path.write_text(text + 'method = "theirs"\nsource = "a letter"\npsnr = { kitchen = 30.5 }\n')
    out = run(turntable_command, "published", "house", "--bench", str(tmp_path)).stdout
    assert "Our house (house)" in out and "30.50" in out and "a letter; protocol: not said" in out
    path.write_text(text + 'method = "theirs"\nsource = "a letter"\npsnr = { kitchen = "high" }\n')
    done = run(turntable_command, "published", "--bench", str(tmp_path), status=2)
    assert "psnr.kitchen must be a finite number, not 'high'" in done.stderr


@pytest.mark.parametrize(
    "words", [("implements 2DGS with primitive=2dgs",), ("27.32", "float pictures, on a TITAN RTX")]
)
def test_a_method_shows_its_own_numbers(
    turntable_command: list[str], tmp_path: Path, words: tuple[str, ...]
) -> None:
    out = run(turntable_command, "method", "show", "gsplat", "--bench", str(tmp_path)).stdout
    assert all(word in out for word in words)
