"""A bench with runs that nobody works on, and servers of it: what the tests of the live page use."""

from __future__ import annotations

import re
import subprocess
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.testclient import TestClient

from turntable.bench import Bench
from turntable.record import Score, State, StateChange
from turntable.run import Asked, Budget, RunFolder
from turntable.tasks.metrics import psnr

PORT = 8650
ORIGIN = f"http://127.0.0.1:{PORT}"
EVIL = "<script>alert(1)<"
"""A method may be called so; only a slash can't be in its runs' ids."""


def new_run(bench: Bench, method: str = "splat", capture: str = "fox") -> RunFolder:
    """A queued run: of a method that isn't there, since nothing is to be started."""
    asked = Asked(
        id="",
        capture=capture,
        capture_hash="c0ffee",
        task="views",
        method=method,
        method_folder="/nowhere",
        method_fingerprint="f00d",
        settings={"mode": "<b>plain</b>"},
        seed=0,
        budget=Budget(steps=100),
        device="cpu",
        created=time.time(),
        command="turntable compare",
        versions={},
    )
    return bench.queue(asked)


def change(
    bench: Bench, run: RunFolder, state: State, at: float | None = None, cause: str | None = None
) -> None:
    """Bring a run into a state, as a supervisor would."""
    device = "cpu" if state is State.RUNNING else None
    bench.record.change_state(run.id, StateChange(at or time.time(), state, cause, device=device))


def score(bench: Bench, run: RunFolder, mark: float, value: float) -> None:
    """Score a run on two held-out views at a mark."""
    steps, seconds = int(100 * mark), 8 * mark
    bench.record.add_scores(
        run.id,
        [Score(mark, steps, seconds, "psnr", psnr.DEFINITION, f"{n}.jpg", value + n) for n in range(2)],
    )


def csrf_of(client: TestClient) -> str:
    """The CSRF token in the forms of the page that this browser is shown."""
    found = re.search(r'name="csrf" value="([0-9a-f]{64})"', client.get("/").text)
    assert found is not None
    return found[1]


@dataclass
class Server:
    """A ``turntable serve`` of its own."""

    process: subprocess.Popen[str]
    address: str
    """As it printed it."""

    @property
    def port(self) -> int:
        port = urlsplit(self.address).port
        assert port is not None
        return port

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"
