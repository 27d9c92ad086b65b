"""What the tests of turns share."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from turntable.turns.swap import swap_free_bytes


@pytest.fixture
def swap() -> Iterator[None]:
    """Swap, if need be in a file that goes again."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("giving up memory takes Linux and root")
    if swap_free_bytes() > 2**29:
        yield
        return
    if not shutil.which("mkswap") or not shutil.which("swapon"):
        pytest.skip("there's no swap, and no mkswap and swapon to make some")
    file = Path(f"/var/tmp/turntable-test-{uuid.uuid4()}.swap")
    try:
        with file.open("wb") as handle:
            file.chmod(0o600)
            os.posix_fallocate(handle.fileno(), 0, 2**30)
        subprocess.run(["mkswap", file], check=True, capture_output=True)
        made = subprocess.run(["swapon", file], capture_output=True, text=True)
        if made.returncode != 0:
            pytest.skip(f"swap can't be made here: {made.stderr.strip()}")
        yield
        subprocess.run(["swapoff", file], check=True)
    finally:
        file.unlink()
