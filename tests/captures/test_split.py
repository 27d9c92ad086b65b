"""Which views are held out."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turntable.captures.split import FEWEST_TRAINING, HoldOut, numbers_by_value, ordinal, split, split_of
from turntable.errors import TurntableError


def test_every_eighth_by_name_the_first_included() -> None:
    names = [f"{index:02d}.jpg" for index in range(17)]
    assert [name for name, out in zip(names, split(names, [None] * 17, 8).held_out, strict=True) if out] == [
        "00.jpg",
        "08.jpg",
        "16.jpg",
    ]


def test_names_decide_and_not_the_order_they_come_in() -> None:
    assert split(["c", "a", "b", "d"], [None] * 4, 2).held_out == [True, True, False, False]


def test_the_sources_own_split_stands() -> None:
    assert split(["a", "b", "c"], [False, True, False], 8).held_out == [False, True, False]


def test_half_a_split_is_none() -> None:
    assert split(["a", "b", "c"], [False, None, True], 8).held_out == [True, False, False]


@settings(deadline=None)  # a busy machine is no fault
@given(st.sets(st.text(min_size=1), min_size=4, max_size=40), st.integers(2, 9))
def test_the_share_that_is_held_out(names: set[str], every: int) -> None:
    held_out = split(sorted(names), [None] * len(names), every).held_out
    assert held_out.count(True) == -(-len(names) // every)
    assert held_out.count(False) >= FEWEST_TRAINING


@pytest.mark.parametrize(
    ("said", "every", "says"),
    [
        ([None, None], 8, "2 training views.* 2 usable photos 1 train"),
        ([None], 8, "1 usable photos 0 train"),
        ([], 8, "0 usable photos"),
        ([False, False, False], 8, "3 train, 0 are held out"),
        ([True, True, False], 8, "1 train, 2 are held out"),
        ([None] * 9, 1, "--every is at least 2.* not 1"),
        ([None] * 9, 0, "--every is at least 2.* not 0"),
    ],
)
def test_too_little_is_refused(said: list[bool | None], every: int, says: str) -> None:
    with pytest.raises(TurntableError, match=says):
        split([f"{index}" for index in range(len(said))], said, every)


NAMES = [f"{index:02d}.jpg" for index in range(10)]
UNSAID = [None] * 10


def held_out(rule: HoldOut, names: list[str] = NAMES, said: list[bool | None] | None = None) -> list[str]:
    found = split(names, said or [None] * len(names), 8, rule).held_out
    return [name for name, out in zip(names, found, strict=True) if out]


def test_a_segment_is_the_end_of_the_path_in_one_piece() -> None:
    assert held_out(HoldOut.parse("segment:0.2")) == ["08.jpg", "09.jpg"]
    assert held_out(HoldOut.parse("segment:0.01")) == ["09.jpg"]  # at least one
    assert held_out(HoldOut.parse("segment:0.8")) == NAMES[2:]


def test_a_list_is_held_out_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text(
        "\ufeff# the corner\n03.jpg\r\n\n  07.jpg  \n03.jpg\n", encoding="utf-8"
    )
    rule = HoldOut.parse(f"list:{tmp_path / 'names.txt'}")
    assert held_out(rule) == ["03.jpg", "07.jpg"]
    assert rule.to_json() == {"rule": "list", "value": ["03.jpg", "07.jpg"]}


def test_a_segment_is_one_piece_where_numbers_have_no_leading_zeros_too() -> None:
    names = [f"r_{number}.png" for number in range(20)]
    assert held_out(HoldOut.parse("segment:0.2"), names) == names[16:]
    assert held_out(HoldOut.parse("every:8"), names) == [
        "r_0.png",
        "r_6.png",
        "r_16.png",
    ]  # multinerf's order


def test_a_listed_name_is_found_however_it_was_written(tmp_path: Path) -> None:
    names = ["#1.jpg", "cafe\u0301.jpg", "a\u2028b.jpg", "x y.jpg", "5.jpg", "6.jpg"]
    (tmp_path / "names.txt").write_text("#1.jpg\n#\n# no name\ncaf\u00e9.jpg\na\u2028b.jpg\n x y.jpg\n")
    rule = HoldOut.parse(f"list:{tmp_path / 'names.txt'}")
    assert held_out(rule, names) == names[:4]


def test_a_listed_view_that_was_left_out_is_no_unknown_one() -> None:
    rule = HoldOut("list", names=("03.jpg", "broken.jpg"))
    assert split(NAMES, UNSAID, 8, rule, unusable=["broken.jpg"]).held_out.count(True) == 1
    with pytest.raises(
        TurntableError, match=r"Unknown view in --hold-out's list 'broken.jpg'; known: 00.jpg"
    ):
        split(NAMES, UNSAID, 8, rule)


@settings(deadline=None)  # a busy machine is no fault
@given(st.sets(st.text(min_size=1), min_size=6, max_size=40), st.floats(0.01, 0.6), st.randoms())
def test_a_segment_has_its_share_and_nothing_after_it(names: set[str], share: float, order: Random) -> None:
    shuffled = sorted(names)
    order.shuffle(shuffled)
    out = held_out(HoldOut("segment", share=share), shuffled)
    assert max(map(numbers_by_value, names - set(out))) < min(map(numbers_by_value, out))
    assert abs(len(out) - share * len(names)) <= 0.5 or len(out) == 1


def test_what_the_user_asks_for_replaces_the_sources_split_and_is_noted() -> None:
    said = [index == 3 for index in range(10)]
    found = split(NAMES, said, 8, HoldOut.parse("every:5"))
    assert [name for name, out in zip(NAMES, found.held_out, strict=True) if out] == ["00.jpg", "05.jpg"]
    assert found.by == "every" and found.words == "every 5th view by name, the first included"
    assert found.note.startswith("The source brings a split of its own, which --hold-out replaced")
    assert split(NAMES, said, 8).held_out == said


def test_where_the_sources_split_stands_every_is_said_to_change_nothing() -> None:
    said = [index == 3 for index in range(10)]
    assert (split(NAMES, said, 8).by, split(NAMES, said, 8).note) == ("source", "")
    assert "--every 4 changed nothing" in split(NAMES, said, 4).note
    assert split(NAMES, UNSAID, 4).note == ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("every:1", "--every is at least 2.*not 1"),
        ("every:-3", "--every is at least 2.*not -3"),
        ("every:2.5", "every takes a number, not '2.5'"),
        ("every:", "every takes a number, not ''"),
        ("every", "--hold-out is every:N, segment:SHARE or list:FILE, not 'every'"),
        ("segment:0", "above 0 and below 1.*not 0"),
        ("segment:1", "above 0 and below 1.*not 1"),
        ("segment:nan", "above 0 and below 1.*not nan"),
        ("segment:inf", "above 0 and below 1.*not inf"),
        ("segment:20%", "segment takes a number, not '20%'"),
        ("list:", "--hold-out is every:N, segment:SHARE or list:FILE, not 'list:'"),
        ("list:/nowhere/names.txt", r"/nowhere/names.txt can't be read \(No such file"),
        ("", "--hold-out is every:N, segment:SHARE or list:FILE, not ''"),
        ("last:3", "--hold-out is every:N, segment:SHARE or list:FILE, not 'last:3'"),
    ],
)
def test_a_rule_that_cant_be_meant_is_refused(text: str, says: str) -> None:
    with pytest.raises(TurntableError, match=says) as caught:
        HoldOut.parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "names none"),
        (b"# nothing\n\n", "names none"),
        (b"\xff\xfe0\x00", r"can't be read \(it isn't UTF-8 text\)"),
        (None, r"can't be read \(Is a directory\)"),
    ],
)
def test_a_file_that_lists_nothing_is_refused(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "names.txt"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(TurntableError, match=says):
        HoldOut.parse(f"list:{path}")


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (HoldOut("list", names=tuple(NAMES)), "10 usable photos 0 train, 10 are held out"),
        (HoldOut("list", names=tuple(NAMES[1:])), "10 usable photos 1 train, 9 are held out"),
        (
            HoldOut("list", names=("03.jpg", "3.jpg")),
            "Unknown view in --hold-out's list '3.jpg'.*Did you mean",
        ),
        (HoldOut("segment", share=0.95), "10 usable photos 0 train"),
        (HoldOut("list"), "names none"),
        (HoldOut("random"), "Unknown hold-out rule 'random'; known: every, list, segment"),
    ],
)
def test_a_rule_that_leaves_too_little_is_refused(rule: HoldOut, says: str) -> None:
    with pytest.raises(TurntableError, match=says):
        split(NAMES, UNSAID, 8, rule)


def test_a_capture_says_how_it_was_split_and_an_older_one_is_looked_at() -> None:
    stored = {"by": "segment", "words": "the last 20 %"}
    views = [{"name": name, "held_out": index % 4 == 0} for index, name in enumerate(NAMES)]
    assert split_of({"split": stored}) == stored
    older = {"settings": {"every": 4}, "views": views}
    assert split_of(older) == {"by": "every", "words": "every 4th view by name, the first included"}
    assert split_of({**older, "settings": {}})["by"] == ""  # not every 8th: nobody knows


@pytest.mark.parametrize(
    ("number", "reads"), [(2, "2nd"), (3, "3rd"), (8, "8th"), (11, "11th"), (21, "21st"), (112, "112th")]
)
def test_ordinals(number: int, reads: str) -> None:
    assert ordinal(number) == reads
