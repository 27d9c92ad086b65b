"""Which views are held out."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import TurntableError, unknown_name

FEWEST_TRAINING = 2
"""One photo shows no shape: with fewer, what a method is scored on is a guess."""

EVERY = 8
"""As multinerf's ``llffhold`` has it."""

_FORMS = "every:N, segment:SHARE or list:FILE"


@dataclass(frozen=True)
class HoldOut:
    """A rule by which views are held out.

    Args:
        rule: ``every``: every ``every``-th by name, the first included. ``segment``: the last ``share`` of the views by
            name, numbers by their value, in one piece: what a method shows there it extrapolates, past the end of the
            path. ``list``: ``names``.
    """

    rule: str
    every: int = EVERY
    share: float = 0.0
    names: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> HoldOut:
        """``every:8``, ``segment:0.2``, or ``list:FILE``, a file with a view's name a line.

        In the file, ``#`` and a space begin a comment.

        Raises:
            TurntableError: it is anything else, or the file can't be read or names no view.
        """
        rule, colon, value = text.strip().partition(":")
        try:
            if colon and rule == "every":
                return cls("every", every=int(value)).checked()
            if colon and rule == "segment":
                return cls("segment", share=float(value)).checked()
        except ValueError:
            raise TurntableError(f"--hold-out is {_FORMS}; {rule} takes a number, not {value!r}.") from None
        if colon and rule == "list" and value:
            return cls("list", names=_names_in(Path(value).expanduser())).checked()
        raise TurntableError(f"--hold-out is {_FORMS}, not {text!r}.")

    def checked(self) -> HoldOut:
        """Itself.

        Raises:
            TurntableError: a number is out of bounds, or there is no such rule.
        """
        if self.rule not in ("every", "segment", "list"):
            raise unknown_name("hold-out rule", self.rule, ("every", "segment", "list"))
        if self.rule == "every" and self.every < 2:
            raise TurntableError(
                "--every is at least 2 (and so is N of --hold-out every:N), so that something is left to train on; "
                f"not {self.every}."
            )
        if self.rule == "segment" and not 0 < self.share < 1:
            raise TurntableError(
                f"--hold-out segment:SHARE is above 0 and below 1, as in segment:0.2; not {self.share:g}."
            )
        if self.rule == "list" and not self.names:
            raise TurntableError(
                "--hold-out list:FILE needs a file that names at least one view; it names none."
            )
        return self

    def to_json(self) -> dict[str, Any]:
        """The rule and what it needs, nothing else: it is hashed."""
        value = {"every": self.every, "segment": self.share, "list": sorted(set(self.names))}[self.rule]
        return {"rule": self.rule, "value": value}

    def words(self) -> str:
        """How it reads."""
        if self.rule == "every":
            return f"every {ordinal(self.every)} view by name, the first included"
        if self.rule == "segment":
            return f"the last {self.share * 100:g} % of the views by name, in one piece (extrapolation)"
        return "the views that the user listed"

    def chosen(self, names: Sequence[str], unusable: Sequence[str] = ()) -> list[bool]:
        """Whether each of ``names`` is held out.

        Args:
            names: of the usable views, in any order.
            unusable: of views that the source has, but that were left out.

        Raises:
            TurntableError: the list names a view that there isn't.
        """
        if self.rule == "list":
            known = {_as_listed(name) for name in (*names, *unusable)}
            for name in self.names:
                if _as_listed(name) not in known:
                    raise unknown_name("view in --hold-out's list", name, [*names, *unusable])
            listed = {_as_listed(name) for name in self.names}
            return [_as_listed(name) in listed for name in names]
        if self.rule == "every":
            held_out = set(sorted(names)[:: self.every])
        else:
            order = sorted(names, key=numbers_by_value)
            held_out = set(order[len(order) - max(1, math.floor(len(order) * self.share + 0.5)) :])
        return [name in held_out for name in names]


@dataclass(frozen=True)
class Split:
    """A split, and where it came from.

    Args:
        held_out: for each view.
        by: ``source``, or the hold-out's rule.
        words: how it reads, for people.
        note: what the user should know of it, or "".
    """

    held_out: list[bool]
    by: str
    words: str
    note: str = ""


def split(
    names: Sequence[str],
    said: Sequence[bool | None],
    every: int,
    hold_out: HoldOut | None = None,
    unusable: Sequence[str] = (),
) -> Split:
    """Which views are held out.

    The user's rule stands where there is one; else the source's own split, where it says something of every view; else names
    are sorted and every ``every``-th is held out, the first included (multinerf's ``llffhold``).

    Args:
        names: of the usable views.
        said: what the source says of each; None where it says nothing.
        every: 2 or more.
        hold_out: what the user asked for, whatever the source says.
        unusable: names of views that were left out.

    Raises:
        TurntableError: the rule can't be meant, or fewer than two training views or no held-out view would be left.
    """
    usual = HoldOut("every", every=every).checked()
    own = bool(names) and all(answer is not None for answer in said)
    if own and hold_out is None:
        note = (
            f"The source's own split stands; --every {every} changed nothing (--hold-out every:{every} splits anew)."
            if every != EVERY
            else ""
        )
        found = Split([bool(answer) for answer in said], "source", "the source's own split", note)
    else:
        rule = (hold_out or usual).checked()
        note = (
            f"The source brings a split of its own, which --hold-out replaced: {rule.words()}." if own else ""
        )
        found = Split(rule.chosen(names, unusable), rule.rule, rule.words(), note)
    training = found.held_out.count(False)
    if training < FEWEST_TRAINING or training == len(names):
        raise TurntableError(
            f"A capture needs at least {FEWEST_TRAINING} training views and one held-out view; of "
            f"{len(names)} usable photos {training} train, {len(names) - training} are held out. "
            "Add photos, or change --every or --hold-out."
        )
    return found


def split_of(document: Mapping[str, Any]) -> dict[str, str]:
    """How a capture was split: ``by`` (``source``, or a hold-out's rule; "" where that isn't known) and ``words``.

    Args:
        document: ``capture.json``; one that was made before this was stored has what its held-out views themselves tell.
    """
    if "split" in document:
        return document["split"]
    rule = HoldOut("every", every=document["settings"].get("every", EVERY))
    views = document["views"]
    if [view["held_out"] for view in views] == rule.chosen([view["name"] for view in views]):
        return {"by": rule.rule, "words": rule.words()}
    return {"by": "", "words": "not recorded: the capture was made by an earlier Turntable"}


def numbers_by_value(name: str) -> tuple[tuple[tuple[int, str], ...], str]:
    """A key that sorts ``frame_2`` before ``frame_10``: the order in which photos were taken, as far as names tell.

    ``every`` doesn't go by it: what it holds out is multinerf's plain order of names.
    """
    parts = re.split(r"([0-9]+)", name)
    return tuple((int(part), "") if at % 2 else (-1, part) for at, part in enumerate(parts)), name


def ordinal(number: int) -> str:
    """``2nd``, ``8th``."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _as_listed(name: str) -> str:
    """A view's name as it is looked up: macOS takes letters with accents apart in the names of files, editors don't."""
    return unicodedata.normalize("NFC", name.strip())


def _names_in(path: Path) -> tuple[str, ...]:
    try:
        # A name may hold what splitlines() splits at, too.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it isn't UTF-8 text"
        raise TurntableError(
            f"--hold-out list:FILE is a text file with a view's name a line; {path} can't be read ({why})."
        ) from None
    told = (_as_listed(line) for line in lines)
    names = tuple(dict.fromkeys(name for name in told if name and not re.match(r"#(\s|$)", name)))
    if not names:
        raise TurntableError(
            f"--hold-out list:FILE needs a file that names at least one view; {path} names none."
        )
    return names
