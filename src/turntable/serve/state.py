"""What the live page shows of a bench, as plain data: texts ready to be shown, in parts that are sent when they change.

=============  ==========================================================================================
part           holds
=============  ==========================================================================================
``order``      the ids of the runs shown, as listed: the newest first
``run/<id>``   a run's row: see :meth:`Reader._row`
``turns``      ``begin`` and ``end`` (None: now), in words ``from`` and ``to``; ``devices``:
               ``[{"name", "turns": […]}]``; see :func:`timeline`
``devices``    ``[{"name", "text"}]``: who holds each device
``captures``   ``[{"name", "url", "page", "text", "stale"}]``: those that there are, and whether their page is older than
               their scores
``notice``     what else is to be said, or ""
``older``      how many runs aren't shown, in words, or ""
=============  ==========================================================================================

Names, causes and logs are whatever a method's author wrote: they are text everywhere, never markup. Times are in seconds
since the epoch.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from ..bench import Bench
from ..control import view_queue, view_runs
from ..lang import Texts
from ..record import definition_id
from ..results import run_document
from ..tasks.metrics import metrics
from .stream import Parts

MOST_TURNS = 300
"""So many turns are drawn; more would be narrower than a pixel."""

REST_S = 1800.0
"""After so long without a turn, what came before is another stretch of work and isn't drawn."""

COLOURS = 8
"""The style sheet has so many colours for methods."""

UNCHANGED_S = 5.0
"""What the record doesn't tell (a supervisor was killed, a page was written) is looked for so often."""


@dataclass(frozen=True)
class Turn:
    """A turn, as the record has it. ``ended`` is None while it lasts, and for a turn whose supervisor was killed."""

    run: str
    device: str
    started: float
    ended: float | None
    why: str | None


def last_stretch(turns: Sequence[Turn], now: float) -> list[Turn]:
    """The turns since all devices last had a rest of :data:`REST_S`.

    Args:
        turns: in any order; those without an end last.
        now: the time.
    """
    begins = None
    for ended, started in sorted(((turn.ended or now, turn.started) for turn in turns), reverse=True):
        if begins is not None and begins - ended >= REST_S:
            break
        begins = started if begins is None else min(begins, started)
    return [turn for turn in turns if begins is not None and turn.started >= begins]


def timeline(turns: Sequence[Turn], now: float, colours: dict[str, int], t: Texts) -> dict[str, Any]:
    """The part ``turns``: the last stretch of work, by device.

    Args:
        turns: oldest first.
        now: the time.
        colours: which colour each run has.
        t: the language.
    """
    drawn = last_stretch(turns, now)
    lasting = any(turn.ended is None for turn in drawn)
    devices: dict[str, list[dict[str, Any]]] = {}
    for turn in drawn:
        devices.setdefault(turn.device, []).append(_shown(turn, colours, t))
    begin = min((turn.started for turn in drawn), default=now)
    end = None if lasting or not drawn else max(turn.ended or now for turn in drawn)
    return {
        "begin": round(begin, 2),
        "end": None if end is None else round(end, 2),
        "from": _clock(begin) if drawn else "",
        "to": "" if not drawn else t("serve.now") if end is None else _clock(end),
        "devices": [{"name": name, "turns": devices[name]} for name in sorted(devices)],
    }


def _shown(turn: Turn, colours: Mapping[str, int], t: Texts) -> dict[str, Any]:
    """A turn as it is drawn and listed."""
    return {
        "run": turn.run,
        "url": run_url(turn.run),
        "colour": colours.get(turn.run, 0),
        "started": round(turn.started, 2),
        "ended": None if turn.ended is None else round(turn.ended, 2),
        "from": _clock(turn.started),
        "to": t("serve.now") if turn.ended is None else _clock(turn.ended),
        "seconds": "" if turn.ended is None else f"{turn.ended - turn.started:,.1f}",
        "why": turn.why or "",
    }


def allowed(state: str, wish: str | None, pausable: bool | None) -> list[str]:
    """What can be wished of a run, by how ``control`` shows it."""
    if state in ("failed", "cancelled"):
        return ["retry"]
    if state == "done" or wish == "cancel":
        return []
    if state == "paused":
        return ["resume", "cancel"]
    if wish == "pause":  # asked for, and not granted yet: resume takes it back
        return ["resume", "cancel"]
    return ["cancel"] if pausable is False else ["pause", "cancel"]


def run_url(run: str) -> str:
    """Where a run's page is."""
    return f"/runs/{quote(run, safe='')}"


class Reader:
    """Reads one bench. To be used from one thread alone, in which it keeps the record open.

    Args:
        folder: the bench.
        texts: in the language of the page.
    """

    def __init__(self, folder: Path, texts: Texts) -> None:
        self._bench = Bench(folder)
        self._texts = texts
        self._version: object = None
        self._looked = 0.0

    def look(
        self, writing: frozenset[str] = frozenset(), failed: Mapping[str, str] = MappingProxyType({})
    ) -> Parts | None:
        """All parts; None where nothing can have changed since they were asked for last.

        Args:
            writing: the captures whose pages are being written.
            failed: by capture, why its page could not be written.

        Raises:
            TurntableError: the record can't be read.
        """
        version = (*self._bench.record.version(), writing, dict(failed))
        now = time.monotonic()
        if version == self._version and now - self._looked < UNCHANGED_S:
            return None
        parts = self._parts()
        for capture in parts["captures"]:
            name = capture["name"]
            capture["writing"] = name in writing
            if name in writing:
                capture["text"] = self._texts("serve.writing")
            elif name in failed:
                capture["text"] = self._texts("serve.not_written", why=failed[name])
        self._version, self._looked = version, now
        return parts

    def folder(self, run: str) -> Path:
        """Where a run lies.

        Raises:
            TurntableError: there is no such run.
        """
        return self._bench.run_folder(run).path

    def run(self, run: str) -> dict[str, Any]:
        """All that is shown of one run: ``row``, ``facts`` as (name, value) pairs, ``marks``, ``curve``, ``turns``.

        Raises:
            TurntableError: there is no such run, or its folder can't be read.
        """
        record_row = self._bench.row(run)
        document = run_document(self._bench, record_row)
        t = self._texts
        facts = [
            (t("serve.run.method"), document["method"]),
            (t("serve.run.capture"), record_row.capture),
            (t("serve.run.device"), document["device"]),
            (t("serve.run.budget"), document["budget"]),
            (t("serve.run.seed"), str(document["seed"])),
            *((name, str(value)) for name, value in sorted(document["settings"].items())),
        ]
        titles = {
            name: " ".join(filter(None, (metric.title, metric.unit))) for name, metric in metrics().items()
        }
        named = list(dict.fromkeys(name for point in document["curve"] for name in point["scores"]))
        marks = [
            {
                "mark": f"{point['mark']:.1%}",
                "steps": f"{point['steps']:,}",
                "seconds": f"{point['device_seconds']:,.1f}",
                "scores": [
                    (f"{point['scores'][name]['mean']:.3f}", f"{point['scores'][name]['worst']:.3f}")
                    if name in point["scores"]
                    else ("–", "–")
                    for name in named
                ],
            }
            for point in document["curve"]
        ]
        turns = _turns(self._bench, [run])
        return {
            "row": self._row(view_runs(self._bench, [run])[0], 0, self._scored([run]).get(run, "")),
            "facts": facts,
            "metrics": [titles.get(name, name) for name in named],
            "marks": marks,
            "curve": curve(
                [
                    (point["device_seconds"], point["scores"][named[0]]["mean"])
                    for point in document["curve"]
                    if named[0] in point["scores"]
                ]
            ),
            "turns": [(turn.device, _shown(turn, {}, t)) for turn in turns],
        }

    def _parts(self) -> Parts:
        view = view_queue(self._bench)
        names = [row["id"] for row in view.runs]
        methods = list(dict.fromkeys(row["method"] for row in view.runs))
        colours = {row["id"]: methods.index(row["method"]) % COLOURS for row in view.runs}
        scored = self._scored(names)
        holding = {device["run"] for device in view.devices}
        turns = [self._ended(turn, holding) for turn in _turns(self._bench)]
        waiting = any(row["state"] in ("queued", "interrupted") for row in view.runs)
        t = self._texts
        return {
            "order": names[::-1],
            **{
                f"run/{row['id']}": self._row(row, colours[row["id"]], scored.get(row["id"], ""))
                for row in view.runs
            },
            "turns": timeline(turns, time.time(), colours, t),
            "devices": [{"name": device["name"], "text": self._device(device)} for device in view.devices],
            "captures": self._captures(view.runs),
            "notice": t("serve.nobody") if waiting and not view.supervisors else "",
            "older": t("serve.older", count=view.older) if view.older else "",
        }

    def _row(self, row: dict[str, Any], colour: int, score: str) -> dict[str, Any]:
        """A run as it is listed: every value as it is shown, and ``can``: what may be wished of it."""
        t = self._texts
        remarks = [row["cause"]]
        if row["wish"]:
            remarks.append(t(f"serve.wished.{row['wish']}"))
        remarks.append(row["waits"])
        if row["pausable"] is False or row["state"] != "running":
            remarks.append(row["pausing"])
        left = row["device_seconds_left"]
        return {
            "id": row["id"],
            "url": run_url(row["id"]),
            "log": f"{run_url(row['id'])}/log",
            "colour": colour,
            "state": row["state"],
            "state_text": t(
                "serve.interrupted" if row["state"] == "interrupted" else f"state.{row['state']}"
            ),
            "fraction": round(row["fraction"], 3),
            "used": f"{row['fraction']:.0%}",
            "left": "" if left is None else f"{left:,.0f}",
            "device": row["device"],
            "seconds": f"{row['device_seconds']:,.1f}",
            "steps": f"{row['steps']:,}",
            "score": score,
            "remark": "; ".join(remark for remark in remarks if remark),
            "can": allowed(row["state"], row["wish"], row["pausable"]),
        }

    def _ended(self, turn: Turn, holding: Container[str]) -> Turn:
        """A turn whose supervisor was killed ended with the last that its run told of."""
        if turn.ended is not None or turn.run in holding:
            return turn
        last = _written(self._bench.runs_folder / turn.run / "events.jsonl") or 0.0
        return replace(turn, ended=max(last, turn.started), why=self._texts("serve.interrupted"))

    def _device(self, device: dict[str, Any]) -> str:
        """Who holds a device. For how long is seen in the timeline: it would change with every look."""
        if device["run"] is None:
            return self._texts("serve.free")
        if device["bench"] != str(self._bench.folder):
            return self._texts("serve.held_elsewhere", run=device["run"], bench=device["bench"])
        return self._texts("serve.held", run=device["run"])

    def _scored(self, runs: Sequence[str]) -> dict[str, str]:
        """By run the mean of the first metric at the last mark so far, in words."""
        metric = next(iter(metrics().values()))
        rows = self._bench.record.read(
            f"SELECT run, mark, avg(value) AS mean FROM scores WHERE run IN ({_holes(runs)}) AND metric = ?"
            " AND definition = ? GROUP BY run, mark ORDER BY mark",
            [*runs, metric.name, definition_id(metric.definition)],
        )
        return {
            row["run"]: self._texts(
                "serve.score", mean=f"{row['mean']:.2f}", unit=metric.unit, mark=f"{row['mark']:.1%}"
            )
            for row in rows
        }

    def _captures(self, runs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        t = self._texts
        ended = self._bench.record.read(
            "SELECT runs.capture AS capture, max(events.time) AS time FROM events JOIN runs ON runs.id = events.run"
            " WHERE events.state IN ('done', 'failed', 'cancelled') GROUP BY runs.capture"
        )
        newest = {row["capture"]: row["time"] for row in ended}
        for row in runs:  # those that go on have newer scores than any event
            scores = _written(self._bench.runs_folder / row["id"] / "scores.csv") or 0.0
            newest[row["capture"]] = max(newest.get(row["capture"], 0.0), scores)
        found = []
        for path in sorted(self._bench.captures_folder.glob("*/capture.json")):
            name = path.parent.name
            if name.startswith("."):
                continue
            written = _written(self._bench.reports_folder / name / "index.html")
            stale = written is not None and newest.get(name, 0.0) > written
            text = t("serve.no_page") if written is None else t("serve.written", time=_date(written))
            found.append(
                {
                    "name": name,
                    "url": f"/reports/{quote(name, safe='')}/",
                    "page": written is not None,
                    "stale": stale,
                    "text": f"{text} {t('serve.stale')}" if stale else text,
                }
            )
        return found


def curve(
    points: Sequence[tuple[float, float]], width: float = 320.0, height: float = 120.0
) -> dict[str, Any] | None:
    """A curve ready to be drawn, in a box of ``width`` × ``height``; None where there are no two points.

    Args:
        points: device seconds and the mean of the metric, in order.
    """
    if len(points) < 2:
        return None
    most = max(seconds for seconds, _ in points) or 1.0
    low, high = min(mean for _, mean in points), max(mean for _, mean in points)
    scale = (high - low) or 1.0
    drawn = [
        (round(width * seconds / most, 1), round(height * (1 - (mean - low) / scale), 1))
        for seconds, mean in points
    ]
    return {
        "width": width,
        "height": height,
        "dots": drawn,
        "line": " ".join(f"{x},{y}" for x, y in drawn),
        "low": f"{low:.2f}",
        "high": f"{high:.2f}",
        "seconds": f"{most:,.0f}",
    }


def _turns(bench: Bench, runs: Sequence[str] | None = None) -> list[Turn]:
    """The last turns, oldest first; of some runs alone where they are given."""
    where = "" if runs is None else f"WHERE run IN ({_holes(runs)})"
    rows = bench.record.read(
        f"SELECT run, device, started, ended, why FROM turns {where} ORDER BY rowid DESC LIMIT ?",
        [*(runs or ()), MOST_TURNS],
    )
    return [Turn(**dict(row)) for row in reversed(rows)]


def _holes(values: Iterable[Any]) -> str:
    return ", ".join("?" for _ in values)


def _written(path: Path) -> float | None:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return None


def _clock(moment: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(moment))


def _date(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))
