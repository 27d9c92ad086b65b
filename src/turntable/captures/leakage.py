"""Leakage: a held-out view that a training photo already shows, so that its score says nothing.

It is found by content alone (:mod:`turntable.captures.alike`), when a capture is made; a capture made before that is looked
through when asked, and isn't changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import numpy as np

from ..errors import TurntableError
from ..machine import usable_cores
from .alike import ALIKE_BELOW, PROBE_PX, Fingerprint, fingerprint, pairs_alike, to_size
from .capture import Capture, CaptureView

RULE = 2
"""Counts the changes of what is found: what another rule found is looked for again."""

IDENTICAL, NEAR_DUPLICATE = "identical", "near-duplicate"


@dataclass(frozen=True)
class Leak:
    """A held-out view that a training photo shows.

    Args:
        held_out, training: the views' names.
        kind: ``identical`` (every pixel), or ``near-duplicate`` (encoded anew, resized, a little brighter, or taken from the
            same place).
        psnr: in dB, of the two at the smaller one's size; None where nothing differs there.
    """

    held_out: str
    training: str
    kind: str
    psnr: float | None


@dataclass(frozen=True)
class Twins:
    """Two views on the same side of the split that are one photo: they don't count as two.

    Args:
        first, second: the views' names.
        held_out: on which side.
        kind: as for :class:`Leak`.
    """

    first: str
    second: str
    held_out: bool
    kind: str


@dataclass(frozen=True)
class Leakage:
    """All that was found in one capture."""

    leaks: tuple[Leak, ...]
    twins: tuple[Twins, ...]

    def to_json(self) -> dict[str, Any]:
        """What ``capture.json`` holds: the leaks, and the rule by which they were found.

        Not the twins, which in a dense video can be thousands; the capture's notes say how many there are.
        """
        return {
            "rule": RULE,
            "alike_below": ALIKE_BELOW,
            "probe_px": PROBE_PX,
            "leaks": [asdict(leak) for leak in self.leaks],
        }


def find_leaks(capture: Capture) -> list[Leak]:
    """The held-out views that training photos show, from the capture's pixels; sorted by the held-out view's name.

    Raises:
        TurntableError, OSError: a photo can't be read.
    """
    return list(find_leakage(capture).leaks)


def leakage_of(capture: Capture) -> list[Leak]:
    """The leaks that were found when the capture was made; found now where it was made before they were looked for.

    Raises:
        TurntableError, OSError: a photo can't be read.
    """
    stored = capture.document.get("leakage") or {}
    if stored.get("rule") == RULE:
        return [Leak(**leak) for leak in stored["leaks"]]
    return find_leaks(capture)


def find_leakage(capture: Capture, known: Mapping[str, Fingerprint] | None = None) -> Leakage:
    """Leaks, and photos that stand twice on one side of the split.

    Args:
        capture: whose photos are compared, as it stores them.
        known: the views' fingerprints by name, where they are known.
    """
    prints = fingerprints(capture.views) if known is None else known
    training, held_out = list(capture.training), list(capture.held_out)
    leaks = []
    for out, pairs in groupby(_pairs(held_out, training, prints), key=lambda pair: pair[0]):
        photo = out.image()
        for _, seen in pairs:
            kind = _kind(prints[out.name], prints[seen.name])
            psnr = None if kind == IDENTICAL else psnr_between(photo, seen.image())
            leaks.append(Leak(out.name, seen.name, kind, psnr))
    twins = [
        Twins(first.name, second.name, first.held_out, _kind(prints[first.name], prints[second.name]))
        for side in (training, held_out)
        for first, second in _pairs_within(side, prints)
    ]
    return Leakage(tuple(leaks), tuple(twins))


def fingerprints(views: Sequence[CaptureView]) -> dict[str, Fingerprint]:
    """The fingerprints of some views by their names.

    Raises:
        TurntableError: a photo is damaged.
        OSError: one is missing.
    """

    def one(view: CaptureView) -> Fingerprint:
        try:
            return fingerprint(view.image(), view.mask())
        except ValueError as error:
            raise TurntableError(
                f"Photo {view.name} of the capture can't be read ({error}). Add the capture again."
            ) from None

    with ThreadPoolExecutor(max_workers=usable_cores()) as pool:
        found = list(pool.map(one, views))
    return {view.name: one for view, one in zip(views, found, strict=True)}


def told(leaks: Sequence[Leak]) -> str:
    """One sentence for a person; "" where there is no leak."""
    if not leaks:
        return ""
    first = leaks[0]
    views = len({leak.held_out for leak in leaks})
    many = "1 held-out view is" if views == 1 else f"{views} held-out views are"
    how = "the same as" if first.psnr is None else f"{first.psnr:.1f} dB from"
    return (
        f"Leakage: {many} shown by training photos, so what is scored there was seen: {first.held_out} is {how} "
        f"{first.training}{' …' if len(leaks) > 1 else ''}."
    )


def told_twins(twins: Sequence[Twins]) -> list[str]:
    """A sentence for each side of the split on which photos stand twice."""
    notes = []
    for held_out, side in ((False, "training"), (True, "held-out")):
        pairs = [f"{pair.first} and {pair.second}" for pair in twins if pair.held_out == held_out]
        if pairs:
            more = f" and {len(pairs) - 3} more pairs" if len(pairs) > 3 else ""
            notes.append(f"Among the {side} views, photos show the same: {', '.join(pairs[:3])}{more}.")
    return notes


def _pairs(
    some: list[CaptureView], others: list[CaptureView], prints: Mapping[str, Fingerprint]
) -> list[tuple[CaptureView, CaptureView]]:
    found = pairs_alike([prints[view.name] for view in some], [prints[view.name] for view in others])
    return [(some[one], others[other]) for one, other, _ in found]


def _pairs_within(
    views: list[CaptureView], prints: Mapping[str, Fingerprint]
) -> list[tuple[CaptureView, CaptureView]]:
    """Each pair once, whichever of the two found the other."""
    by_name = {view.name: view for view in views}
    names = {
        (min(one.name, other.name), max(one.name, other.name))
        for one, other in _pairs(views, views, prints)
        if one is not other
    }
    return [(by_name[first], by_name[second]) for first, second in sorted(names)]


def _kind(one: Fingerprint, other: Fingerprint) -> str:
    return IDENTICAL if one.digest == other.digest else NEAR_DUPLICATE


def psnr_between(one: np.ndarray, other: np.ndarray) -> float | None:
    """In dB, of two ``uint8[H, W, 3]`` at the smaller one's size; None where nothing differs there."""
    height, width = min(one.shape[:2], other.shape[:2])
    first, second = (to_size(image, width, height).astype(np.int32) for image in (one, other))
    error = float(np.mean(np.square(first - second), dtype=np.float64))
    return None if error == 0 else float(10 * np.log10(255**2 / error))
