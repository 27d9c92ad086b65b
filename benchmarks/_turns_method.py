"""The method that ``benchmarks/turns.py`` pauses: a state of so many megabytes, steps of so many milliseconds.

It is copied into a method's folder. In ``curve/clock.txt`` of its run's folder it writes down, by the epoch's clock, when
its steps went on after any rest, when the last step before a save had ended, and how long saving and loading took::

    first 1700000000.123456     a step begins: the process's first, or the first after 50 ms without one
    last 1700000002.123456      the last step had ended, when the method was asked to save
    saved 1700000002.223456     it has saved
    load 1700000003.000000      it begins to load
    loaded 1700000003.100000    it has loaded
"""

import functools
import json
import time
from pathlib import Path

import numpy as np

REST_S = 0.05
BLOCK = 1 << 20


class Method:
    """Trains nothing."""

    def __init__(self, views, settings, seed, device):
        self.size, self.seed, self.saved = settings["megabytes"] * 250_000, seed, None
        self.step_s, self.steps, self.ended = settings["step_ms"] / 1000, 0, 0.0

    @functools.cached_property
    def state(self):
        """What was loaded, or else noise, which no file system can pack.

        Not made before it is needed: loading is measured, and needs none.
        """
        return (
            np.random.default_rng(self.seed).random(self.size, np.float32)
            if self.saved is None
            else self.saved
        )

    def step(self):
        state = self.state
        now = time.time()
        if now - self.ended > REST_S:
            note("first", now)
        # Something of the state changes at every step, so that no two checkpoints are equal.
        state[(self.steps * BLOCK) % state.size :][:1000] += 1
        self.steps += 1
        time.sleep(self.step_s)
        self.ended = time.time()
        return {"loss": 1.0 / self.steps}

    def render(self, camera):
        return {"image": np.full((camera.height, camera.width, 3), 0.5, np.float32)}

    def save(self, folder):
        note("last", self.ended)
        np.save(folder / "state.npy", self.state, allow_pickle=False)
        (folder / "steps.json").write_text(json.dumps(self.steps))
        note("saved", time.time())

    def load(self, folder):
        note("load", time.time())
        self.saved = np.load(folder / "state.npy", allow_pickle=False)
        self.steps = json.loads((folder / "steps.json").read_text())
        note("loaded", time.time())


def note(what, when):
    """Add a line to ``clock.txt``, in a folder of the run's that a method may write to."""
    with Path("curve/clock.txt").open("a") as file:
        file.write(f"{what} {when:.6f}\n")
