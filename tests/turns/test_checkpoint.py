"""Checkpoints: whole or not there, and the newest whole one is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from turntable.turns import checkpoint


def state(steps: int) -> dict[str, Any]:
    return {
        "steps": steps,
        "device_seconds": float(steps),
        "setup_seconds": 0.0,
        "finished": False,
        "memory_bytes": 1,
    }


def save(root: Path, steps: int) -> None:
    folder = checkpoint.begin(root)
    (folder / "inner").mkdir()
    (folder / "inner" / "data.bin").write_bytes(bytes([steps]) * 1000)
    checkpoint.commit(root, state(steps))


def test_the_newest_of_two_is_found_and_older_ones_are_dropped(tmp_path: Path) -> None:
    for steps in (1, 2, 3):
        save(tmp_path, steps)
    found, damaged = checkpoint.newest(tmp_path)
    assert found is not None and found.state == state(3) and damaged == []
    assert (found.folder / "inner" / "data.bin").read_bytes() == bytes([3]) * 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0000000002", "0000000003"]


@pytest.mark.parametrize("harm", ["truncate", "flip", "remove", "manifest"])
def test_a_damaged_checkpoint_is_passed_over_by_name(tmp_path: Path, harm: str) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    file = tmp_path / "0000000002" / "method" / "inner" / "data.bin"
    if harm == "truncate":
        file.write_bytes(file.read_bytes()[:-1])
    elif harm == "flip":
        file.write_bytes(bytes([9]) * 1000)
    elif harm == "remove":
        file.unlink()
    else:
        (tmp_path / "0000000002" / "manifest.json").write_text("{")
    found, damaged = checkpoint.newest(tmp_path)
    assert found is not None and found.state["steps"] == 1
    assert len(damaged) == 1 and "0000000002" in damaged[0]


def test_what_a_killed_save_left_is_not_taken_for_a_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (checkpoint.begin(tmp_path) / "half").write_bytes(b"half")
    found, damaged = checkpoint.newest(tmp_path)
    assert found is not None and found.state["steps"] == 1 and damaged == []
    assert list(checkpoint.begin(tmp_path).iterdir()) == []


def test_none_is_found_where_there_is_none(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path / "nothing") == (None, [])


def test_a_checkpoint_set_aside_stays_while_newer_ones_drop_it(tmp_path: Path) -> None:
    root, aside = tmp_path / "checkpoint", tmp_path / "aside"
    root.mkdir()
    save(root, 1)
    found = checkpoint.set_aside(root, aside)
    for steps in (2, 3):
        save(root, steps)
    assert not (root / "0000000001").exists()
    assert found is not None and found.state == state(1)
    assert (found.folder / "inner" / "data.bin").read_bytes() == bytes([1]) * 1000


def test_what_is_set_aside_is_the_newest_that_is_whole(tmp_path: Path) -> None:
    root, aside = tmp_path / "checkpoint", tmp_path / "aside"
    root.mkdir()
    assert checkpoint.set_aside(root, aside) is None
    for steps in (1, 2):
        save(root, steps)
    data = root / "0000000002" / "method" / "inner" / "data.bin"
    data.unlink()
    data.symlink_to(root / "0000000001" / "method" / "inner" / "data.bin")
    found = checkpoint.set_aside(root, aside)
    assert found is not None and found.state == state(1)
    assert [path.name for path in aside.iterdir()] == ["0000000001"]
