"""The verbs of the queue, typed as a user types them; and a comparison that has a very bad day."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from conftest import make_capture, make_method
from turntable.bench import Bench


class Typed:
    """A bench, and what is typed about it."""

    def __init__(self, command: list[str], bench: Path) -> None:
        self.command = command
        self.bench = bench

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """A command that goes on by itself."""
        return subprocess.Popen(
            [*self.command, *words, "--bench", str(self.bench)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def run(self, *words: str, status: int = 0) -> str:
        """A command, to its end; what it printed on standard output (and on standard error, where it failed)."""
        process = self.start(*words)
        out, err = process.communicate(timeout=240)
        assert process.returncode == status, err
        return err if status else out

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json"))

    def states(self) -> dict[str, str]:
        return {run["id"]: run["state"] for run in self.json("status", "--all")["runs"]}

    def until(self, state: str, run: str, within_s: float = 60.0) -> None:
        """Wait until a run is in a state."""
        deadline = time.monotonic() + within_s
        while (now := self.states().get(run)) != state:
            assert time.monotonic() < deadline, f"{run} is {now}, not {state}"
            time.sleep(0.05)


@pytest.fixture
def typed(turntable_command: list[str], tmp_path: Path) -> Typed:
    bench = Bench(tmp_path / "bench")
    bench.make()
    make_capture(bench.captures_folder / "small")
    make_method(bench.methods_folder / "colour")
    return Typed(turntable_command, bench.folder)


SLOW = ("run", "small", "-m", "colour", "--set", "mode=slow")


def test_a_detached_run_outlives_its_terminal_and_is_paused_resumed_and_watched_from_another(
    typed: Typed,
) -> None:
    # A session of its own, whose end sends SIGHUP to all in it, as a closed terminal does.
    asking = typed.start(*SLOW, "--budget", "400steps", "--detach", "--json", start_new_session=True)
    out, _ = asking.communicate(timeout=60)
    (run,) = [row["id"] for row in json.loads(out)["runs"]]
    with contextlib.suppress(ProcessLookupError):
        os.killpg(asking.pid, signal.SIGHUP)
    typed.until("running", run)
    assert f"{run}: paused" in typed.run("pause", run)
    assert "cpu: free" in (shown := typed.run("status"))
    assert "works in the background until its run has ended" in shown
    assert typed.run("resume", run).split() == [run], "the supervisor in the background takes it up again"
    watched = typed.run("watch", "--every", "0.2").splitlines()
    assert watched[-1] == f"{run}: done at 100%"
    (log,) = (typed.bench / "supervisors").iterdir()
    deadline = time.monotonic() + 30
    while not (typed.bench / "reports" / "small" / "index.html").exists():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


@pytest.mark.parametrize("gap_s", [None, 0.0, 0.02, 0.1])
def test_a_closed_terminal_pauses_what_it_was_working_on(typed: Typed, gap_s: float | None) -> None:
    """The shell and the kernel may both tell of it, one right after the other."""
    working = typed.start(*SLOW, "--budget", "1000steps")
    deadline = time.monotonic() + 60
    while not any(run["steps"] for run in typed.json("status")["runs"]):
        assert time.monotonic() < deadline
    working.send_signal(signal.SIGHUP)
    if gap_s is not None:
        time.sleep(gap_s)
        working.send_signal(signal.SIGHUP)
    assert working.wait(60) in (130, -signal.SIGHUP)  # the latter if the second came when all was done
    (run,) = typed.json("status")["runs"]
    assert (run["state"], run["pausing"]) == ("paused", None)
    events = Bench(typed.bench).run_folder("small-colour-1").events()
    assert "saved and exited" in [event.get("how") for event in events]


def test_a_second_ctrl_c_doesnt_wait_for_the_step(typed: Typed) -> None:
    working = typed.start("run", "small", "-m", "colour", "--set", "mode=hang", "--budget", "100steps")
    typed.until("running", "small-colour-1")
    time.sleep(1.0)  # in the step that never ends
    working.send_signal(signal.SIGINT)
    time.sleep(1.5)
    working.send_signal(signal.SIGINT)
    assert working.wait(20) == 130
    assert typed.states() == {"small-colour-1": "paused"}


def test_nohup_is_respected(typed: Typed) -> None:
    working = typed.start(
        *SLOW, "--budget", "200steps", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
    )
    typed.until("running", "small-colour-1")
    working.send_signal(signal.SIGHUP)
    assert working.wait(60) == 0


def test_resume_goes_on_by_itself_where_nobody_waits_for_the_run(typed: Typed) -> None:
    working = typed.start(*SLOW, "--budget", "150steps")
    typed.until("running", "small-colour-1")
    working.send_signal(signal.SIGINT)
    assert working.wait(60) == 130
    document = typed.json("resume", "small-colour-1")
    assert [run["state"] for run in document["runs"]] == ["done"]


def test_a_comparison_is_left_behind_and_another_run_waits_for_one_of_it(typed: Typed) -> None:
    document = typed.json("compare", "small", *SLOW[2:], "--seeds", "2", "--budget", "400steps", "--detach")
    first, second = [run["id"] for run in document["runs"]]
    (third,) = typed.json(*SLOW, "--budget", "30steps", "--after", first, "--detach")["runs"]
    typed.run("pause", first, second)
    (supervisor, _) = typed.json("status")["supervisors"]
    assert supervisor["in_background"] and supervisor["runs"] == [first, second]
    waits = {run["id"]: run["waits"] for run in typed.json("status")["runs"]}
    assert waits[third["id"]] == f"waits for {first} to end (which is paused)"
    typed.run("cancel", first)
    typed.until("done", third["id"])
    typed.run("cancel", second)


def test_what_cant_go_on_is_said_where_a_supervisor_would_be_left_behind(typed: Typed) -> None:
    working = typed.start(*SLOW, "--budget", "150steps")
    typed.until("running", "small-colour-1")
    working.send_signal(signal.SIGINT)
    assert working.wait(60) == 130
    method = typed.bench / "methods" / "colour" / "method.toml"
    method.write_text(method.read_text() + "# changed")
    said = typed.run("resume", "small-colour-1", "--detach", status=2)
    assert said.splitlines()[-1].startswith(
        "turntable: Method colour has changed (or gone) since run small-c"
    )
    (run,) = typed.json("status")["runs"]
    assert run["waits"].startswith("Method colour has changed")


def test_a_failed_run_is_retried_as_a_new_one(typed: Typed) -> None:
    typed.run("run", "small", "-m", "colour", "--set", "mode=nan", "--budget", "20steps", status=3)
    typed.run("retry", "small-colour-1", status=3)
    assert typed.states() == {"small-colour-1": "failed", "small-colour-2": "failed"}


def test_a_cancelled_run_ends_the_command_that_waits_for_it_and_is_shown_as_cancelled(typed: Typed) -> None:
    working = typed.start(*SLOW, "--budget", "100000steps")
    typed.until("running", "small-colour-1")
    assert "small-colour-1: cancelled" in typed.run("cancel", "small-colour-1")
    out, err = working.communicate(timeout=60)
    assert working.returncode == 0 and "cancelled" in out, err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("pause", "nobody"), "Unknown run 'nobody'"),
        (("retry", "small-colour-1"), "is done"),
        (
            ("cancel", "small-colour-1"),
            "Only a run that has not ended can be cancelled; small-colour-1 is done",
        ),
        ((*SLOW, "--priority", "5000"), "--priority is a whole number from -1000 to 1000, not 5000"),
        ((*SLOW, "--policy", "fair"), "Unknown policy 'fair'; known: first-come, round-robin"),
        (
            (*SLOW, "--policy", "round-robin", "--quantum", "0"),
            "--quantum is a number of seconds, at least 0.1, not 0",
        ),
        ((*SLOW, "--memory", "lots"), "--memory is like 500M or 24G, not 'lots'"),
        ((*SLOW, "--memory", "900000G"), "--memory is at most what a device has"),
        ((*SLOW, "--after", "nobody"), "Unknown run 'nobody'"),
        ((*SLOW, "--device", "cuda:7"), "--device cuda:7 needs such a card"),
        (("watch", "--every", "0"), "--every is a number of seconds from 0.1 to 3600, not 0"),
    ],
)
def test_what_cant_be_meant_is_one_line_and_changes_nothing(
    typed: Typed, words: tuple[str, ...], says: str
) -> None:
    typed.run("run", "small", "-m", "colour", "--budget", "8steps")
    before = typed.json("status")
    error = typed.run(*words, status=2)
    assert says in error and error.count("\n") == 1
    assert typed.json("status") == before


FOX = ("--long-side", "256", "-m", "splat", "-m", "nearest", "--seeds", "3", "--budget", "400steps")


def test_a_comparison_that_is_paused_resumed_and_killed_at_random_ends_with_the_same_scores(
    turntable_command: list[str], data: Path, tmp_path: Path
) -> None:
    undisturbed = Typed(turntable_command, tmp_path / "undisturbed")
    disturbed = Typed(turntable_command, tmp_path / "disturbed")
    compare = ("compare", str(data / "fox"), *FOX)
    expected = undisturbed.json(*compare)
    chance = random.Random(1)
    working = disturbed.start(*compare, "--quantum", "1")
    done = {"kill": 0, "worker": 0, "pause": 0, "interrupt": 0}
    deadline = time.monotonic() + 200
    while working.poll() is None or working.returncode != 0:
        assert time.monotonic() < deadline, done
        if working.poll() is not None:
            working = disturbed.start(*compare, "--quantum", "1")
        time.sleep(chance.uniform(0.2, 1.5))
        if sum(done.values()) >= 24 or not (disturbed.bench / "record.sqlite").exists():
            continue
        rows = disturbed.json("status")["runs"]
        running = [row["id"] for row in rows if row["state"] == "running"]
        what = chance.choice(list(done))
        if what in ("kill", "interrupt"):
            working.send_signal(signal.SIGKILL if what == "kill" else signal.SIGINT)
            working.wait(60)
        elif running and what == "pause":
            disturbed.start("pause", running[0]).wait(60)
            disturbed.start("resume", running[0], "--detach").wait(60)
        elif running:
            for child in psutil.Process(working.pid).children() if working.poll() is None else []:
                child.kill()
        else:
            continue
        done[what] += 1
    got = disturbed.json("scores", "fox")
    assert min(done.values()) > 0, done

    def scores(document: dict[str, Any]) -> dict[tuple[str, int], Any]:
        return {
            (run["method"], run["seed"]): [
                (point["mark"], point["steps"], point["scores"]) for point in run["curve"]
            ]
            for run in document["runs"]
        }

    assert {run["state"] for run in got["runs"]} == {"done"} and len(got["runs"]) == 6
    assert scores(got) == scores(expected)
